"""The shipped functions over one AWS in memory, and the faults that may meet their calls.

A `Stage` holds the loaded functions; each schedule has a `World` of its own, in which every
invocation is a task. A client of botocore reaches the world by botocore's event hooks, so that the
functions' parameters, their errors and their handling of both are the real ones.
"""

import concurrent.futures
import contextlib
import functools
import io
import json
import logging
import os
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from jobplane.explore.services import Bucket, Flows, Message, Queue, Queues, Sockets, Stream
from jobplane.explore.tables import RefusedCallError, Row, Table, Tables
from jobplane.explore.tasks import (
    Choose,
    KilledError,
    Process,
    Scheduler,
    SimulatedExecutor,
    SimulatedRandom,
    SimulatedThreading,
    SimulatedTime,
    Task,
)
from jobplane.histories.operations import LANES, Call
from jobplane.tree.modules import imported
from jobplane.tree.repository import Function, Repository
from jobplane.tree.resolved import ACCOUNT, JWT_SECRET, REGION, STAGE, ResolvedStack
from jobplane_keys import from_item, iso_time, owner_key, to_item
from lambdapack.environments import plain_environment
from lambdapack.tools import ToolError

# Longer than a lease and the minute of the sweeper.
FREEZE_SECONDS = 200.0
OUTAGE_SECONDS = 240.0
SKEWS = (0.0, -2.0, 2.0)
SWEEP_SECONDS = 30.0
LANES_SECONDS = 60.0
CLAIMS_SECONDS = 60.0
MOST_CLAIM_SWEEPS = 8
AGAIN_SECONDS = 300.0
STREAM_TRIES = 5
EVENT_TRIES = 3
CONNECTION_SECONDS = 7200
RECEIVER = "https://receiver.example.com/hook"
SECRET = "whsec_dGhlLXNlY3JldC1vZi10aGUtZXhwbG9yZXI="  # noqa: S105 - it signs nothing real
READS = frozenset(
    {
        "GetItem", "Query", "Scan", "BatchGetItem", "GetObject", "HeadObject", "ListObjectsV2",
        "ListParts", "GetQueueUrl", "ReceiveMessage", "DescribeExecution", "DescribeStream",
        "GetShardIterator", "GetRecords",
    }
)  # fmt: skip
# An index or a read that is not consistent may be so far behind the table: less than the functions
# allow for.
LAG_SECONDS = 1.5
READ_FAULTS = ("kill", "freeze", "fail", "hang", "outage")
WRITE_FAULTS = ("kill", "lost", "repeat", "late", "delayed", "freeze", "fail", "hang", "outage")
EXPLAINED = {
    "kill": "the process is killed before the call",
    "lost": "the call is carried out, and its answer is lost for good",
    "repeat": "the answer is lost, and botocore repeats the call",
    "late": "the answer does not come; the call is carried out before the time moves on",
    "delayed": f"the answer does not come; the call is carried out {FREEZE_SECONDS:.0f} s later",
    "freeze": f"the process stands still for {FREEZE_SECONDS:.0f} s before the call",
    "fail": "the call fails, and is not carried out",
    "hang": "the call waits until all of botocore's time-outs are over",
    "outage": f"such calls of the process hang for {OUTAGE_SECONDS:.0f} s, one after the other",
    "stale": f"the answer does not show the writes of the last {LAG_SECONDS} s",
    "expire": "DynamoDB removes every row that is past its TTL",
    "twice": "the message or the record is delivered twice",
    "again": f"the record is delivered once more after {AGAIN_SECONDS:.0f} s",
}


