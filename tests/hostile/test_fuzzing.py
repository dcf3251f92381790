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


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[[str], Subject]]:
    with subjects() as made:
        yield made


def test_every_function_of_a_part_has_a_contract() -> None:
    """And every contract has its function."""
    assert set(CONTRACTS) == Needs(Repository.here()).known


def problems(subject: Subject, handler: Callable[[Any, Any], Any]) -> list[str]:
    """The problems found in a function that behaves like this for its first event."""
    subject.module.handler = handler  # type: ignore[attr-defined]
    situation = subject.situations[0]
    return subject.call(situation, situation.event).problems


def answering(answer: Any) -> Callable[[Any, Any], Any]:
    return lambda event, context: answer


def test_an_undocumented_error_is_found(make: Callable[[str], Subject]) -> None:
    assert problems(make("claim"), lambda event, context: 1 / 0) == [
        "raised ZeroDivisionError: division by zero"
    ]


def test_a_write_for_refused_input_is_found(make: Callable[[str], Subject]) -> None:
    """The error is documented, but came after the write."""
    subject = make("claim")

    def handler(event: Any, context: Any) -> Any:
        row = to_item({"projectUserId": "a#b"})
        subject.module.dynamodb.put_item(TableName=subject.module.ACTIVE_JOBS_TABLE, Item=row)
        raise ValidationError("ttlSeconds", "too late")

    assert problems(subject, handler) == ["refused, and wrote: dynamodb.PutItem"]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ({"claimed": False, "reason": "Traceback (most recent call last)"}, "'Traceback'"),
        ({"claimed": False, "reason": "see botocore.exceptions"}, "'botocore'"),
        ({"claimed": False, "reason": "KeyError"}, "'KeyError'"),
        (
            {"claimed": False, "reason": "in jobplane-test-active-jobs"},
            "'jobplane-test-active-jobs'",
        ),
    ],
)
def test_internals_in_an_answer_are_found(
    make: Callable[[str], Subject], answer: Any, word: str
) -> None:
    """Stack traces, names of AWS, of classes and of tables."""
    found = problems(make("claim"), answering(answer))
    assert any(problem.startswith(f"the answer holds {word}") for problem in found)


@pytest.mark.parametrize("answer", [{"a": "\ud800"}, {"a": float("nan")}, {"a": {1, 2}}])
def test_an_answer_that_can_t_be_sent_is_found(make: Callable[[str], Subject], answer: Any) -> None:
    """The runtime would fail."""
    (found,) = problems(make("claim"), answering(answer))
    assert found.startswith("the answer can't be sent")


def test_an_answer_of_another_shape_is_found(make: Callable[[str], Subject]) -> None:
    """Other than the published one."""
    (found,) = problems(make("claim"), answering({"claimed": "yes"}))
    assert found.startswith("the answer is not as published")


def test_an_undocumented_status_is_found(make: Callable[[str], Subject]) -> None:
    """Such as a 500."""
    (found,) = problems(make("connect"), answering({"statusCode": 500, "body": "{}"}))
    assert found.startswith("answered 500")


def test_secrets_in_the_log_are_found(make: Callable[[str], Subject]) -> None:
    """The signing secret, and the event's token."""

    def handler(event: Any, context: Any) -> Any:
        print(json.dumps({"secret": JWT_SECRET}))  # noqa: T201
        print(json.dumps({"token": strip_bearer(token)}))  # noqa: T201
        return {"statusCode": 200, "body": "{}"}

    subject = make("connect")
    event = subject.situations[0].event
    (token,) = (event.get("queryStringParameters") or event["headers"]).values()
    assert problems(subject, handler) == ["a log line holds a secret", "a log line holds a token"]


def test_a_seed_gives_the_same_inputs(make: Callable[[str], Subject]) -> None:

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
