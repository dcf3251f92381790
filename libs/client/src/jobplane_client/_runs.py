"""One job in a worker, from its start to its end.

Two threads work on it. One runs the handler. The other, the keeper, sends heartbeats, renews the
claim, extends the visibility of the messages, and ends the grace period. The thread that first
decides how the job ended (once, under the lock) reports it.
"""

import json
import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from jobplane_client._errors import (
    ClaimLostError,
    ResultNotJsonError,
    ResultNotStoredError,
    ResultTooLargeError,
    WorkerStoppedError,
)
from jobplane_client._jobs import Clock, FollowUp, Interrupt, Job, JobEnd, StopReason
from jobplane_client._worker_calls import (
    Claims,
    ObjectPlace,
    Objects,
    Queue,
    Received,
    TaskOverError,
    Tasks,
    error_code,
)

# Limits of Step Functions: bytes of an output, characters of an error and of its cause. Here and
# in record-interruption the cause is counted in bytes.
MAX_RESULT = 256 * 1024
# A larger result is stored in S3, if the job names a place: the flow adds ids to its output.
MAX_REPORTED_RESULT = 255 * 1024
MAX_ERROR = 256
MAX_CAUSE = 32 * 1024

PREEMPTED = "PREEMPTED"
HEARTBEAT_SECONDS = 30.0
_WORDS = {
    JobEnd.COMPLETED: "completed",
    JobEnd.FAILED: "failed",
    JobEnd.INTERRUPTED: "preempted",
    JobEnd.STOPPED: "stopped",
}
_REPORT_DELAYS = (1, 2, 4, 8, 15, 30, 30, 30, 30)
_DELAYS = (1, 2, 4)
_RANKS = tuple(StopReason)

logger = logging.getLogger("jobplane_client.worker")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended, and what to report. A lost job without an error is not reported."""

    end: JobEnd
    output: str = ""
    error: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What all jobs of a worker share. `finish` deletes a message."""

    clock: Clock
    tasks: Tasks
    claims: Claims
    objects: Objects
    inbox: Queue
    finish: Callable[[Received], None]
    on_grace_exceeded: Callable[[Job], None] | None
    grace_seconds: float
    visibility_seconds: int
    tracebacks: bool


@dataclass(slots=True)
class _RepeatedCall:
    """A call that is repeated every `period` seconds, and sooner after a failure."""

    act: Callable[[], None]
    period: float
    due: float
    failures: int = field(default=0)

    def perform(self, now: float) -> None:
        try:
            self.act()
        except (TaskOverError, ClaimLostError):
            self.due = now + self.period
            raise
        except Exception:
            self.failures += 1
            self.due = now + min(self.period, 2.0**self.failures)
            raise
        self.failures = 0
        self.due = now + self.period


