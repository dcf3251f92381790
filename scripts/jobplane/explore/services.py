"""S3, SQS, Step Functions' tasks and the sockets in memory, as far as the functions use them.

Queues deliver at least once, in the order of their messages; a FIFO queue delivers the next
message of a group when the one before it is deleted. Times are the scheduler's.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobplane.explore.tables import RefusedCallError, Row
from jobplane.explore.tasks import Scheduler, Task

LONG_POLL_SECONDS = 20
SHARD = "shardId-00000001790000000000-explored"


class Bucket:
    """The objects of all buckets; a multipart upload becomes an object when it is completed."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self._tags: dict[str, str] = {}
        """The ETags of objects that were sent in parts."""
        self._numbers = itertools.count(1)

    def perform(self, operation: str, parameters: Row) -> Row:
        answer: Row = getattr(self, f"_{operation}")(parameters)
        return answer

    def _found(self, parameters: Row) -> bytes:
        if parameters["Key"] not in self.objects:
            raise RefusedCallError("NoSuchKey", "The specified key does not exist.", 404)
        return self.objects[parameters["Key"]]

    def _GetObject(self, parameters: Row) -> Row:
        return {"Body": io.BytesIO(self._found(parameters)), **self._HeadObject(parameters)}

    def _HeadObject(self, parameters: Row) -> Row:
        body = self._found(parameters)
        tag = self._tags.get(parameters["Key"]) or _etag(body)
        return {"ContentLength": len(body), "ETag": tag}

    def _PutObject(self, parameters: Row) -> Row:
        body = _bytes(parameters.get("Body", b""))
        self.objects[parameters["Key"]] = body
        self._tags.pop(parameters["Key"], None)
        return {"ETag": _etag(body)}

    def _CopyObject(self, parameters: Row) -> Row:
        source = parameters["CopySource"]
        key = source["Key"] if isinstance(source, dict) else source.partition("/")[2]
        self.objects[parameters["Key"]] = self._found({"Key": key})
        self._tags.pop(parameters["Key"], None)
        return {"CopyObjectResult": {"ETag": _etag(self.objects[key])}}

    def _DeleteObject(self, parameters: Row) -> Row:
        self.objects.pop(parameters["Key"], None)
        return {}

    def _ListObjectsV2(self, parameters: Row) -> Row:
        keys = sorted(key for key in self.objects if key.startswith(parameters.get("Prefix", "")))
        found = [{"Key": key, "Size": len(self.objects[key])} for key in keys]
        return {"Contents": found, "KeyCount": len(found), "IsTruncated": False}

    def _CreateMultipartUpload(self, _: Row) -> Row:
        upload = f"upload-{next(self._numbers)}"
        self.uploads[upload] = {}
        return {"UploadId": upload}

    def _parts(self, parameters: Row) -> dict[int, bytes]:
        if parameters["UploadId"] not in self.uploads:
            raise RefusedCallError("NoSuchUpload", "The upload does not exist.", 404)
        return self.uploads[parameters["UploadId"]]

    def _UploadPart(self, parameters: Row) -> Row:
        body = _bytes(parameters["Body"])
        self._parts(parameters)[parameters["PartNumber"]] = body
        return {"ETag": _etag(body)}

    def _ListParts(self, parameters: Row) -> Row:
        listed = [
            {"PartNumber": number, "Size": len(body), "ETag": _etag(body)}
            for number, body in sorted(self._parts(parameters).items())
        ]
        return {"Parts": listed, "IsTruncated": False}

    def _CompleteMultipartUpload(self, parameters: Row) -> Row:
        parts, chosen = self._parts(parameters), parameters["MultipartUpload"]["Parts"]
        for part in chosen:
            if _etag(parts.get(part["PartNumber"], b"")) != part["ETag"]:
                raise RefusedCallError("InvalidPart", "A part could not be found.")
        bodies = [parts[part["PartNumber"]] for part in chosen]
        self.objects[parameters["Key"]] = b"".join(bodies)
        digests = b"".join(bytes.fromhex(_etag(body).strip('"')) for body in bodies)
        tag = self._tags[parameters["Key"]] = f'{_etag(digests)[:-1]}-{len(bodies)}"'
        del self.uploads[parameters["UploadId"]]
        return {"ETag": tag}

    def _AbortMultipartUpload(self, parameters: Row) -> Row:
        self.uploads.pop(parameters["UploadId"], None)
        return {}


def _bytes(body: Any) -> bytes:
    return bytes(body.read()) if hasattr(body, "read") else bytes(body)


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


