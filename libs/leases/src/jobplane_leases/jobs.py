"""A job under the lease of its request: the lease is renewed, progress and steps are stored."""

import contextvars
import json
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

from jobplane_keys import iso_time
from jobplane_leases._errors import LeaseLostError
from jobplane_leases._events import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_EVENT_BYTES,
    EventError,
    event_text,
)
from jobplane_leases._requests import (
    EVENT_ATTRIBUTES,
    STEP_ATTRIBUTES,
    Lease,
    RequestLease,
    store_events,
)
from jobplane_leases._steps import MAX_STEP_BYTES, MAX_STEPS, CallbackError, StepError, Steps
from jobplane_leases.callbacks import new_token, past_callbacks

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_STEPS",
    "MAX_STEP_BYTES",
    "STEP_ATTRIBUTES",
    "CallbackError",
    "EventError",
    "JobCancelledError",
    "JobFailedError",
    "JobTooLongError",
    "JobWaitsError",
    "LeasedJob",
    "OutOfTimeError",
    "Pace",
    "Progress",
    "SmallSteps",
    "StepError",
    "TransientError",
    "Worker",
]

MAX_TEXT_LENGTH = 1000
# How long an event waits for others of its batch.
FLUSH_SECONDS = 0.25
# How long results of small steps wait for others of their write.
STORE_SECONDS = 1.0
# To give a job back and take it again costs more than to keep a worker for so long.
WAIT_HERE_SECONDS = 5.0
_NO_STORE = (
    "The results of the steps do not fit into the request's row, and this worker has no store for"
    " objects: override put_object and get_object"
)

type Row = dict[str, Any]


class JobCancelledError(Exception):
    """The owner has cancelled the job."""


class JobFailedError(Exception):
    """The job fails, without another attempt; the text is for its sender."""


class OutOfTimeError(Exception):
    """The invocation's time is used up before the end of the job."""


class JobTooLongError(Exception):
    """The job takes longer than all its invocations together may."""


class JobWaitsError(Exception):
    """The job goes on at `until` (epoch seconds), by any worker; or when `callback`, which is open
    on its row, is answered.
    """

    def __init__(self, until: float, callback: Row | None = None) -> None:
        super().__init__(until)
        self.until = until
        self.callback = callback


class TransientError(Exception):
    """A failure after which another attempt may succeed."""


class Worker(Protocol):
    """What runs a job: its id is the owner of the lease."""

    @property
    def id(self) -> str:
        """The owner of the lease."""

    @property
    def deadline(self) -> float:
        """When its time ends, in epoch seconds."""

    def remaining(self) -> float:
        """The seconds until `deadline`."""

    def lease(self) -> Lease:
        """The longest lease that it may ask for now."""