class Run:
    """A job that a worker has begun.

    `token` is None for a follow-up that became a job. `result_place` is where to store a large
    result, None to report it whole. `lease` is the moment of the monotonic clock until which the
    claim is certainly valid.
    """

    def __init__(
        self,
        context: WorkerContext,
        received: Received,
        job: Job,
        *,
        token: str | None,
        heartbeat_seconds: float,
        claim_ttl: int,
        lease: float,
        result_place: ObjectPlace | None = None,
    ) -> None:
        self.job = job
        self.over = threading.Event()
        self.returned = threading.Event()
        self.end: JobEnd | None = None
        self._context = context
        self._clock = context.clock
        self._received = received
        self._token = token
        self._claim_ttl = claim_ttl
        self._lease = lease
        self._result_place = result_place
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending: Ending | None = None
        self._grace_ends: float | None = None
        self._abandoned = False
        self._waiting: list[tuple[Received, FollowUp]] = []
        self._taken: list[Received] = []
        now = self._clock.monotonic()
        self._renewal = _RepeatedCall(self._renew, claim_ttl / 3, now + claim_ttl / 3)
        visible = context.visibility_seconds / 3
        self._calls = [self._renewal, _RepeatedCall(self._extend, visible, now + visible)]
        if token is not None:
            beat = min(HEARTBEAT_SECONDS, heartbeat_seconds / 3)
            self._calls.insert(0, _RepeatedCall(self._beat, beat, now + beat))

    def start(self, handler: Callable[[Job], Any]) -> None:
        """Start the threads of the handler and of the keeper."""
        for name, target in (("keeper", self._keep), ("handler", lambda: self._work(handler))):
            name = f"jobplane-{name}-{self.job.message_id}"
            threading.Thread(target=target, name=name, daemon=True).start()

    @property
    def ending(self) -> bool:
        """Whether it is decided how the job ended."""
        return self._ending is not None

    # Called from any thread.

    def interrupt(self, interrupt: Interrupt) -> bool:
        """Signal the handler to stop for another thread; False if it had ended or was signalled."""
        return self._signal(StopReason.INTERRUPT, interrupt.reason or "interrupted", interrupt)

    def stop(self) -> bool:
        """Signal the handler that the worker stops; False if it had ended or was signalled."""
        return self._signal(StopReason.STOPPING, "the worker is stopping", None)

    def verify(self) -> None:
        """Renew the claim now, because it may be lost."""
        self._renewal.due = self._clock.monotonic()
        self._wake.set()

    def offer(self, received: Received, follow_up: FollowUp | None) -> bool:
        """Accept a message if it is for this job, and return whether it is.

        It is if it belongs to the job's thread, or is a repeated delivery of a message that the
        job already has.
        """
        with self._lock:
            if self._ending is not None:
                return False
            for known in self._messages():
                if known.id == received.id:
                    known.receipt = received.receipt
                    return True
            if follow_up is None or follow_up.thread_id != self.job.thread_id:
                return False
            self._waiting.append((received, follow_up))
            return True

    def take(self) -> list[FollowUp]:
        """Return the follow-ups that arrived, and delete those that the last call returned."""
        with self._lock:
            if self._ending is not None:
                return []
            done, self._taken = self._taken, [received for received, _ in self._waiting]
            joined = [follow_up for _, follow_up in self._waiting]
            self._waiting = []
        for received in done:
            self._context.finish(received)
        return joined

    # The handler's thread.

    def _work(self, handler: Callable[[Job], Any]) -> None:
        value, error = None, None
        try:
            value = handler(self.job)
        except BaseException as caught:  # the flow must receive every kind of failure
            error = caught
        with self._lock:
            self.returned.set()
            mine = self._ending is None
            if mine:
                self._ending = self._ending_of(value, error)
        self._wake.set()
        if mine:
            self._settle()

    def _ending_of(self, value: Any, error: BaseException | None) -> Ending:
        if self.job.cancelled.is_set():
            return self._ending_after_stop_signal(value)
        if error is not None:
            return failure(error, tracebacks=self._context.tracebacks)
        try:
            return Ending(JobEnd.COMPLETED, output=result_json(value))
        except (ResultTooLargeError, ResultNotJsonError) as unfit:
            return failure(unfit)

    def _ending_after_stop_signal(self, value: Any) -> Ending:
        """The ending of a handler that returned after a stop signal.

        It may have stopped half-way, so its return value is partial work, not a result.
        """
        partial = self.job.partial_work
        partial = value if partial is None else partial
        interrupt = self.job.cancelled.interrupt
        if interrupt is not None:
            return Ending(
                JobEnd.INTERRUPTED, error=PREEMPTED, cause=preemption_json(interrupt, partial)
            )
        return replace(
            failure(WorkerStoppedError("the worker was stopped before the job ended")),
            end=JobEnd.STOPPED,
        )

    # The keeper's thread.

    def _keep(self) -> None:
        while True:
            self._wake.clear()
            if self.over.is_set() and (self.returned.is_set() or self._abandoned):
                return
            now = self._clock.monotonic()
            for call in self._calls:
                if call.due <= now and not self.over.is_set():
                    self._perform(call, now)
            if now >= self._lease:
                self._lose_claim("expired")
            if self._grace_ends is not None and now >= self._grace_ends:
                self._abandon()
            if (rest := self._next_moment() - self._clock.monotonic()) > 0:
                self._clock.wait(self._wake, rest)

    def _next_moment(self) -> float:
        if not self.over.is_set():
            moments = [call.due for call in self._calls]
            if self._ending is None:
                moments.append(self._lease)
        else:
            moments = []
        if self._grace_ends is not None and not self._abandoned:
            moments.append(self._grace_ends)
        return min(moments, default=0)

    def _perform(self, call: _RepeatedCall, now: float) -> None:
        try:
            call.perform(now)
        except TaskOverError as error:
            self._lose(error.code, Ending(JobEnd.LOST))
        except ClaimLostError as error:
            self._lose_claim(error.reason)
        except Exception as error:
            # The job may have ended during the call.
            level = logging.DEBUG if self._ending is not None else logging.WARNING
            logger.log(
                level,
                "job %s: a heartbeat or renewal failed, and will be repeated: %s",
                self.job.message_id,
                error,
            )

    def _beat(self) -> None:
        if self._token is not None:
            self._context.tasks.heartbeat(self._token)

    def _renew(self) -> None:
        asked = self._clock.monotonic()
        job = self.job
        job.expires_at = self._context.claims.renew(job.claim_id, job.fence, self._claim_ttl)
        self._lease = asked + self._claim_ttl

    def _extend(self) -> None:
        with self._lock:
            messages = self._messages()
        faults = []
        for received in messages:
            try:
                self._context.inbox.keep(received, self._context.visibility_seconds)
            except Exception as error:
                faults.append(error)
        if faults:
            raise faults[0]

    def _lose_claim(self, reason: str) -> None:
        lost = ClaimLostError(self.job.claim_id, self.job.fence, reason)
        self._lose(reason, replace(failure(lost), end=JobEnd.LOST))

    def _lose(self, detail: str, ending: Ending) -> None:
        with self._lock:
            if self._ending is not None:
                return
            self._ending = ending
            self._grace_ends = self._clock.monotonic() + self._context.grace_seconds
            self.job.cancelled.give(StopReason.LOST, detail)
        self._settle()

    def _abandon(self) -> None:
        with self._lock:
            if self.returned.is_set() or self._abandoned:
                self._abandoned = True
                return
            self._abandoned = True
            mine = self._ending is None
            if mine:
                self._ending = self._ending_after_stop_signal(None)
        if mine:
            self._settle()
        logger.error("job %s: the handler still runs after its grace period", self.job.message_id)
        if self._context.on_grace_exceeded is not None:
            try:
                self._context.on_grace_exceeded(self.job)
            except Exception:
                logger.exception("job %s: on_grace_exceeded failed", self.job.message_id)

    # Either thread.

    def _signal(self, reason: StopReason, detail: str, interrupt: Interrupt | None) -> bool:
        with self._lock:
            given = self.job.cancelled.reason
            if self._ending is not None:
                return False
            if given is not None and _RANKS.index(given) >= _RANKS.index(reason):
                return False
            if self._grace_ends is None:
                self._grace_ends = self._clock.monotonic() + self._context.grace_seconds
            self.job.cancelled.give(reason, detail, interrupt)
        self._wake.set()
        return True

    def _messages(self) -> list[Received]:
        return [self._received, *self._taken, *(received for received, _ in self._waiting)]

    def _settle(self) -> None:
        """Report the end, then delete or return the messages, in the order of the queue."""
        ending = self._ending
        assert ending is not None
        try:
            self.end = self._report_to_flow(ending) if self._token else self._release_claim(ending)
            again = self.end in {JobEnd.LOST, JobEnd.STOPPED, JobEnd.UNREPORTED}
            if self.end is not JobEnd.UNREPORTED:
                if again and self._token is None:
                    self._give_back(self._received)
                else:
                    self._context.finish(self._received)
            for received in self._taken:
                if again:
                    self._give_back(received)
                else:
                    self._context.finish(received)
            for received, _ in self._waiting:
                self._give_back(received)
            logger.info("job %s: %s", self.job.message_id, self.end)
        finally:
            self.over.set()
            self._wake.set()

    def _report_to_flow(self, ending: Ending) -> JobEnd:
        assert self._token is not None
        if ending.end is JobEnd.LOST and not ending.error:
            return JobEnd.LOST
        return report_end(
            self._context.tasks, self._clock, self._token, self._with_stored_result(ending)
        )

    def _with_stored_result(self, ending: Ending) -> Ending:
        """The ending with a large result stored in S3 and replaced by its place."""
        place = self._result_place
        if place is None or len(ending.output.encode()) <= MAX_REPORTED_RESULT:
            return ending
        if not attempt(self._clock, lambda: self._context.objects.put_result(place, ending.output)):
            return failure(ResultNotStoredError(str(place)))
        stored = {"bucket": place.bucket, "key": place.key}
        return replace(ending, output=_json({"resultObject": stored}))

    def _release_claim(self, ending: Ending) -> JobEnd:
        """End a job without an execution: log a failure and release the claim."""
        job = self.job
        if ending.end is JobEnd.FAILED:
            logger.error("job %s failed: %s: %s", job.message_id, ending.error, ending.cause)
        if ending.end is not JobEnd.LOST:
            reason = _WORDS[ending.end]
            attempt(
                self._clock, lambda: self._context.claims.release(job.claim_id, job.fence, reason)
            )
        return ending.end

    def _give_back(self, received: Received) -> None:
        attempt(self._clock, lambda: self._context.inbox.keep(received, 0))


