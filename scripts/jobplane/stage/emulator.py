"""The emulator of a local stage: MiniStack, in an environment of its own, on loopback only."""

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import psutil

from jobplane.stage.stages import Stage, State, default_region
from jobplane.terminal import interrupts
from jobplane.terminal.console import note
from jobplane.tree.repository import Repository
from lambdapack.artifacts import read_manifest
from lambdapack.environments import plain_environment, uv_command, uv_environment
from lambdapack.tools import ToolError, run_quietly

MINISTACK = "1.5.33"
LAUNCHER = Path(__file__).with_name("launcher.py")
START_SECONDS = 60
STOP_SECONDS = 5.0
UNUSED_SECONDS = 3600
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONDONTWRITEBYTECODE")
# Names a file that a test run keeps locked; the emulator ends when the lock is released.
LIFELINE = "JOBPLANE_LIFELINE"


class ExposedError(click.ClickException):
    """The emulator can be reached from other machines."""


class SurvivedError(click.ClickException):
    """Processes of the emulator survived SIGKILL."""

    def __init__(self, stage: str, pids: set[int]) -> None:
        self.pids = pids
        listed = ", ".join(map(str, sorted(pids)))
        super().__init__(f"stage {stage!r}: processes {listed} survived SIGKILL")


def interpreter(stage: Stage) -> Path:
    """The Python interpreter of MiniStack's environment, which uv makes the first time."""
    try:
        return _interpreter(stage, "--offline")
    except ToolError:
        note(f"installing MiniStack {MINISTACK} with uv; the first time this downloads it")
        return _interpreter(stage)


def _interpreter(stage: Stage, *options: str) -> Path:
    printed = run_quietly(
        [
            uv_command(), "tool", "run", *options, "--python", sys.executable,
            "--from", f"ministack=={MINISTACK}",
            "python", "-c", "import sys; print(sys.executable)",
        ],
        cwd=stage.repository.root,
        what=f"installing ministack {MINISTACK}",
        env=uv_environment(),
    )  # fmt: skip
    return Path(printed.strip().splitlines()[-1])


def start(stage: Stage, port: int | None) -> State:
    """Start the stage's emulator and wait until it answers."""
    stop(stage)
    chosen = _free_port(port)
    stage.directory.mkdir(parents=True)
    note(f"starting MiniStack {MINISTACK} on 127.0.0.1:{chosen}, waiting for it to answer")
    with interrupts.held():
        process, state = launch(stage, chosen, default_region(stage.repository))
        stage.write_state(state)
    try:
        wait_until_up(process, state)
        _refuse_exposed(state)
    except BaseException:
        stop(stage)
        raise
    return state


def launch(stage: Stage, port: int, region: str) -> tuple["subprocess.Popen[bytes]", State]:
    """Start the emulator's process in a session of its own; its state."""
    log = stage.directory / "emulator.log"
    unpacked = _unpacked(stage.repository)
    unpacked.mkdir(exist_ok=True)
    python = interpreter(stage)
    lifeline = [os.environ[LIFELINE]] if os.environ.get(LIFELINE) else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [python, LAUNCHER, stage.name, unpacked, *lifeline],
            cwd=stage.directory,
            env=environment(stage, port, region),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    state = State(
        pid=process.pid,
        started=_started(process.pid) or "",
        port=port,
        region=region,
        log=str(log),
        jwt_secret=secrets.token_hex(32),
    )
    return process, state


def stop(stage: Stage) -> bool:
    """Kill the emulator and its workers at once, delete its state; False if it wasn't running."""
    state = stage.read_state()
    found = state is not None and _kill(stage, state)
    _discard(stage)
    return found


def prune(repository: Repository) -> None:
    """Delete unpacked artifacts that no stage uses and no recent build made."""
    artifacts = read_manifest(repository).values()
    used = {artifact.digest for artifact in artifacts}
    for path in repository.scratch.glob("*/state.json"):
        state = Stage(repository, path.parent.name).read_state()
        used |= set(state.functions.values()) if state is not None else set()
    recently = time.time() - UNUSED_SECONDS
    for folder in _unpacked(repository).iterdir():
        if folder.name not in used and folder.stat().st_mtime < recently:
            shutil.rmtree(folder, ignore_errors=True)


