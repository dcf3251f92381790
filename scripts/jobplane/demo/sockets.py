"""Steps on the socket: connect, short actions, cancel, resume, refused tokens."""

import asyncio
import statistics

from jobplane.demo.proxy import Proxy
from jobplane.demo.scene import TENANT, Scene
from jobplane.demo.story import Observation, Stopwatch, check, error_of, rising, step
from jobplane.stage.signing import jwt_secret
from jobplane_client import (
    JobCancelledError,
    JobSocket,
    RefusedError,
    UnauthorizedError,
    mint_token,
)
from jobplane_models.messages import CompleteMessage, ProgressMessage

ROUNDS = 20


@step("Open a socket", shows=("connect", "disconnect", "dispatch", "processor", "router"))
async def connect(scene: Scene) -> Observation:
    """The handshake runs the function `connect`."""
    watch = Stopwatch()
    await scene.connect()
    opened = watch.ms
    return Observation(f"with a JWT, open after {opened:.0f} ms", {"open_ms": opened})


@step("Call echo and health", needs=(connect,))
async def short_actions(scene: Scene) -> Observation:
    """`router` answers both at once."""
    sent = {"text": "Grüße, 作业 ✓", "number": 42}
    latencies = []
    for _ in range(ROUNDS):
        watch = Stopwatch()
        answer = await scene.socket.request("echo", sent)
        latencies.append(watch.ms)
        check(answer.get("echo") == sent, f"echo returned {answer.get('echo')}")
    watch = Stopwatch()
    health = await scene.socket.request("health")
    health_ms = watch.ms
    check(health.get("status") == "healthy", f"health returned {health.get('status')}")
    median = statistics.median(latencies[1:])
    return Observation(
        f"{ROUNDS} echoes, median {median:.0f} ms, the first {latencies[0]:.0f}; "
        f"health in {health_ms:.0f} ms",
        {"echo_median_ms": median, "echo_first_ms": latencies[0], "health_ms": health_ms},
    )


@step("Cancel a running job", needs=(connect,))
async def cancel(scene: Scene) -> Observation:
    """A `delay` of a minute is cancelled after its first progress message."""
    request_id, running = f"cancelled-by-{scene.user}", asyncio.Event()
    run = scene.socket.run(
        "delay",
        {"seconds": 60, "steps": 300},
        id=request_id,
        on_progress=lambda _progress: running.set(),
    )
    job = asyncio.create_task(run)
    try:
        await running.wait()
        watch = Stopwatch()
        answer = await scene.socket.request("cancel", {"request_id": request_id})
        check(answer.get("status") == "cancelling", f"cancel returned {answer.get('status')}")
        await error_of(job, JobCancelledError, "the job that was cancelled")
        ended = watch.ms
    finally:
        job.cancel()
    again = await scene.socket.request("cancel", {"request_id": request_id})
    check(again.get("status") == "cancelled", f"a second cancel returned {again.get('status')}")
    return Observation(
        f"CANCELLED after {ended:.0f} ms; a second cancel changes nothing", {"cancel_ms": ended}
    )


@step("Resume after a lost connection", needs=(connect,))
async def resume(scene: Scene) -> Observation:
    """A second socket, whose proxy cuts the connection: the client connects again and resumes."""
    proxy = Proxy(scene.description["websocket_url"])
    numbers: list[int] = []
    cut_after = 0
    silence = Stopwatch()
    silent_ms = 0.0
    completed = False
    async with proxy.listening(), JobSocket(proxy.url, lambda: scene.token) as socket:
        request_id = await socket.send("delay", {"seconds": 4, "steps": 40})
        async for message in socket.follow(request_id):
            if isinstance(message, ProgressMessage | CompleteMessage):
                if cut_after and numbers[-1] == cut_after:
                    silent_ms = silence.ms
                numbers.append(message.seq)
            if isinstance(message, ProgressMessage) and message.percentage >= 25 and not cut_after:
                cut_after = message.seq
                silence = Stopwatch()
                proxy.cut()
            completed = isinstance(message, CompleteMessage)
        state = await socket.request("status", {"request_id": request_id})
    check(completed, "the job did not complete")
    check(rising(numbers), f"seq did not rise strictly: {numbers}")
    check(proxy.connections == 2, f"{proxy.connections} connections, not 2")
    check(
        numbers[-1] == state["seq"], f"received up to seq {numbers[-1]}, stored is {state['seq']}"
    )
    resumed_at = next(number for number in numbers if number > cut_after)
    return Observation(
        f"cut at seq {cut_after}, resumed {silent_ms:.0f} ms later at {resumed_at}, "
        f"seq rose strictly to {numbers[-1]}",
        {"silent_ms": silent_ms, "last_seq": numbers[-1]},
    )


@step("Refuse a forged and an expired token", needs=(connect,), shows=("status",))
async def wrong_tokens(scene: Scene) -> Observation:
    """A token signed with another key, and an expired one, on the socket and over HTTP."""
    forged = mint_token("f" * 64, user=scene.user, tenant=TENANT)
    expired = mint_token(jwt_secret(scene.stage), user=scene.user, tenant=TENANT, ttl=-3600)
    watch = Stopwatch()
    for name, token in (("forged", forged), ("expired", expired)):
        handshake = JobSocket(scene.description["websocket_url"], token).__aenter__()
        # The emulator turns the function's 401 into a 403.
        error = await error_of(handshake, RefusedError, f"a socket with a token that is {name}")
        check(error.status_code in (401, 403), f"the handshake got status {error.status_code}")
        look_up = scene.status_client(token).get_status("0" * 64)
        await error_of(look_up, UnauthorizedError, f"a look-up with a token that is {name}")
    each = watch.ms / 4
    return Observation(
        f"both refused at the handshake, and with 401 over HTTP; {each:.0f} ms each",
        {"refusal_ms": each},
    )
