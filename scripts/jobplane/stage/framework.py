"""The Serverless Framework: installed once, run against a stage."""

import hashlib
import re
from collections.abc import Iterable

from jobplane.stage.stages import Stage, default_region
from jobplane.terminal.console import note
from jobplane.tree.repository import Function, Repository, read_yaml
from lambdapack.environments import plain_environment
from lambdapack.locks import exclusive
from lambdapack.tools import INSTALL_HINTS, MissingToolError, run_quietly

NODE = (20, 19)
INSTALLED = "node_modules/.package-lock.json"
FRAMEWORK = "node_modules/.bin/osls"
PARAMETER = re.compile(r"\$\{param:\s*([^},\s]+)")


def install_framework(repository: Repository) -> None:
    """`npm ci`, when node_modules is missing or older than the lock."""
    if _is_installed(repository):
        return
    _require_node(repository)
    with exclusive(repository, "npm-ci"):
        if _is_installed(repository):
            return
        note("installing the Serverless Framework (npm ci); this takes a minute the first time")
        run_quietly(
            ["npm", "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=repository.root,
            what="npm ci",
        )
        (repository.root / INSTALLED).touch()


def _is_installed(repository: Repository) -> bool:
    lock, installed = repository.root / "package-lock.json", repository.root / INSTALLED
    # An installation that left the development dependencies out has no framework.
    return (
        (repository.root / FRAMEWORK).exists()
        and installed.is_file()
        and installed.stat().st_mtime >= lock.stat().st_mtime
    )


def _require_node(repository: Repository) -> None:
    version = run_quietly(["node", "--version"], cwd=repository.root, what="node --version").strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE:
        raise MissingToolError(f"{INSTALL_HINTS['node']} (this one is {version})")


def osls(stage: Stage, *arguments: str, **variables: str) -> str:
    """Run the framework against the stage; its output, when it succeeds.

    One at a time: whatever its package's folder, it works in `.serverless` as well.
    """
    binary = stage.repository.root / FRAMEWORK
    with exclusive(stage.repository, "osls"):
        return run_quietly(
            [binary, *arguments, "--stage", stage.name],
            cwd=stage.repository.root,
            what=f"osls {arguments[0]}",
            env=framework_environment(stage) | variables,
        )


def framework_environment(stage: Stage) -> dict[str, str]:
    """This environment; for a local stage with nothing of the user's AWS account, and no proxy.

    The framework sends all its calls to the emulator, and knows no NO_PROXY.
    """
    built = {"JOBPLANE_BUILT": "1"}
    if not stage.is_local:
        return plain_environment(aws=True, AWS_REGION=default_region(stage.repository), **built)
    kept = {
        key: value
        for key, value in plain_environment().items()
        if not key.upper().endswith("_PROXY")
    }
    return kept | stage.environment() | built | {"SLS_AWS_MONITORING_FREQUENCY": "100"}


def config_digest(repository: Repository, functions: Iterable[Function]) -> str:
    """Changes when the compiled stack would: anything but the functions' code."""
    paths = [
        repository.root / "serverless.yml",
        repository.root / "package-lock.json",
        *sorted((repository.root / "scripts" / "serverless").glob("*.js")),
        *sorted((repository.root / "resources").glob("*.yml")),
        *(function.config_path for function in functions),
    ]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(repository.root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def parameters(repository: Repository) -> list[str]:
    """What `--param` may set: what stages declare, and what the configuration asks for.

    A stage may be given what only another declares, as osls has it.
    """
    service = repository.root / "serverless.yml"
    asking = [
        service,
        *(repository.root / "resources").glob("*.yml"),
        *(function.config_path for function in repository.functions()),
    ]
    asked = {name for path in asking for name in PARAMETER.findall(path.read_text("utf-8"))}
    return sorted(asked.union(*filter(None, read_yaml(service)["custom"]["stages"].values())))
