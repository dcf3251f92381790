"""What is explored: each scenario sets up its state and adds its actors."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable
from unittest.mock import patch

from botocore.exceptions import BotoCoreError, ClientError

from jobplane.explore.search import Play, Scenario
from jobplane.explore.tables import Row
from jobplane.explore.workspaces import Flow
from jobplane.explore.world import Client, World
from jobplane_client import Job, JobplaneError, StatusClient
from jobplane_keys import iso_time, to_item

type Holds = Callable[[], None]
"""What must hold at the end, besides the guarantees."""

SCENARIOS: dict[str, Scenario] = {}


JOBS = ("connect", "disconnect", "dispatch", "processor", "router")
FLOW = ("claim", "handle-timeout", "send-interrupt")
SLOW = frozenset({"outage", "fail", "hang"})


def scenario(
    name: str, *functions: str, bound: int = 2, faults: frozenset[str] | None = None
) -> Callable[[Play], Play]:
    """Register a scenario with the functions that it needs; its docstring says what happens."""

    def register(play: Play) -> Play:
        SCENARIOS[name] = Scenario(name, play, bound, faults, functions)
        return play

    return register


def delayed(client: Client, request_id: str = "job", steps: int = 1, **metadata: str) -> None:
    """A stored job that waits a little and reports its progress."""
    client.ask("delay", {"seconds": 0, "steps": steps}, id=request_id, metadata=metadata)


@scenario("submit", *JOBS)
def submit(world: World) -> None:
    """A client sends a job twice, since it has no answer yet; a worker takes it."""
    client = world.connect("origin")
    for _ in range(2):
        client.say("delay", {"seconds": 0, "steps": 1}, id="job")


@scenario("cancel", *JOBS)
def cancel(world: World) -> None:
    """A job is cancelled by another device while a worker takes it; a third one listens."""
    delayed(world.connect("origin"))
    world.connect("listener").ask("subscribe", {"request_id": "job"})
    world.connect("device").say("cancel", {"request_id": "job"})


@scenario("listen", *JOBS)
def listen(world: World) -> None:
    """A connection subscribes and unsubscribes while the job runs."""
    delayed(world.connect("origin"))
    listener = world.connect("listener")
    listener.say("subscribe", {"request_id": "job"})
    listener.say("unsubscribe", {"request_id": "job"})


@scenario("leave", *JOBS)
def leave(world: World) -> None:
    """A connection that listens to another job closes; its own job ends with it."""
    delayed(world.connect("other"), "theirs")
    client = world.connect("origin")
    client.ask("subscribe", {"request_id": "theirs"})
    delayed(client, steps=2, on_disconnect="cancel")
    client.leave()


@scenario("lanes", *JOBS)
def lanes(world: World) -> None:
    """Three jobs of a lane with one slot; another device cancels the second one."""
    client = world.connect("origin")
    with patch.object(world.stage.module("router"), "MAX_RUNNING_PER_TENANT", 1):
        for name in ("first", "second", "third"):
            delayed(client, name)
    world.connect("device").say("cancel", {"request_id": "second"})


@scenario("sweep", *JOBS)
def sweep(world: World) -> None:
    """The sweeper comes while a worker runs a job that reports its progress."""
    delayed(world.connect("origin"), steps=2)
    world.sweep()


@scenario("retry", *JOBS, "deliver-webhook")
def retry(world: World) -> None:
    """An assembly of several parts; the sweeper and a second attempt come when a worker fails."""
    assemble(world, world.connect("origin"), "job")


@scenario("join", *JOBS, "deliver-webhook")
def join(world: World) -> None:
    """Two devices ask for one assembly; it is made once, and both have it."""
    for name in ("origin", "device"):
        assemble(world, world.connect(name), f"job-{name}")


# Each line is read by itself, so that a worker looks whether it must stop between two parts.
LINES = b"".join(letter * (256 * 1024) + b"\n" for letter in (b"a", b"b"))


def assemble(world: World, client: Client, request_id: str, *, is_uploaded: bool = True) -> str:
    """A stored job that splits an uploaded file; the key of the upload."""
    md5hash = hashlib.md5(LINES, usedforsecurity=False).hexdigest()
    file = {"name": "a.txt", "size": len(LINES), "mime": "text/plain", "md5hash": md5hash}
    asked = client.ask("create_upload", {"template_id": "parts", "files": [file]})
    if "data" not in asked:  # a fault met the router
        return ""
    upload = {name: asked["data"]["uploads"][0][name] for name in ("key", *file)}
    if is_uploaded:
        world.s3.objects[upload["key"]] = LINES
    client.ask("process_assembly", {"template_id": "parts", "uploads": [upload]}, id=request_id)
    return str(upload["key"])


@scenario("rerun", *JOBS, "deliver-webhook", "status")
def rerun(world: World) -> None:
    """A client looks at an assembly that has failed, runs it again, and looks again."""
    client = world.connect("origin")
    key = assemble(world, client, "first", is_uploaded=False)

    def ended(request_id: str) -> str:
        while True:
            rows = {row["request_id"]: row for row in world.rows("requests")}
            if request_id not in rows:
                return "refused"
            if "ended_at" in rows[request_id]:
                return str(rows[request_id]["status"])
            world.scheduler.wait(world.now + 30)

    def read() -> None:
        reader = StatusClient(f"{world.stage.prefix}status", clock=world.clock.monotonic)
        assembly_id = world.rows("requests")[0]["assembly_id"]
        ended("first")
        with contextlib.suppress(JobplaneError):
            reader.get_status(assembly_id, "scott")
        world.s3.objects[key] = LINES
        assemble(world, client, "second")
        if ended("second") == "COMPLETED":
            with contextlib.suppress(JobplaneError):
                document = reader.get_status(assembly_id, "scott")
                assert document.completed, "the client is given the failure of an earlier run"

    world.actor("reader", read)


@scenario("webhook", "deliver-webhook")
def webhook(world: World) -> Holds:
    """A webhook's message is delivered, while its user asks for a delivery on demand."""
    moment = iso_time(world.now)
    document = {
        "assembly_id": "a1", "user": {"userId": "scott"}, "user_id": "scott", "tenant_id": "acme",
        "owner": "acme#scott", "request_id": "job", "ok": "ASSEMBLY_COMPLETED", "execution": 1,
        "template_id": "parts", "created_at": moment, "updated_at": moment, "message": "done",
        "webhook": {"status": "pending", "attempts": 0}, "uploads": [], "results": {}, "rev": 3,
    }  # fmt: skip
    world.put("assemblies", document)
    queue = world.sqs.by_name[world.stage.table("webhooks")]
    body = json.dumps({"assembly_id": "a1", "execution": 1, "template_id": "parts"})
    world.sqs.perform("SendMessage", {"QueueUrl": queue.name, "MessageBody": body})
    [message] = queue.messages
    demand = world.invoke("deliver-webhook", {"assembly_id": "a1"}, name="demand")

    def holds() -> None:
        refused = (demand.result or {}).get("refused")
        assert refused != "too_soon", "a delivery on demand is refused because of its own write"
        faults = {fault for met in world.faulted.values() for fault, _ in met}
        if faults <= {"repeat"}:
            made = [who for _, who, what in world.scheduler.log if what.startswith("webhook ")]
            mine = [who for who in made if not who.startswith("demand")]
            assert message.receives <= len(mine) + 1, "a receive of a message makes no attempt"

    return holds


