"""`jobplane bench steps`: a step of a job, against one of AWS's SDK for durable functions."""

import io
import json
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from jobplane.bench._engine import own_stage
from jobplane.bench._report import Report, Table, progress, reported
from jobplane.stage.stages import Stage
from jobplane_keys import owner_key, read_item
from jobplane_leases import enqueue_request
from lambdapack.environments import uv_command, uv_environment
from lambdapack.requirements import PYTHON
from lambdapack.tools import run_quietly

SDK = "aws-durable-execution-sdk-python"
SDK_VERSION = "3.0.0"
HERE, DURABLE = "`job.step`", f"{SDK} {SDK_VERSION}"
ENDS_WITHIN_SECONDS = 120.0

type Take = Mapping[str, float]
"""`seconds`, `busy` (processor seconds) and `calls` of all steps of one run."""


@click.command()
@click.option("--count", type=click.IntRange(1, 500), default=50, show_default=True, help="Steps.")
@click.option("--rounds", type=click.IntRange(1, 100), default=9, show_default=True)
@click.option("--stage", default="steps", show_default=True, help="A stage of its own.")
@reported("steps")
def command(stage: str, count: int, rounds: int) -> Report:
    """What a small step costs: time, processor time and calls of AWS.

    The same steps run in a job, on the stage's processor, and in a durable function on the same
    emulator, in turn. A first round is dropped.
    """
    takes: dict[str, list[Take]] = {HERE: [], DURABLE: []}
    with (
        own_stage(stage) as own,
        with_steps(own) as run_job,
        durable_function(own) as run_durable,
        progress("steps", rounds + 1) as advance,
    ):
        for number in range(rounds + 1):
            for name, run in ((HERE, run_job), (DURABLE, run_durable)):
                took = run(count)
                if number:
                    takes[name].append(took)
            advance(f"round {number + 1}")
    return report(takes, count)


@contextmanager
def with_steps(stage: Stage) -> Iterator[Any]:
    """A function that runs a job with so many steps on the stage's processor."""
    client, name = stage.client("lambda"), stage.names.of("processor")
    handler = client.get_function_configuration(FunctionName=name)["Handler"]
    archive = (stage.repository.dist / "processor.zip").read_bytes()
    own = Path(__file__).with_name("_steps_of_job.py")
    client.update_function_code(FunctionName=name, ZipFile=_with_file(archive, own))
    client.update_function_configuration(FunctionName=name, Handler=f"{own.stem}.handler")
    try:
        yield lambda count: _run_job(stage, count)
    finally:
        client.update_function_code(FunctionName=name, ZipFile=archive)
        client.update_function_configuration(FunctionName=name, Handler=handler)


def _with_file(archive: bytes, path: Path) -> bytes:
    target = io.BytesIO(archive)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.write(path, path.name)
    return target.getvalue()


def _run_job(stage: Stage, count: int) -> Take:
    """Store a job as the router does, and wait for its end."""
    dynamodb, table = stage.client("dynamodb"), f"{stage.names.prefix}requests"
    now = time.time()
    key = {"owner": owner_key("bench", "steps"), "request_id": f"steps-{now:.6f}"}
    row = {
        **key, "tenant_id": "bench", "action": "steps", "metadata": {}, "max_attempts": 1,
        "payload": json.dumps({"count": count}), "on_disconnect": "detach",
    }  # fmt: skip
    enqueue_request(dynamodb, table, row, now)
    while time.time() < now + ENDS_WITHIN_SECONDS:
        found = read_item(dynamodb, table, key) or {}
        if found.get("status") == "COMPLETED":
            return _take(found["result"])
        if found.get("status") == "FAILED":
            raise click.ClickException(f"the job failed: {found['error']['message']}")
        time.sleep(0.1)
    raise click.ClickException(f"the job has not ended within {ENDS_WITHIN_SECONDS:g} s")


