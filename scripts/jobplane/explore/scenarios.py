"""What is explored: each scenario sets up its state and adds its actors."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import jwt.api_jwt
from botocore.exceptions import BotoCoreError, ClientError

import jobplane_keys.lanes
import jobplane_leases._requests
import jobplane_leases.jobs
from jobplane.explore.search import Play, Scenario
from jobplane.explore.services import Message
from jobplane.explore.tables import Row
from jobplane.explore.tasks import Task
from jobplane.explore.workspaces import Flow
from jobplane.explore.world import Client, World
from jobplane.tree.resolved import JWT_SECRET
from jobplane_client import Job, JobplaneError, StatusClient, mint_token
from jobplane_files import COUNTER_SHARDS
from jobplane_keys import iso_time, parse_iso_time, tenant_workspace, to_item
from jobplane_keys.tracking import COUNTERS
from jobplane_leases import Lease, LeaseLostError, RequestLease, enqueue_request
from jobplane_leases.callbacks import TokenError, return_callback
from jobplane_leases.jobs import CallbackError

type Holds = Callable[[], None]
"""What must hold at the end, besides the guarantees."""

SCENARIOS: dict[str, Scenario] = {}


JOBS = ("connect", "disconnect", "dispatch", "processor", "router")
FLOW = ("claim", "handle-timeout", "record-interruption", "send-interrupt", "sweep-claims")
SLOW = frozenset({"outage", "fail", "hang"})


def scenario(
    name: str, *functions: str, bound: int = 2, faults: frozenset[str] | None = None
) -> Callable[[Play], Play]:
    """Register a scenario with the functions that it needs; its docstring says what happens."""

    def register(play: Play) -> Play:
        SCENARIOS[name] = Scenario(name, play, bound, faults, functions)
        return play

    return register


def delayed(
    client: Client, request_id: str = "job", steps: int = 1, seconds: int = 0, **metadata: str
) -> None:
    """A stored job that waits a little and reports its progress."""
    client.ask("delay", {"seconds": seconds, "steps": steps}, id=request_id, metadata=metadata)


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


@scenario("rows", *JOBS)
def rows(world: World) -> None:
    """Three jobs of a lane with two slots, which are in two rows, while the lanes are swept."""
    world.replaced(jobplane_keys.lanes, "SLOTS_PER_ROW", 1)
    world.replaced(world.stage.module("router"), "MAX_RUNNING_PER_TENANT", 2)
    client = world.connect("origin")
    for name in ("first", "second"):
        delayed(client, name)
    client.say("delay", {"seconds": 0}, id="third")
    world.sweep_lanes()


@scenario("turns", *JOBS)
def turns(world: World) -> None:
    """The lanes are swept while jobs arrive, and meet what earlier ones have left in the lanes.

    For the lane of `acme` jobs waited; that of `emca` is empty, but for a row of a larger limit.
    """
    left: list[Row] = [
        {"lane": "tenant#acme#0", "lane_limit": 1, "waiting_at": int(world.now - 10) * 1000},
        {"lane": "tenant#emca#0", "lane_limit": 1},
        {"lane": "tenant#emca#1", "lane_limit": 17, "slots": frozenset({"emca#scott#old"})},
    ]
    world.put("lanes", *left)
    world.sweep_lanes()
    one, other = world.connect("origin"), world.connect("other", tenant="emca")
    router = world.stage.module("router")
    with patch.object(router, "MAX_RUNNING_PER_TENANT", 17):
        delayed(other, "old")
    with patch.object(router, "MAX_RUNNING_PER_TENANT", 1):
        delayed(other, "third", seconds=5)
        delayed(one, "first")
        delayed(one, "second", priority="high")


@scenario("queue", *JOBS)
def queue(world: World) -> None:
    """Two jobs arrive in a lane with a free slot, for which others waited; one is more urgent."""
    waited = {"lane": "tenant#acme#0", "lane_limit": 1, "waiting_at": int(world.now - 10) * 1000}
    world.put("lanes", waited)
    client = world.connect("origin")
    with patch.object(world.stage.module("router"), "MAX_RUNNING_PER_TENANT", 1):
        delayed(client, "first")
        delayed(client, "second", seconds=5, priority="high")


@scenario("gone", *JOBS)
def gone(world: World) -> None:
    """A connection is closed while it subscribes, unsubscribes and pings."""
    for name in ("first", "second"):
        delayed(world.connect(f"of-{name}"), name, seconds=5)
    world.replaced(world.stage.module("router"), "MAX_SUBSCRIPTIONS", 1)
    client = world.connect("origin", quiet=120)
    client.ask("subscribe", {"request_id": "first"})
    client.say("subscribe", {"request_id": "second"})
    client.say("unsubscribe", {"request_id": "first"})
    client.say("ping")
    client.leave()


TENANT_READ = "tenant:read"


@scenario("tokens", "connect", "disconnect")
def tokens(world: World) -> Holds:
    """An open connection gets newer tokens, of which one comes late, one is another user's, one
    another tenant's, and one without a permission; it is closed, and another one is opened.
    """
    return renewed(world, TENANT_READ)


@scenario("plain-tokens", "connect", "disconnect")
def plain_tokens(world: World) -> Holds:
    """The same for a connection without that permission."""
    return renewed(world)


def renewed(world: World, *permissions: str) -> Holds:
    """A connection whose token ends in a minute, and an older one that has ended, get newer tokens;
    what must hold.
    """
    simulate_tokens(world)
    client, again = (Client(world, name, "acme#scott") for name in ("origin", "again"))
    client.open(token(60, *permissions))
    over = {"token_expires_at": int(world.now) + 300, "ttl": int(world.now) - 60}
    world.connect("old", quiet=3 * 3600)
    [old] = (row for row in world.rows("connections") if row["connection_id"] == "old")
    world.put("connections", old | over)
    accepted = {
        name: client.authenticate(name, token(ttl, *permissions), seconds=seconds)
        for name, ttl, seconds in (
            ("newer", 600, 0.0), ("newest", 1200, 0.0), ("older", 300, 0.0), ("last", 1800, 90.0),
        )
    }  # fmt: skip
    refused = {
        "foreign": client.authenticate("foreign", token(2400, *permissions, user="eve")),
        "elsewhere": client.authenticate("elsewhere", token(2401, *permissions, tenant="other")),
        "over": Client(world, "old", "acme#scott").authenticate("over", token(2402, *permissions)),
    }
    if permissions:
        refused["poorer"] = client.authenticate("poorer", token(2403))
    client.leave()
    opened = again.say_hello("again", token(900))
    began = int(world.now)

    def holds() -> None:
        rows = {row["connection_id"]: row for row in world.rows("connections")}
        for name, task in refused.items():
            said = said_by(task)
            assert "data" not in said, f"the token {name!r} prolongs a connection"
        for row in rows.values():
            seconds = row["token_expires_at"] - began
            assert seconds not in range(2400, 2410), f"a refused token is stored in {row}"
        promised = {parse_iso_time(said_by(task)["data"]["expires_at"])
                    for task in accepted.values() if "data" in said_by(task)}  # fmt: skip
        if "origin" in rows and promised:
            assert rows["origin"]["token_expires_at"] >= max(promised), "it ends too early"
        is_met = any(name.startswith("disconnect") for name in world.faulted)
        assert "origin" not in rows or is_met, "a connection that was closed keeps its row"
        if opened.result and opened.result["statusCode"] == 200:
            assert "again" in rows, "an open connection has no row"

    return holds


def token(seconds: int, *permissions: str, user: str = "scott", tenant: str = "acme") -> str:
    """A token that ends in some seconds."""
    return mint_token(JWT_SECRET, user=user, tenant=tenant, permissions=permissions, ttl=seconds)


def simulate_tokens(world: World) -> None:
    """Let the library for tokens read the world's clocks."""

    class Now(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Now":
            return cls.fromtimestamp(world.clock.time(), tz)

    world.replaced(jwt.api_jwt, "datetime", Now)


def said_by(task: Task) -> Row:
    """The answer of a function behind API Gateway; {} if it did not answer."""
    said: Row = json.loads((task.result or {}).get("body", "{}"))
    return said


@scenario("uploads", "upload-parts")
def uploads(world: World) -> Holds:
    """A client completes the upload of a file in two parts twice, since it has no answer yet; it is
    aborted at the same time.
    """
    simulate_tokens(world)

    def request(route: str, **more: Any) -> Row:
        headers = {"authorization": f"Bearer {token(3600)}"}
        return {"routeKey": route, "headers": headers, **more}

    begun = json.loads(
        world.answer_of("upload-parts", request("POST /s3/multipart", body="{}"))["body"]
    )
    named = {"Key": begun["key"], "UploadId": begun["uploadId"]}
    parts = [
        {"PartNumber": number}
        | world.s3.perform("UploadPart", named | {"PartNumber": number, "Body": body})
        for number, body in enumerate((b"first, ", b"second"), 1)
    ]
    of_upload = {
        "pathParameters": {"uploadId": begun["uploadId"]},
        "queryStringParameters": {"key": begun["key"]},
    }
    complete = request(
        "POST /s3/multipart/{uploadId}/complete", body=json.dumps({"parts": parts}), **of_upload
    )
    completions = [world.invoke("upload-parts", complete, name=f"complete-{n}") for n in (1, 2)]
    abort = request("DELETE /s3/multipart/{uploadId}", **of_upload)
    world.invoke("upload-parts", abort, name="abort")

    def holds() -> None:
        stored = world.s3.objects.get(begun["key"])
        assert stored in (None, b"first, second"), "the file is not what was sent"
        answers = [task.result for task in completions if task.result]
        statuses = {answer["statusCode"] for answer in answers}
        assert 200 not in statuses or stored, "a completed upload has no stored file"
        assert 404 not in statuses or not stored, "the upload of a stored file is not found"
        bodies = {answer["body"] for answer in answers if answer["statusCode"] == 200}
        assert len(bodies) <= 1, f"two completions have two answers: {bodies}"

    return holds


@scenario("expired", *JOBS)
def expired(world: World) -> None:
    """Listeners of a job unsubscribe and leave when its row has expired."""
    listeners = [world.connect(name) for name in ("origin", "listener", "device")]
    world.scheduler.now -= 8 * 86400
    delayed(listeners.pop(0))
    for listener in listeners:
        listener.ask("subscribe", {"request_id": "job"})
    dynamodb = world.stage.client("dynamodb")
    lease = RequestLease(dynamodb, world.stage.table("requests"), listeners[0].owner, "job")
    if lease.take(Lease("setup", int(world.now) + 60), world.now):
        lease.finish("setup", {"status": "COMPLETED", "seq": 1}, world.now)
    world.scheduler.now += 8 * 86400
    listeners[0].say("unsubscribe", {"request_id": "job"})
    listeners[1].leave()


@scenario("schedule", *JOBS)
def schedule(world: World) -> None:
    """Two scheduled jobs of a lane with one slot, and one that is due in an hour is cancelled."""
    client = world.connect("origin")
    with patch.object(world.stage.module("router"), "MAX_RUNNING_PER_TENANT", 1):
        for name, seconds in (("first", "20"), ("second", "20"), ("later", "3600")):
            delayed(client, name, delay_seconds=seconds)
    world.connect("device").say("cancel", {"request_id": "later"})


RATED: Any = {"limit": 3, "per_minute": 1}


@scenario("rate", *JOBS)
def rate(world: World) -> None:
    """Three jobs of an action, of which one may start a minute; the second one is cancelled."""
    client, actions = world.connect("origin"), world.stage.module("router").ACTIONS
    with patch.dict(actions, {"delay": dataclasses.replace(actions["delay"], **RATED)}):
        for name in ("first", "second", "third"):
            delayed(client, name)
    world.connect("device").say("cancel", {"request_id": "second"})


@scenario("pace", *JOBS)
def pace(world: World) -> None:
    """The lanes are swept while a job of an action with a rate arrives; its lane has a row."""
    client, actions = world.connect("origin"), world.stage.module("router").ACTIONS
    world.put("lanes", {"lane": "action#delay#0", "lane_limit": 3})
    world.sweep_lanes()
    with patch.dict(actions, {"delay": dataclasses.replace(actions["delay"], **RATED)}):
        delayed(client)


@scenario("sweep", *JOBS)
def sweep(world: World) -> None:
    """The sweeper comes while a worker runs a job that reports its progress."""
    delayed(world.connect("origin"), steps=2)
    world.sweep()


@scenario("hand-over", *JOBS)
def hand_over(world: World) -> Holds:
    """A job of two steps, for which each invocation has time for one, and which waits for ten
    minutes between two workers; the sweeper comes.
    """
    processor, ran = world.stage.module("processor"), list[str]()

    def run_step(name: str) -> str:
        ran.append(f"{name} {len(ran)}")
        return ran[-1]

    def run(job: Any) -> Any:
        results = []
        for name in ("one", "two"):
            results.append(job.step(name, functools.partial(run_step, name)))
            if job.has_stored_step and name == "one":
                raise processor.OutOfTimeError
        job.wait(600)
        return results

    processor.ACTIONS["in steps"] = run
    in_steps(world, world.connect("origin"))
    world.sweep()

    def holds() -> None:
        (ended,) = world.rows("requests")
        if ended["status"] == "COMPLETED":
            one, two = json.loads(ended["result"])
            assert one.startswith("one") and two.startswith("two"), ended
            assert {one, two} <= {*ran}, "a result is of no step that ran"

    return holds


@scenario("events", *JOBS)
def events(world: World) -> Holds:
    """A job emits events in a step and after it, in an attempt that fails and one that does not;
    its row has room for two. The sweeper comes.

    The second attempt begins at once, and waits before it emits, so that late writes of the first
    one come in between; those of others come between two attempts.
    """
    world.replaced(jobplane_leases._requests, "MAX_TAIL_BYTES", 60)
    processor = world.stage.module("processor")
    world.replaced(processor, "backoff_seconds", lambda attempt: attempt - 1.0)

    def run(job: Any) -> Any:
        if job.row["attempts"] > 1:
            job.sleep(60)
        job.emit([job.attempt, "begin"])

        def step() -> str:
            job.emit([job.attempt, "step"])
            return str(job.attempt)

        ran = job.step("one", step)
        job.emit([job.attempt, "end"])
        if job.row["attempts"] == 1:
            job.flush()
            raise processor.TransientError("once")
        return {"ran": ran, "attempt": job.attempt}

    processor.ACTIONS["in steps"] = run
    in_steps(world, world.connect("origin"))
    world.sweep()

    def holds() -> None:
        (ended,) = world.rows("requests")
        emitted = jobplane_leases.read_events(
            world.stage.client("dynamodb"), world.stage.table("requests"), ended, 0, world.now
        )["events"]
        attempts = list(dict.fromkeys(attempt for attempt, _ in emitted))
        assert emitted == sorted(emitted, key=lambda event: attempts.index(event[0])), emitted
        steps = [attempt for attempt, what in emitted if what == "step"]
        for attempt in attempts:
            of_attempt = [what for each, what in emitted if each == attempt]
            whole = ["begin", *["step"] * (attempt in steps), "end"]
            assert of_attempt == whole[: len(of_attempt)], emitted
        if ended["status"] == "COMPLETED":
            result = json.loads(ended["result"])
            assert emitted[-1] == [result["attempt"], "end"], emitted
            assert steps[-1] == result["ran"], emitted

    return holds


@scenario("steps", *JOBS)
def steps(world: World) -> None:
    """A worker stores two steps of a job, the first one again if it has no answer, or gives it back
    at last; another worker needs five minutes for it.
    """
    world.stage.module("processor").ACTIONS["in steps"] = lambda job: job.sleep(300)
    client = world.connect("origin")
    lease = in_steps(world, client)
    world.sockets.open.clear()  # this worker sends no messages
    taken = lease.take(Lease("invocation-worker", int(world.now) + 100), world.now)

    def store(name: str, *before: Row) -> list[Row]:
        done = [*before, {"name": name, "result": "0"}]
        changes = {"steps": done, "step_count": len(done)}
        kept = lease.store_steps("invocation-worker", changes, world.clock.time())
        return list(kept["steps"])

    def work() -> None:
        with contextlib.suppress(LeaseLostError, ClientError, BotoCoreError):
            for name in ("one", "one again"):
                with contextlib.suppress(BotoCoreError):
                    kept = store(name)
                    break
            else:
                lease.put_back("invocation-worker", int(world.now) + 60, world.now, keep=True)
                world.scheduler.wait(world.now + 1)
                return
            store("two", *kept)
            world.scheduler.wait(world.now + 1)
            lease.finish("invocation-worker", {"status": "COMPLETED", "seq": 1}, world.now)

    if taken:
        world.actor("worker", work)


@scenario("renew", *JOBS)
def renew(world: World) -> None:
    """A worker renews its lease for the five minutes of a job, as nothing else does; the sweeper
    comes.
    """
    world.stage.module("processor").ACTIONS["in steps"] = lambda job: job.sleep(300)
    in_steps(world, world.connect("origin"))


@scenario("callback", *JOBS)
def callback(world: World) -> Holds:
    """A job waits two minutes for a token, which two others return at once, and a third one when
    its time ends.
    """
    processor, sent = world.stage.module("processor"), list[str]()
    accepted, unanswered = list[str](), list[str]()

    def run(job: Any) -> Any:
        try:
            return [job.callback("ask", 120, sent.append)]
        except CallbackError:
            return ["timed out"]

    processor.ACTIONS["in steps"] = run
    lease = in_steps(world, world.connect("origin"))

    def give_back(name: str) -> None:
        while not sent:
            world.scheduler.wait(world.now + 1)
            if world.now > began + 300:
                return
        unanswered.append(name)
        with contextlib.suppress(ClientError, BotoCoreError):
            with contextlib.suppress(TokenError):
                answer, now = {"result": name}, world.clock.time()
                return_callback(lease.dynamodb, lease.table, sent[-1], answer, now)
                accepted.append(name)
            unanswered.remove(name)

    began = world.now
    for name, seconds in (("first", 0.0), ("second", 0.0), ("third", 119.5)):
        world.actor(name, functools.partial(give_back, name), at=world.now + seconds)
    world.sweep()

    def holds() -> None:
        (ended,) = world.rows("requests")
        assert len(accepted) <= 1, f"a token was used by {accepted}"
        if ended["status"] == "COMPLETED":
            (result,) = json.loads(ended["result"])
            possible = accepted or [*unanswered, "timed out"]
            assert result in possible, f"the job has {result}, not one of {possible}"

    return holds


def in_steps(world: World, client: Client) -> RequestLease:
    """A stored job of the action "in steps"."""
    row = {"owner": client.owner, "request_id": "job", "tenant_id": "acme", "max_attempts": 4,
           "connection_id": "origin", "action": "in steps", "payload": "{}", "metadata": {},
           "on_disconnect": "detach"}  # fmt: skip
    dynamodb, table = world.stage.client("dynamodb"), world.stage.table("requests")
    enqueue_request(dynamodb, table, row, world.now)
    return RequestLease(dynamodb, table, client.owner, "job")


@scenario("retry", *JOBS, "deliver-webhook")
def retry(world: World) -> None:
    """An assembly of several parts; the sweeper and a second attempt come when a worker fails."""
    assemble(world, world.connect("origin"), "job")


@scenario("files", *JOBS, "deliver-webhook")
def files(world: World) -> Holds:
    """An assembly of two files, for which each invocation has time for one, while its client
    cancels it, or not; the sweeper comes.
    """
    world.replaced(jobplane_leases.jobs, "STORE_SECONDS", 0.0)
    processor = world.stage.module("processor")
    whole, begun = processor.run_robot, set[str]()

    def run_robot(step: Any, source: Any, original_id: str, sink: Any, context: Any) -> Any:
        attempt = sink._prefix
        if attempt in begun:
            raise processor.OutOfTimeError
        begun.add(attempt)
        return whole(step, source, original_id, sink, context)

    world.replaced(processor, "run_robot", run_robot)
    client = world.connect("origin")
    assemble(world, client, "job", files=2)
    client.say("cancel", {"request_id": "job"})
    world.sweep()

    def holds() -> None:
        for document in world.rows("assemblies"):
            if document.get("ok") == "ASSEMBLY_COMPLETED":
                made = document["results"]["parts"]
                keys = {file["key"] for file in made}
                names = {file["name"] for file in made}
                assert len(made) == len(keys) == len(names) == 4, made

    return holds


@scenario("join", *JOBS, "deliver-webhook")
def join(world: World) -> None:
    """Two devices ask for one assembly; it is made once, and both have it."""
    for name in ("origin", "device"):
        assemble(world, world.connect(name), f"job-{name}")


# Each line is read by itself, so that a worker looks whether it must stop between two parts.
LINES = b"".join(letter * (256 * 1024) + b"\n" for letter in (b"a", b"b"))


@scenario("early", *JOBS, "deliver-webhook")
def early(world: World) -> None:
    """A worker begins with an assembly while router writes the document that waits for it."""
    assemble(world, world.connect("origin"), "job", is_awaited=False)


def assemble(
    world: World,
    client: Client,
    request_id: str,
    *,
    is_uploaded: bool = True,
    is_awaited: bool = True,
    files: int = 1,
) -> str:
    """A stored job that splits uploaded files, which are equal; the key of the uploads.
    `is_awaited`: nothing else happens before the job is acknowledged.
    """
    md5hash = hashlib.md5(LINES, usedforsecurity=False).hexdigest()
    file = {"name": "a.txt", "size": len(LINES), "mime": "text/plain", "md5hash": md5hash}
    asked = client.ask("create_upload", {"template_id": "parts", "files": [file] * files})
    if "data" not in asked:  # a fault met the router
        return ""
    uploads = [{name: each[name] for name in ("key", *file)} for each in asked["data"]["uploads"]]
    if is_uploaded:
        world.s3.objects[uploads[0]["key"]] = LINES
    send = client.ask if is_awaited else client.say
    send("process_assembly", {"template_id": "parts", "uploads": uploads}, id=request_id)
    return str(uploads[0]["key"])


@scenario("crowd", *JOBS, "deliver-webhook")
def crowd(world: World) -> None:
    """Three devices ask for one assembly, for whose end one may wait; the sweeper finds others."""
    world.replaced(world.stage.module("processor"), "MAX_FOLLOWERS", 1)
    for name in ("origin", "device", "third"):
        assemble(world, world.connect(name), f"job-{name}")


@scenario("overtaken", *JOBS, "deliver-webhook")
def overtaken(world: World) -> None:
    """The webhook of an assembly's failure is delivered while a device runs it again."""
    assemble(world, world.connect("origin"), "job-origin")
    assembly_id = world.rows("requests")[0]["assembly_id"]
    pending_webhook(world, assembly_id=assembly_id, ok=None, error="FILE_MISSING")


@scenario("again", *JOBS, "deliver-webhook")
def again(world: World) -> None:
    """An assembly has failed; two devices run it again at the same time."""
    for name in ("origin", "device"):
        assemble(world, world.connect(name), f"job-{name}")
    assembly_id = world.rows("requests")[0]["assembly_id"]
    failed = {"assembly_id": assembly_id, "request_id": "job", "error": "FILE_MISSING"}
    world.put("assemblies", document_of(world) | failed)


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
    pending_webhook(world)
    demand = world.invoke("deliver-webhook", {"assembly_id": "a1"}, name="demand")

    def holds() -> None:
        refused = (demand.result or {}).get("refused")
        assert refused != "too_soon", "a delivery on demand is refused because of its own write"

    return holds


def document_of(world: World) -> Row:
    """The document of an assembly that has ended, but for its outcome."""
    moment = iso_time(world.now)
    return {
        "assembly_id": "a1", "user": {"userId": "scott"}, "user_id": "scott", "tenant_id": "acme",
        "owner": "acme#scott", "request_id": "job", "execution": 1, "template_id": "parts",
        "created_at": moment, "updated_at": moment, "message": "done",
        "uploads": [], "results": {}, "rev": 3,
    }  # fmt: skip


def pending_webhook(world: World, **more: Any) -> Message:
    """A completed assembly, and the message in the queue of webhooks."""
    outcome = {"ok": "ASSEMBLY_COMPLETED", "webhook": {"status": "pending", "attempts": 0}}
    document = document_of(world) | outcome | more
    world.put("assemblies", {name: value for name, value in document.items() if value is not None})
    queue = world.sqs.by_name[world.stage.table("webhooks")]
    named = {name: document[name] for name in ("assembly_id", "execution", "template_id")}
    body = json.dumps(named)
    world.sqs.perform("SendMessage", {"QueueUrl": queue.name, "MessageBody": body})
    [message] = queue.messages
    return message


@scenario("demands", "deliver-webhook")
def demands(world: World) -> None:
    """A webhook is demanded twice while its message is delivered; its document expires soon."""
    world.receiver_seconds = 3.0
    pending_webhook(world, ttl=int(world.now) + 2)
    for number in (1, 2):
        event = {"assembly_id": "a1"}
        world.invoke("deliver-webhook", event, name=f"demand-{number}", at=world.now + number / 2)


@scenario("slow", "deliver-webhook")
def slow(world: World) -> Holds:
    """Two messages ask for a delivery; the receiver answers when the claim on it has ended."""
    world.receiver_seconds = 22.0
    message = pending_webhook(world)
    queue = world.sqs.by_name[world.stage.table("webhooks")]
    later = {"QueueUrl": queue.name, "MessageBody": message.body, "DelaySeconds": 21}
    world.sqs.perform("SendMessage", later)

    def holds() -> None:
        if world.are_repeats:
            assert message.receives <= 1, "a receive of a message makes no attempt"

    return holds


@scenario("past", "deliver-webhook")
def past(world: World) -> None:
    """A webhook is delivered, and demanded, when its document has expired: by wrong clocks not."""
    pending_webhook(world, ttl=int(world.now) - 1)
    world.invoke("deliver-webhook", {"assembly_id": "a1"}, name="demand")


DAY = "2026-11-22"
STUCK = {"operation": "reset_stuck_files", "dry_run": False, "statuses": ["processing"]}


@scenario("reset", "state-manager", "count-files")
def reset(world: World) -> Holds:
    """Two operators reset a stuck file, while the pipeline completes it after all."""
    world.counts_files = True
    tracked(world, "a.ndjson", "processing#1", "2026-09-01T00:00:00.000Z", manifest_path="m1")
    operators = [
        world.invoke("state-manager", STUCK, name=f"operator-{number}") for number in (1, 2)
    ]
    moves(world, "completed#1")

    def holds() -> None:
        [row] = world.rows("files")
        if all(operator.result for operator in operators) and world.are_repeats:
            counted = sum(json.loads(one.result["body"])["files_reset"] for one in operators)
            assert counted == row.get("reset_count", 0), "a reset that was made is not counted"

    return holds


@scenario("exact", "state-manager", "count-files")
def exact(world: World) -> None:
    """Two operators count all files while the pipeline moves one; records come late."""
    world.counts_files = True
    module = world.stage.module("state-manager")
    world.replaced(module, "PIPELINE", replace(module.PIPELINE, shards=1))
    tracked(world, "a.ndjson", "pending#0", iso_time(world.now))
    moves(world, "manifested#0")
    for number in (1, 2):
        event = {"operation": "get_stats", "exact": True}
        world.invoke("state-manager", event, name=f"operator-{number}")


@scenario("recount", "state-manager", "count-files")
def recount(world: World) -> None:
    """The same when the counters have all their rows."""
    rows = range(COUNTER_SHARDS)
    world.put("metrics", *({"metric_type": COUNTERS, "timestamp": n, "changes": 1} for n in rows))
    exact(world)


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
    moves(world, "manifested#1")

    def holds() -> None:
        [row] = world.rows("files")
        if operator.result and operator.result["statusCode"] == 409:
            made = row.get("last_changed_by", "") != ""
            assert not made, "a correction that was made is refused"

    return holds


def tracked(world: World, name: str, status: str, updated_at: str, **more: str) -> None:
    """A file of the pipeline, with its record in the stream."""
    row = {"date_prefix": DAY, "file_key": name, "status": status, "updated_at": updated_at}
    world.put("files", row | more)


def moves(world: World, status: str) -> None:
    """Add the pipeline, which moves the file."""

    def move() -> None:
        row = next(one for one in world.rows("files"))
        moved(world, row, status)

    world.actor("pipeline", move)


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
                # Step Functions and SQS repeat what they have no answer to.
                for _ in range(2):
                    flow.ask("claim", operation="release", **holding)
                late = flow.ask("claim", operation="renew", ttlSeconds=3600, **holding)
                assert not late["renewed"], "a claim is renewed after its release"
                return
            flow.pause(1)

    for name in ("m1", "m2"):
        world.actor(name, functools.partial(hold, name))


@scenario("older", *FLOW)
def older(world: World) -> None:
    """An execution asks for workspaces whose claims are rows of older versions, and valid."""
    flow, now = Flow(world), int(world.now)
    end, past, hour = now + 3000, now - 3000, now - 7200
    forms: list[Row] = [
        {"expiresAt": end * 1000},
        {"expiresAt": end, "ttl": past},
        {"expiresAt": end, "claimedAt": hour},
        {"ttl": end},
        {"ttl": end * 1000},
        {"ttl": end, "claimedAt": hour},
        {"claimedAt": past},
        {"claimedAt": past * 1000},
        {"claimedAt": iso_time(past)},
    ]
    keys = [f"p{number}#scott" for number in range(len(forms))]
    for key, form in zip(keys, forms, strict=True):
        world.put("active-jobs", {"projectUserId": key, "messageId": "m0", "threadId": "t0"} | form)

    def ask() -> None:
        for key in keys:
            named = {"projectUserId": key, "messageId": "m1", "threadId": "t1"}
            answer = flow.ask("claim", operation="acquire", **named)
            assert not answer["claimed"], "a claim of an older version is taken while it is valid"

    # No history has the writes that made these rows.
    world.programs["unrecorded"] = keys
    world.actor("execution", ask)


@scenario("lapsed", *FLOW)
def lapsed(world: World) -> None:
    """Two executions ask for a workspace; each renews too late, when the other one may have it."""
    flow = Flow(world)

    def hold(message_id: str) -> None:
        for _ in range(20):
            answer = flow.acquire(message_id, message_id, seconds=5)
            if answer["claimed"]:
                holding = {name: answer[name] for name in ("claimId", "fence")}
                for pause in (4, 20):
                    flow.pause(pause)
                    flow.ask("claim", operation="renew", ttlSeconds=5, **holding)
                flow.ask("claim", operation="release", **holding)
                return
            flow.pause(3)

    for name in ("m1", "m2"):
        world.actor(name, functools.partial(hold, name))


@scenario("swept", *FLOW)
def swept(world: World) -> None:
    """An execution with the workspace is aborted: the rule and the sweep free it for the next."""
    flow = Flow(world)
    execution = flow.message("m1", "t1")
    flow.message("m2", "t2", interrupts=False)

    def abort() -> None:
        event = flow.abort(execution, "m1")
        world.invoke("handle-timeout", event, name="rule", at=world.now + 130)
        world.invoke("sweep-claims", {"sweep": "claims"}, at=world.now + 130)

    world.actor("operator", abort, at=world.now + 10)


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
    flow.message("m2", "t1", seconds=60)

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


@scenario("abandoned", *FLOW)
def abandoned(world: World) -> None:
    """No worker takes the job: the execution fails, and frees the workspace for the next one.

    Records of time-outs are past their TTL at once.
    """
    world.replaced(world.stage.module("handle-timeout"), "INTERRUPTION_TTL_SECONDS", 0)
    flow = Flow(world)
    flow.message("m1", "t1")
    flow.message("m2", "t2", interrupts=False)


@scenario("instruct", *JOBS, *FLOW, "report-job")
def instruct(world: World) -> None:
    """A job of the flow is cancelled while its worker reports; another worker may take it over."""
    flow = Flow(world, workspace=tenant_workspace("acme", "scott", "site"))
    flow.run_requests()

    def work(job: Job) -> str:
        job.report(50, "half")
        job.emit("line")
        job.wait(5)
        return "done"

    payload = {"project": "site", "thread": "t1", "instruction": "work"}
    world.connect("origin").ask("instruct", payload, id="job")
    for name in ("worker-a", "worker-b"):
        flow.worker(name, work)
    world.connect("device").say("cancel", {"request_id": "job"}, at=world.now + 2)


@scenario("intake", *FLOW, "dispatch", "intake", "processor", "report-job")
def intake(world: World) -> Holds:
    """A message in the bucket is announced twice: one job of the flow, for which there are two
    workers.
    """
    flow = Flow(world, workspace=tenant_workspace("acme", "scott", "site"))
    flow.run_requests()
    named = {"tenant": "acme", "user": "scott", "project": "site", "thread": "t1", "id": "job"}
    world.s3.objects["inbox/message"] = json.dumps(named | {"instruction": "work"}).encode()
    for _ in range(2):
        world.invoke_later("intake", {"detail": {"object": {"key": "inbox/message"}}}, 1)
    for name in ("worker-a", "worker-b"):
        flow.worker(name, lambda job: job.report(50, "half"), at=world.now + 1)

    def holds() -> None:
        ends = [row["status"] for row in world.rows("requests")]
        assert len(ends) <= 1 and len(world.flows.executions) <= 1, "a message is two jobs"
        assert ends == ["COMPLETED"] or world.faulted, "the job is not completed"

    return holds
