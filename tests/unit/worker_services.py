"""SQS, Step Functions and the claim function as AWS documents them, on a clock that tests move."""

import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from jobplane_keys import Workspace, input_queue_name, interrupt_queue_name

WORKSPACE = Workspace("amelia", "scott")
PREFIX = "test-"
INPUT = input_queue_name(PREFIX, WORKSPACE)
INTERRUPTS = interrupt_queue_name(PREFIX, WORKSPACE)
INSTRUCTION = {"bucket": "files", "key": "jobs/run/instruction.json"}
RESULT = {"bucket": "files", "key": "jobs/run/result-claim-1.json"}
RESULT_PREFIX = "jobs/run/result-claim-1-"
START = 1_800_000_000.0
PATIENCE = 20.0
KEEN = ("jobplane-keeper", "jobplane-handler")


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait at most `PATIENCE` real seconds until a condition holds; its value."""
    end = time.monotonic() + PATIENCE
    pause = threading.Event()
    while time.monotonic() < end:
        if value := condition():
            return value
        pause.wait(0.001)
    raise AssertionError(f"waited in vain: {what}")


def refused(code: str, operation: str = "Call") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


class FakeClock:
    """Stands still until a test moves it; wakes threads whose time has come."""

    def __init__(self) -> None:
        self._now = 0.0
        self._moved = threading.Condition()
        self._waiting: dict[int, float] = {}
        self._events: dict[int, threading.Event] = {}

    def time(self) -> float:
        return START + self._now

    def monotonic(self) -> float:
        return self._now

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        self._events[threading.get_ident()] = event
        self.wait_for(event.is_set, seconds)
        del self._events[threading.get_ident()]
        return event.is_set()

    def wait_for(self, condition: Callable[[], Any], seconds: float | None) -> Any:
        """Wait until a condition holds, or the seconds are over; its value."""
        me = threading.get_ident()
        with self._moved:
            end = float("inf") if seconds is None else self._now + seconds
            self._waiting[me] = end
            try:
                while not (value := condition()) and self._now < end:
                    # Conditions come true without telling the clock.
                    self._moved.wait(0.001)
                return value
            finally:
                del self._waiting[me]

    def has_waiting(self, thread: threading.Thread) -> bool:
        """Whether a thread waits for time to pass."""
        return thread.ident in self._waiting

    def advance(self, seconds: float) -> None:
        """Move on, and let the threads that are due act."""
        with self._moved:
            self._let_signalled_act()
            self._now += seconds
            self._moved.notify_all()
            late = {me for me, end in self._waiting.items() if end <= self._now}
            end = time.monotonic() + PATIENCE
            while late & {me for me, end in self._waiting.items() if end <= self._now}:
                assert time.monotonic() < end, "a thread overslept"
                self._moved.wait(0.001)
            self._let_act(late)
            self._let_signalled_act()

    def _let_signalled_act(self) -> None:
        """Let threads whose event was set while they waited see the time at which it was set."""
        end = time.monotonic() + PATIENCE
        while signalled := {me for me, event in list(self._events.items()) if event.is_set()}:
            assert time.monotonic() < end, "a thread overslept"
            self._moved.wait(0.001)
            self._let_act(signalled)

    def _let_act(self, late: set[int]) -> None:
        """Wait until threads wait again or have ended. One may now wait for something else than
        time, which can't be seen; a worker's own threads do not.
        """
        start = time.monotonic()
        while late:
            alive = {t.ident: t.name.startswith(KEEN) for t in threading.enumerate()}
            late = {me for me in late if me in alive and me not in self._waiting}
            patience = 2 if any(alive[me] for me in late) else 0.05
            if time.monotonic() > start + patience:
                return
            self._moved.wait(0.001)


@dataclass
class Message:
    id: str
    body: str
    group: str | None
    visible_at: float = 0.0
    receipt: str = ""
    receives: int = 0
    deleted: bool = False


class Faulty:
    """A service whose calls fail with the faults that a test sets, in turn."""

    def __init__(self) -> None:
        self.faults: dict[str, list[Any]] = {}

    def _call(self, operation: str) -> None:
        if faults := self.faults.get(operation):
            raise faults.pop(0)


class FakeSqs(Faulty):
    """Visibility, long polls, message groups, deduplication, receipts that grow stale."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.meta = SimpleNamespace(endpoint_url="https://sqs.eu-west-1.amazonaws.com")
        self.queues: dict[str, list[Message]] = {}
        self.created: dict[str, dict[str, str]] = {}
        self._duplicates: dict[tuple[str, str], float] = {}
        self._lock = threading.RLock()

    def get_queue_url(self, *, QueueName: str) -> dict[str, Any]:
        if QueueName not in self.queues:
            raise refused("AWS.SimpleQueueService.NonExistentQueue")
        return {"QueueUrl": QueueName}

    def create_queue(self, *, QueueName: str, Attributes: dict[str, str]) -> dict[str, Any]:
        self.queues.setdefault(QueueName, [])
        self.created[QueueName] = Attributes
        return {"QueueUrl": QueueName}

    def send(self, queue: str, body: Any, group: str | None = None, dedup: str = "") -> Message:
        """Put a message into a queue, as the flow and send-interrupt do."""
        text = body if isinstance(body, str) else json.dumps(body)
        message = Message(uuid.uuid4().hex, text, group)
        with self._lock:
            now = self.clock.monotonic()
            if dedup and now - self._duplicates.get((queue, dedup), -1e9) < 300:
                return message
            self._duplicates[queue, dedup] = now
            self.queues.setdefault(queue, []).append(message)
        return message

    def receive_message(
        self,
        *,
        QueueUrl: str,
        MaxNumberOfMessages: int,
        WaitTimeSeconds: int,
        VisibilityTimeout: int,
        MessageSystemAttributeNames: list[str],
    ) -> dict[str, Any]:
        assert MaxNumberOfMessages == 1
        assert 0 <= WaitTimeSeconds <= 20
        self._call("receive:" + QueueUrl)
        message = self.clock.wait_for(
            lambda: self._next(QueueUrl, VisibilityTimeout), WaitTimeSeconds
        )
        return {"Messages": [message]} if message else {}

    def _next(self, queue: str, visibility: int) -> dict[str, Any] | None:
        with self._lock:
            now = self.clock.monotonic()
            barred = set()
            for message in self.queues[queue]:
                if message.deleted or message.group in barred:
                    continue
                if message.visible_at > now:
                    # A group goes on only when what is in flight has been dealt with.
                    if message.group is not None:
                        barred.add(message.group)
                    continue
                message.visible_at = now + visibility
                message.receipt = uuid.uuid4().hex
                message.receives += 1
                return {
                    "MessageId": message.id,
                    "ReceiptHandle": message.receipt,
                    "Body": message.body,
                    "Attributes": {"ApproximateReceiveCount": str(message.receives)},
                }
            return None

    def _in_flight(self, queue: str, receipt: str) -> Message:
        for message in self.queues[queue]:
            if message.receipt == receipt and not message.deleted:
                if message.visible_at <= self.clock.monotonic():
                    raise refused("InvalidParameterValue")
                return message
        raise refused("ReceiptHandleIsInvalid")

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> None:
        with self._lock:
            self._call("delete")
            self._in_flight(QueueUrl, ReceiptHandle).deleted = True

    def change_message_visibility(
        self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int
    ) -> None:
        assert 0 <= VisibilityTimeout <= 43_200
        with self._lock:
            self._call("visibility")
            message = self._in_flight(QueueUrl, ReceiptHandle)
            message.visible_at = self.clock.monotonic() + VisibilityTimeout

    def left(self, queue: str) -> list[Message]:
        with self._lock:
            return [message for message in self.queues[queue] if not message.deleted]