def _unpacked(repository: Repository) -> Path:
    """The folder where all emulators unpack artifacts, by digest."""
    return repository.scratch / "_unpacked"


def is_running(state: State) -> bool:
    return _started(state.pid) == state.started and _healthy(state.port)


def environment(stage: Stage, port: int, region: str) -> dict[str, str]:
    scratch = stage.directory / "tmp"
    scratch.mkdir(exist_ok=True)
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    return inherited | {
        "TZ": "UTC",
        "TMPDIR": str(scratch),
        "STATE_DIR": str(stage.directory / "services"),
        "S3_DATA_DIR": str(stage.directory / "s3"),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": region,
        "AUTH": "true",
        "LAMBDA_EXECUTOR": "local",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        # With a Docker daemon, MiniStack would remove the containers of other emulators.
        "DOCKER_HOST": f"unix://{stage.directory}/no-docker.sock",
    }


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as taken:
            raise click.ClickException(
                f"can't listen on port {wanted}: {taken.strerror}; pass another --port"
            ) from taken
        port: int = probe.getsockname()[1]
        return port


def wait_until_up(process: "subprocess.Popen[bytes]", state: State) -> None:
    """Wait until the emulator answers; raise ToolError if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(state.port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = "exited while starting" if ended else f"did not answer within {START_SECONDS} s"
            raise ToolError(
                f"MiniStack {what}", Path(state.log).read_text(errors="replace")[-4000:]
            )
        time.sleep(0.05)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/_ministack/health")
        response = connection.getresponse()
        return response.status == 200 and "services" in json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _refuse_exposed(state: State) -> None:
    for address in _outward_addresses():
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, state.port)) == 0:
                raise ExposedError(
                    f"MiniStack answers on {address}:{state.port}, which other machines can reach"
                )


def _outward_addresses() -> set[str]:
    found: set[str] = set()
    with suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        # Connecting a datagram socket sends nothing; it selects the outgoing interface.
        probe.connect(("192.0.2.1", 9))
        found.add(probe.getsockname()[0])
    return {address for address in found if "." in address and not address.startswith("127.")}


def _kill(stage: Stage, state: State) -> bool:
    """Kill the emulator's process group until it is empty; False if it was empty."""
    found = False
    deadline = time.monotonic() + STOP_SECONDS
    while members := set(_group(stage, state)):
        found = True
        if time.monotonic() > deadline:
            raise SurvivedError(stage.name, members)
        with suppress(ProcessLookupError):
            if state.pid in members:
                # All at once: a leader whose workers end would start new ones.
                os.killpg(state.pid, signal.SIGKILL)
            else:
                for pid in members:
                    os.kill(pid, signal.SIGKILL)
        _reap(state.pid)
        time.sleep(0.01)
    return found


def _discard(stage: Stage) -> None:
    """Delete the stage's folder; it is renamed first, so that it disappears at once."""
    discarded = stage.repository.scratch / "_discarded"
    discarded.mkdir(parents=True, exist_ok=True)
    if stage.directory.exists():
        stage.directory.rename(discarded / f"{stage.name}-{secrets.token_hex(4)}")
    # Includes folders that an interrupted removal left.
    for folder in discarded.iterdir():
        shutil.rmtree(folder, ignore_errors=True)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _group(stage: Stage, state: State) -> Iterator[int]:
    """The living processes of this emulator: in its group, and started by it."""
    for pid, group, command in processes():
        if group != state.pid:
            continue
        if pid == state.pid and _started(pid) != state.started:
            continue
        if str(LAUNCHER) in command or str(stage.directory) in command:
            yield pid


def processes() -> Iterator[tuple[int, int, str]]:
    """Pid, process group and command line of every living process."""
    for process in psutil.process_iter(["cmdline", "status"]):
        with suppress(OSError):
            if process.info["status"] != psutil.STATUS_ZOMBIE:
                command = " ".join(process.info["cmdline"] or ())
                yield process.pid, os.getpgid(process.pid), command


def _started(pid: int) -> str | None:
    """The start time of a process as the system reports it; None if there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
