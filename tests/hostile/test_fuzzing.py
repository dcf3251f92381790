"""The fuzzer finds each kind of fault, and a seed gives the same inputs."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobplane.fuzzing.recording import RefusedCallError, check
from jobplane.fuzzing.runs import explore
from jobplane.fuzzing.subjects import CONTRACTS, Subject, subjects
from jobplane.parts import Needs
from jobplane.tree.repository import Repository
from jobplane.tree.resolved import JWT_SECRET
from jobplane_keys import ValidationError, to_item
from jobplane_tokens import strip_bearer

type Make = Callable[[str], Subject]


@pytest.fixture(scope="module")
def make() -> Iterator[Make]:
    with subjects() as made:
        yield made


def test_every_function_of_a_part_has_a_contract() -> None:
    assert set(CONTRACTS) == Needs(Repository.here()).known


def problems(subject: Subject, handler: Callable[[Any, Any], Any]) -> list[str]:
    """The problems found in a function that behaves like this for its first event."""
    subject.module.handler = handler  # type: ignore[attr-defined]
    situation = subject.situations[0]
    return subject.call(situation, situation.event).problems


def test_an_undocumented_error_is_found(make: Make) -> None:
    assert problems(make("claim"), lambda event, context: 1 / 0) == [
        "raised ZeroDivisionError: division by zero"
    ]


def test_a_write_for_refused_input_is_found(make: Make) -> None:
    """The error is documented, but came after the write."""
    subject = make("claim")

    def handler(event: Any, context: Any) -> Any:
        row = to_item({"projectUserId": "a#b"})
        subject.module.dynamodb.put_item(TableName=subject.module.ACTIVE_JOBS_TABLE, Item=row)
        raise ValidationError("ttlSeconds", "too late")

    assert problems(subject, handler) == ["refused, and wrote: dynamodb.PutItem"]


@pytest.mark.parametrize(
    ("name", "answer", "problem"),
    [
        *(("claim", {"claimed": False, "reason": reason}, f"the answer holds '{word}'")
          for reason, word in (
              ("Traceback (most recent call last)", "Traceback"),
              ("see botocore.exceptions", "botocore"),
              ("KeyError", "KeyError"),
              ("in jobplane-test-active-jobs", "jobplane-test-active-jobs"),
          )),
        *(("claim", {"a": value}, "the answer can't be sent")
          for value in ("\ud800", float("nan"), {1, 2})),
        ("claim", {"claimed": "yes"}, "the answer is not as published"),
        ("connect", {"statusCode": 500, "body": "{}"}, "answered 500"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_found(make: Make, name: str, answer: Any, problem: str) -> None:
    """Stack traces, names of AWS, classes and tables, and what the runtime can't send."""
    found = problems(make(name), lambda event, context: answer)
    assert any(one.startswith(problem) for one in found)
    assert "holds" in problem or len(found) == 1


def test_secrets_in_the_log_are_found(make: Make) -> None:
    def handler(event: Any, context: Any) -> Any:
        print(json.dumps({"secret": JWT_SECRET}))  # noqa: T201
        print(json.dumps({"token": strip_bearer(token)}))  # noqa: T201
        return {"statusCode": 200, "body": "{}"}

    subject = make("connect")
    event = subject.situations[0].event
    (token,) = (event.get("queryStringParameters") or event["headers"]).values()
    assert problems(subject, handler) == ["a log line holds a secret", "a log line holds a token"]


def test_a_seed_gives_the_same_inputs(make: Make) -> None:

    def drawn(number: int) -> list[str]:
        events: list[str] = []
        subject = make("claim")
        subject.module.handler = lambda event, context: events.append(repr(event))  # type: ignore[attr-defined]
        explore(subject, 20, number)
        return events

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    "item",
    [
        {"a": {"S": "\ud800"}},
        {"a": {"N": "1e127"}},
        {"a": {"N": "1" * 39}},
        {"a": {"N": "NaN"}},
        {"a": {"M": {"": {"S": "x"}}}},
        {"a": {"S": "x" * 400 * 1024}},
        to_item({"a": json.loads("[" * 34 + "]" * 34)}),
    ],
)
def test_calls_that_dynamodb_refuses_are_refused(item: Any) -> None:
    """moto would accept them."""
    with pytest.raises(RefusedCallError):
        check({"TableName": "t", "Item": item})
