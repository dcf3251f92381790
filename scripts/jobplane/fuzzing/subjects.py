"""A function under hostile input: how it is called, and what its contract is.

For any event a function answers in its documented form or raises one of its documented errors. An
answer holds no internals, a refused event changes nothing, and the log holds no token or secret.
"""

import contextlib
import copy
import io
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pydantic
from moto.backends import get_backend

from jobplane.contracts.catalogue import catalogue
from jobplane.fuzzing.recording import Recorder
from jobplane.tree.repository import Repository
from jobplane.tree.resolved import ACCOUNT, REGION
from jobplane.trying import cases
from jobplane.trying.inprocess import InProcess

type Json = Any

# An input takes less than a tenth of that, unless time grows faster than the input's size.
MAX_CPU_SECONDS = 20.0
TOKEN = re.compile(r"ey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{20,}")
LINK = re.compile(r"https://[^\s\"\\]+")
# Internals of a function, which no answer may hold.
INTERNALS = (
    "Traceback", 'File "', ".py", "botocore", "jobplane_", "pydantic", "arn:aws", "object at 0x",
    "NoneType", "ClientError", "ValidationException", "KeyError", "TypeError",
)  # fmt: skip
# Fields of documented answers that name a queue for the caller to use.
NAMES_QUEUES = frozenset({"queueUrl", "inputQueueName"})
# Error codes of the socket that mean: nothing was changed.
REFUSING_CODES = frozenset({
    "CALLBACK_OVER", "CALLBACK_USED", "DUPLICATE_REQUEST", "FORBIDDEN", "INVALID_ACTION",
    "INVALID_MESSAGE", "NOT_FOUND",
    "PAYLOAD_TOO_LARGE", "UNAUTHORIZED", "VALIDATION_ERROR",
})  # fmt: skip


@dataclass(frozen=True)
class Contract:
    errors: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    is_refusal: Callable[[Json], bool] = lambda answer: False
    quicken: Callable[[ModuleType], None] = lambda module: None
    """Replaces a module's waiting and its network calls."""
    environment: Mapping[str, str] = field(default_factory=dict)


def _status_of(answer: Json) -> int:
    status: int = answer["statusCode"]
    return status


def _is_refused_message(answer: Json) -> bool:
    if "answers" not in answer and _status_of(answer) != 200:
        return True
    return all(
        message["type"] == "error" and message["error"]["code"] in REFUSING_CODES
        for message in _messages_of(answer)
    )


def _messages_of(answer: Json) -> list[Json]:
    """The messages of an answer of router."""
    if "answers" in answer:
        return list(answer["answers"])
    return [json.loads(answer["body"])] if answer.get("body") else []


def _is_error_status(answer: Json) -> bool:
    return "statusCode" in (answer or {}) and _status_of(answer) >= 400


def _without_waiting(module: ModuleType) -> None:
    clock = {name: getattr(time, name) for name in dir(time) if not name.startswith("_")}
    module.time = SimpleNamespace(**clock | {"sleep": lambda seconds: None})  # type: ignore[attr-defined]


def _processor_without_waiting(module: ModuleType) -> None:
    _without_waiting(module)
    module.Job.sleep = lambda job, seconds: job.check()


def _status_alone(module: ModuleType) -> None:
    _without_waiting(module)
    module.ask_delivery = lambda assembly_id: {"webhook": {"delivered": True}}  # type: ignore[attr-defined]


def _delivery_without_network(module: ModuleType) -> None:
    _without_waiting(module)
    module.deliver = lambda *_, **__: module.Outcome("delivered", 200)  # type: ignore[attr-defined]