class FakeStepFunctions(Faulty):
    """Task tokens: one end each; later calls are refused."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.open: set[str] = set()
        self.closed: set[str] = set()
        self.beats: list[float] = []
        self.ends: list[tuple[str, str, dict[str, str]]] = []
        self._lock = threading.Lock()

    def token(self) -> str:
        token = uuid.uuid4().hex
        self.open.add(token)
        return token

    def time_out(self, token: str) -> None:
        self.open.discard(token)
        self.closed.add(token)

    def _report(self, operation: str, token: str) -> None:
        self._call(operation)
        if token in self.closed:
            raise refused("TaskTimedOut")
        if token not in self.open:
            raise refused("InvalidToken")

    def send_task_heartbeat(self, *, taskToken: str) -> None:
        with self._lock:
            self._report("heartbeat", taskToken)
            self.beats.append(self.clock.monotonic())

    def send_task_success(self, *, taskToken: str, output: str) -> None:
        with self._lock:
            self._report("success", taskToken)
            assert len(output.encode()) <= 262_144
            json.loads(output)
            self.time_out(taskToken)
            self.ends.append((taskToken, "success", {"output": output}))

    def send_task_failure(self, *, taskToken: str, error: str, cause: str) -> None:
        with self._lock:
            self._report("failure", taskToken)
            assert len(error) <= 256
            assert len(cause) <= 32_768
            self.time_out(taskToken)
            self.ends.append((taskToken, "failure", {"error": error, "cause": cause}))

    @property
    def outputs(self) -> list[Any]:
        return [json.loads(told["output"]) for _, kind, told in self.ends if kind == "success"]

    @property
    def failures(self) -> list[tuple[str, str]]:
        return [(told["error"], told["cause"]) for _, kind, told in self.ends if kind == "failure"]


class FakeS3(Faulty):
    """One bucket."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str], bytes] = {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        self._call("get")
        if (Bucket, Key) not in self.objects:
            raise refused("NoSuchKey")
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        assert ContentType == "application/json"
        self._call("put")
        self.objects[Bucket, Key] = Body


