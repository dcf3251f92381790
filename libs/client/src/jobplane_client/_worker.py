"""The job worker: runs a workspace's jobs in a container. Needs the extra `aws`."""

import contextlib
import functools
import logging
import queue
import signal
import socket
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobplane_client._errors import ClaimLostError, MalformedMessageError
from jobplane_client._jobs import Clock, FollowUp, Interrupt, Job, JobEnd
from jobplane_client._runs import Ending, Run, WorkerContext, attempt, failure, report_end
from jobplane_client._worker_calls import (
    INPUT_QUEUE,
    INTERRUPT_QUEUE,
    Claims,
    Listening,
    ObjectPlace,
    Objects,
    Queue,
    Received,
    ResultPlace,
    Taker,
    TaskOverError,
    Tasks,
)
from jobplane_keys import (
    CLAIM_TTL_SECONDS,
    NEW_QUEUE_SECONDS,
    ValidationError,
    Workspace,
    checked_id,
    checked_number,
    input_queue_name,
    interrupt_queue_name,
    optional_id,
    workspace_of,
)

_MAX_FENCE = 2**53
_DAY = 24 * 3600
_JOB_BACKOFF = 15
_INTERRUPT_VISIBILITY = 60
# The read timeout of a short call.
_CALL_SECONDS = 5
# Seconds after which an interrupt is read again whose job has not begun.
_EARLY_INTERRUPT_SECONDS = 2
_REMEMBERED = 1000
_EXAMPLES = {
    "claim_function": "the name of its function claim",
    "prefix": "TABLE_PREFIX of its functions, which ends in a hyphen",
}

logger = logging.getLogger("jobplane_client.worker")


# Unlike time.monotonic, it counts on while the computer sleeps.
_monotonic: Callable[[], float] = (
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)


