"""What `bench cost` runs on a local stage, once with a record of what it uses of AWS."""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from jobplane.bench._crowd import Crowd, Member, gathered
from jobplane.bench._metering import noted, noting, used
from jobplane.bench._report import progress
from jobplane.stage import log_lines
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane.trying.job_flow import JobFlow
from jobplane_client import AsyncHttpStatusClient, mint_token
from jobplane_keys import Workspace

MESSAGES = 10
# Two messages a second are posted at most, so ten need five seconds.
JOB = {"seconds": 6, "steps": MESSAGES}
PING_MINUTES = 4
SOCKET_HOURS = 2
FILES = 3
QUIET_SECONDS = 1.5
PATIENCE = 60.0
ENTERED = "StateEntered"
SENT = "sqs"
NOT_IN_PRODUCTION = "DEBUG"

type Row = dict[str, Any]
type Run = Callable[["Actor", int], Awaitable[Row | None]]


class Actor:
    """A user of the stage, with one open socket."""

    def __init__(self, stage: Stage, description: Row, crowd: Crowd) -> None:
        self.stage = stage
        self.description = description
        self.crowd = crowd
        self.member: Member = crowd.members[0]
        self.visitor: Member = crowd.members[1]
        self.assembly = ""
        self.flow = JobFlow(stage, description, Workspace("demo", f"cost-{secrets.token_hex(3)}"))

    def invoke(self, function: str, **event: Any) -> Any:
        name = self.description["functions"][function]
        done = self.stage.invoker().invoke(FunctionName=name, Payload=json.dumps(event).encode())
        answer = json.loads(done["Payload"].read())
        if "FunctionError" in done:
            raise RuntimeError(f"{function} failed: {answer}")
        return answer

    async def call(self, function: str, **event: Any) -> Any:
        return await asyncio.to_thread(lambda: self.invoke(function, **event))


async def look_up(actor: Actor, _number: int) -> None:
    await actor.call("status", assemblyId=actor.assembly, userId=actor.member.user)


async def look_up_by_http(actor: Actor, _number: int) -> None:
    token = mint_token(jwt_secret(actor.stage), user=actor.member.user, tenant=TENANT)
    url = actor.description["http_url"]
    async with AsyncHttpStatusClient(url, token, cache_size=0) as client:
        await client.get_status(actor.assembly)


async def echo(actor: Actor, number: int) -> None:
    await actor.member.ask("echo", {"n": number})


async def job(actor: Actor, _number: int) -> None:
    entry = await actor.member.send("delay", JOB, is_job=True, due=time.monotonic())
    await asyncio.wait_for(actor.member.ended(entry), PATIENCE)


async def assembly(actor: Actor, number: int) -> Row:
    contents = [secrets.token_hex(2000).encode() for _ in range(FILES)]
    payload = await actor.member.upload(actor.crowd.http, *contents)
    entry = await actor.member.send("process_assembly", payload, is_job=True, due=time.monotonic())
    await asyncio.wait_for(actor.member.ended(entry), PATIENCE)
    state = await actor.member.ask("status", {"request_id": entry.id})
    actor.assembly = state["assembly_id"]
    return {"puts": FILES}


async def claim_cycle(actor: Actor, number: int) -> None:
    workspace = {"projectUserId": actor.flow.workspace.key}
    names = {"threadId": "thread", "messageId": f"message-{number}"}
    claim = await actor.call("claim", operation="acquire", ttlSeconds=60, **workspace, **names)
    holding = {name: claim[name] for name in ("claimId", "fence")} | workspace
    await actor.call("claim", operation="renew", ttlSeconds=90, **holding)
    await actor.call("claim", operation="release", **holding)


async def flow(actor: Actor, number: int) -> Row:
    execution = await actor.flow.start(f"m-{number}-{secrets.token_hex(3)}", f"thread-{number}")
    end = await actor.flow.end_of(execution)
    if end["outcome"] != "Completed":
        raise RuntimeError(f"an execution ended as {end}")
    client = actor.stage.client("stepfunctions")
    pages = client.get_paginator("get_execution_history").paginate(executionArn=execution)
    events = [event for page in pages for event in page["events"]]
    sends = [
        event for event in events
        if SENT in event.get("taskScheduledEventDetails", {}).get("resourceType", "")
    ]  # fmt: skip
    transitions = sum(event["type"].endswith(ENTERED) for event in events)
    return {"transitions": transitions, "queue_requests": len(sends)}