class Sockets:
    """API Gateway's side of the sockets: which are open, and what each was sent."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.heard: list[tuple[str, Row]] = []

    def perform(self, operation: str, parameters: Row) -> Row:
        connection_id = parameters["ConnectionId"]
        if connection_id not in self.open:
            raise RefusedCallError("GoneException", "", 410)
        if operation == "DeleteConnection":
            self.open.discard(connection_id)
        else:
            self.heard.append((connection_id, json.loads(parameters["Data"])))
        return {}


@dataclass(eq=False)
class Message:
    """A message of a queue."""

    id: str
    body: str
    visible_at: float
    group: str | None = None
    receives: int = 0
    receipt: str = ""
    deleted: bool = False


@dataclass
class Queue:
    name: str
    visibility: float
    fifo: bool = False
    messages: list[Message] = field(default_factory=list)
    on_message: Callable[[Message], None] | None = None
    """Given each new message, if a function reads the queue."""
    waiting: list[Task] = field(default_factory=list)


class Queues:
    """SQS."""

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self.by_name: dict[str, Queue] = {}
        self.sent = 0
        self._of = scheduler

    def add(self, name: str, visibility: float, *, fifo: bool = False) -> Queue:
        self.by_name[name] = Queue(name, visibility, fifo)
        return self.by_name[name]

    def perform(self, operation: str, parameters: Row) -> Row:
        answer: Row = getattr(self, f"_{operation}")(parameters)
        return answer

    def queue(self, url: str) -> Queue:
        name = url.rpartition("/")[2]
        if name not in self.by_name:
            raise RefusedCallError("AWS.SimpleQueueService.NonExistentQueue", name)
        return self.by_name[name]

    def receive(self, queue: Queue, message: Message, visibility: float | None = None) -> None:
        """Hide a message, and give it a new receipt."""
        message.receives += 1
        message.receipt = f"{message.id}/{message.receives}"
        message.visible_at = self._of().now + (
            queue.visibility if visibility is None else visibility
        )

    def _GetQueueUrl(self, parameters: Row) -> Row:
        return {"QueueUrl": f"https://sqs/{self.queue(parameters['QueueName']).name}"}

    def _CreateQueue(self, parameters: Row) -> Row:
        attributes = parameters.get("Attributes", {})
        name = parameters["QueueName"]
        if name not in self.by_name:
            self.add(
                name, float(attributes.get("VisibilityTimeout", 30)), fifo=name.endswith("fifo")
            )
        return {"QueueUrl": f"https://sqs/{name}"}

    def _SendMessage(self, parameters: Row) -> Row:
        queue = self.queue(parameters["QueueUrl"])
        return {"MessageId": self._put(queue, parameters).id}

    def _SendMessageBatch(self, parameters: Row) -> Row:
        queue = self.queue(parameters["QueueUrl"])
        sent = [
            {"Id": entry["Id"], "MessageId": self._put(queue, entry).id}
            for entry in parameters["Entries"]
        ]
        return {"Successful": sent, "Failed": []}

    def _put(self, queue: Queue, entry: Row) -> Message:
        self.sent += 1
        scheduler = self._of()
        group = entry.get("MessageGroupId") if queue.fifo else None
        message = Message(
            f"{queue.name.rpartition('-')[2]}-{self.sent}",
            entry["MessageBody"],
            scheduler.now + entry.get("DelaySeconds", 0),
            group,
        )
        queue.messages.append(message)
        if queue.on_message is not None:
            queue.on_message(message)
        self._wake(queue)
        return message

    def _wake(self, queue: Queue) -> None:
        waiting, queue.waiting = queue.waiting, []
        for task in waiting:
            self._of().wake(task)

    def _ready(self, queue: Queue) -> Message | None:
        now, blocked = self._of().now, set()
        for message in queue.messages:
            if message.group is not None and message.group in blocked:
                continue
            if message.visible_at <= now:
                return message
            if message.group is not None:
                blocked.add(message.group)
        return None

    def _ReceiveMessage(self, parameters: Row) -> Row:
        scheduler, queue = self._of(), self.queue(parameters["QueueUrl"])
        end = scheduler.now + parameters.get("WaitTimeSeconds", 0)
        while (found := self._ready(queue)) is None and scheduler.now < end:
            due = [one.visible_at for one in queue.messages if one.visible_at > scheduler.now]
            if scheduler.current is not None:
                queue.waiting.append(scheduler.current)
            scheduler.wait(min([end, *due]))
        if found is None:
            return {}
        self.receive(queue, found, parameters.get("VisibilityTimeout"))
        return {
            "Messages": [
                {
                    "MessageId": found.id,
                    "ReceiptHandle": found.receipt,
                    "Body": found.body,
                    "Attributes": {"ApproximateReceiveCount": str(found.receives)},
                }
            ]
        }

    def _received(self, parameters: Row) -> tuple[Queue, Message | None]:
        queue, receipt = self.queue(parameters["QueueUrl"]), parameters["ReceiptHandle"]
        return queue, next((one for one in queue.messages if one.receipt == receipt), None)

    def _DeleteMessage(self, parameters: Row) -> Row:
        queue, message = self._received(parameters)
        if message is not None:
            message.deleted = True
            queue.messages.remove(message)
            self._wake(queue)
        return {}

    def _ChangeMessageVisibility(self, parameters: Row) -> Row:
        queue, message = self._received(parameters)
        now = self._of().now
        if message is None or message.visible_at <= now:
            raise RefusedCallError("ReceiptHandleIsInvalid", "the message is not in flight", 404)
        message.visible_at = now + parameters["VisibilityTimeout"]
        self._wake(queue)
        return {}


@dataclass
class FlowTask:
    """A waiting task of the job flow: open until it is reported, or a heartbeat fails to come."""

    token: str
    heartbeat_seconds: float
    beaten_at: float
    end: str = ""
    """`succeeded`, `failed` or `timed out`."""
    detail: str = ""
    gap: float = 0.0
    """The longest time between two reports of the worker that has the job."""
    has_begun: bool = False
    waiting: Task | None = None
    """The execution that waits for the end."""


class Stream:
    """The stream of one table, with one shard; a record is there at once."""

    def __init__(self) -> None:
        self.records: list[Row] = []

    def add(self, change: Row, moment: float) -> None:
        created = {"ApproximateCreationDateTime": datetime.fromtimestamp(moment, UTC)}
        self.records.append({"dynamodb": change | created})

    def perform(self, operation: str, parameters: Row) -> Row:
        if operation == "DescribeStream":
            shard = {"ShardId": SHARD, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
            return {"StreamDescription": {"Shards": [shard]}}
        if operation == "GetShardIterator":
            is_end = parameters["ShardIteratorType"] == "LATEST"
            return {"ShardIterator": str(len(self.records) if is_end else 0)}
        found = self.records[int(parameters["ShardIterator"]) :]
        return {"Records": found, "NextShardIterator": str(len(self.records))}


@dataclass
class Execution:
    """An execution of the job flow; `said` has its input, and what it ended with."""

    status: str = "RUNNING"
    stopped_at: float = 0.0
    said: Row = field(default_factory=dict)


class Flows:
    """Step Functions' side of task tokens and executions."""

    def __init__(self, now: Callable[[], float], wake: Callable[[Task], None]) -> None:
        self.tasks: dict[str, FlowTask] = {}
        self.executions: dict[str, Execution] = {}
        self.on_start: Callable[[str, Row], None] | None = None
        """Begins an execution, from its ARN and its input."""
        self._now, self._wake = now, wake

    def open(self, token: str, heartbeat_seconds: float) -> FlowTask:
        self.tasks[token] = FlowTask(token, heartbeat_seconds, self._now())
        return self.tasks[token]

    def end(self, task: FlowTask, end: str, detail: str = "") -> None:
        task.end, task.detail = end, detail
        if task.waiting is not None:
            self._wake(task.waiting)

    def stop(self, arn: str, status: str, **said: str) -> None:
        """End an execution, unless it has ended; `said`: its output, or error and cause."""
        found = self.executions[arn]
        if found.status == "RUNNING":
            self.executions[arn] = Execution(status, self._now(), found.said | said)

    def perform(self, operation: str, parameters: Row) -> Row:
        if operation == "DescribeExecution":
            return self._described(parameters["executionArn"])
        if operation == "StartExecution":
            return self._start(parameters)
        task = self.tasks.get(parameters["taskToken"])
        if task is None:
            raise RefusedCallError("TaskDoesNotExist")
        now = self._now()
        if task.has_begun:
            task.gap = max(task.gap, now - task.beaten_at)
        task.has_begun = True
        if not task.end and now - task.beaten_at > task.heartbeat_seconds:
            self.end(task, "timed out")
        if task.end:
            raise RefusedCallError("TaskTimedOut")
        task.beaten_at = now
        if operation == "SendTaskSuccess":
            self.end(task, "succeeded", parameters["output"])
        elif operation == "SendTaskFailure":
            self.end(task, "failed", parameters.get("error", ""))
        return {}

    def _start(self, parameters: Row) -> Row:
        """A second one under a name is refused, unless it is the same and the first one runs."""
        machine = parameters["stateMachineArn"].replace(":stateMachine:", ":execution:")
        arn, said = f"{machine}:{parameters['name']}", {"input": parameters["input"]}
        found = self.executions.get(arn)
        if found is not None and (found.status, found.said["input"]) != ("RUNNING", said["input"]):
            raise RefusedCallError("ExecutionAlreadyExists")
        if self.on_start is None:
            raise RefusedCallError("StateMachineDoesNotExist")
        if found is None:
            self.executions[arn] = Execution(said=said)
            self.on_start(arn, json.loads(parameters["input"]))
        return {"executionArn": arn, "startDate": datetime.fromtimestamp(self._now(), UTC)}

    def _described(self, arn: str) -> Row:
        found = self.executions.get(arn)
        if found is None:
            raise RefusedCallError("ExecutionDoesNotExist")
        if found.status == "RUNNING":
            return {"status": found.status, **found.said}
        stopped = datetime.fromtimestamp(found.stopped_at, UTC)
        return {"status": found.status, "stopDate": stopped, **found.said}