class Stage:
    """The functions of a repository, each loaded once, and the session of their clients."""

    def __init__(self, repository: Repository) -> None:
        self.template = ResolvedStack(repository, STAGE, {"jwtSecret": JWT_SECRET})
        self.world: World | None = None
        self._modules: dict[str, ModuleType] = {}
        self._open = contextlib.ExitStack()
        self.tables = [
            Table.declared(properties)
            for properties in self.template.of_type("AWS::DynamoDB::Table").values()
        ]
        self.prefix = self.template.names.prefix
        self.queues = [
            (properties["QueueName"], float(properties.get("VisibilityTimeout", 30)))
            for properties in self.template.of_type("AWS::SQS::Queue").values()
        ]
        self._timeouts: dict[str, float] = {}
        self._clients: dict[Any, Any] = {}
        session: Any = botocore.session.Session()
        session.register("before-parameter-build", self._keep_parameters)
        session.register("before-call", self._answer)
        self.session = session

    def __enter__(self) -> "Stage":
        credentials = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "explore")
        settings = {
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled",
            "LOG_LEVEL": "ERROR",
        }
        enter = self._open.enter_context
        enter(patch.dict(os.environ, plain_environment() | credentials | settings, clear=True))
        enter(patch.object(concurrent.futures, "ThreadPoolExecutor", self._executor))
        enter(patch.object(os, "urandom", self._random_bytes))
        enter(contextlib.redirect_stdout(_Discarded()))
        logging.disable(logging.CRITICAL)
        self._open.callback(logging.disable, logging.NOTSET)
        enter(patch.object(boto3, "client", self.client))
        for name in [name for name in sys.modules if name.startswith("jobplane_")]:
            self.simulate(sys.modules[name])
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def scheduler(self) -> Scheduler:
        assert self.world is not None
        return self.world.scheduler

    def module(self, name: str) -> Any:
        """A function's module."""
        if name not in self._modules:
            self._modules[name] = self._load(name)
        return self._modules[name]

    def timeout(self, name: str) -> float:
        """After how many seconds Lambda ends an invocation."""
        if name not in self._timeouts:
            self._timeouts[name] = float(self._function(name).config["timeout"])
        return self._timeouts[name]

    def client(self, service: str, *, config: Config | None = None, **_: Any) -> Any:
        """A client as boto3 makes one for a program outside of the stack; each is made once."""
        key = (service, repr(sorted(vars(config or Config()).items(), key=str)))
        if key not in self._clients:
            made = self.session.create_client(service, region_name=REGION, config=config)
            self._clients[key] = made
        return self._clients[key]

    def table(self, short: str) -> str:
        return self.prefix + short

    def simulate(self, module: ModuleType) -> None:
        """Replace a module's clocks, threads and randomness by the world's."""
        scheduler = lambda: self.scheduler  # noqa: E731  # a name for a getter
        clock = SimulatedTime(scheduler)
        chance = SimulatedRandom(lambda: self._chance())
        replaced: list[tuple[Any, Any]] = [
            (time, clock),
            (time.time, clock.time),
            (time.monotonic, clock.monotonic),
            (time.sleep, clock.sleep),
            (threading, SimulatedThreading(scheduler)),
            (random, chance),
            (_REAL_EXECUTOR, self._executor),
        ]
        for name, value in list(vars(module).items()):
            # A client or a pool that was made outside of the world, or in it, stays there.
            if forget := getattr(value, "cache_clear", None):
                forget()
                self._open.callback(forget)
            for real, simulated in replaced:
                if value is real:
                    self._open.enter_context(patch.object(module, name, simulated))
            if value is secrets:
                hexed = SimpleNamespace(token_hex=lambda count: self._random_bytes(count).hex())
                self._open.enter_context(patch.object(module, name, hexed))

    def _executor(self, *arguments: Any, **more: Any) -> SimulatedExecutor:
        return SimulatedExecutor(lambda: self.scheduler, *arguments, **more)

    def _chance(self) -> random.Random:
        assert self.world is not None
        return self.world.chance()

    def _random_bytes(self, count: int) -> bytes:
        return _URANDOM(count) if self.world is None else self.world.chance().randbytes(count)

    def _function(self, name: str) -> Function:
        return Function(name, self.template.repository.root / "functions" / name)

    def _load(self, name: str) -> ModuleType:
        function = self._function(name)
        environment = self.template.environment(function) | {
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "LOG_LEVEL": "ERROR",
            "TEMPLATES_INDEX_PATH": str(Path(__file__).with_name("templates.json")),
        }
        os.environ.update(environment)
        with patch.object(botocore.session, "get_session", lambda: self.session):
            module = self._open.enter_context(imported(function))
        for lib in [name for name in sys.modules if name.startswith("jobplane_")]:
            self.simulate(sys.modules[lib])
        self.simulate(module)
        if name == "deliver-webhook":
            self._open.enter_context(patch.object(module, "deliver", self._deliver))
        return module

    def _deliver(self, _url: str, _body: bytes, *_: Any, message_id: str, **__: Any) -> Any:
        """The webhooks' receiver, instead of the network."""
        assert self.world is not None
        outcome = self.module("deliver-webhook").Outcome
        accepted = self.world.receive_webhook(message_id)
        return outcome("delivered", 200) if accepted else outcome("retry", 503)

    # botocore's hooks

    def _keep_parameters(self, params: Row, context: Row, **_: Any) -> None:
        context["explored"] = params

    def _answer(self, model: Any, context: Row, **_: Any) -> tuple[Any, Row]:
        assert self.world is not None
        service = model.service_model.service_name
        config = context["client_config"]
        try:
            answer = self.world.call(service, model.name, context["explored"], config)
        except RefusedCallError as error:
            metadata = {"HTTPStatusCode": error.status, "RequestId": "explored", "HTTPHeaders": {}}
            parsed = {
                "Error": {"Code": error.code, "Message": error.message},
                "ResponseMetadata": metadata,
                **error.answer,
            }
            return SimpleNamespace(status_code=error.status, headers={}), parsed
        metadata = {"HTTPStatusCode": 200, "RequestId": "explored", "HTTPHeaders": {}}
        return SimpleNamespace(status_code=200, headers={}), {
            **answer,
            "ResponseMetadata": metadata,
        }


