"""Cases of a function: `events/<case>.json`, what must exist before, what is expected after."""

import base64
import io
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from jobplane.stage.log_lines import PLATFORM, parse_line
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Function, Repository
from jobplane.trying import case_files
from jobplane.trying.inprocess import InProcess
from jobplane.trying.placeholders import (
    OF_A_STAGE,
    PlaceholderError,
    Values,
    mismatches,
    with_texts,
)

# What each key of `given` does on a stage.
KINDS_OF_GIVEN = {
    "tables": "rows",
    "absent": "rows (removes them)",
    "objects": "objects",
    "ssm": "parameters",
}


@dataclass(frozen=True)
class Case:
    """One event, with its `given` and `expect` files if they exist."""

    function: Function
    name: str
    event: Any
    given: Mapping[str, Any] = field(default_factory=dict)
    expect: Mapping[str, Any] | None = None
    path: Path = Path("-")
    """The path of the event's file."""

    def __str__(self) -> str:
        return f"{self.function.name}/{self.name}"

    @classmethod
    def read(cls, function: Function, path: Path) -> "Case":
        """Read an event file and the files of the same name beside it."""
        stem = path.name.removesuffix(".json")
        beside = {kind: path.with_name(f"{stem}.{kind}.json") for kind in ("given", "expect")}
        event = _read("event", path, function)
        given, expect = (
            _read(kind, file, function) if file.is_file() else {} for kind, file in beside.items()
        )
        known = [json.dumps([event, given], ensure_ascii=False), *_code_of(function)]
        case_files.require_possible(expect, str(beside["expect"]), known)
        return cls(function, stem, event, given, expect or None, path)

    @classmethod
    def of_text(cls, function: Function, name: str, text: bytes, source: str) -> "Case":
        """A case from an event only, without `given` and `expect`."""
        event = case_files.parsed(text, source)
        case_files.require_valid("event", event, source, _stack_of(function))
        return cls(function, name, event)

    @property
    def effects(self) -> list[str]:
        """What running the case writes and reads on a stage, besides the function itself."""
        writes = [KINDS_OF_GIVEN[key] for key in KINDS_OF_GIVEN if self.given.get(key)]
        found = [f"writes {' and '.join(writes)}"] if writes else []
        scanned = sorted((self.expect or {}).get("items", {}))
        return found + ([f"reads all of {' and '.join(scanned)}"] if scanned else [])


def _stack_of(function: Function) -> case_files.Stack:
    return case_files.Stack.of(Repository(function.directory.parents[1]), function)


def _read(kind: str, path: Path, function: Function) -> Any:
    document = case_files.parsed(path.read_bytes(), str(path))
    case_files.require_valid(kind, document, str(path), _stack_of(function))
    if kind != "event":
        document.pop("$schema", None)
    return document


def _code_of(function: Function) -> Iterator[str]:
    """The source text of each module of a function and of the libs."""
    libs = function.directory.parents[1] / "libs"
    for path in sorted([*function.directory.rglob("*.py"), *libs.glob("*/src/**/*.py")]):
        yield path.read_text(encoding="utf-8")


def case_paths(function: Function) -> dict[str, Path]:
    paths = sorted((function.directory / "events").glob("*.json"))
    events = {path.name.removesuffix(".json"): path for path in paths if path.name.count(".") == 1}
    for path in paths:
        case, *kinds, _ = path.name.split(".")
        if kinds and kinds not in (["given"], ["expect"]):
            hint = case_files.nearest(kinds[-1], ("given", "expect"))
            raise case_files.UnreadableEventError(
                f"{path}: a case has CASE.json, CASE.given.json and CASE.expect.json; {hint}"
            )
        if case not in events:
            hint = case_files.nearest(case, tuple(events))
            raise case_files.UnreadableEventError(f"{path}: there is no {case}.json; {hint}")
    return events


