"""Signals end a command cleanly, even if its terminal is closed."""

import errno
import fcntl
import io
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobplane.terminal import interrupts
from jobplane.terminal.console import Unread
from jobplane.tree.repository import Repository
from tests.workspace.leftovers import leftovers

ROOT = Repository.here().root


@pytest.fixture(autouse=True)
def hang_up_counts() -> Iterator[None]:
    """The tests may run under nohup, which their processes would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_second_signal_does_not_interrupt_the_clean_up(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts.as_keyboard_interrupt():
        try:
            signal.raise_signal(number)
        finally:
            for again in interrupts.SIGNALS:
                signal.raise_signal(again)
            steps.append("cleaned up")
    assert steps == ["cleaned up"]
    assert signal.getsignal(number) is before


def test_a_deferred_signal_is_delivered_after_the_block() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts.as_keyboard_interrupt():
        with interrupts.held():
            signal.raise_signal(signal.SIGHUP)
            steps.append("whole")
        steps.append("not reached")
    assert steps == ["whole"]


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.as_keyboard_interrupt():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


class Closed(io.StringIO):
    """A closed terminal."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_writing_to_a_closed_stream_is_no_error() -> None:
    unread = Unread(Closed())
    assert unread.write("unread") == 6
    unread.flush()
    assert unread.isatty() is False


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_up_stops_its_emulator_when_the_terminal_is_closed() -> None:
    stage = f"hang-up-{os.getpid()}"
    terminal, side = pty.openpty()

    process = subprocess.Popen(
        [sys.executable, "-m", "jobplane", "up", "--stage", stage],
        cwd=ROOT,
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(side, termios.TIOCSCTTY, 0),
    )
    os.close(side)
    seen = b""
    while b"deploying the stack" not in seen:
        seen += os.read(terminal, 4096)
    assert Path(ROOT, ".jobplane", stage).is_dir()
    os.close(terminal)
    assert process.wait(60) == 130
    assert leftovers(stage) == []