async def handshake(actor: Actor, _number: int) -> None:
    await actor.visitor.open()
    await actor.visitor.close()


async def ping(actor: Actor, _number: int) -> None:
    await actor.member.ask("ping", {})


async def sweeps(actor: Actor, _number: int) -> None:
    """What runs every minute although nothing happens."""
    await actor.call("processor", sweep="leases")
    await actor.call("dispatch", sweep="lanes")
    await actor.call("sweep-claims", sweep="claims")


# In this order: the assembly is looked up after it was made.
SCENARIOS: dict[str, tuple[Run, int]] = {
    "assembly": (assembly, 5),
    "look-up": (look_up, 20),
    "look-up by HTTP": (look_up_by_http, 20),
    "echo": (echo, 20),
    "job": (job, 3),
    "claim": (claim_cycle, 10),
    "flow": (flow, 3),
    "handshake": (handshake, 10),
    "ping": (ping, 20),
    "sweeps": (sweeps, 5),
}
TENANT = "cost"


def measure(stage: Stage) -> Row:
    """Run all scenarios on a stage that is up: what one of each uses, by scenario and function."""
    state = stage.read_state()
    assert state is not None
    return asyncio.run(_measure(stage, state.description))


async def _measure(stage: Stage, description: Row) -> Row:
    secret, url = jwt_secret(stage), description["websocket_url"]
    short = {name: key for key, name in description["functions"].items()}
    functions = stage.repository.functions()

    def url_of(user: str) -> str:
        return f"{url}?Authorization={mint_token(secret, user=user, tenant=TENANT)}"

    users = [f"user-{secrets.token_hex(3)}", f"user-{secrets.token_hex(3)}"]
    found: Row = {}
    metrics: set[str] = set()
    with without_schedules(stage), noting(stage.directory) as folder:
        async with gathered(users, url_of, at_once=4) as crowd:
            actor = Actor(stage, description, crowd)
            await actor.member.open()
            with progress("cost", len(SCENARIOS)) as advance:
                for name, (run, repeats) in SCENARIOS.items():
                    async with _worker(actor, name):
                        await run(actor, -1)  # its workers start
                        await _settled(folder)
                        used(folder, short, 1)
                        since = int(time.time() * 1000)
                        extra = [await run(actor, number) or {} for number in range(repeats)]
                        await _settled(folder)
                    of = used(folder, short, repeats)
                    for event in log_lines.events(stage, functions, since):
                        document = event.document() or {}
                        metrics |= set(_metrics(document))
                        if event.function in of and document.get("level") != NOT_IN_PRODUCTION:
                            bytes_of: Counter[str] = Counter(of[event.function]["units"])
                            bytes_of["log_bytes"] += round(len(event.text.encode()) / repeats)
                            of[event.function]["units"] = dict(bytes_of)
                    found[name] = {
                        "functions": of,
                        "units": {
                            unit: sum(one.get(unit, 0) for one in extra) / repeats
                            for unit in sorted({unit for one in extra for unit in one})
                        },
                    }
                    advance(name)
    return {"scenarios": found, "metrics": len(metrics)}


def _metrics(document: Row) -> Iterator[str]:
    """The metrics of a log line, each with its dimensions: CloudWatch bills them by the month."""
    for group in document.get("_aws", {}).get("CloudWatchMetrics", ()):
        for names in group["Dimensions"]:
            dimensions = [(name, document.get(name)) for name in names]
            for metric in group["Metrics"]:
                yield f"{group['Namespace']} {metric['Name']} {dimensions}"


def _worker(actor: Actor, name: str) -> Any:
    """A worker of the job flow, while it is measured."""
    return actor.flow.worker(lambda _job: {"ok": True}) if name == "flow" else nullcontext()


async def _settled(folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    before = -1
    while time.monotonic() < end and before != (before := noted(folder)):
        await asyncio.sleep(QUIET_SECONDS)


@contextmanager
def without_schedules(stage: Stage) -> Iterator[None]:
    """Disable the stage's schedules, whose runs would be counted for what is measured."""
    client = stage.client("events")
    names = [
        rule["Name"]
        for rule in client.list_rules()["Rules"]
        if rule.get("ScheduleExpression") and rule["State"] == "ENABLED"
    ]
    for name in names:
        client.disable_rule(Name=name)
    try:
        yield
    finally:
        for name in names:
            client.enable_rule(Name=name)