@contextmanager
def durable_function(stage: Stage) -> Iterator[Any]:
    """A function that runs a durable function with so many steps on the stage's emulator."""
    client, name = stage.client("lambda", read_timeout=ENDS_WITHIN_SECONDS), "bench-steps-durable"
    configuration = client.get_function_configuration(FunctionName=stage.names.of("processor"))
    own = Path(__file__).with_name("_steps_durable.py")
    client.meta.events.register("before-call.lambda.CreateFunction", _enabled)
    client.create_function(
        FunctionName=name,
        Runtime=configuration["Runtime"],
        Role=configuration["Role"],
        Handler=f"{own.stem}.handler",
        Code={"ZipFile": _with_file(_packages_of_sdk(), own)},
        MemorySize=configuration["MemorySize"],
        Timeout=60,
        DurableConfig={"ExecutionTimeout": 60, "RetentionPeriodInDays": 1},
    )
    try:
        yield lambda count: _run_durable(client, name, count)
    finally:
        client.delete_function(FunctionName=name)


def _enabled(params: dict[str, Any], **_: Any) -> None:
    """Add what the emulator asks for; on AWS a function with this configuration is durable."""
    body = json.loads(params["body"])
    body["DurableConfig"]["Enabled"] = True
    params["body"] = json.dumps(body).encode()


def _packages_of_sdk() -> bytes:
    """The SDK with its dependencies, as `uv pip install --target` leaves them."""
    with TemporaryDirectory(prefix="jobplane-steps-") as folder:
        run_quietly(
            [uv_command(), "pip", "install", "--python", PYTHON, "--target", folder,
             f"{SDK}=={SDK_VERSION}"],
            cwd=Path(folder),
            what=f"uv pip install {SDK}",
            env=uv_environment(),
        )  # fmt: skip
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(folder).rglob("*")):
                archive.write(path, path.relative_to(folder))
    return target.getvalue()


def _run_durable(client: Any, name: str, count: int) -> Take:
    answer = client.invoke(FunctionName=name, Payload=json.dumps({"count": count}))
    text = answer["Payload"].read()
    if "FunctionError" in answer:
        raise click.ClickException(f"the durable function failed: {text.decode()}")
    found = json.loads(text)
    # AWS answers with the result; the emulator with what the SDK has returned.
    return _take(found.get("Result", found))


def _take(result: Any) -> Take:
    found: Any = json.loads(result) if isinstance(result, str) else result
    return {name: float(found[name]) for name in ("seconds", "busy", "calls")}


def report(takes: Mapping[str, list[Take]], count: int) -> Report:
    """The medians of a step, and how they compare."""
    rows: list[tuple[Any, ...]] = []
    medians: dict[str, dict[str, float]] = {}
    for name, taken in takes.items():
        of = {key: median(take[key] for take in taken) / count for key in taken[0]}
        medians[name] = of
        values = (of["seconds"] * 1000, of["busy"] * 1000, of["calls"])
        spread = [1000 * take["seconds"] / count for take in taken]
        rows.append(
            (name, f"{values[0]:.2f} ({min(spread):.2f}–{max(spread):.2f})", f"{values[1]:.2f}",
             f"{values[2]:.2f}")
        )  # fmt: skip
    ratio = {
        key: median(
            one[key] / other[key] for one, other in zip(takes[HERE], takes[DURABLE], strict=True)
        )
        for key in ("seconds", "busy", "calls")
    }
    rows.append(("ratio", *(f"{ratio[key]:.2f}" for key in ("seconds", "busy", "calls"))))
    table = Table(
        f"{count} small steps, one after the other: of each",
        ("what", "ms: median (min–max)", "processor time, ms", "calls of AWS"),
        rows,
        [f"{len(takes[HERE])} rounds, in which both ran in turn, warm, on one emulator. A ratio is "
         "the median of the ratios of the rounds."],
    )  # fmt: skip
    document = {"count": count, "takes": takes, "medians": medians, "ratio": ratio}
    return Report(document, [table])