DAY = "2026-11-22"
STUCK = {"operation": "reset_stuck_files", "dry_run": False, "statuses": ["processing"]}


@scenario("reset", "state-manager", "count-files")
def reset(world: World) -> None:
    """Two operators reset a stuck file, while the pipeline completes it after all."""
    world.counts_files = True
    tracked(world, "a.ndjson", "processing#1", "2026-09-01T00:00:00.000Z")
    for number in (1, 2):
        world.invoke("state-manager", STUCK, name=f"operator-{number}")

    def complete() -> None:
        row = next(one for one in world.rows("files"))
        moved(world, row, "completed#1")

    world.actor("pipeline", complete)


@scenario("correct", "state-manager", "count-files")
def correct(world: World) -> Holds:
    """An operator corrects a file, and is answered whether it was done."""
    world.counts_files = True
    tracked(world, "a.ndjson", "pending#1", iso_time(world.now))
    event = {
        "operation": "update_state", "date_prefix": DAY, "file_key": "a.ndjson",
        "new_status": "manifested",
    }  # fmt: skip
    operator = world.invoke("state-manager", event, name="operator")

    def holds() -> None:
        [row] = world.rows("files")
        if operator.result and operator.result["statusCode"] == 409:
            assert row["status"].startswith("pending"), "a correction that was made is refused"

    return holds


