"""The operations that this console drives, each in a thread."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Run:
    """An operation that this console drives, or drove."""

    stopped: threading.Event = field(default_factory=threading.Event)
    problem: str | None = None
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """By the row of its jobs."""
    thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class Runs:
    """The runs of this console, by operation."""

    def __init__(self) -> None:
        self._known: dict[str, Run] = {}
        self._lock = threading.Lock()

    def of(self, operation: str) -> Run | None:
        return self._known.get(operation)

    def begin(self, operation: str, drive: Callable[[Run], None]) -> Run:
        """Drive an operation in a thread, unless one does."""
        with self._lock:
            known = self._known.get(operation)
            if known is not None and known.is_alive:
                return known
            run = Run()
            run.thread = threading.Thread(target=drive, args=(run,), daemon=True)
            self._known[operation] = run
            run.thread.start()
            return run

    def stop(self, operation: str) -> None:
        """Stop driving an operation after its current step."""
        run = self._known.get(operation)
        if run is not None and run.thread is not None:
            run.stopped.set()
            run.thread.join()
