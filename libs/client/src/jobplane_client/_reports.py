"""What a job tells its request: progress and events, sent by a thread of their own."""

import json
import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from jobplane_client._errors import FunctionError
from jobplane_client._jobs import Clock

MAX_MESSAGE = 1000
MAX_EVENT_BYTES = 30 * 1024
# What the function report-job takes at a time.
MAX_BATCH_BYTES = 31 * 1024
MAX_BATCH_EVENTS = 500
# So many events may wait; `emit` waits for room.
MAX_WAITING = 5000
# Between two reports.
PAUSE_SECONDS = 0.5
# How long the end of a job waits for what it has told.
FLUSH_SECONDS = 30.0
_RETRY_SECONDS = 15.0

logger = logging.getLogger("jobplane_client.worker")


class Reports:
    """The reports of one job. `send` makes one, and returns the answer of report-job.

    The newest progress replaces what still waits; events are all sent, in order. A report that
    fails is repeated, and stores nothing twice. `refused` is called when another worker has the
    job, or its request has ended: then nothing more is sent.
    """

    def __init__(
        self, clock: Clock, send: Callable[[Mapping[str, Any]], Any], refused: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._send = send
        self._refused = refused
        self._changed = threading.Condition()
        self._progress: tuple[float, str] | None = None
        self._events: list[tuple[Any, int]] = []
        self._count: int | None = None
        """How many events the request has; unknown until the first answer."""
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._is_over = False

    def report(self, percentage: float, message: str) -> None:
        """Tell the progress, 0 to 100. Does not wait."""
        if not math.isfinite(percentage):
            raise ValueError("percentage: a number from 0 to 100 is required")
        with self._changed:
            self._progress = (min(100.0, max(0.0, percentage)), message[:MAX_MESSAGE])
            self._begin()

    def emit(self, event: Any) -> None:
        """Send a JSON value to the listeners. Waits only while thousands of others wait.

        Raises ValueError for a value that is not JSON, or has more than 30 KB.
        """
        try:
            text = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            size = len(text.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the event is not a JSON value: {error}") from error
        if size > MAX_EVENT_BYTES:
            raise ValueError(f"the event has {size} bytes of JSON, at most {MAX_EVENT_BYTES} fit")
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) < MAX_WAITING or self._is_over)
            # A copy: later changes of the value have no effect.
            self._events.append((json.loads(text), size))
            self._begin()

    def close(self) -> None:
        """Send what waits, for half a minute at most, and end."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(FLUSH_SECONDS)
        self.drop()

    def drop(self) -> None:
        """Send nothing more."""
        with self._changed:
            self._is_over = True
            self._progress, self._events = None, []
            self._changed.notify_all()
        self._closing.set()

    def _begin(self) -> None:
        self._changed.notify_all()
        if self._thread is None and not self._is_over:
            self._thread = threading.Thread(target=self._run, name="jobplane-reports", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        failures = 0
        while (report := self._next()) is not None:
            try:
                answer = self._send(report)
            except Exception as error:
                if isinstance(error, FunctionError) and error.error_type == "ValidationError":
                    logger.error("a report is dropped: %s", error)
                    self._sent(report)
                    continue
                failures += 1
                logger.warning("a report failed, and will be repeated: %s", error)
                seconds = min(_RETRY_SECONDS, 2.0**failures)
                self._clock.wait(threading.Event(), seconds)
                continue
            if not answer.get("accepted"):
                self.drop()
                self._refused()
                return
            self._count = int(answer["eventCount"])
            self._sent(report)
            failures = 0
            self._clock.wait(self._closing, PAUSE_SECONDS)

    def _next(self) -> dict[str, Any] | None:
        """The next report; None when nothing more is to be sent."""
        while True:
            with self._changed:
                if self._is_over:
                    return None
                report: dict[str, Any] = {}
                if self._progress is not None:
                    report = {"percentage": self._progress[0], "message": self._progress[1]}
                if self._events and self._count is not None:
                    report |= {"events": self._batch(), "after": self._count}
                if report or self._events:
                    # Without progress and a known number of events, one that asks for it.
                    return report
                if self._closing.is_set():
                    return None
                self._changed.wait()

    def _batch(self) -> list[Any]:
        size, batch = 0, list[Any]()
        for event, length in self._events[:MAX_BATCH_EVENTS]:
            size += length
            if size > MAX_BATCH_BYTES:
                break
            batch.append(event)
        return batch

    def _sent(self, report: Mapping[str, Any]) -> None:
        with self._changed:
            if self._progress == (report.get("percentage"), report.get("message")):
                self._progress = None
            del self._events[: len(report.get("events", ()))]
            self._changed.notify_all()