def payload(answer: Any) -> io.BytesIO:
    return io.BytesIO(json.dumps(answer).encode())


@dataclass
class Claim:
    claim_id: str
    fence: int
    thread_id: str
    message_id: str
    owner: str | None
    expires_at: float
    taker: str | None = None
    taken_until: float = 0.0


@dataclass
class FakeClaims:
    """Lambda with the function claim, for one workspace."""

    clock: FakeClock
    held: Claim | None = None
    fence: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)
    """What a worker has told report-job, without what was refused."""
    events: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> dict[str, Any]:
        assert InvocationType == "RequestResponse"
        event = json.loads(Payload)
        if FunctionName == "report-job":
            return {"StatusCode": 200, "Payload": payload(self.report(event))}
        assert FunctionName == "claim"
        assert event["projectUserId"] == WORKSPACE.key
        with self._lock:
            self.calls.append(event | {"at": self.clock.monotonic()})
            if faults := self.faults.get(event["operation"]):
                fault = faults.pop(0)
                if isinstance(fault, Exception):
                    raise fault
                return {"FunctionError": "Unhandled", "Payload": payload(fault)}
            return {"StatusCode": 200, "Payload": payload(getattr(self, event["operation"])(event))}

    def report(self, event: Mapping[str, Any]) -> dict[str, Any]:
        held = self.live()
        if held is None or (held.claim_id, held.fence) != (event["claimId"], event["fence"]):
            return {"accepted": False, "cancelRequested": False, "eventCount": 0}
        assert event["operation"] == "report"
        if event.get("after", -1) == len(self.events):
            self.events += event["events"]
        if "percentage" in event:
            self.reports.append({"at": self.clock.monotonic(), **event})
        if faults := self.faults.get("report"):
            raise faults.pop(0)
        count = len(self.events)
        return {"accepted": True, "cancelRequested": False, "eventCount": count}

    def live(self) -> Claim | None:
        held = self.held
        return held if held is not None and held.expires_at > self.clock.time() else None

    def acquire(self, event: Mapping[str, Any]) -> dict[str, Any]:
        held, end = self.live(), self.clock.time() + event["ttlSeconds"]
        if held is None:
            self.fence += 1
            asked = (event["threadId"], event["messageId"], event.get("owner"))
            held = self.held = Claim(f"claim-{self.fence}", self.fence, *asked, end)
            self._take(held, event)
        elif (held.message_id, held.owner) != (event["messageId"], event.get("owner")):
            if held.thread_id != event["threadId"]:
                return {"claimed": False, "reason": "held"}
            held.expires_at = max(held.expires_at, end)
            return {"claimed": False, "reason": "same_thread"}
        elif not self._take(held, event):
            return {"claimed": False, "reason": "same_thread"}
        return {
            "claimed": True,
            "claimId": held.claim_id,
            "fence": held.fence,
            "containerId": f"container-{held.fence}",
            "expiresAt": int(held.expires_at),
        }

    def _take(self, held: Claim, event: Mapping[str, Any]) -> bool:
        """Let a taker have the job unless another one has; for a while no other taker can."""
        now, taker = self.clock.time(), event.get("taker")
        if taker is not None and held.taker not in (None, taker):
            if held.taken_until > now:
                return False
            self.fence += 1
            held.fence = self.fence
        held.taker = taker or held.taker
        held.taken_until = now + event.get("takerSeconds", 0)
        return True

    def renew(self, event: Mapping[str, Any]) -> dict[str, Any]:
        held = self.live()
        if held is None or held.claim_id != event["claimId"]:
            return {"renewed": False, "reason": "superseded" if held else "expired"}
        is_fence = (
            event["fence"] <= held.fence if "taker" in event else event["fence"] == held.fence
        )
        if not is_fence or not self._take(held, event):
            return {"renewed": False, "reason": "taken"}
        held.expires_at = self.clock.time() + event["ttlSeconds"]
        return {"renewed": True, "expiresAt": int(held.expires_at), "fence": held.fence}

    def release(self, event: Mapping[str, Any]) -> dict[str, Any]:
        held = self.held
        if held is None or (held.claim_id, held.fence) != (event["claimId"], event["fence"]):
            return {"released": False, "reason": "superseded"}
        self.held = None
        self.released.append((event["claimId"], event["reason"]))
        return {"released": True, "repeated": False}

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["operation"] == operation]


