"""What is explored: each scenario sets up its state and adds its actors."""

import functools
import hashlib
from collections.abc import Callable

from jobplane.explore.search import Play, Scenario
from jobplane.explore.workspaces import Flow
from jobplane.explore.world import Client, World
from jobplane_client import Job

SCENARIOS: dict[str, Scenario] = {}


JOBS = ("connect", "disconnect", "dispatch", "processor", "router")
FLOW = ("claim", "handle-timeout", "send-interrupt")


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


@scenario("sweep", *JOBS)
def sweep(world: World) -> None:
    """The sweeper comes while a worker runs a job that reports its progress."""
    delayed(world.connect("origin"), steps=2)
    world.sweep()


@scenario("retry", *JOBS, "deliver-webhook")
def retry(world: World) -> None:
    """A job's file can't be read at first, so that it needs several attempts."""
    client = world.connect("origin")
    assemble(world, client, "job")
    world.sweep()


@scenario("join", *JOBS, "deliver-webhook")
def join(world: World) -> None:
    """Two devices ask for one assembly; it is made once, and both have it."""
    for name in ("origin", "device"):
        assemble(world, world.connect(name), f"job-{name}")


def assemble(world: World, client: Client, request_id: str, body: bytes = b"a file") -> None:
    """A stored job that hashes an uploaded file."""
    md5hash = hashlib.md5(body, usedforsecurity=False).hexdigest()
    file = {"name": "a.txt", "size": len(body), "mime": "text/plain", "md5hash": md5hash}
    payload = {"template_id": "tpl_fingerprint", "files": [file]}
    made = client.ask("create_upload", payload)["data"]["uploads"][0]
    world.s3.objects[made["key"]] = body
    upload = {name: made[name] for name in ("key", *file)}
    payload = {"template_id": "tpl_fingerprint", "uploads": [upload]}
    client.ask("process_assembly", payload, id=request_id)


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
    flow = Flow(world)
    flow.message("m1", "t1")
    for name in ("worker-a", "worker-b"):
        flow.worker(name, lambda job: job.wait(40))


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
