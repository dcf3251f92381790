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
from pathlib import Path

import click

from jobplane import interrupts
from jobplane.console import ToolError, note, plain_environment, run_quietly, uv_command
from jobplane.stages import Stage, State, default_region

MINISTACK = "1.5.33"
LAUNCHER = Path(__file__).with_name("launcher.py")
START_SECONDS = 60
STOP_SECONDS = 5.0
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONDONTWRITEBYTECODE")


class ExposedError(click.ClickException):
    """The emulator answers on an interface that other machines can reach."""


def interpreter(stage: Stage) -> Path:
    """The Python that has MiniStack, through uv's tool runner; installs it the first time."""
    printed = run_quietly(
        [
            uv_command(), "tool", "run", "--python", sys.executable,
            "--from", f"ministack=={MINISTACK}",
            "python", "-c", "import sys; print(sys.executable)",
        ],
        cwd=stage.workspace.root,
        what=f"installing ministack {MINISTACK}",
        env=plain_environment(),
    )  # fmt: skip
    return Path(printed.strip().splitlines()[-1])


def start(stage: Stage, port: int | None) -> State:
    """Start the stage's emulator and wait until it answers.

    Raises:
        ToolError: it ended or didn't answer; carries the end of its log.
        ExposedError: it can be reached from outside this machine.
    """
    stop(stage)
    chosen = _free_port(port)
    region = default_region(stage.workspace)
    stage.directory.mkdir(parents=True)
    log = stage.directory / "emulator.log"
    python = interpreter(stage)
    note(f"starting MiniStack {MINISTACK} on 127.0.0.1:{chosen}, waiting for it to answer")
    with interrupts.held():
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, LAUNCHER, stage.name],
                cwd=stage.directory,
                env=_environment(stage, chosen, region),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        state = State(
            pid=process.pid,
            started=_started(process.pid) or "",
            port=chosen,
            region=region,
            log=str(log),
            jwt_secret=secrets.token_hex(32),
        )
        stage.write_state(state)
    try:
        _wait_until_up(process, state)
        _refuse_exposed(state)
    except BaseException:
        stop(stage)
        raise
    return state


def stop(stage: Stage) -> bool:
    """End the stage's emulator and its workers, and forget the stage; False if it wasn't there."""
    state = stage.read_state()
    found = False
    if state is not None:
        group = list(_group(stage, state))
        found = bool(group)
        _end(stage, state)
    shutil.rmtree(stage.directory, ignore_errors=True)
    return found


def is_running(state: State) -> bool:
    """Whether the recorded process is still the one that `up` started, and answers."""
    return _started(state.pid) == state.started and _healthy(state.port)


def _environment(stage: Stage, port: int, region: str) -> dict[str, str]:
    scratch = stage.directory / "tmp"
    scratch.mkdir()
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
        # A daemon that is there would be asked to remove the containers of other emulators.
        "DOCKER_HOST": f"unix://{stage.directory}/no-docker.sock",
    }


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as taken:
            raise click.ClickException(f"port {wanted} is taken: {taken.strerror}") from taken
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(process: "subprocess.Popen[bytes]", state: State) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(state.port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = "MiniStack ended" if ended else f"MiniStack gave no answer in {START_SECONDS} s"
            raise ToolError(what, Path(state.log).read_text(errors="replace")[-4000:])
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
                    f"MiniStack answers on {address}:{state.port}, which other machines may reach"
                )


def _outward_addresses() -> set[str]:
    found: set[str] = set()
    try:
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it picks the outward interface.
            probe.connect(("192.0.2.1", 9))
            found.add(probe.getsockname()[0])
        except OSError:
            pass
    return {address for address in found if "." in address and not address.startswith("127.")}


def _end(stage: Stage, state: State) -> None:
    for sign, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        members = list(_group(stage, state))
        for pid in members:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + patience
        while any(True for _ in _group(stage, state)) and time.monotonic() < deadline:
            _reap(state.pid)
            time.sleep(0.02)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _group(stage: Stage, state: State) -> Iterator[int]:
    """The processes of this emulator that are alive: of its group, and known to be its own."""
    for pid, group, command in _processes():
        if group != state.pid:
            continue
        if pid == state.pid and _started(pid) != state.started:
            continue
        if str(LAUNCHER) in command or str(stage.directory) in command:
            yield pid


def _processes() -> Iterator[tuple[int, int, str]]:
    """Pid, process group and command line of everything alive."""
    if not Path("/proc/self/stat").exists():
        yield from _processes_by_ps()
        return
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if status != "Z":
            yield int(folder.name), int(group), command


def _processes_by_ps() -> Iterator[tuple[int, int, str]]:
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,pgid=,stat=,args="],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in listing.stdout.splitlines():
        pid, group, status, *command = line.split(None, 3)
        if not status.startswith("Z"):
            yield int(pid), int(group), " ".join(command)


def _started(pid: int) -> str | None:
    """When a process began, to the kernel's precision where it tells; None if it is not there."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    done = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None