class Stand:
    """A workspace with a worker; the test plays the flow."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sqs = FakeSqs(self.clock)
        self.sqs.queues = {INPUT: [], INTERRUPTS: []}
        self.tasks = FakeStepFunctions(self.clock)
        self.claims = FakeClaims(self.clock)
        self.s3 = FakeS3()
        self.threads: list[threading.Thread] = []

    def clients(self) -> dict[str, Any]:
        """The clients for a worker."""
        fakes: dict[str, Any] = {"sqs": self.sqs, "stepfunctions": self.tasks, "s3": self.s3}
        fakes |= {"lambda_": self.claims, "clock": self.clock}
        return {"claim_function": "claim", "prefix": PREFIX, **fakes}

    def order(
        self, message_id: str = "m1", thread_id: str = "t1", ttl: int = 3600, **changes: Any
    ) -> dict[str, Any]:
        """Claim the workspace and send a JOB, as the flow does; the message's body."""
        answer = self.claims.acquire(
            {"threadId": thread_id, "messageId": message_id, "owner": "arn", "ttlSeconds": ttl}
        )
        assert answer["claimed"], answer
        body = {
            "type": "JOB", "taskToken": self.tasks.token(), "messageId": message_id,
            "threadId": thread_id, "projectUserId": WORKSPACE.key, "claimId": answer["claimId"],
            "fence": answer["fence"], "containerId": answer["containerId"],
            "instruction": f"do {message_id}", "instructionObject": None, "attachments": [],
            "heartbeatSeconds": 90, "claimTtlSeconds": ttl, "expiresAt": answer["expiresAt"],
            "resultLocation": RESULT, "resultKeyPrefix": RESULT_PREFIX,
            "request": None, "reportFunction": "report-job", **changes,
        }  # fmt: skip
        self.sqs.send(INPUT, body, "job", body["claimId"])
        return body

    def follow_up(
        self, message_id: str, thread_id: str = "t1", group: str = "follow-up", **changes: Any
    ) -> Message:
        """Send a FOLLOW_UP, as the flow does."""
        body = {
            "type": "FOLLOW_UP", "messageId": message_id, "threadId": thread_id,
            "projectUserId": WORKSPACE.key, "claimId": "claim-0", "fence": 0,
            "instruction": f"also {message_id}", "instructionObject": None, "attachments": [],
            **changes,
        }  # fmt: skip
        return self.sqs.send(INPUT, body, group, message_id)

    def interrupt(
        self, target: Mapping[str, Any], interrupting: str = "m9", **changes: Any
    ) -> Message:
        """Send an interrupt, as send-interrupt does."""
        body = {
            "type": "INTERRUPT",
            "interruptId": f"i-{target['claimId']}-{interrupting}",
            "containerId": target.get("containerId"),
            "target": {
                "projectUserId": target.get("projectUserId", WORKSPACE.key),
                "claimId": target["claimId"],
                "fence": target["fence"],
            },
            "newThreadId": "t9",
            "interruptingMessageId": interrupting,
            "timestamp": "2027-01-15T08:00:00.000Z",
            "reason": "another thread needs the workspace",
            "expiresAt": int(self.clock.time()) + 86_400,
            **changes,
        }
        return self.sqs.send(INTERRUPTS, body)

    def start(self, work: Callable[[], Any]) -> list[Any]:
        """Run a function in a thread; a list that receives its result."""
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(work()), daemon=True)
        self.threads.append(thread)
        thread.start()
        return answers

    def pass_time(self, seconds: int) -> None:
        """Move the clock second by second."""
        for _ in range(seconds):
            self.clock.advance(1)

    def finish(self, answers: list[Any]) -> Any:
        """Let time pass, whenever the last thread waits for it or does nothing, until it has come
        back; its answer.
        """
        thread = self.threads[-1]
        end = time.monotonic() + PATIENCE
        while thread.is_alive() and time.monotonic() < end:
            quiet = time.monotonic() + 0.02
            while not self.clock.has_waiting(thread) and time.monotonic() < quiet:
                thread.join(0.001)
            self.clock.advance(1)
        assert answers, "the worker did not come back"
        return answers[0]