_REAL_EXECUTOR = concurrent.futures.ThreadPoolExecutor
_URANDOM = os.urandom


class _Discarded(io.TextIOBase):
    """Standard output of the functions, which is dropped."""

    def write(self, text: str) -> int:
        return len(text)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a row: the table's short name, the row before and after, and whose write."""

    table: str
    old: Row | None
    new: Row | None
    task: str
    process: str


TTL = "ttl"
"""The writer of a change that DynamoDB makes when it removes an expired row."""

type Watcher = Callable[[Change], None]


class World:
    """One run of a scenario."""

    def __init__(self, stage: Stage, choose: Choose, seed: int = 0) -> None:
        self.stage = stage
        self.seed = seed
        self.scheduler = Scheduler(choose)
        self.tables = Tables(
            Table(table.name, table.key, table.indexes, table.ttl) for table in stage.tables
        )
        self.tables.clock = lambda: self.scheduler.now
        self.tables.observers.append(self._changed)
        self.s3 = Bucket()
        self.sockets = Sockets()
        self.sqs = Queues(lambda: self.scheduler)
        self.flows = Flows(lambda: self.scheduler.now, self.scheduler.wake)
        self.files_stream = Stream()
        self.watchers: list[Watcher] = []
        self.checks: list[Callable[[], None]] = []
        """Called when a program reports an event without a changed row."""
        self.programs: dict[str, Any] = {}
        """What scenarios keep about their programs, for the guarantees."""
        self.clock = SimulatedTime(lambda: self.scheduler)
        self.faulted: dict[str, list[tuple[str, str]]] = {}
        """The faults that met each process, and at which calls."""
        self._sweeper: Task | None = None
        self._lane_sweeper: Task | None = None
        self._claim_sweeps = 0
        self._swept = -1
        """The digest after the last complete sweep of the lanes."""
        self.counts_files = False
        """Whether the stream of the pipeline's files is read."""
        self.receiver_seconds = 0.0
        """How long the receiver of webhooks takes for its answer."""
        self._is_expiring = False
        self._patches = contextlib.ExitStack()
        self._outages: dict[tuple[str, str], float] = {}
        self.digest = 0
        """Of all rows."""
        self.order = 0
        """Of all other effects, in their order."""
        self.received: list[tuple[str, bool]] = []
        """Ids of webhooks that came to the receiver, and whether it accepted them."""
        self.posts: list[tuple[str, str]] = []
        """Ids of webhooks that were sent, and by which process."""
        self.writes: list[Call] = []
        """The writes of DynamoDB, as their callers see them."""
        self._chances: dict[str, random.Random] = {}
        for name, visibility in stage.queues:
            self.sqs.add(name, visibility)
        self.read_queue("jobs", "processor")
        self.read_queue("webhooks", "deliver-webhook")
        self.scheduler.on_rest = self._rest
        stage.world = self

    # What a scenario says

    @property
    def now(self) -> float:
        return self.scheduler.now

    def actor(self, name: str, run: Callable[[], Any], *, at: float | None = None) -> Task:
        """Add a program, of which one call is a choice of the schedule like every other."""
        return self.scheduler.spawn(name, run, self.process(name), at=at)

    def replaced(self, target: Any, name: str, value: Any) -> None:
        """Give a module or a class another value until the end of the schedule."""
        self._patches.enter_context(patch.object(target, name, value))

    @property
    def most_subscriptions(self) -> int:
        """How many a connection may have."""
        return int(self.stage.module("router").MAX_SUBSCRIPTIONS)

    @property
    def are_repeats(self) -> bool:
        """Whether all faults so far were repetitions by botocore."""
        return all(fault == "repeat" for met in self.faulted.values() for fault, _ in met)

    @property
    def most_followers(self) -> int:
        """How many jobs may wait for one assembly."""
        return int(self.stage.module("processor").MAX_FOLLOWERS)

    def close(self) -> None:
        """Take back what `replaced` did."""
        self._patches.close()

    def process(self, name: str) -> Process:
        return Process(name, self._skew(name))

    def _skew(self, name: str) -> float:
        """How wrong the clock of a process is; with the seed 0 all are right."""
        return random.Random(f"{self.seed}/{name}").choice(SKEWS) if self.seed else 0.0

    def invoke(
        self,
        function: str,
        event: Any,
        *,
        name: str = "",
        at: float | None = None,
        before: Callable[[], bool] = lambda: True,
        after: Callable[[str, Any], None] = lambda outcome, answer: None,
    ) -> Task:
        """Add an invocation. `after` is given its outcome (`ended`, `failed`, `killed`) and answer.

        `before` is called when it begins; it is left out if that returns False.
        """
        process = Process(name or function)
        module = self.stage.module(function)

        def run() -> Any:
            if not before():
                return None
            process.deadline = self.now + self.stage.timeout(function)
            outcome, answer = "killed", None
            try:
                given = event() if callable(event) else event
                answer = module.handler(json.loads(json.dumps(given)), self._context(process))
                if self.scheduler.point(["kill"]) == "kill":
                    self._meet("kill", "its answer")
                    raise KilledError
                outcome = "ended"
            except KilledError:
                raise
            except Exception as error:
                outcome, answer = "failed", error
            finally:
                process.deadline = float("inf")
                # Lambda stops what an invocation has left behind.
                self.scheduler.kill(process)
                if not self.scheduler.ending:
                    self.scheduler.note(outcome)
                    after(outcome, answer)
            return answer if outcome == "ended" else None

        task = self.scheduler.spawn(name or function, run, process, at=at)
        process.name, process.skew = task.name, self._skew(task.name)
        return task

    def answer_of(self, function: str, event: Any) -> Any:
        """The answer of an invocation within the current task, or at once in the setup."""
        if self.scheduler.current is None:
            context = self._context(Process("setup", deadline=self.now + 900))
            return self.stage.module(function).handler(event, context)
        caller, answers = self.scheduler.current, []

        def after(outcome: str, answer: Any) -> None:
            answers.append((outcome, answer))
            self.scheduler.wake(caller)

        self.invoke(function, event, name=f"{caller.name}/{function}", after=after)
        while not answers:
            self.scheduler.wait()
        outcome, answer = answers[0]
        if outcome != "ended":
            raise InvocationError(outcome, answer)
        return answer

    def put(self, table: str, *rows: Row) -> None:
        for row in rows:
            parameters = {"TableName": self.stage.table(table), "Item": to_item(row)}
            put = functools.partial(self.tables.perform, "PutItem", parameters)
            if table == LANES:
                self._noted("PutItem", parameters, put)
            else:
                put()

    def rows(self, table: str) -> list[Row]:
        """All rows of a table; "events" are those of `requests` with a job's events."""
        name = "requests" if table == "events" else table
        found = self.tables.by_name[self.stage.table(name)].items.values()
        rows = [from_item(item) for item in found]
        return [row for row in rows if _kind(name, row) == table]

    def connect(
        self, connection_id: str, user: str = "scott", tenant: str = "acme", *, quiet: float = 0.0
    ) -> "Client":
        """A client with an open socket, which has sent nothing for some seconds."""
        moment = iso_time(self.now - quiet)
        self.put(
            "connections",
            {
                "connection_id": connection_id,
                "user_id": user,
                "tenant_id": tenant,
                "permissions": [],
                "connected_at": moment,
                "last_seen_at": moment,
                "token_expires_at": int(self.now) + 10 * CONNECTION_SECONDS,
                "ttl": int(self.now) + 10 * CONNECTION_SECONDS,
            },
        )
        self.sockets.open.add(connection_id)
        return Client(self, connection_id, owner_key(tenant, user))

    def check(self) -> None:
        """Check the guarantees now."""
        for check in self.checks:
            check()

    def sweep(self, *, at: float | None = None) -> Task:
        """Add a run of the sweeper, besides those of its schedule."""
        return self.invoke("processor", {"sweep": "leases"}, name="sweeper", at=at)

    # What moves by itself

    def read_queue(self, short: str, function: str) -> None:
        """Let a function read a queue: one message an invocation."""
        queue = self.sqs.by_name[self.stage.table(short)]
        queue.on_message = functools.partial(self._deliver, queue, function)

    def _deliver(self, queue: Queue, function: str, message: Message) -> None:
        def before() -> bool:
            if message.deleted:
                return False
            if message.visible_at > self.now:
                self._deliver(queue, function, message)
                return False
            if self.scheduler.point(["twice"]) == "twice":
                self._meet("twice", message.id)
                self._deliver(queue, function, message)
            if message not in queue.messages:  # it was deleted meanwhile
                return False
            self.sqs.receive(queue, message)
            record["receiptHandle"] = message.receipt
            record["attributes"] = {"ApproximateReceiveCount": str(message.receives)}
            return True

        def after(outcome: str, answer: Any) -> None:
            failed = (
                [entry["itemIdentifier"] for entry in (answer or {})["batchItemFailures"]]
                if (outcome == "ended")
                else [message.id]
            )
            if message.deleted:
                return
            if message.id in failed:
                self._deliver(queue, function, message)
            else:
                message.deleted = True
                if message in queue.messages:
                    queue.messages.remove(message)

        record: Row = {
            "messageId": message.id,
            "body": message.body,
            "eventSource": "aws:sqs",
            "messageAttributes": {},
        }
        self.invoke(
            function,
            lambda: {"Records": [record]},
            at=message.visible_at,
            before=before,
            after=after,
        )

    def _stream(self, old: Row | None, new: Row) -> None:
        """Deliver a record of the stream of `requests` to dispatch, as its filter says."""
        image = {"NewImage": to_item(new)} | ({"OldImage": to_item(old)} if old else {})
        self.sqs.sent += 1
        record = {
            "eventID": f"record-{self.sqs.sent}",
            "eventSource": "aws:dynamodb",
            "eventName": "MODIFY" if old else "INSERT",
            "dynamodb": {"SequenceNumber": str(self.sqs.sent), **image},
        }
        self._deliver_record("dispatch", record, 1)

    def _count(self, old: Row | None, new: Row | None) -> None:
        """Deliver a record of the stream of the pipeline's files to count-files."""
        self.sqs.sent += 1
        row = new or old or {}
        change = {
            "Keys": to_item({name: row[name] for name in ("date_prefix", "file_key")}),
            "SequenceNumber": str(self.sqs.sent),
            "ApproximateCreationDateTime": self.now,
        }
        change |= {"NewImage": to_item(new)} if new else {}
        change |= {"OldImage": to_item(old)} if old else {}
        self.files_stream.add(change, self.now)
        record = {"eventID": f"record-{self.sqs.sent}", "dynamodb": change}
        self._deliver_record("count-files", record, 1)

    def _deliver_record(self, function: str, record: Row, number: int, wait: float = 0.0) -> None:
        def before() -> bool:
            fault = self.scheduler.point(["twice", "again"])
            if fault:
                self._meet(fault, record["eventID"])
                wait = AGAIN_SECONDS if fault == "again" else 0.0
                self._deliver_record(function, record, number, wait)
            return True

        def after(outcome: str, answer: Any) -> None:
            failed = outcome != "ended" or (answer or {}).get("batchItemFailures")
            if failed and number < STREAM_TRIES:
                self._deliver_record(function, record, number + 1, 2.0 ** (number + 1))

        self.invoke(
            function,
            {"Records": [record]},
            at=self.now + wait,
            before=before,
            after=after,
        )

    def _rest(self, following: float | None) -> bool:
        """The schedules of the sweepers: within a minute after a request is overdue, and a minute
        after the last change of a lane.
        """
        plans: list[tuple[float, str]] = []
        due = [row["lease_until"] for row in self.rows("requests") if "lease_until" in row]
        if due and (self._sweeper is None or self._sweeper.done):
            plans.append((max(self.now, min(due) + SWEEP_SECONDS), "leases"))
        is_idle = self._lane_sweeper is None or self._lane_sweeper.done
        if is_idle and self.rows("lanes") and self.digest != self._swept:
            plans.append((self.now + LANES_SECONDS, "lanes"))
        if self._claim_sweeps < MOST_CLAIM_SWEEPS and self._has_abandoned_claims():
            plans.append((self.now + CLAIMS_SECONDS, "claims"))
        if not plans:
            return False
        moment, swept = min(plans)
        if following is not None and following <= moment:
            return False
        if swept == "leases":
            self._sweeper = self.sweep(at=moment)
        elif swept == "claims":
            self._claim_sweeps += 1
            self.invoke("sweep-claims", {"sweep": "claims"}, at=moment)
        else:
            self._lane_sweeper = self.sweep_lanes(at=moment)
        return True

    def _has_abandoned_claims(self) -> bool:
        """Whether an execution that has ended has a claim, and `sweep-claims` does not run."""
        if any(task.name.startswith("sweep-claims") for task in self.scheduler.tasks):
            return False
        ended = {arn for arn, one in self.flows.executions.items() if one.status != "RUNNING"}
        rows = self.rows("active-jobs")
        return any(row.get("state") == "held" and row.get("owner") in ended for row in rows)

    def sweep_lanes(self, *, at: float | None = None) -> Task:
        """Add a run of the lanes' sweeper, besides those of its schedule."""

        def after(outcome: str, _: Any) -> None:
            self._swept = self.digest if outcome == "ended" else self._swept

        event = {"sweep": "lanes"}
        return self.invoke("dispatch", event, name="lanes-sweeper", at=at, after=after)

    # Calls

    def call(self, service: str, operation: str, parameters: Row, config: Any) -> Row:
        """Carry out a call of the current task, after what the schedule lets happen before."""
        task = self.scheduler.current
        effect = functools.partial(self._effect, service, operation, parameters)
        carry = effect
        if task is not None and service != "ssm":
            carry = functools.partial(
                self._called, task, service, operation, parameters, config, effect
            )
        try:
            if service == "dynamodb" and operation not in READS:
                return self._noted(operation, parameters, carry)
            return carry()
        except (RefusedCallError, BotoCoreError):
            raise
        except Exception as error:  # a fault of the simulation
            self.scheduler.fail(error)
            raise

    def _noted(self, operation: str, parameters: Row, carry: Callable[[], Row]) -> Row:
        """Carry out a write of DynamoDB, and note it for the histories."""
        task = self.scheduler.current
        process = task.process.name if task else "setup"
        met, start = len(self.faulted.get(process, ())), self.scheduler.moment
        end: float | None = None
        answer: Row | None = None
        try:
            answer = carry()
            end = self.scheduler.moment
        except RefusedCallError as error:
            answer = {"Error": {"Code": error.code}, **error.answer}
            end = self.scheduler.moment
            raise
        finally:
            repeated = any(fault == "repeat" for fault, _ in self.faulted.get(process, [])[met:])
            call = Call(process, operation, parameters, start, end, answer, repeated)
            self.writes.append(call)
        return answer

    def _called(
        self,
        task: Task,
        service: str,
        operation: str,
        parameters: Row,
        config: Any,
        effect: Callable[[], Row],
    ) -> Row:
        text = shown(service, operation, parameters, self.stage.prefix)
        if self._is_certain(operation, parameters):
            return self._done(task, text, effect)
        # Of DynamoDB one kind of calls may fail alone: a table's or an index's partition.
        place = (task.process.name, operation if service == "dynamodb" else service)
        if self.now < self._outages.get(place, 0.0):
            return self._carry_out(task, "hang", text, effect, config)
        faults: tuple[str, ...] = READ_FAULTS if operation in READS else WRITE_FAULTS
        late = self._late_answer(operation, parameters) if service == "dynamodb" else None
        faults += ("stale",) * (late is not None) + ("expire",) * bool(self.tables.expired())
        fault = self.scheduler.point(faults, text)
        task.calls += 1
        if fault:
            self._meet(fault, text)
        if fault == "expire":
            self._expire()
        if fault == "stale" and late is not None:
            effect = lambda: late  # noqa: E731  # the effect of the call as it is answered
        if fault == "outage":
            self._outages[place] = self.now + OUTAGE_SECONDS
            fault = "hang"
        return self._carry_out(task, fault, text, effect, config)

    def _is_certain(self, operation: str, parameters: Row) -> bool:
        """Whether the call reads a part of an index in which there is nothing: the sweeper does.

        It is not a point: what could come in between would be found by the next sweep.
        """
        if operation != "Query" or "IndexName" not in parameters:
            return False
        if self.tables.perform(operation, parameters)["Count"]:
            return False
        return self._late_answer(operation, parameters) is None

    def _late_answer(self, operation: str, parameters: Row) -> Row | None:
        """The answer of an index that lags behind its table; None if it is the same."""
        if operation not in {"Query", "Scan"} or "IndexName" not in parameters:
            return None
        late = self.tables.perform_late(operation, parameters, self.now - LAG_SECONDS)
        return None if late == self.tables.perform(operation, parameters) else late

    def _expire(self) -> None:
        """Remove the rows that have expired, as DynamoDB does it: no program's write."""
        self._is_expiring = True
        self.programs["unrecorded"] = TTL
        try:
            self.tables.expire()
        finally:
            self._is_expiring = False

    def _carry_out(
        self, task: Task, fault: str, text: str, effect: Callable[[], Row], config: Any
    ) -> Row:
        scheduler = self.scheduler
        match fault:
            case "kill":
                scheduler.kill(task.process)
                raise KilledError
            case "freeze":
                task.process.frozen_until = scheduler.now + FREEZE_SECONDS
                scheduler.demote(task)
                scheduler.yield_once()
            case "fail":
                raise ConnectTimeoutError(endpoint_url=text)
            case "hang":
                attempts = (config.retries or {}).get("total_max_attempts", 3)
                scheduler.wait(scheduler.now + config.read_timeout * attempts)
                raise ReadTimeoutError(endpoint_url=text)
            case "lost":
                self._done(task, text, effect)
                raise ReadTimeoutError(endpoint_url=text)
            case "late" | "delayed":
                late = functools.partial(self._late, text, effect)
                moment = scheduler.now + FREEZE_SECONDS if fault == "delayed" else None
                scheduler.spawn(f"late/{task.name}", late, Process(task.process.name), at=moment)
                raise ReadTimeoutError(endpoint_url=text)
            case "repeat":
                with contextlib.suppress(RefusedCallError):
                    self._done(task, text, effect)
        return self._done(task, text, effect)

    def _late(self, text: str, effect: Callable[[], Row]) -> None:
        with contextlib.suppress(RefusedCallError):
            self._done(self.scheduler._me(), text, effect)

    def _done(self, task: Task, text: str, effect: Callable[[], Row]) -> Row:
        """Carry out a call, and note its answer."""
        try:
            answer = effect()
        except RefusedCallError as error:
            self.scheduler.note(f"{text}: {error.code}")
            task.history = hash((task.history, text, error.code, repr(error.answer)))
            raise
        self.scheduler.note(text)
        task.history = hash((task.history, text, repr(answer)))
        return answer

    def _effect(self, service: str, operation: str, parameters: Row) -> Row:
        simulated: dict[str, Callable[[], Row]] = {
            "dynamodb": lambda: self.tables.perform(operation, parameters),
            "dynamodbstreams": lambda: self.files_stream.perform(operation, parameters),
            "lambda": lambda: self._invoked(parameters),
            "s3": lambda: _readable(self.s3.perform(operation, parameters)),
            "sqs": lambda: self.sqs.perform(operation, parameters),
            "apigatewaymanagementapi": lambda: self.sockets.perform(operation, parameters),
            "ssm": lambda: _parameter(parameters["Name"]),
            "stepfunctions": lambda: self.flows.perform(operation, parameters),
        }
        if service not in simulated:
            what = f"the explorer does not simulate the service {service}"
            raise ToolError(f"{what}: add {operation} to World._effect", "")
        answer = simulated[service]()
        if service in {"dynamodb", "lambda", "ssm"}:
            return answer
        if operation not in READS:
            sent = (parameters["Key"], repr(answer)) if service == "s3" else repr(parameters)
            self.order = hash((self.order, operation, sent))
        return answer

    def _invoked(self, parameters: Row) -> Row:
        """Lambda's Invoke: another invocation, for which the caller waits."""
        name = parameters["FunctionName"].rpartition(":")[2].removeprefix(self.stage.prefix)
        if parameters.get("InvocationType") == "Event":
            self.invoke_later(name, json.loads(parameters["Payload"]), 1)
            return {"StatusCode": 202}
        try:
            answer: Any = self.answer_of(name, json.loads(parameters["Payload"]))
        except InvocationError as error:
            fault = {"errorType": type(error.answer).__name__, "errorMessage": str(error.answer)}
            payload = _Body(json.dumps(fault).encode())
            return {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": payload}
        return {"StatusCode": 200, "Payload": _Body(json.dumps(answer).encode())}

    def invoke_later(self, name: str, event: Row, number: int) -> None:
        """An invocation for which no one waits; Lambda repeats it twice if it fails."""

        def after(outcome: str, _: Any) -> None:
            if outcome != "ended" and number < EVENT_TRIES:
                self.invoke_later(name, event, number + 1)

        wait = 60.0 * (number - 1)
        self.invoke(name, event, at=self.now + wait, after=after)

    def _meet(self, fault: str, text: str) -> None:
        task = self.scheduler._me()
        self.faulted.setdefault(task.process.name, []).append((fault, text))
        self.scheduler.note(f"** {fault}: {EXPLAINED[fault]} ** {text}")

    def receive_webhook(self, message_id: str) -> bool:
        """A webhook comes to its receiver; whether it accepts it."""
        fault = self.scheduler.point(["kill", "fail"])
        if fault:
            self._meet(fault, f"webhook {message_id}")
        if fault == "kill":
            self.scheduler.kill(self.scheduler._me().process)
            raise KilledError
        self.posts.append((message_id, self.scheduler._me().process.name))
        self.check()
        if self.receiver_seconds:
            self.scheduler.wait(self.now + self.receiver_seconds)
        self.received.append((message_id, not fault))
        self.scheduler.note(f"webhook {message_id}")
        return not fault

    def errors(self) -> Iterator[BaseException]:
        """Errors of actors that no fault explains."""
        known = (KilledError, BotoCoreError, ClientError, InvocationError)
        for error in self.scheduler.errors:
            if not isinstance(error, known):
                yield error

    # What is known about the state

    def chance(self) -> random.Random:
        """Randomness of the current task: equal in every schedule."""
        name = self.scheduler.current.name if self.scheduler.current else "setup"
        if name not in self._chances:
            self._chances[name] = random.Random(f"{self.seed}/{name}")
        return self._chances[name]

    def state(self) -> int:
        """A digest of the whole state: what is stored, and where each task is."""
        tasks = tuple(
            (task.name, task.moments, task.history, task.ready, task.until, task.process.dead)
            for task in self.scheduler.tasks
            if not task.done
        )
        met = tuple(sorted((name, *sorted(faults)) for name, faults in self.faulted.items()))
        sockets = tuple(sorted(self.sockets.open))
        return hash((self.digest, self.order, tasks, self.scheduler.now, sockets, met))

    def _changed(self, table: Table, old: Any, new: Any) -> None:
        key = table.key_of(new or old)
        self.digest ^= hash((table.name, key, repr(old))) ^ hash((table.name, key, repr(new)))
        short = table.name.removeprefix(self.stage.prefix)
        task = self.scheduler.current
        rows = (from_item(old) if old else None, from_item(new) if new else None)
        names = (task.name, task.process.name) if task else ("setup", "setup")
        names = (TTL, TTL) if self._is_expiring else names
        short = _kind(short, rows[1] or rows[0] or {})
        change = Change(short, *rows, *names)
        for watch in self.watchers:
            watch(change)
        before, after = rows
        if short == "files" and self.counts_files:
            self._count(before, after)
        if short == "requests" and after:
            was_pending = before is not None and before["status"] == "PENDING"
            has_ended = "ended_at" in after and before is not None and "ended_at" not in before
            is_new = before is None and after["status"] == "SCHEDULED"
            may_run = is_new or (after["status"] == "PENDING" and not was_pending)
            if may_run or (has_ended and "lane" in after):
                self._stream(before, after)

    def _context(self, process: Process) -> Any:
        return SimpleNamespace(
            aws_request_id=f"invocation-{process.name}",
            function_name=process.name,
            memory_limit_in_mb=1024,
            invoked_function_arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{process.name}",
            get_remaining_time_in_millis=lambda: int((process.deadline - self.now) * 1000),
        )


def _kind(table: str, row: Row) -> str:
    return "events" if table == "requests" and "events" in row else table


def _parameter(name: str) -> Row:
    return {"Parameter": {"Value": SECRET if name.endswith("secret") else RECEIVER}}


def _readable(answer: Row) -> Row:
    """An answer of S3 whose body, as part of a state, is its content."""
    return answer | ({"Body": _Body(answer["Body"].read())} if "Body" in answer else {})


class InvocationError(Exception):
    """An invocation for which a task waits has failed."""

    def __init__(self, outcome: str, answer: Any) -> None:
        super().__init__(f"{outcome}: {answer!r}")
        self.answer = answer


class Client:
    """A client at the other end of a socket."""

    def __init__(self, world: World, connection_id: str, owner: str) -> None:
        self.world = world
        self.connection_id = connection_id
        self.owner = owner

    def ask(self, action: str, payload: Row | None = None, **envelope: Any) -> Row:
        """The router's answer to a message, in the current task."""
        message = {"id": f"ask-{action}", "action": action, "payload": payload or {}, **envelope}
        event = self._event({"body": json.dumps(message)})
        answer = self.world.answer_of("router", event)
        said: Row = json.loads(answer["body"]) if "body" in answer else {}
        return said

    def say(
        self,
        action: str,
        payload: Row | None = None,
        *,
        at: float | None = None,
        **envelope: Any,
    ) -> Task:
        """Send a message: the invocation of the router is an actor."""
        message = {"id": f"ask-{action}", "action": action, "payload": payload or {}, **envelope}
        return self.world.invoke(
            "router", self._event({"body": json.dumps(message)}), name=f"{action}", at=at
        )

    def open(self, token: str) -> None:
        """Shake hands at once, before the exploration."""
        answer = self.world.answer_of("connect", self._hello(token))
        assert answer["statusCode"] == 200, answer
        self.world.sockets.open.add(self.connection_id)

    def say_hello(self, name: str, token: str) -> Task:
        """Shake hands: the invocation of connect is an actor; the socket opens if it succeeds."""

        def after(_: str, answer: Any) -> None:
            if isinstance(answer, Mapping) and answer["statusCode"] == 200:
                self.world.sockets.open.add(self.connection_id)

        return self.world.invoke("connect", self._hello(token), name=name, after=after)

    def _hello(self, token: str) -> Row:
        return self._event({"queryStringParameters": {"token": token}})

    def authenticate(self, name: str, token: str, *, seconds: float = 0.0) -> Task:
        """Send a newer token in some seconds: the invocation of connect is an actor."""
        message = {"id": name, "action": "authenticate", "payload": {"token": token}}
        event = self._event({"body": json.dumps(message)})
        event["requestContext"]["routeKey"] = "authenticate"
        return self.world.invoke("connect", event, name=name, at=self.world.now + seconds)

    def leave(self) -> Task:
        """Close the socket: the invocation of disconnect is an actor."""

        def before() -> bool:
            self.world.sockets.open.discard(self.connection_id)
            return True

        return self.world.invoke("disconnect", self._event({}), before=before)

    def heard(self, request_id: str) -> list[Row]:
        """The messages about a request, in their order."""
        return [
            message
            for target, message in self.world.sockets.heard
            if target == self.connection_id and message.get("request_id") == request_id
        ]

    def _event(self, more: Row) -> Row:
        context = {"connectionId": self.connection_id, "domainName": "sockets", "stage": STAGE}
        return {"requestContext": context, **more}


class _Body(io.BytesIO):
    """An answer's body; as part of a state, its content."""

    def __repr__(self) -> str:
        return repr(hash(self.getvalue()))

    def iter_chunks(self, size: int = 1024) -> Iterator[bytes]:
        while data := self.read(size):
            yield data


def shown(service: str, operation: str, parameters: Mapping[str, Any], prefix: str) -> str:
    """A call as the table of a schedule shows it."""
    named = next(
        (
            str(parameters[name])
            for name in ("TableName", "QueueUrl", "ConnectionId", "Key", "FunctionName")
            if name in parameters and isinstance(parameters[name], str)
        ),
        "",
    )
    short = Path(named).name.removeprefix(prefix)
    key = parameters.get("Key") or parameters.get("Item") or {}
    ids = [
        str(next(iter(key[name].values())))
        for name in ("request_id", "connection_id", "assembly_id", "projectUserId", "file_key")
        if isinstance(key, Mapping) and name in key
    ]
    return " ".join([operation, short, *ids[:1]])