def named(function: Function, name: str) -> Case:
    known = case_paths(function)
    if name not in known:
        hint = case_files.nearest(name, tuple(known))
        raise case_files.UnreadableEventError(f"{function.name} has no case {name!r}; {hint}")
    return Case.read(function, known[name])


def all_cases(repository: Repository) -> list[Case]:
    return [
        Case.read(function, path)
        for function in repository.functions()
        for path in case_paths(function).values()
    ]


@dataclass(frozen=True)
class Outcome:
    answer: Any
    error: str | None
    """The exception's class, if the function raised."""
    error_message: str | None
    log: list[str]
    duration_ms: float
    cold: bool | None
    """Whether this was a cold start; None if the stage doesn't report it."""
    init_ms: float | None = None


class Target(Protocol):
    @property
    def is_shared(self) -> bool:
        """Whether streams, schedules or other users may change the tables at the same time."""

    def values(self) -> Values: ...
    def client(self, service: str) -> Any: ...
    def invoke(self, function: Function, event: Any, environment: Mapping[str, str]) -> Outcome: ...


@dataclass(frozen=True)
class Result:
    case: Case
    outcome: Outcome | None
    """None if the case can't run on this target."""
    problems: list[str]
    left_out: str = ""

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def state(self) -> str:
        """`passed`, `failed`, `no expectation` or `left out`."""
        if self.problems:
            return "failed"
        if self.outcome is None:
            return "left out"
        return "passed" if self.case.expect is not None else "no expectation"


class InProcessTarget:
    """This process, with moto."""

    is_shared = False

    def __init__(self, aws: InProcess) -> None:
        self.aws = aws

    def values(self) -> Values:
        aws, names = self.aws, self.aws.template.names
        return Values(
            names.service, names.stage, aws.jwt_secret, aws.tables, aws.buckets, aws.queues
        )

    def client(self, service: str) -> Any:
        return self.aws.client(service)

    def invoke(self, function: Function, event: Any, environment: Mapping[str, str]) -> Outcome:
        output = io.StringIO()
        answer: Any = None
        error: BaseException | None = None
        began = time.perf_counter()
        init = 0.0
        with redirect_stdout(output), redirect_stderr(output):
            try:
                module = self.aws.load(function.name, environment)
                init = time.perf_counter() - began
                began = time.perf_counter()
                answer = module.handler(event, self.aws.context(function.name))
            except Exception as raised:
                error = raised
        return Outcome(
            answer=json.loads(json.dumps(answer, default=str)) if error is None else None,
            error=type(error).__name__ if error is not None else None,
            error_message=str(error) if error is not None else None,
            log=output.getvalue().splitlines(),
            duration_ms=(time.perf_counter() - began) * 1000,
            cold=True,
            init_ms=init * 1000,
        )


class StageTarget:
    """A deployed stage."""

    is_shared = True

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def values(self) -> Values:
        from jobplane.deploy.description import describe

        state = self.stage.read_state()
        description = state.description if state is not None else describe(self.stage)
        return Values(
            self.stage.names.service,
            self.stage.name,
            jwt_secret(self.stage),
            description["tables"],
            description["buckets"],
            description["queues"],
        )

    def client(self, service: str) -> Any:
        return self.stage.client(service)

    def invoke(self, function: Function, event: Any, environment: Mapping[str, str]) -> Outcome:
        client = self.stage.invoker()
        began = time.perf_counter()
        response = client.invoke(
            FunctionName=function.deployed_name(self.stage.name),
            LogType="Tail",
            Payload=json.dumps(event).encode(),
        )
        duration = (time.perf_counter() - began) * 1000
        payload = json.loads(response["Payload"].read() or b"null")
        failed = "FunctionError" in response
        tail = base64.b64decode(response.get("LogResult", "")).decode(errors="replace")
        lines = [line.rstrip() for line in tail.splitlines()]
        log = [line for line in lines if line and not PLATFORM.match(line)]
        return Outcome(
            answer=None if failed else payload,
            error=payload.get("errorType", "Unhandled") if failed else None,
            error_message=payload.get("errorMessage") if failed else None,
            log=log,
            duration_ms=duration,
            cold=_cold_start(lines),
        )


