"""Update the stack of a local stage."""

from concurrent.futures import ThreadPoolExecutor

from jobplane.deploy import shipping
from jobplane.deploy.description import describe, stack_stamp
from jobplane.stage import emulator
from jobplane.stage.framework import config_digest, osls
from jobplane.stage.signing import publish_secret
from jobplane.stage.stages import Stage, State
from jobplane.terminal.console import note
from jobplane.tree.repository import Function
from lambdapack.artifacts import Artifact


def deploy(stage: Stage, functions: list[Function], artifacts: list[Artifact]) -> str:
    """Deploy what differs from the stage; a line that says what was deployed."""
    state = stage.read_state()
    if state is None:
        raise ValueError(
            f"stage {stage.name} has no emulator; start it: jobplane up --stage {stage.name}"
        )
    digests = {artifact.name: artifact.digest for artifact in artifacts}
    config = config_digest(stage.repository, functions)
    if state.config != config or state.stack != stack_stamp(stage):
        _deploy_everything(stage, state)
        if state.functions and not state.config:
            shipping.mend(stage, functions, artifacts)
        done = f"deployed {len(digests)} functions"
    else:
        live = shipping.live_functions(stage, functions)
        same = {name for name, there in live.items() if there and there.digest == digests[name]}
        changed = sorted(digests.keys() - same)
        if not changed:
            return "nothing to deploy"
        _deploy_code(stage, [f for f in functions if f.name in changed])
        done = f"deployed {', '.join(changed)}"
    state.config = config
    state.stack = stack_stamp(stage)
    state.functions = digests
    stage.write_state(state)
    emulator.prune(stage.repository)
    return done


def _deploy_everything(stage: Stage, state: State) -> None:
    publish_secret(stage, state)
    note(f"deploying the stack to {stage.name} (osls deploy)")
    osls(stage, "deploy", "--force")
    state.description = describe(stage)


def _deploy_code(stage: Stage, functions: list[Function]) -> None:
    client = stage.client("lambda")

    def update(function: Function) -> None:
        client.update_function_code(
            FunctionName=function.deployed_name(stage.name),
            ZipFile=(stage.repository.dist / f"{function.name}.zip").read_bytes(),
        )

    with ThreadPoolExecutor() as pool:
        list(pool.map(update, functions))