INPUT_ERRORS = frozenset({"ValidationError"})
# By function; all other functions have DEFAULT_CONTRACT.
CONTRACTS: dict[str, Contract] = {
    "check-active-job": Contract(INPUT_ERRORS),
    "claim": Contract(INPUT_ERRORS),
    "connect": Contract(
        INPUT_ERRORS,
        statuses=frozenset({200, 401, 429}),
        is_refusal=lambda answer: _status_of(answer) != 200,
    ),
    "count-files": Contract(frozenset({"UnreadableRecordError"}), quicken=_without_waiting),
    "deliver-webhook": Contract(
        INPUT_ERRORS,
        is_refusal=lambda answer: "refused" in answer,
        quicken=_delivery_without_network,
        environment={"TEMPLATES_INDEX_PATH": "../../templates/index.json"},
    ),
    "disconnect": Contract(INPUT_ERRORS, statuses=frozenset({200})),
    "dispatch": Contract(INPUT_ERRORS),
    "handle-timeout": Contract(INPUT_ERRORS, quicken=_without_waiting),
    "intake": Contract(INPUT_ERRORS),
    "jobs": Contract(
        statuses=frozenset({200, 202, 204, 207, 304, 400, 401, 403, 404, 409, 410, 413}),
        is_refusal=_is_error_status,
        quicken=_without_waiting,
    ),
    "processor": Contract(INPUT_ERRORS, quicken=_processor_without_waiting),
    "record-interruption": Contract(INPUT_ERRORS),
    "report-job": Contract(INPUT_ERRORS, quicken=_without_waiting),
    "router": Contract(
        INPUT_ERRORS, statuses=frozenset({200, 401}), is_refusal=_is_refused_message
    ),
    "send-interrupt": Contract(
        INPUT_ERRORS | {"InterruptQueueMissingError"},
        is_refusal=lambda answer: not answer["sent"],
        quicken=_without_waiting,
    ),
    "state-manager": Contract(
        frozenset({"ScheduledRunError"}),
        statuses=frozenset({200, 207, 400, 404, 409, 422}),
        is_refusal=_is_error_status,
        quicken=_without_waiting,
    ),
    "sweep-claims": Contract(INPUT_ERRORS, quicken=_without_waiting),
    "status": Contract(
        INPUT_ERRORS,
        statuses=frozenset({200, 304, 400, 401, 403, 404, 405, 409, 413, 429}),
        is_refusal=_is_error_status,
        quicken=_status_alone,
    ),
    "upload-parts": Contract(statuses=frozenset({200, 400, 401, 404}), is_refusal=_is_error_status),
}

DEFAULT_CONTRACT = Contract(INPUT_ERRORS, is_refusal=_is_error_status)


@dataclass
class Answered:
    answer: Json
    error: BaseException | None
    log: str
    writes: list[str]
    cpu_seconds: float
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Situation:
    """An event of a function's folder, and the content of the tables that it needs."""

    name: str
    event: Json
    tables: Mapping[str, Json]
    """moto's rows by the table's name."""


