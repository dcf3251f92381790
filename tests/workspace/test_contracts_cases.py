"""The published schemas accept the valid events of the functions, and no malformed ones."""

import json
from typing import Any

import pytest

from jobplane.tree.repository import Repository
from jobplane.trying.cases import Case, InProcessTarget, all_cases
from jobplane.trying.inprocess import InProcess
from tests.published import faults, is_published

REPOSITORY = Repository.here()
CASES = [
    case for case in all_cases(REPOSITORY) if is_published(f"functions/{case.function.name}/input")
]
VALUES = InProcessTarget(InProcess(REPOSITORY)).values()

MALFORMED = {"ScheduledRunError", "ValidationError"}
# What is wrong with them takes a comparison or a key, and no schema has these.
BEYOND_A_SCHEMA = {"state-manager/batch-update-twice", "state-manager/query-by-status-forged-token"}
REFUSED_MESSAGES = {"INVALID_ACTION", "INVALID_MESSAGE", "VALIDATION_ERROR"}


def expected(case: Case, *keys: str) -> Any:
    """A part of the case's expectation, or None."""
    found: Any = case.expect or {}
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def test_the_excepted_events_exist() -> None:
    there = {function.name for function in REPOSITORY.functions()}
    excepted = {name for name in BEYOND_A_SCHEMA if name.partition("/")[0] in there}
    assert {str(case) for case in CASES} >= excepted


@pytest.mark.parametrize("case", [c for c in CASES if str(c) not in BEYOND_A_SCHEMA], ids=str)
def test_a_schema_accepts_exactly_the_events_that_the_function_accepts(case: Case) -> None:
    event = VALUES.fill(case.event)
    malformed = expected(case, "error") in MALFORMED or (
        expected(case, "answer", "statusCode") == 400 and "requestContext" not in event
    )
    found = faults(f"functions/{case.function.name}/input", event)
    assert bool(found) is malformed, found


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.function.name == "router"], ids=str
)
def test_a_schema_accepts_exactly_the_messages_that_the_router_accepts(case: Case) -> None:
    refused = expected(case, "answer", "body", "error", "code") in REFUSED_MESSAGES
    event = VALUES.fill(case.event)
    try:
        message = json.loads(event["body"] if "body" in event else event["messages"][0])
    except ValueError:
        assert refused
        return
    found = faults("socket/client-request", message)
    assert bool(found) is refused, found


@pytest.mark.parametrize(
    "record",
    [
        (str(case), record["body"])
        for case in CASES
        if case.function.name == "deliver-webhook"
        for record in (case.event.get("Records", ()) if isinstance(case.event, dict) else ())
        if "body" in record
    ],
    ids=lambda record: record[0],
)
def test_a_schema_accepts_exactly_the_readable_webhooks(record: tuple[str, str]) -> None:
    name, body = record
    try:
        found = faults("queues/webhook-delivery", json.loads(body))
    except ValueError:
        found = ["not JSON"]
    assert bool(found) is ("unreadable" in name), found
