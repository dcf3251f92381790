"""Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, and hold them back in a block."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def as_keyboard_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt for the first signal; ignore later ones during clean-up."""

    def interrupt(_number: int, _frame: object) -> None:
        for number in _heard():
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Hold a signal back until the block has ended."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)

    with _handled_by(note):
        yield
    for number in received:
        signal.raise_signal(number)


@contextmanager
def _handled_by(handler: "signal._HANDLER") -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in _heard()}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


def _heard() -> list[signal.Signals]:
    """The three signals, without SIGHUP if `nohup` ignores it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if not (ignored and number is signal.SIGHUP)]