class SystemClock:
    """The time of this computer."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return _monotonic()

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        return event.wait(seconds)


@dataclass(frozen=True, slots=True)
class _JobMessage:
    """A message of type JOB from the job flow."""

    token: str
    heartbeat_seconds: int
    claim_ttl: int
    result_place: ResultPlace | None
    listening: Listening | None
    fields: Mapping[str, Any]


class _ForeignMessageError(Exception):
    """A message belongs to another workspace, whose queue has the same name."""


class JobWorker:
    """Runs the jobs of one workspace, one at a time, by calling `handler(job)`.

    The handler's return value (JSON; larger than 255 KB it is stored in S3 if the flow names a
    place, else at most 256 KB) is the job's result. An exception is its failure, reported by class
    and message (`tracebacks` adds the stack). The handler runs in a thread of its own, so it may
    block; other threads send heartbeats, renew the claim and read the queues meanwhile.

    An interrupt for this job's claim sets `job.cancelled`. The handler then has
    `grace_seconds` to return or raise. PREEMPTED is reported to the flow, with the work saved by
    `job.partial` or else the handler's return value. If the handler still runs after its grace
    period, nothing more is renewed or reported, `on_grace_exceeded(job)` is called (it may end the
    process), and the worker begins no other job until the handler has returned. The same applies
    when the execution has ended or the claim is lost (`job.cancelled.reason` is `lost`).

    If a worker crashes or stands still, another one takes its job over, under a higher fence; the
    first one is cancelled as soon as it runs again (`job.cancelled.detail` is `taken`), and reports
    nothing.

    A job that a client has sent by `instruct` may `report` progress and `emit` events, which its
    listeners get.

    A message of the job's thread is a follow-up of the job (`job.follow_ups()`). Follow-ups that
    the handler did not read, those that it read and did not finish when the job ends without a
    result, and those that arrive while no job runs, become separate jobs. For
    these the worker acquires a claim for `follow_up_ttl` seconds, renews it and releases it at the
    end; they have no execution, so a failure is only logged. They wait in the queue while another
    job has the claim of the workspace.

    `prefix` begins the names of the workspace's queues, which are created if they are missing and
    `create_queues` is true. `claim_function` is the name of the deployed claim function. `sqs`,
    `stepfunctions`, `lambda_` and `s3` are boto3 clients to use instead of new ones for `region`
    and `endpoint_url`. `worker_id` is the owner of the claims of follow-ups; it must differ
    between processes. A read of a queue lasts up to `poll_seconds` (0 to 20), and `stop` may take
    that long after the job has ended. After `visibility_seconds` another worker receives the
    messages of a worker that crashed, and takes its job over. Keep it below two thirds of the
    flow's `heartbeatSeconds` (90): otherwise the missed heartbeat comes first, and the job ends
    as timed out.

    It needs sqs:GetQueueUrl, ReceiveMessage, DeleteMessage and ChangeMessageVisibility (CreateQueue
    with `create_queues`) on both queues, states:SendTaskHeartbeat, SendTaskSuccess and
    SendTaskFailure, lambda:InvokeFunction on the functions claim and report-job, and s3:GetObject
    and PutObject on `jobs/*` of the stage's files bucket, which holds large instructions and
    results.

    Raises ValidationError (of jobplane_keys) for malformed ids and for an empty `prefix` or
    `claim_function`, and QueueMissingError without `create_queues`.
    """

    def __init__(
        self,
        project_id: str,
        user_id: str,
        handler: Callable[[Job], Any],
        *,
        claim_function: str,
        prefix: str,
        create_queues: bool = True,
        grace_seconds: float = 30.0,
        on_grace_exceeded: Callable[[Job], None] | None = None,
        tracebacks: bool = False,
        visibility_seconds: int = 45,
        poll_seconds: int = 10,
        follow_up_ttl: int = 60,
        worker_id: str | None = None,
        sqs: Any = None,
        stepfunctions: Any = None,
        lambda_: Any = None,
        s3: Any = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        workspace = workspace_of({"projectId": project_id, "userId": user_id})
        for name, value in (("claim_function", claim_function), ("prefix", prefix)):
            if not value:
                raise ValidationError(name, f"missing; pass the stage's ({_EXAMPLES[name]})")
        self.workspace: Workspace = workspace
        self.worker_id = worker_id or f"worker-{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._handler = handler
        self._clock: Clock = clock or SystemClock()
        self._poll_seconds = poll_seconds
        self._follow_up_ttl = follow_up_ttl
        calls = sqs or _client("sqs", region, endpoint_url, _CALL_SECONDS)
        polls = sqs or _client("sqs", region, endpoint_url, poll_seconds + _CALL_SECONDS)
        tasks = stepfunctions or _client("stepfunctions", region, endpoint_url, _CALL_SECONDS)
        functions = lambda_ or _client("lambda", region, endpoint_url, 2 * _CALL_SECONDS)
        self._inbox = Queue(
            calls, polls, input_queue_name(prefix, workspace), INPUT_QUEUE, create_queues
        )
        self._interrupts = Queue(
            calls, polls, interrupt_queue_name(prefix, workspace), INTERRUPT_QUEUE, create_queues
        )
        waits = NEW_QUEUE_SECONDS if self._inbox.is_new or self._interrupts.is_new else 0
        self._usable_at = self._clock.monotonic() + waits
        self._context = WorkerContext(
            clock=self._clock,
            tasks=Tasks(tasks),
            claims=Claims(functions, claim_function, workspace),
            objects=Objects(lambda: s3 or _client("s3", region, endpoint_url, 2 * _CALL_SECONDS)),
            inbox=self._inbox,
            interrupts=self._interrupts,
            finish=self._finish,
            on_grace_exceeded=on_grace_exceeded,
            grace_seconds=grace_seconds,
            visibility_seconds=visibility_seconds,
            tracebacks=tracebacks,
        )
        self._taker = Taker(f"{self.worker_id}/{uuid.uuid4()}", visibility_seconds)
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._last_fence = 0
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._busy = threading.Event()
        self._stopping = threading.Event()
        self._cancelling = False
        self._closed = threading.Event()
        self._only_one = False
        self._failures = 0

    def run(self, *, handle_sigterm: bool = False) -> None:
        """Run jobs until `stop` is called.

        With `handle_sigterm` (main thread only), a SIGTERM calls `stop(cancel=True)`. Let the
        platform wait longer than `grace_seconds` before it kills the process.
        """
        self._only_one = False
        with self._listening(), _on_sigterm(self) if handle_sigterm else contextlib.nullcontext():
            while not self._stopping.is_set() or self._active() is not None:
                self._poll()

    def run_once(self) -> JobEnd | None:
        """Run one job if one arrives within `poll_seconds`; return how it ended, None without one.

        A message of a job that has already ended, or a follow-up that must wait, is not a job.
        """
        self._only_one = True
        with self._listening():
            self._poll()
            begun = self._run
            while self._active() is not None:
                self._poll()
        return begun.end if begun is not None else None

    def stop(self, *, cancel: bool = False) -> None:
        """Begin no more jobs; `run` returns when the current job has ended.

        With `cancel` the handler receives the stop signal (`stopping`). The job is handed over: its
        message goes back to the queue, and the next worker does the job from its beginning, under
        a higher fence. Its execution goes on waiting, for its heartbeat's seconds.
        """
        with self._lock:
            self._stopping.set()
            self._cancelling |= cancel
            run = self._run
        if cancel and run is not None:
            run.stop()

    # The loop: one read of the input queue, whether a job runs or not.

    def _poll(self) -> None:
        run = self._run
        if run is not None and run.over.is_set() and not run.returned.is_set():
            # Its handler still runs: leave the messages to another worker.
            self._clock.wait(run.returned, self._poll_seconds)
            return
        try:
            received = self._inbox.receive(self._poll_seconds, self._context.visibility_seconds)
            self._failures = 0
        except Exception as error:
            self._failures += 1
            logger.warning("the input queue can't be read: %s", error)
            ended = run.over if run is not None else self._stopping
            self._clock.wait(ended, min(2.0**self._failures, 30))
            return
        if received is not None:
            self._dispatch(received)

    def _active(self) -> Run | None:
        """The running job. While the worker stops, a reported job is not active, even if its
        handler still runs.
        """
        run = self._run
        if run is None or (
            run.over.is_set() and (run.returned.is_set() or self._stopping.is_set())
        ):
            return None
        return run

    def _dispatch(self, received: Received) -> None:
        if received.id in self._finished:
            self._finish(received)
            return
        run = self._run
        if run is not None and run.offer(received, None):
            return
        try:
            content = self._content(received)
        except MalformedMessageError as error:
            self._refuse(received, error)
            return
        except _ForeignMessageError as error:
            logger.warning("a message is put back: it belongs to workspace %s", error)
            self._put_back(received, _backoff(received, _JOB_BACKOFF))
            return
        except Exception as error:
            logger.warning("a message is put back: its instruction can't be read: %s", error)
            self._put_back(received, _backoff(received, _JOB_BACKOFF))
            return
        if run is not None and run.ending:
            # Its messages are being deleted or returned: this may be one of them, or the next job.
            self._clock.wait(run.over, self._poll_seconds)
        if run is not None and not (run.over.is_set() and run.returned.is_set()):
            self._pass_on(run, received, content)
        elif self._stopping.is_set() or (self._only_one and run is not None):
            self._put_back(received, 0)
        elif isinstance(content, FollowUp):
            self._begin_follow_up(received, content)
        else:
            self._begin_job(received, content)

    def _pass_on(self, run: Run, received: Received, content: FollowUp | _JobMessage) -> None:
        """Pass a message on to the running job, or put it back."""
        follow_up = content if isinstance(content, FollowUp) else None
        if run.offer(received, follow_up):
            return
        if run.ending:
            # Reported, but its handler still runs: another worker may receive the message.
            self._put_back(received, 0)
        elif isinstance(content, FollowUp):
            self._put_back(received, self._follow_up_delay(received))
        else:
            if content.fields["fence"] > run.job.fence:
                run.verify()
            self._put_back(received, _backoff(received, _JOB_BACKOFF))

    def _begin_job(self, received: Received, message: _JobMessage) -> None:
        context, fields = self._context, message.fields
        try:
            context.tasks.heartbeat(message.token)
        except TaskOverError as error:
            logger.info("job %s has already ended: %s", fields["message_id"], error.code)
            self._finish(received)
            return
        except Exception as error:
            logger.warning(
                "job %s is put back: its heartbeat failed: %s", fields["message_id"], error
            )
            self._put_back(received, _backoff(received, _JOB_BACKOFF))
            return
        asked = self._clock.monotonic()
        try:
            expires_at, fence = context.claims.take(
                fields["claim_id"], fields["fence"], message.claim_ttl, self._taker
            )
        except ClaimLostError as error:
            if error.reason != "taken":
                self._refuse(received, error)
                return
            logger.info("job %s is put back: another worker has it", fields["message_id"])
        except Exception as error:
            logger.warning(
                "job %s is put back: its claim was not renewed: %s", fields["message_id"], error
            )
        else:
            self._start(
                received,
                {**fields, "expires_at": expires_at, "fence": fence},
                token=message.token,
                heartbeat_seconds=message.heartbeat_seconds,
                claim_ttl=message.claim_ttl,
                asked=asked,
                first_fence=fields["fence"],
                result_place=message.result_place,
                listening=message.listening,
            )
            return
        self._put_back(received, _backoff(received, _JOB_BACKOFF))

    def _begin_follow_up(self, received: Received, follow_up: FollowUp) -> None:
        ttl = self._follow_up_ttl
        asked = self._clock.monotonic()
        try:
            answer = self._context.claims.acquire(
                follow_up.thread_id, follow_up.message_id, self.worker_id, ttl, self._taker
            )
        except Exception as error:
            logger.warning("follow-up %s: no claim acquired: %s", follow_up.message_id, error)
            answer = {}
        if not answer.get("claimed"):
            logger.info("follow-up %s is put back: %s", follow_up.message_id, answer.get("reason"))
            self._put_back(received, self._follow_up_delay(received))
            return
        fields = {
            "instruction": follow_up.instruction,
            "attachments": follow_up.attachments,
            "message_id": follow_up.message_id,
            "thread_id": follow_up.thread_id,
            "project_user_id": self.workspace.key,
            "claim_id": answer["claimId"],
            "fence": int(answer["fence"]),
            "container_id": answer.get("containerId"),
            "expires_at": int(answer["expiresAt"]),
        }
        self._start(
            received,
            fields,
            token=None,
            heartbeat_seconds=0,
            claim_ttl=ttl,
            asked=asked,
            first_fence=fields["fence"],
        )

    def _start(
        self,
        received: Received,
        fields: Mapping[str, Any],
        *,
        claim_ttl: int,
        asked: float,
        **terms: Any,
    ) -> None:
        """Run a job whose claim was asked for at the moment `asked` of the monotonic clock."""
        job = Job(
            **fields,
            clock=self._clock,
            take=lambda: run.take(),
            report=lambda percentage, message: run.report(percentage, message),
            emit=lambda event: run.emit(event),
        )
        run = Run(
            self._context,
            received,
            job,
            claim_ttl=claim_ttl,
            lease=asked + claim_ttl,
            taker=self._taker,
            certain_until=asked + self._taker.seconds,
            **terms,
        )
        with self._lock:
            self._run = run
            self._last_fence = max(self._last_fence, job.fence)
            cancelling = self._cancelling
        if cancelling:
            run.stop()
        run.start(self._handler)
        self._busy.set()

    def _follow_up_delay(self, received: Received) -> int:
        """Seconds until a follow-up is tried again; in the end more than a claim's duration.

        A refused attempt on the holder's thread renews the holder's claim. More frequent attempts
        would keep the claim of a crashed holder for ever.
        """
        return _backoff(received, self._follow_up_ttl + 30)

    # Interrupts: read while a job runs.

    def _listen(self) -> None:
        failures = 0
        while True:
            self._busy.wait()
            if self._closed.is_set():
                return
            try:
                received = self._interrupts.receive(self._poll_seconds, _INTERRUPT_VISIBILITY)
                failures = 0
                if received is not None:
                    self._handle_interrupt(received)
            except Exception as error:
                failures += 1
                logger.warning("the interrupt queue can't be read: %s", error)
                self._clock.wait(self._closed, min(2.0**failures, 30))
            run = self._run
            if run is not None and run.over.is_set():
                self._busy.clear()
                # The next job may have begun meanwhile, or the worker ended.
                if self._closed.is_set() or self._run is not run:
                    self._busy.set()

    def _handle_interrupt(self, received: Received) -> None:
        """Interrupt the running job, and keep the message until the job has ended.

        Put back what is for a later claim or another workspace, and delete the rest.
        """
        body = received.body or {}
        target = body.get("target")
        try:
            if not isinstance(target, Mapping):
                raise ValidationError("target", "an object is required")
            if workspace_of(target) != self.workspace:
                # Also a malformed one: only its own workspace may delete it.
                self._interrupts.keep(received, _backoff(received, _JOB_BACKOFF))
                return
            claim_id = checked_id(target, "claimId")
            fence = checked_number(target, "fence", None, 0, _MAX_FENCE)
            interrupt = Interrupt(
                id=checked_id(body, "interruptId"),
                message_id=checked_id(body, "interruptingMessageId"),
                new_thread_id=checked_id(body, "newThreadId"),
                reason=str(body.get("reason") or ""),
            )
            ends = checked_number(body, "expiresAt", _MAX_FENCE, 0, _MAX_FENCE)
        except ValidationError as error:
            logger.error("an interrupt is malformed: %s", error)
            self._interrupts.delete(received)
            return
        with self._lock:
            run, last = self._run, self._last_fence
        if fence > last and ends > self._clock.time():
            self._interrupts.keep(received, _EARLY_INTERRUPT_SECONDS)
        elif (
            run is not None and run.is_meant(claim_id, fence) and run.interrupt(interrupt, received)
        ):
            self._interrupts.keep(received, _INTERRUPT_VISIBILITY)
        else:
            self._interrupts.delete(received)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        self._closed.clear()
        self._busy.clear()
        self._run = None
        self._clock.wait(self._stopping, max(0.0, self._usable_at - self._clock.monotonic()))
        listener = threading.Thread(target=self._listen, name="jobplane-interrupts", daemon=True)
        listener.start()
        try:
            yield
        finally:
            self._closed.set()
            self._busy.set()
        # Not after an exception: its read may last `poll_seconds`.
        listener.join()

    # Messages.

    def _content(self, received: Received) -> FollowUp | _JobMessage:
        body = received.body
        if body is None:
            raise MalformedMessageError("the message is not a JSON object")
        try:
            if workspace_of(body) != self.workspace:
                raise _ForeignMessageError(workspace_of(body).key)
            if place := ObjectPlace.of(body, "instructionObject"):
                body = {**body, "instruction": self._context.objects.instruction(place)}
            match body.get("type"):
                case "JOB":
                    return _job_message_of(body)
                case "FOLLOW_UP":
                    return _follow_up_of(body)
                case kind:
                    raise ValidationError("type", f"must be JOB or FOLLOW_UP, not {kind!r:.40}")
        except ValidationError as error:
            raise MalformedMessageError(str(error)) from error

    def _refuse(self, received: Received, error: MalformedMessageError | ClaimLostError) -> None:
        """Fail a job that can't begin. Its message would block those behind it in the queue."""
        logger.error("a message is refused: %s", error)
        token = (received.body or {}).get("taskToken")
        if isinstance(token, str) and token:
            ending = failure(error)
            lost = isinstance(error, ClaimLostError)
            ending = Ending(
                JobEnd.LOST if lost else JobEnd.FAILED, error=ending.error, cause=ending.cause
            )
            if report_end(self._context.tasks, self._clock, token, ending) is JobEnd.UNREPORTED:
                return
        self._finish(received)

    def _finish(self, received: Received) -> None:
        """Delete a message. If that fails, its next delivery is recognised and deleted."""
        with self._lock:
            self._finished[received.id] = None
            if len(self._finished) > _REMEMBERED:
                self._finished.popitem(last=False)
        attempt(self._clock, lambda: self._inbox.delete(received))

    def _put_back(self, received: Received, seconds: int) -> None:
        attempt(self._clock, lambda: self._inbox.keep(received, seconds))


