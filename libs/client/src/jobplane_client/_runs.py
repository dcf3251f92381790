"""One job in a worker, from its start to its end.

One thread runs the handler. The keeper has four: for heartbeats, for the claim, for the visibility
of the messages, and for the ends of the claim and of the grace period, so that none of them waits
for another one's service. The thread that first decides how the job ended (once, under the lock)
reports it.
"""

import functools
import json
import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jobplane_client._errors import (
    ClaimLostError,
    ResultNotJsonError,
    ResultNotStoredError,
    ResultTooLargeError,
)
from jobplane_client._jobs import Clock, FollowUp, Interrupt, Job, JobEnd, StopReason
from jobplane_client._reports import Reports
from jobplane_client._worker_calls import (
    Claims,
    Listening,
    Objects,
    Queue,
    Received,
    ResultPlace,
    Taker,
    TaskOverError,
    Tasks,
    error_code,
    is_stale_receipt,
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
PREEMPTED_SECONDS = 30
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
    interrupts: Queue
    finish: Callable[[Received], None]
    on_grace_exceeded: Callable[[Job], None] | None
    grace_seconds: float
    visibility_seconds: int
    tracebacks: bool


class _RepeatedCall:
    """A call that is repeated every `period` seconds, and sooner after a failure.

    Each has a thread of its own, so that none waits for another one's service.
    """

    def __init__(self, name: str, act: Callable[[], None], period: float, due: float) -> None:
        self.name = name
        self.due = due
        self.wake = threading.Event()
        self._act = act
        self._period = period
        self._failures = 0

    def perform(self, now: float) -> None:
        self.due = now + self._period
        try:
            self._act()
        except (TaskOverError, ClaimLostError):
            raise
        except Exception:
            self._failures += 1
            self.due = now + min(self._period, 2.0**self._failures)
            raise
        self._failures = 0

    def hasten(self, now: float) -> None:
        """Make the call now."""
        self.due = now
        self.wake.set()


class Run:
    """A job that a worker has begun.

    `token` is None for a follow-up that became a job. `result_place` is where to store a large
    result, None to report it whole. `lease` is the moment of the monotonic clock until which the
    claim is certainly valid, and `certain_until` the one until which no other worker can have taken
    the job over: its message is invisible, or the claim function refuses. `first_fence` is the
    claim's, before any worker took its job over.
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
        taker: Taker,
        certain_until: float,
        first_fence: int,
        result_place: ResultPlace | None = None,
        listening: Listening | None = None,
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
        self._taker = taker
        self._certain_until = certain_until
        self._first_fence = first_fence
        self._is_taken = False
        self._result_place = result_place
        self._reports: Reports | None = None
        if listening is not None:
            send = functools.partial(context.claims.report, listening, job.claim_id, job.fence)
            self._reports = Reports(context.clock, send, self.verify)
        self._handing_over = False
        # Held by a renewal, and while messages are hidden: neither follows a hand-over.
        self._renewing, self._hiding = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending: Ending | None = None
        self._grace_ends: float | None = None
        self._abandoned = False
        self._waiting: list[tuple[Received, FollowUp]] = []
        self._taken: list[Received] = []
        self._interrupts: list[Received] = []
        now = self._clock.monotonic()
        visible = context.visibility_seconds / 3
        renewed = min(claim_ttl / 3, visible)
        self._renewal = _RepeatedCall("renewal", self._renew, renewed, now + renewed)
        extension = _RepeatedCall("visibility", self._extend, visible, now + visible)
        self._calls = [self._renewal, extension]
        if token is not None:
            beat = min(HEARTBEAT_SECONDS, heartbeat_seconds / 3)
            self._calls.insert(0, _RepeatedCall("heartbeat", self._beat, beat, now + beat))

    def start(self, handler: Callable[[Job], Any]) -> None:
        """Start the threads of the handler and of the keeper."""
        for call in self._calls:
            self._start_thread(f"keeper-{call.name}", functools.partial(self._repeat, call))
        self._start_thread("keeper", self._watch)
        self._start_thread("handler", lambda: self._work(handler))

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        name = f"jobplane-{name}-{self.job.message_id}"
        threading.Thread(target=target, name=name, daemon=True).start()

    @property
    def ending(self) -> bool:
        """Whether it is decided how the job ended."""
        return self._ending is not None

    @property
    def _is_open(self) -> bool:
        """Whether the job goes on after this worker's end: its message comes again, or another
        worker has it.
        """
        return self.end in {JobEnd.UNREPORTED, JobEnd.STOPPED} or self._is_taken

    # Called from any thread.

    def is_meant(self, claim_id: str, fence: int) -> bool:
        """Whether an interrupt is for this job; its worker may have changed since it was sent."""
        return claim_id == self.job.claim_id and self._first_fence <= fence <= self.job.fence

    def interrupt(self, interrupt: Interrupt, received: Received) -> bool:
        """Signal the handler to stop for another thread.

        Return whether the message must stay until the job has ended: if this worker breaks off,
        the next one that takes the job over receives it.
        """
        reason = interrupt.reason or "interrupted"
        if self._signal(StopReason.INTERRUPT, reason, interrupt, received):
            logger.info("job %s: interrupted by %s", self.job.message_id, interrupt.message_id)
            return True
        with self._lock:
            for known in self._interrupts:
                if known.id == received.id:
                    known.receipt = received.receipt
                    return True
            if self._ending is None:
                # Another interrupt came first.
                return False
            if self.end is None:
                # The end may yet remain unreported.
                self._interrupts.append(received)
                return True
            return self._is_open

    def stop(self) -> bool:
        """Signal the handler that the worker stops; False if it had ended or was signalled."""
        return self._signal(StopReason.STOPPING, "the worker is stopping")

    def verify(self) -> None:
        """Renew the claim now, because it may be lost."""
        self._renewal.hasten(self._clock.monotonic())

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
                    # Another worker may have had it in between.
                    self.verify()
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

    def report(self, percentage: float, message: str) -> None:
        """Report the progress of a job that a request has."""
        if self._reports is not None:
            self._reports.report(percentage, message)

    def emit(self, event: Any) -> None:
        """Send an event of a job that a request has."""
        if self._reports is not None:
            self._reports.emit(event)

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
        return Ending(JobEnd.STOPPED)

    # The keeper's threads.

    def _repeat(self, call: _RepeatedCall) -> None:
        while not self.over.is_set():
            call.wake.clear()
            now = self._clock.monotonic()
            if call.due > now:
                self._clock.wait(call.wake, call.due - now)
                continue
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
                    "job %s: a %s failed, and will be repeated: %s",
                    self.job.message_id,
                    call.name,
                    error,
                )

    def _watch(self) -> None:
        """Wait for the end of the claim and of the grace period."""
        while True:
            self._wake.clear()
            if self.over.is_set() and (self.returned.is_set() or self._abandoned):
                return
            now = self._clock.monotonic()
            if now >= self._lease:
                self._lose_claim("expired")
            if self._grace_ends is not None and now >= self._grace_ends:
                self._abandon()
            moments = [] if self._ending is not None else [self._lease]
            if self._grace_ends is not None and not self._abandoned:
                moments.append(self._grace_ends)
            rest = min(moments) - self._clock.monotonic() if moments else None
            if rest is None or rest > 0:
                self._clock.wait(self._wake, rest)

    def _beat(self) -> None:
        if self._token is not None:
            self._context.tasks.heartbeat(self._token)

    def _renew(self) -> None:
        job = self.job
        with self._renewing:
            if self._handing_over:
                return
            asked = self._clock.monotonic()
            job.expires_at = self._context.claims.renew(
                job.claim_id, job.fence, self._claim_ttl, self._taker
            )
        self._lease = asked + self._claim_ttl
        self._be_certain_until(asked + self._taker.seconds)

    def _be_certain_until(self, moment: float) -> None:
        self._certain_until = max(self._certain_until, moment)

    def _extend(self) -> None:
        with self._lock:
            messages = self._messages()
        faults = []
        for received in messages:
            asked = self._clock.monotonic()
            try:
                with self._hiding:
                    if self._handing_over:
                        return
                    self._context.inbox.keep(received, self._context.visibility_seconds)
            except Exception as error:
                faults.append(error)
                if received is self._received and is_stale_receipt(error):
                    self.verify()
            else:
                if received is self._received:
                    self._be_certain_until(asked + self._context.visibility_seconds)
        if faults:
            raise faults[0]

    def _lose_claim(self, reason: str) -> None:
        if reason == "taken":
            # The other worker has the same token: what is reported ends its work.
            self._is_taken = True
            self._lose(reason, Ending(JobEnd.LOST))
        else:
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

    def _signal(
        self,
        reason: StopReason,
        detail: str,
        interrupt: Interrupt | None = None,
        received: Received | None = None,
    ) -> bool:
        with self._lock:
            given = self.job.cancelled.reason
            if self._ending is not None:
                return False
            if given is not None and _RANKS.index(given) >= _RANKS.index(reason):
                return False
            if self._grace_ends is None:
                self._grace_ends = self._clock.monotonic() + self._context.grace_seconds
            self.job.cancelled.give(reason, detail, interrupt)
            if received is not None:
                self._interrupts.append(received)
        self._wake.set()
        return True

    def _messages(self) -> list[Received]:
        return [self._received, *self._taken, *(received for received, _ in self._waiting)]

    def _settle(self) -> None:
        """Report the end, then delete or return the messages, in the order of the queue."""
        ending = self._ending
        assert ending is not None
        try:
            if self._reports is not None:
                if ending.end is JobEnd.LOST:
                    self._reports.drop()
                self._reports.close()
            ending = self._certain(ending)
            end = self._report_to_flow(ending) if self._token else self._release_claim(ending)
            with self._lock:
                self.end = end
            self._let_go(end)
            logger.info("job %s: %s", self.job.message_id, end)
        finally:
            self.over.set()
            for event in (self._wake, *(call.wake for call in self._calls)):
                event.set()

    def _let_go(self, end: JobEnd) -> None:
        """Delete what is done; everything else comes again."""
        if self._token is None:
            is_done = end in {JobEnd.COMPLETED, JobEnd.FAILED}
        else:
            is_done = end not in {JobEnd.UNREPORTED, JobEnd.STOPPED} and not self._is_taken
        # The thread that interrupted must find the workspace free before this one claims it again.
        pause = PREEMPTED_SECONDS if end is JobEnd.INTERRUPTED else 0
        if is_done:
            self._context.finish(self._received)
        elif end is not JobEnd.UNREPORTED:
            self._give_back(self._received, pause)
        for received in self._taken:
            if end is JobEnd.COMPLETED:
                self._context.finish(received)
            else:
                self._give_back(received, pause)
        for received, _ in self._waiting:
            self._give_back(received, pause)
        for received in self._interrupts:
            if self._is_open:
                attempt(self._clock, functools.partial(self._context.interrupts.keep, received, 0))
            else:
                attempt(self._clock, functools.partial(self._context.interrupts.delete, received))

    def _certain(self, ending: Ending) -> Ending:
        """The ending, or that of a lost job if another worker has taken the job over."""
        for delay in (*_REPORT_DELAYS, None):
            if ending.end is JobEnd.LOST or self._clock.monotonic() < self._certain_until:
                return ending
            try:
                self._renew()
                return ending
            except ClaimLostError as error:
                self._is_taken = error.reason == "taken"
                lost = Ending(JobEnd.LOST) if self._is_taken else failure(error)
                return replace(lost, end=JobEnd.LOST)
            except Exception as error:
                logger.warning("the claim is not verified, and will be asked for again: %s", error)
            if delay is not None:
                self._clock.wait(threading.Event(), delay)
        return Ending(JobEnd.UNREPORTED)

    def _report_to_flow(self, ending: Ending) -> JobEnd:
        assert self._token is not None
        if ending.end is JobEnd.STOPPED:
            return self._hand_over()
        if ending.end is JobEnd.UNREPORTED or (ending.end is JobEnd.LOST and not ending.error):
            return ending.end
        return report_end(
            self._context.tasks,
            self._clock,
            self._token,
            self._with_stored_result(ending),
            is_taken=lambda: self._is_taken,
        )

    def _hand_over(self) -> JobEnd:
        """Leave the job to the next worker, which takes it over under a higher fence: its execution
        goes on waiting, from a last heartbeat on.
        """
        job, context, token = self.job, self._context, self._token
        assert token is not None
        with self._renewing, self._hiding:
            self._handing_over = True
        take = functools.partial(
            context.claims.hand_over, job.claim_id, job.fence, self._claim_ttl, self._taker
        )
        for call in (take, functools.partial(context.tasks.heartbeat, token)):
            try:
                attempt(self._clock, call)
            except (ClaimLostError, TaskOverError):
                return JobEnd.LOST
        return JobEnd.STOPPED

    def _with_stored_result(self, ending: Ending) -> Ending:
        """The ending with a large result stored in S3 and replaced by its place."""
        results = self._result_place
        if results is None or len(ending.output.encode()) <= MAX_REPORTED_RESULT:
            return ending
        place = results.of_attempt(self.job.fence)
        if not attempt(self._clock, lambda: self._context.objects.put_result(place, ending.output)):
            return failure(ResultNotStoredError(str(place)))
        stored = {"bucket": place.bucket, "key": place.key}
        return replace(ending, output=_json({"resultObject": stored}))

    def _release_claim(self, ending: Ending) -> JobEnd:
        """End a job without an execution: log a failure and release the claim."""
        job = self.job
        if ending.end is JobEnd.FAILED:
            logger.error("job %s failed: %s: %s", job.message_id, ending.error, ending.cause)
        if ending.end not in {JobEnd.LOST, JobEnd.UNREPORTED}:
            release = self._context.claims.release
            reason = _WORDS[ending.end]
            attempt(
                self._clock,
                functools.partial(release, job.claim_id, job.fence, reason, self._taker),
            )
        return ending.end

    def _give_back(self, received: Received, seconds: int) -> None:
        attempt(self._clock, functools.partial(self._context.inbox.keep, received, seconds))


def report_end(
    tasks: Tasks,
    clock: Clock,
    token: str,
    ending: Ending,
    *,
    is_taken: Callable[[], bool] = lambda: False,
) -> JobEnd:
    """Report the end of a job to Step Functions, and return how it ended.

    It is lost if the task has ended before the first report. If the task has ended before a
    later one, an earlier report may have arrived.
    """
    for number, delay in enumerate((*_REPORT_DELAYS, None)):
        if is_taken():
            return JobEnd.LOST
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
        except (ClaimLostError, TaskOverError):
            raise
        except Exception as error:
            logger.warning("a call failed: %s", error)
            if is_stale_receipt(error):
                return False
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
