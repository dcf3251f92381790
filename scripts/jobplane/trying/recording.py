"""Write an expectation from a result: values that differ between runs become placeholders."""

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from jobplane.trying.cases import (
    Case,
    InProcessTarget,
    Outcome,
    Result,
    StageTarget,
    only_in_process,
    rows_of,
    run,
)
from jobplane.trying.inprocess import InProcess
from jobplane.trying.placeholders import ISO_TIME, UUID, Values

# A number this close to the current time is taken for a time, in seconds or milliseconds.
NEAR_SECONDS = 400 * 86_400
GENERAL = ("<any>", "<int>", "<iso-time>", "<number>", "<string>", "<uuid>")
# An id or a time within a text.
VOLATILE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT\d\d:\d\d|\b1\d{9}(\d{3})?\b"
)

type Rows = dict[str, list[dict[str, Any]]]


class UnrecordableError(click.ClickException):
    """A case can't be recorded."""


def require_recordable(cases: Iterable[Case], there: Stage | None) -> None:
    for case in cases if there is not None else ():
        if reason := only_in_process(case):
            raise UnrecordableError(
                f"{case} {reason}, so nothing was recorded: record it with --in-process"
            )


def record(result: Result, repository: Repository, there: Stage | None) -> Path:
    """Write the expectation of a case that ran, beside its event; the path.

    In process the case runs twice more: values that differ become placeholders, and the rows
    that it writes can be attributed to it. The expectation of the log is kept.
    """
    case = result.case
    if there is not None:
        expected = expectation(_outcome(result), StageTarget(there).values())
    else:
        (first, rows, values), (second, others, _) = (_run(case, repository) for _ in range(2))
        expected = expectation(first, values)
        expected = merged(expected, expectation(second, values))
        if items := merged(general(rows, values), general(others, values)):
            expected["items"] = items
    if case.expect and "log" in case.expect:
        expected["log"] = case.expect["log"]
    path = case.path.with_name(f"{case.name}.expect.json")
    path.write_text(json.dumps(expected, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def expectation(outcome: Outcome, values: Values) -> dict[str, Any]:
    if outcome.error is not None:
        return {"error": outcome.error}
    return {"answer": general(outcome.answer, values)}


def _run(case: Case, repository: Repository) -> tuple[Outcome, Rows, Values]:
    """The outcome, and the rows that the case has added or changed, by table."""
    found: Rows = {}
    with InProcess(repository) as aws:
        target = _Watched(aws)
        result = run(case, target)
        for table, rows in target.after.items():
            if changed := [row for row in rows if row not in target.before[table]]:
                found[table] = changed
        return _outcome(result), found, target.values()


def _outcome(result: Result) -> Outcome:
    if result.outcome is None:
        raise UnrecordableError(f"{result.case} {result.left_out}: it did not run")
    return result.outcome


class _Watched(InProcessTarget):
    """This process, with moto; records all rows before and after the invocation."""

    before: Rows
    after: Rows

    def invoke(self, *arguments: Any) -> Outcome:
        self.before = self._rows()
        outcome = super().invoke(*arguments)
        self.after = self._rows()
        return outcome

    def _rows(self) -> Rows:
        return {short: rows_of(name, self) for short, name in self.values().tables.items()}


def general(value: Any, values: Values) -> Any:
    """Replace ids, times and names of the stage by placeholders."""
    if isinstance(value, Mapping):
        return {_named(key, values): general(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [general(each, values) for each in value]
    if isinstance(value, Decimal):
        value = int(value) if value == int(value) else float(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        is_time = any(abs(value / unit - time.time()) < NEAR_SECONDS for unit in (1, 1000))
        return _kind(value) if is_time else value
    if isinstance(value, str):
        return _general_text(value, values)
    return "<any>"


def _general_text(text: str, values: Values) -> Any:
    if UUID.match(text):
        return "<uuid>"
    if ISO_TIME.match(text):
        return "<iso-time>"
    if text[:1] in ("{", "["):
        with suppress(ValueError):
            return general(json.loads(text), values)
    return "<string>" if VOLATILE.search(text) else _named(text, values)


def _named(text: str, values: Values) -> str:
    names = {
        name: f"<{kind}:{short}>"
        for kind, each in (
            ("table", values.tables), ("bucket", values.buckets), ("queue", values.queues),
        )
        for short, name in each.items()
    }  # fmt: skip
    text = re.sub(r"<(?=\s*[A-Za-z_][^<>]*>)", "<lt>", text)
    if not names:
        return text
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(pattern, lambda match: names[match[0]], text)


def merged(first: Any, second: Any) -> Any:
    """Merge the values of two runs: a placeholder where they differ."""
    if first == second:
        return first
    if isinstance(first, dict) and isinstance(second, dict):
        return {key: merged(first[key], second[key]) for key in first if key in second}
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return [merged(one, other) for one, other in zip(first, second, strict=True)]
    if first in GENERAL or second in GENERAL:
        numbers = [first, second] in (["<int>", "<number>"], ["<number>", "<int>"])
        return "<number>" if numbers else "<any>"
    return _kind(first) if type(first) is type(second) else "<any>"


def _kind(value: Any) -> str:
    """The placeholder for any value of the same kind."""
    kinds = {bool: "<bool>", str: "<string>", int: "<int>", float: "<number>"}
    return kinds.get(type(value), "<any>")