def _job_message_of(body: Mapping[str, Any]) -> _JobMessage:
    token = body.get("taskToken")
    if not isinstance(token, str) or not token:
        raise ValidationError("taskToken", "a token is required")
    return _JobMessage(
        token=token,
        heartbeat_seconds=checked_number(body, "heartbeatSeconds", 90, 1, 365 * _DAY),
        claim_ttl=checked_number(body, "claimTtlSeconds", CLAIM_TTL_SECONDS, 1, _DAY),
        result_place=ResultPlace.of(body),
        listening=Listening.of(body),
        fields={
            "instruction": body.get("instruction"),
            "attachments": _attachments(body),
            "message_id": checked_id(body, "messageId"),
            "thread_id": checked_id(body, "threadId"),
            "project_user_id": workspace_of(body).key,
            "claim_id": checked_id(body, "claimId"),
            "fence": checked_number(body, "fence", None, 0, _MAX_FENCE),
            "container_id": optional_id(body, "containerId"),
        },
    )


def _follow_up_of(body: Mapping[str, Any]) -> FollowUp:
    return FollowUp(
        message_id=checked_id(body, "messageId"),
        thread_id=checked_id(body, "threadId"),
        instruction=body.get("instruction"),
        attachments=_attachments(body),
    )


def _attachments(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = body.get("attachments")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValidationError("attachments", "a list of objects is required")
    return value


def _backoff(received: Received, limit: int) -> int:
    return int(min(2 ** min(received.receives - 1, 16), limit))


@contextlib.contextmanager
def _on_sigterm(worker: JobWorker) -> Iterator[None]:
    # A signal handler may run at any point of the main thread, so it must not take a lock. It
    # puts a note into a `SimpleQueue`, which is safe, and a thread reads it.
    notes: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def read() -> None:
        while notes.get():
            worker.stop(cancel=True)

    threading.Thread(target=read, name="jobplane-sigterm", daemon=True).start()
    before = signal.signal(signal.SIGTERM, lambda *_: notes.put(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        notes.put(False)


def _client(service: str, region: str | None, endpoint_url: str | None, timeout: int) -> Any:
    import boto3
    from botocore.config import Config

    # Short timeouts, so that a call is repeated in time. No retries of botocore: the worker
    # repeats calls itself, and must know whether it has reported an end before.
    config = Config(connect_timeout=3, read_timeout=timeout, retries={"total_max_attempts": 1})
    return boto3.client(service, region_name=region, endpoint_url=endpoint_url, config=config)