class Pace(NamedTuple):
    """The seconds of a lease, between two writes of progress, and that a worker keeps in reserve
    to write the state of its job.
    """

    lease: float
    interval: float
    reserve: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A report of progress that is not yet written."""

    percentage: float
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class LeasedJob(ABC):
    """A request that a worker has leased: `row` is what `RequestLease.take` has returned.

    Within `with job:`, a separate thread writes progress (the first report, then the newest one,
    once an interval) and renews the lease; it waits for nothing else. The job's thread calls
    `report` or `check`, which raise an error when it must stop.

    `step` stores the results of functions, so that a later attempt does not run them again.

    A subclass has `payload`, and may override `pace`, `written`, `late`, `lost` and `failed`.
    Without its `put_object` and `get_object`, a step whose result is larger than 1 KB raises
    StepError.
    """

    def __init__(self, request: RequestLease, row: Row, invocation: Worker) -> None:
        progress = row.get("progress") or {}
        self.row = row
        self.request = request
        self.invocation = invocation
        self.seq: int = progress.get("seq", 0)
        self.subscribers: int = row.get("subscriber_count", 0)
        self.attempt = f"{row['attempts']}-{os.urandom(4).hex()}"
        """A name for what this attempt stores; no other attempt has it."""
        self.ends_at = math.inf
        """Until when the job may run, in epoch seconds, all its invocations together."""
        self.has_stored_step = False
        """Whether this attempt has stored the result of a step."""
        self._steps = Steps(row, self, self.attempt)
        self._callback_row = row
        self._counts: Row = {name: row[name] for name in EVENT_ATTRIBUTES if name in row}
        self._events: list[str] = []
        self._events_bytes = 0
        self._flush_at = math.inf
        self._flush_error: Exception | None = None
        # Held from a batch's write to its post, so that batches are posted in their order.
        self._flushing = threading.Lock()
        self._step: str | None = None
        self._longest_step = 0.0
        self._percentage: float = progress.get("percentage", 0.0)
        self._lease_until: int = row["lease_until"]
        self._pending: list[Progress] = []
        self._begun = False
        self._stop: Exception | None = None
        self._closing = False
        self._wake = threading.Condition()
        # The thread's log lines have the same ids.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._keep_safely,), daemon=True)

    @property
    def pace(self) -> Pace:
        """The times that it keeps to."""
        return Pace(lease=120, interval=0.5, reserve=10)

    @property
    def owner(self) -> str:
        """The owner of the request."""
        return str(self.row["owner"])

    @property
    def request_id(self) -> str:
        """The id of the request."""
        return str(self.row["request_id"])

    @property
    def percentage(self) -> float:
        """The progress that was reported last, 0 to 100."""
        return self._percentage

    @property
    def event_count(self) -> int:
        """How many events the job has emitted, by those of earlier attempts that are stored."""
        with self._flushing, self._wake:
            return int(self._counts.get("event_count", 0)) + len(self._events)

    @abstractmethod
    def payload(self) -> Row:
        """The client's payload, as the model of its action has accepted it."""

    def written(self, row: Row, progress: Progress | None) -> None:
        """Called in the job's second thread when progress was written, or the lease renewed."""

    def emitted(self, first: int, events: list[Any]) -> None:
        """Called when a batch of events was stored, with the number of its first one."""

    def late(self, error: Exception) -> None:
        """Called when a write has failed that will be repeated."""

    def lost(self) -> None:
        """Called when another worker has the request."""

    def failed(self, problem: str, error: Exception) -> None:
        """Called with what has failed in a thread of the job, to be logged."""

    def report(self, percentage: float, message: str, **metadata: Any) -> None:
        """Report the progress, 0 to 100; a smaller value than before changes nothing.

        Raises what `check` raises.
        """
        if not math.isfinite(percentage):
            percentage = self._percentage
        with self._wake:
            self._percentage = max(self._percentage, min(100.0, max(0.0, percentage)))
            message = message[:MAX_TEXT_LENGTH]
            progress = Progress(round(self._percentage, 2), message, metadata)
            # A newer report replaces a waiting one, but not the first.
            self._pending = [*(self._pending[:1] if not self._begun else []), progress]
            self._wake.notify_all()
        self.check()

    def emit(self, event: Any) -> None:
        """Send a JSON value to the job's listeners. All arrive, in their order.

        Events are stored before they are sent, several in one write: after a quarter of a
        second, when a batch is full, and before a step, a wait and the end. Those of an attempt
        that fails stay, and the next attempt's follow them: what is emitted within a step's
        function is emitted again only if the function runs again. Raises EventError,
        LeaseLostError, and what `check` raises.
        """
        text = event_text(event)
        size = len(text.encode()) + 1
        if self._events_bytes + size > MAX_BATCH_BYTES or len(self._events) >= MAX_BATCH_EVENTS:
            self.flush()
        with self._wake:
            if not self._events:
                self._flush_at = time.monotonic() + FLUSH_SECONDS
                self._wake.notify_all()
            self._events.append(text)
            self._events_bytes += size
        self.check()

    def flush(self) -> None:
        """Store the events that wait for others of their batch. Raises as `emit` does."""
        with self._flushing:
            with self._wake:
                texts, self._events = self._events, []
                self._events_bytes, self._flush_at = 0, math.inf
            # After a write that has failed, it is not known whether its events are stored.
            if self._flush_error is not None:
                raise self._flush_error
            if not texts:
                return
            owner = self.invocation.id
            try:
                self._counts = store_events(self.request, owner, self._counts, texts, time.time())
            except Exception as error:
                self._flush_error = error
                raise
            first = self._counts["event_count"] - len(texts) + 1
            self.emitted(first, [json.loads(text) for text in texts])

    def check(self) -> None:
        """Raise the error that ends the job or this attempt: cancelled, lease lost, or no time
        left.
        """
        if self._stop is not None:
            raise self._stop
        if time.time() >= self.ends_at:
            raise JobTooLongError
        if self.invocation.remaining() < self.pace.reserve:
            raise OutOfTimeError

    def sleep(self, seconds: float) -> None:
        """Wait. Raises what `check` raises as soon as the job must stop."""
        end = time.monotonic() + seconds
        with self._wake:
            while self._stop is None and (left := end - time.monotonic()) > 0:
                self._wake.wait(min(left, 1.0))
                if self.invocation.remaining() < self.pace.reserve:
                    break
        self.check()

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """Run `function` and store its result, a JSON value; if a step of this name is stored by an
        earlier attempt, return its result instead.

        Names are unique within a job, and steps are called one after the other, in the same order
        in each attempt. If the worker ends after the function and before its result is stored,
        the function runs again. Raises StepError, LeaseLostError, and what `check` raises.
        """
        return self._step_result(name, function)

    def small_steps(self, name: str, of: str = "") -> "SmallSteps":
        """Steps that are too small for a write each; `name` begins the names of those that are
        stored, and `of` says what they work on.
        """
        return SmallSteps(self, name, of)

    def wait(self, seconds: float = 0.0, *, until: float | None = None, name: str = "") -> None:
        """Let some seconds pass, or go on at `until` (epoch seconds), without a worker: the job is
        given back, and its next invocation goes on here.

        The wait is a step: `name` is by default `wait-` and its number among the steps. A wait of a
        few seconds keeps the worker. Raises JobWaitsError, which the action must let pass, and what
        `step` raises.
        """
        name = name or f"wait-{self._steps.number}"
        end = self.step(name, lambda: time.time() + seconds if until is None else until)
        left = end - time.time()
        if left > WAIT_HERE_SECONDS:
            raise JobWaitsError(min(end, self.ends_at))
        if left > 0:
            self.sleep(left)

    def callback(self, name: str, timeout: float, send: Callable[[str], Any]) -> Any:
        """Have an outside service or a person give the result of a step: call `send` with a token,
        and give the job back until the token is returned, or for `timeout` seconds.

        It goes on at once when the token is returned, and within a minute after the timeout. If the
        worker ends before the job is given back, `send` is called again, with a new token; the one
        before is over, unless it was returned. Raises CallbackError if an error was returned or
        the time is over, in each attempt; JobWaitsError, which the action must let pass, and what
        `step` raises.
        """
        outcome = self._step_result(name, lambda: self._answer(name, timeout, send), True)
        if "result" in outcome:
            return outcome["result"]
        if "error" in outcome:
            raise CallbackError(outcome["error"])
        raise CallbackError(f"The callback {name!r} was not returned in time", timed_out=True)

    def _answer(self, name: str, timeout: float, send: Callable[[str], Any]) -> Row:
        """What was returned, `{}` if the time is over. Raises JobWaitsError."""
        callback = self._callback_row.get("callback")
        if callback and callback["step"] != name:
            raise StepError(
                f"The callback {name!r} is called while {callback['step']!r} is open: the job's"
                " steps must have the same names in the same order in every attempt"
            )
        now = time.time()
        while "callback_answer" not in self._callback_row and not (callback and callback["sent"]):
            row = self._callback_row
            token, digest = new_token(self.owner, self.request_id)
            expires = callback["expires"] if callback else math.ceil(now + timeout)
            opened = {"step": name, "digest": digest, "expires": expires, "sent": False}
            changes = {"callback": opened, "callbacks_past": past_callbacks(row, used=False)}
            row = self.request.open_callback(self.invocation.id, row, changes, now)
            self._callback_row, callback = row, row.get("callback")
            if callback == opened:
                send(token)
                break
            # Otherwise an earlier attempt of this worker has opened one late.
        if answer := self._callback_row.get("callback_answer"):
            return dict(json.loads(answer))
        if callback is None or callback["expires"] <= time.time():
            return {}
        raise JobWaitsError(min(callback["expires"], self.ends_at), callback | {"sent": True})

    def _step_result(
        self, name: str, function: Callable[[], Any], is_callback: bool = False
    ) -> Any:
        if self._step is not None:
            raise StepError(
                f"Step {name!r} was called within step {self._step!r}; call one after the other"
            )
        entry, text = self._steps.find(name), None
        if entry is None:
            self.flush()
            self._check_time_for_step(self.has_stored_step)
            self._step = name
            try:
                entry, text = self._store_step(name, function, is_callback)
            finally:
                self._step = None
        self._steps.passed(name)
        return json.loads(self._steps.text_of(entry) if text is None else text)

    def _check_time_for_step(self, goes_on: bool) -> None:
        """What would not be done in time begins in the next invocation, if that goes on here."""
        self.check()
        needed = self.pace.reserve + self._longest_step
        if goes_on and self.invocation.remaining() < needed:
            raise OutOfTimeError

    def _store_step(
        self, name: str, function: Callable[[], Any], is_callback: bool
    ) -> tuple[Row, str | None]:
        """The stored entry of a step, and its text if it is that of this attempt."""
        entry = None
        while entry is None:  # a callback is answered while its timeout is stored
            began = time.monotonic()
            result = function()
            self.flush()
            self._longest_step = max(self._longest_step, time.monotonic() - began)
            try:
                text = json.dumps(
                    result, separators=(",", ":"), ensure_ascii=False, allow_nan=False
                )
                text.encode()
            except (TypeError, ValueError) as error:
                problem = f"The result of step {name!r} is not a JSON value: {error}"
                raise StepError(problem) from error
            changes = self._steps.with_step(name, text)
            ends: Row = {}
            if is_callback:
                ends["callbacks_past"] = past_callbacks(self._callback_row, used=bool(result))
            row = self.request.store_steps(
                self.invocation.id,
                changes | ends,
                time.time(),
                callback=("answered" if result else "unanswered") if is_callback else None,
                patient_until=min(self._lease_until, self.invocation.deadline - self.pace.reserve),
            )
            self._steps.accept(row)
            self._callback_row = row
            entry = self._steps.find(name)
        self.has_stored_step = True
        if row.get("cancel_requested"):
            self.halt(JobCancelledError())
        # Otherwise a write of an earlier attempt of this worker came late, and stands.
        is_mine = entry == changes["steps"][-1]
        return entry, text if is_mine else None

    def put_object(self, name: str, body: bytes) -> None:
        """Store an object of a step; no other attempt uses its name."""
        raise StepError(_NO_STORE)

    def get_object(self, name: str) -> bytes:
        """The content of an object of a step."""
        raise StepError(_NO_STORE)

    def halt(self, error: Exception) -> None:
        """Have the job's thread stop with this error, if it must not stop already."""
        with self._wake:
            self._stop = self._stop or error
            self._wake.notify_all()

    @contextmanager
    def every(
        self, seconds: float, action: Callable[[], None], *, at_once: bool = False
    ) -> Iterator[None]:
        """Call `action` every `seconds` within the block, in a thread of its own. LeaseLostError
        and JobCancelledError stop the job; others are handed to `failed`.
        """
        over = threading.Event()

        def repeat() -> None:
            wait = 0.0 if at_once else seconds
            while not over.wait(wait):
                wait = seconds
                try:
                    action()
                except (LeaseLostError, JobCancelledError) as error:
                    self.halt(error)
                    return
                except Exception as error:
                    self.failed("repeated action failed", error)

        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(repeat,), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Write the last progress and events, before the end is written."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()
        if isinstance(self._stop, LeaseLostError) or isinstance(error, LeaseLostError):
            return
        try:
            self.flush()
        except Exception as failure:
            # The next invocation would go on after events that are not stored.
            if error is None or isinstance(error, JobWaitsError | OutOfTimeError):
                raise
            self.failed("events could not be stored", failure)

    def _keep_safely(self) -> None:
        try:
            self._keep()
        except LeaseLostError as error:
            self.lost()
            self.halt(error)
        except EventError as error:
            self.halt(error)
        except Exception as error:
            self.failed("progress could not be written", error)
            self.halt(TransientError("progress could not be written"))

    def _keep(self) -> None:
        while True:
            with self._wake:
                while not (self._closing or self._pending or self._renewal_due()):
                    if (left := self._flush_at - time.monotonic()) <= 0:
                        break
                    self._wake.wait(min(1.0, self.pace.lease / 6, left))
                progress = self._pending.pop(0) if self._pending else None
                self._begun = self._begun or progress is not None
                closing = self._closing
            wait = self.pace.interval if progress else 0.0
            self._flush_if_due()
            if progress or (not closing and self._renewal_due()):
                try:
                    self._write(progress)
                except LeaseLostError:
                    raise
                except Exception as error:
                    if time.time() > self._lease_until - self.pace.lease / 6:
                        raise
                    self.late(error)
                    wait = 2 * self.pace.interval
                    with self._wake:
                        if progress and not (self._pending or self._closing):
                            self._pending = [progress]
            if closing and not self._pending:
                return
            with self._wake:
                self._wake.wait_for(lambda: self._closing, wait)

    def _flush_if_due(self) -> None:
        if time.monotonic() >= self._flush_at:
            self.flush()

    def _renewal_due(self) -> bool:
        # Near its deadline, a worker can't get a longer lease.
        return self.invocation.lease().until - self._lease_until >= self.pace.lease / 2

    def _write(self, progress: Progress | None) -> None:
        # An end of the lease that moves costs two writes of the index `in-flight` as well.
        lease, extend = self.invocation.lease(), self._renewal_due()
        stored = None
        if progress:
            self.seq += 1
            stored = {
                "seq": self.seq,
                "percentage": progress.percentage,
                "message": progress.message,
                "at": iso_time(time.time()),
            }
        row = self.request.renew(lease, time.time(), stored, extend=extend)
        if extend:
            self._lease_until = lease.until
        self.subscribers = row.get("subscriber_count", 0)
        self.written(row, progress)
        if row.get("cancel_requested"):
            self.halt(JobCancelledError())