def report_end(tasks: Tasks, clock: Clock, token: str, ending: Ending) -> JobEnd:
    """Report the end of a job to Step Functions, and return how it ended.

    It is lost if the task has ended before the first report. If the task has ended before a
    later one, an earlier report may have arrived.
    """
    for number, delay in enumerate((*_REPORT_DELAYS, None)):
        try:
            if ending.end is JobEnd.COMPLETED:
                tasks.succeed(token, ending.output)
            else:
                tasks.fail(token, ending.error, ending.cause)
            return ending.end
        except TaskOverError as error:
            logger.warning("the task had ended before the report: %s", error.code)
            return ending.end if number else JobEnd.LOST
        except Exception as error:
            logger.warning("the report failed, and will be repeated: %s", error)
            if error_code(error) == "InvalidOutput":
                ending = failure(ResultNotJsonError(f"Step Functions refused the result: {error}"))
        if delay is not None:
            clock.wait(threading.Event(), delay)
    return JobEnd.UNREPORTED


def attempt(clock: Clock, call: Callable[[], None]) -> bool:
    """Make a call up to four times; return whether it succeeded."""
    for delay in (*_DELAYS, None):
        try:
            call()
            return True
        except Exception as error:
            logger.warning("a call failed: %s", error)
        if delay is not None:
            clock.wait(threading.Event(), delay)
    return False