def _cold_start(lines: list[str]) -> bool | None:
    if any("Init Duration" in line for line in lines):
        return True
    documents = [parse_line(line) or {} for line in lines]
    stated = [bool(document["cold_start"]) for document in documents if "cold_start" in document]
    return any(stated) if stated else None


def only_in_process(case: Case) -> str:
    """Why a case can't run on a stage; empty if it can."""
    if case.given.get("environment"):
        return "sets variables of the function"
    return str(case.given.get("only_in_process", ""))


def run(case: Case, target: Target) -> Result:
    """Write what must exist before, invoke, compare, and restore the former state."""
    reason = only_in_process(case)
    if reason and target.is_shared:
        return Result(case, None, [], reason)
    values = target.values()
    ending = f"-{uuid.uuid4().hex[:8]}" if target.is_shared else ""
    event, given = (values.fill(each) for each in _with_own_ids(case, ending))
    with ExitStack() as undo:
        for restore in seed(given, values, target):
            undo.callback(restore)
        outcome = target.invoke(case.function, event, given.get("environment", {}))
        outcome = replace(outcome, answer=_without(ending, outcome.answer))
        problems = _compare(case, outcome, values, target, ending)
    return Result(case, outcome, problems)


def _with_own_ids(case: Case, ending: str) -> tuple[Any, Any]:
    """Event and `given` with an ending at the ids of requests and connections that are written.

    On a stage, what a case writes has effects that take seconds: a job that it starts may post to
    its connection and delete it while a later case with the same ids runs.
    """
    by_table = [*case.given.get("tables", {}).values(), *case.given.get("absent", {}).values()]
    ids = {
        str(row[name])
        for rows in by_table
        for row in rows
        for name in ("request_id", "connection_id")
        if not str(row.get(name, "0")).isdecimal()  # an event's number
    }
    pattern = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, ids)) or '(?!)'})(?![\w-])")
    event, given = (
        with_texts(each, lambda text: pattern.sub(rf"\1{ending}", text))
        for each in (case.event, case.given)
    )
    return event, given


def _without(ending: str, document: Any) -> Any:
    """With the ids as the case has them."""
    return with_texts(document, lambda text: text.replace(ending, ""))


def filled(case: Case, there: Stage | None) -> Any:
    """The event as sent: to a stage, or in process."""
    if not OF_A_STAGE.search(json.dumps(case.event, ensure_ascii=False)):
        return Values("", "", "").fill(case.event)
    if there is None:
        repository = Repository(case.function.directory.parents[1])
        return InProcessTarget(InProcess(repository)).values().fill(case.event)
    return StageTarget(there.require()).values().fill(case.event)


def run_in_process(case: Case, repository: Repository) -> Result:
    with InProcess(repository) as aws:
        return run(case, InProcessTarget(aws))


type Restore = Callable[[], object]


def seed(given: Mapping[str, Any], values: Values, target: Target) -> Iterator[Restore]:
    """Write what must exist before; for each item a function that restores the former state."""
    for short, keys in given.get("absent", {}).items():
        for key in keys:
            yield _remove_item(target.client("dynamodb"), _named(values.tables, short, values), key)
    for short, items in given.get("tables", {}).items():
        for item in json.loads(json.dumps(items), parse_float=Decimal):
            yield _put_item(target.client("dynamodb"), _named(values.tables, short, values), item)
    for short, objects in given.get("objects", {}).items():
        for key, text in objects.items():
            bucket = _named(values.buckets, short, values)
            yield _put_object(target.client("s3"), bucket, key, text.encode())
    for name, value in given.get("ssm", {}).items():
        yield _put_parameter(target.client("ssm"), name, value)


def _named(names: Mapping[str, str], short: str, values: Values) -> str:
    """The full name of a table or a bucket; an error if the stage does not have it."""
    if short not in names:
        raise PlaceholderError(
            f"stage {values.stage!r} has no {short!r}, which this repository declares; "
            f"deploy the stack first. It has: {', '.join(names)}"
        )
    return names[short]