def tracked(world: World, name: str, status: str, updated_at: str) -> None:
    """A file of the pipeline, with its record in the stream."""
    row = {"date_prefix": DAY, "file_key": name, "status": status, "updated_at": updated_at}
    world.put("files", row)


def moved(world: World, row: Row, status: str) -> None:
    """A step of the pipeline: a file gets a status if it is as the step has read it."""
    client = world.stage.client("dynamodb")
    with contextlib.suppress(ClientError, BotoCoreError):
        client.update_item(
            TableName=world.stage.table("files"),
            Key=to_item({name: row[name] for name in ("date_prefix", "file_key")}),
            UpdateExpression="SET #s = :s, updated_at = :now",
            ConditionExpression="#s = :old",
            ExpressionAttributeNames={"#s": "status"},
            ExpressionAttributeValues=to_item(
                {":s": status, ":now": iso_time(world.now), ":old": row["status"]}
            ),
        )


@scenario("claim", *FLOW)
def claim(world: World) -> None:
    """Two executions ask for a workspace; each releases it when it has ended."""
    flow = Flow(world)

    def hold(message_id: str) -> None:
        for _ in range(9):
            answer = flow.acquire(message_id, message_id)
            if answer["claimed"]:
                holding = {name: answer[name] for name in ("claimId", "fence")}
                flow.ask("claim", operation="renew", ttlSeconds=3600, **holding)
                flow.ask("claim", operation="release", **holding)
                return
            flow.pause(30)

    for name in ("m1", "m2"):
        world.actor(name, functools.partial(hold, name))


@scenario("worker", *FLOW)
def worker(world: World) -> None:
    """A job of the flow, and two workers of its workspace; one message comes to both."""
    flow = Flow(world, heartbeat=600.0)
    flow.message("m1", "t1")
    for name in ("worker-a", "worker-b"):
        flow.worker(name, lambda job: job.wait(40))


@scenario("visibility", *FLOW, faults=SLOW)
def visibility(world: World) -> None:
    """A long job while SQS does not answer: its message becomes visible to another worker."""
    flow = Flow(world, heartbeat=600.0)
    flow.message("m1", "t1")
    for name in ("worker-a", "worker-b"):
        flow.worker(name, lambda job: job.wait(200))


@scenario("interrupt", *FLOW)
def interrupt(world: World) -> None:
    """A message of another thread interrupts a running job; then it runs itself."""
    flow = Flow(world)
    flow.message("m1", "t1")
    flow.message("m2", "t2")
    flow.worker("worker-a", until_stopped)


def until_stopped(job: Job) -> None:
    """A handler that works for a minute, and stops at the signal."""
    job.wait(60)
    job.check()


@scenario("follow-up", *FLOW)
def follow_up(world: World) -> None:
    """A message of the running job's thread; the handler fails when it has read it."""
    flow = Flow(world)
    flow.message("m1", "t1")
    flow.message("m2", "t1")

    def handle(job: Job) -> None:
        job.wait(10)
        if job.follow_ups():
            raise OSError("disk full")

    flow.worker("worker-a", handle)


@scenario("beats", *FLOW, faults=SLOW)
def beats(world: World) -> None:
    """A worker has five messages in hand while SQS hangs: the heartbeats must go on."""
    flow = Flow(world)
    flow.message("m1", "t1", interrupts=False)
    flow.worker("worker-a", lambda job: job.wait(150))
    for number in range(4):
        world.actor(f"sender-{number}", functools.partial(flow.follow_up, f"f{number}", "t1"))


@scenario("abandoned", *FLOW, "sweep-claims")
def abandoned(world: World) -> None:
    """No worker takes the job: the execution fails, and frees the workspace for the next one."""
    flow = Flow(world)
    flow.message("m1", "t1")
    flow.message("m2", "t2", interrupts=False)