def result_json(value: Any) -> str:
    """A handler's result for Step Functions. Raises ResultNotJsonError, ResultTooLargeError."""
    try:
        text = _json(value)
    except Exception as error:  # a mapping class of the handler may raise anything
        raise ResultNotJsonError(f"the result is not valid JSON: {error}") from error
    if (size := len(text.encode())) > MAX_RESULT:
        raise ResultTooLargeError(size, MAX_RESULT)
    return text


def failure(error: BaseException, *, tracebacks: bool = False) -> Ending:
    """The ending of a failed job: the class and the message of its error."""
    name = type(error).__name__
    try:
        cause = str(error) or name
    except Exception:  # an error whose str() fails
        cause = name
    if tracebacks:
        cause = "".join(traceback.format_exception(error))
    return Ending(JobEnd.FAILED, error=name[:MAX_ERROR], cause=_shortened(cause, MAX_CAUSE))


def preemption_json(interrupt: Interrupt, partial: Any) -> str:
    """The cause of PREEMPTED. Partial work that is too large is cut, and becomes a text."""
    cause = {
        "interruptId": interrupt.id,
        "interruptingMessageId": interrupt.message_id,
        "newThreadId": interrupt.new_thread_id,
    }
    try:
        work = _json(partial)
    except Exception:  # a mapping class of the handler may raise anything
        work = "null"
    whole = _json(cause | {"partial": json.loads(work)})
    size = MAX_CAUSE
    while len(whole.encode()) > MAX_CAUSE:
        size //= 2
        whole = _json(cause | {"partial": _shortened(work, size)})
    return whole


def _json(value: Any) -> str:
    # Half a surrogate pair can't be encoded; it becomes a question mark.
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def _shortened(text: str, limit: int) -> str:
    """The text, cut to at most `limit` bytes; a text that was cut ends in dots."""
    raw = text.encode(errors="replace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 3].decode(errors="ignore") + "..."