def _typed(item: Mapping[str, Any]) -> dict[str, Any]:
    from boto3.dynamodb.types import TypeSerializer

    serialize = TypeSerializer().serialize
    return {key: serialize(value) for key, value in item.items()}


def _remove_item(client: Any, table: str, key: Mapping[str, Any]) -> Restore:
    def remove() -> Any:
        removed = client.delete_item(TableName=table, Key=_typed(key), ReturnValues="ALL_OLD")
        return removed.get("Attributes")

    before = remove()
    if before:
        return lambda: client.put_item(TableName=table, Item=before)
    return remove


def _put_item(client: Any, table: str, item: Mapping[str, Any]) -> Restore:
    typed = _typed(item)
    before = client.put_item(TableName=table, Item=typed, ReturnValues="ALL_OLD").get("Attributes")
    if before:
        return lambda: client.put_item(TableName=table, Item=before)
    schema = client.describe_table(TableName=table)["Table"]["KeySchema"]
    key = {part["AttributeName"]: typed[part["AttributeName"]] for part in schema}
    return lambda: client.delete_item(TableName=table, Key=key)


def _put_object(client: Any, bucket: str, key: str, body: bytes) -> Restore:
    try:
        found = client.get_object(Bucket=bucket, Key=key)
        before = {"Body": found["Body"].read()} | {
            name: found[name] for name in ("ContentType", "Metadata") if name in found
        }
    except client.exceptions.NoSuchKey:
        before = None
    client.put_object(Bucket=bucket, Key=key, Body=body)
    if before is not None:
        return lambda: client.put_object(Bucket=bucket, Key=key, **before)
    return lambda: client.delete_object(Bucket=bucket, Key=key)


def _put_parameter(client: Any, name: str, value: str) -> Restore:
    try:
        before = client.get_parameter(Name=name, WithDecryption=True)["Parameter"]
    except client.exceptions.ParameterNotFound:
        before = None

    def put(text: str, kind: str) -> None:
        client.put_parameter(Name=name, Value=text, Type=kind, Overwrite=True)

    put(value, "SecureString")
    if before is not None:
        return lambda: put(before["Value"], before["Type"])
    return lambda: client.delete_parameter(Name=name)


def _compare(
    case: Case, outcome: Outcome, values: Values, target: Target, ending: str
) -> list[str]:
    expect = case.expect
    raised = f"raised {outcome.error}: {outcome.error_message}"
    if expect is None:
        return [raised] if outcome.error else []
    expect = values.fill_names(expect)
    problems: list[str] = []
    if expect.get("error") != outcome.error:
        wanted = expect.get("error")
        problems.append(f"expected {wanted} to be raised" if wanted else raised)
    elif "answer" in expect:
        problems += mismatches(expect["answer"], outcome.answer)
    documents = [_without(ending, parse_line(line) or line) for line in outcome.log]
    for wanted in expect.get("log", ()):
        if all(mismatches(wanted, document, "log") for document in documents):
            problems.append(f"log: no line has {json.dumps(wanted)}")
    for short, wanted_items in expect.get("items", {}).items():
        items = _without(ending, rows_of(_named(values.tables, short, values), target))
        for wanted in wanted_items:
            closest = min((mismatches(wanted, i, short) for i in items), key=len, default=["none"])
            if closest:
                problems.append(f"{short}: no item has {json.dumps(wanted)} ({closest[0]})")
    return problems


def rows_of(table: str, target: Target) -> list[dict[str, Any]]:
    from boto3.dynamodb.types import TypeDeserializer

    deserialize = TypeDeserializer().deserialize
    pages = (
        target.client("dynamodb")
        .get_paginator("scan")
        .paginate(TableName=table, ConsistentRead=True)
    )
    return [
        {key: deserialize(value) for key, value in item.items()}
        for page in pages
        for item in page["Items"]
    ]