class SmallSteps:
    """Steps of a job whose results are stored together, about once a second, as one step.

        with job.small_steps("files", of="sha256") as small:
            hashes = [small.run(partial(hash_of, file)) for file in files]

    They are called in the same order in each attempt, and no other step in between. A later attempt
    gets what was stored for the same `of`, and goes on with the first one without a result. When
    the worker's time is up, all results so far are stored; a worker that is killed loses those of
    the last second.
    """

    def __init__(self, job: LeasedJob, name: str, of: str) -> None:
        self._job, self._name, self._of = job, name, of
        self._results: list[Any] = []
        self._passed = self._stored = 0
        self._number = 1
        steps = job._steps
        while (entry := steps.upcoming()) and entry["name"] == self._step_name:
            stored = json.loads(steps.text_of(entry))
            first = stored["first"]
            # A late write of an earlier attempt may have taken the place of one with more results.
            if stored["of"] == of and first <= len(self._results):
                self._results[first:] = stored["results"]
            steps.passed(self._step_name)
            self._number += 1
        self._stored = len(self._results)
        self._stored_at = time.monotonic()

    @property
    def is_behind(self) -> bool:
        """Whether the next step has a result of an earlier attempt."""
        return self._passed < len(self._results)

    def run(self, function: Callable[[], Any]) -> Any:
        """The result of the next step, a JSON value: as it is stored, or of `function`.

        Raises what `LeasedJob.step` raises.
        """
        if not self.is_behind:
            job, has_more = self._job, len(self._results) > self._stored
            job._check_time_for_step(goes_on=job.has_stored_step or has_more)
            began = time.monotonic()
            self._results.append(function())
            job._longest_step = max(job._longest_step, time.monotonic() - began)
            if time.monotonic() - self._stored_at >= STORE_SECONDS:
                self._store()
        self._passed += 1
        return self._results[self._passed - 1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OutOfTimeError):
            self._store()

    @property
    def _step_name(self) -> str:
        return f"{self._name}-{self._number}"

    def _store(self) -> None:
        if self._stored == len(self._results):
            return
        results = {"of": self._of, "first": self._stored, "results": self._results[self._stored :]}
        name, steps = self._step_name, self._job._steps
        if steps.find(name) is None:
            self._job._store_step(name, lambda: results, is_callback=False)
        steps.passed(name)
        self._number += 1
        self._stored, self._stored_at = len(self._results), time.monotonic()