class Subject:
    """A function of the workspace, loaded once, and the situations that its events describe."""

    def __init__(
        self, name: str, aws: InProcess, recorder: Recorder, published: pydantic.TypeAdapter[Any]
    ) -> None:
        self.name = name
        self.contract = CONTRACTS.get(name, DEFAULT_CONTRACT)
        self.function = aws.function(name)
        self.module = aws.load(name, self.contract.environment)
        self.contract.quicken(self.module)
        self._aws = aws
        self._recorder = recorder
        self._published = published
        self._secrets = [aws.jwt_secret]
        self._queues = {*moto_backend("sqs").queues}
        self.situations = [
            self._situation(cases.Case.read(self.function, path))
            for path in cases.case_paths(self.function).values()
        ]

    def _situation(self, case: cases.Case) -> Situation:
        target = cases.InProcessTarget(self._aws)
        values = target.values()
        self._set_tables({})
        for _ in cases.seed(values.fill(case.given), values, target):
            pass
        tables = {
            name: copy.deepcopy(table.items)
            for name, table in moto_backend("dynamodb").tables.items()
            if table.items
        }
        return Situation(case.name, values.fill(case.event), tables)

    def _set_tables(self, rows: Mapping[str, Json]) -> None:
        for name, table in moto_backend("dynamodb").tables.items():
            table.items = copy.deepcopy(rows[name]) if name in rows else defaultdict(dict)
            # Else the shard keeps the changes of all inputs before.
            if table.stream_shard is not None:
                table.stream_shard.items.clear()
        moto_backend("dynamodbstreams").shard_iterators.clear()

    def _drop_queues(self) -> None:
        queues = moto_backend("sqs").queues
        for name in queues.keys() - self._queues:
            del queues[name]

    def call(self, situation: Situation, event: Json) -> Answered:
        """Invoke the function in a situation with an event; the result lists violations."""
        self._set_tables(situation.tables)
        self._recorder.writes.clear()
        output = io.StringIO()
        answer: Json = None
        error: BaseException | None = None
        before = time.process_time()
        with contextlib.redirect_stdout(output):
            try:
                answer = self.module.handler(event, self._aws.context(self.name))
            except Exception as raised:
                error = raised
        spent = time.process_time() - before
        writes = [*self._recorder.writes]
        if "sqs.CreateQueue" in writes:
            self._drop_queues()
        done = Answered(answer, error, output.getvalue(), writes, spent)
        done.problems = list(self._problems(event, done))
        return done

    def _problems(self, event: Json, done: Answered) -> Iterator[str]:
        if done.cpu_seconds > MAX_CPU_SECONDS:
            yield f"took {done.cpu_seconds:.1f} s of CPU"
        yield from self._log_problems(event, done.log)
        if done.error is not None:
            yield from self._error_problems(event, done.error)
            refused = True
        else:
            try:
                text = json.dumps(done.answer, ensure_ascii=False, allow_nan=False)
                text.encode()
            except (TypeError, ValueError, RecursionError) as error:
                yield f"the answer can't be sent: {error!r:.200}"
                return
            yield from self._answer_problems(event, done.answer, text)
            refused = self.contract.is_refusal(done.answer)
        if refused and done.writes:
            yield f"refused, and wrote: {', '.join(done.writes)}"

    def _error_problems(self, event: Json, error: BaseException) -> Iterator[str]:
        if type(error).__name__ not in self.contract.errors:
            yield f"raised {type(error).__name__}: {error!s:.300}"
        else:
            given = _flat(event)
            for word in self._internal(str(error)):
                if word not in given:
                    yield f"the error's text holds {word!r}"

    def _answer_problems(self, event: Json, answer: Json, text: str) -> Iterator[str]:
        try:
            self._published.validate_python(answer)
        except pydantic.ValidationError as error:
            (fault, *_) = error.errors(include_url=False)
            yield f"the answer is not as published: {fault['loc']} {fault['msg']}"
        if self.contract.statuses and "statusCode" in (answer or {}):
            if answer["statusCode"] not in self.contract.statuses:
                yield f"answered {answer['statusCode']}: {answer.get('body')!s:.300}"
        if self.name == "router":
            for message in _messages_of(answer):
                code = message.get("error", {}).get("code")
                if code in {"INTERNAL_ERROR", "SERVICE_UNAVAILABLE"}:
                    yield f"answered {code}"
        given = _flat(event)
        # A presigned link names its bucket, which its holder may know.
        shown = (
            {key: value for key, value in answer.items() if key not in NAMES_QUEUES}
            if isinstance(answer, Mapping)
            else answer
        )
        for word in self._internal(LINK.sub("", json.dumps(shown, ensure_ascii=False))):
            if word not in given:
                yield f"the answer holds {word!r}: {text:.300}"

    def _internal(self, text: str) -> Iterator[str]:
        names = [*INTERNALS, *self._secrets, *self._aws.tables.values()]
        return (name for name in names if name in text)

    def _log_problems(self, event: Json, log: str) -> Iterator[str]:
        for secret in self._secrets:
            if secret in log:
                yield "a log line holds a secret"
        for token in {*TOKEN.findall(_flat(event))}:
            if token in log:
                yield "a log line holds a token"
        for line in log.splitlines():
            try:
                json.loads(line)
            except ValueError:
                yield f"a log line is not JSON: {line:.200}"
        if "clean-up step failed" in log:
            yield "a step of the clean-up failed"


def _flat(event: Json) -> str:
    try:
        return json.dumps(event, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return ""


@contextmanager
def subjects(repository: Repository | None = None) -> Iterator[Callable[[str], Subject]]:
    """Start a stage in this process; yields a function from a name to its Subject."""
    recorder = Recorder()
    repository = repository or Repository.here()
    results = {contract.name: contract.type for contract in catalogue(repository)}
    with ExitStack() as stack:
        aws = stack.enter_context(InProcess(repository))
        stack.enter_context(recorder.recording())
        yield lambda name: Subject(
            name, aws, recorder, pydantic.TypeAdapter(results[f"functions/{name}/result"])
        )


def moto_backend(service: str) -> Any:
    return get_backend(service)[ACCOUNT][REGION]  # type: ignore[call-overload]
