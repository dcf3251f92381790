"""The simulated event source mappings follow AWS's rules."""

from typing import Any

import pytest

from jobplane.stage.mappings import Delivery, FunctionError, StreamSettings, failed_names
from tests.faults.mappings import StreamMapping, matches
from tests.unit.clock import Clock

type Answer = dict[str, Any]
type Discarded = list[tuple[list[int], str, int]]
"""Records given up, why, and after how many invocations."""


def record(number: int, key: str = "", created: float = 0.0) -> dict[str, Any]:
    return {
        "dynamodb": {
            "SequenceNumber": str(number),
            "Keys": {"owner": {"S": key or str(number)}},
            "ApproximateCreationDateTime": created,
        }
    }


def failing(*numbers: int) -> Answer:
    return {"batchItemFailures": [{"itemIdentifier": str(number)} for number in numbers]}


class Function:
    """Answers or fails as the test sets; keeps the records that it received."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.given: list[list[int]] = []

    def __call__(self, event: dict[str, Any]) -> Any:
        numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in event["Records"]]
        self.given.append(numbers)
        answer = self.answers.pop(0) if self.answers else failing()
        if answer is None:
            raise FunctionError("Runtime.ExitError")
        return answer


def mapping_to(function: Function, discarded: Discarded, **settings: Any) -> StreamMapping:
    def discard(batch: list[dict[str, Any]], condition: str, invocations: int) -> None:
        numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in batch]
        discarded.append((numbers, condition, invocations))

    return StreamMapping(Delivery(StreamSettings(**settings), function, Clock(0.0), discard))


def read(function: Function, count: int, **settings: Any) -> tuple[list[list[int]], Discarded]:
    """The records that a function received from a stream, and those that were given up."""
    discarded: Discarded = []
    given = {"reports": True, "bisects": True, "retries": 4} | settings
    mapping = mapping_to(function, discarded, **given)
    mapping.put([record(number) for number in range(1, count + 1)])
    mapping.poll()
    return function.given, discarded


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (failing(), []),
        (failing(4), [[4, 5]]),
        (failing(5, 2, 4), [[2, 3, 4, 5]]),
        (failing(1), [[1, 2, 3, 4, 5]]),
        ({"batchItemFailures": None}, []),
        ({}, []),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, [[1, 2], [3, 4, 5]]),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, [[1, 2], [3, 4, 5]]),
        ({"batchItemFailures": [{"id": "2"}]}, [[1, 2], [3, 4, 5]]),
        (failing(9), [[1, 2], [3, 4, 5]]),
    ],
)
def test_the_lowest_failed_record_and_the_rest_come_again(
    answer: Answer, then: list[list[int]]
) -> None:
    """A malformed answer fails the whole batch."""
    given, _ = read(Function(answer), 5)
    assert given == [[1, 2, 3, 4, 5], *then]


def test_without_ReportBatchItemFailures_every_answer_is_success() -> None:
    given, _ = read(Function(failing(2)), 3, reports=False)
    assert given == [[1, 2, 3]]


def test_a_failed_batch_is_bisected_without_a_retry() -> None:
    given, discarded = read(Function(None, None, None, None), 4, retries=0)
    assert given == [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4]]
    assert [numbers for numbers, _, _ in discarded] == [[1], [2]]


def test_without_bisecting_a_failed_batch_comes_again_whole() -> None:
    given, discarded = read(Function(None), 3, bisects=False)
    assert given == [[1, 2, 3], [1, 2, 3]]
    assert discarded == []


def test_after_the_retries_records_go_to_the_destination() -> None:
    """The shard goes on."""
    given, discarded = read(Function(*[failing(2)] * 3), 3, retries=2, batch_size=2)
    assert given == [[1, 2], [2], [2], [3]]
    assert discarded == [([2], "RetryAttemptsExhausted", 3)]


def test_a_batch_has_the_age_of_its_first_record() -> None:
    discarded: Discarded = []
    function = Function()
    mapping = mapping_to(function, discarded, max_age=600.0)
    mapping.put([record(1, created=-700.0), record(2, created=-1.0)])
    mapping.poll()
    assert function.given == []
    assert discarded == [([1, 2], "RecordAgeExceeded", 0)]


@pytest.mark.parametrize(
    ("settings", "least", "most"), [({}, 1441, 1499), ({"max_age": 600.0}, 11, 29)]
)
def test_a_record_is_retried_until_its_age(settings: Answer, least: int, most: int) -> None:
    """A day, where no maximum is set."""
    given, discarded = read(Function(*[None] * 2000), 1, retries=-1, **settings)
    assert least <= len(given) <= most
    assert [condition for _, condition, _ in discarded] == ["RecordAgeExceeded"]


def test_records_of_an_item_stay_in_one_lane_in_order() -> None:
    """With a parallelization factor."""
    function = Function()
    mapping = mapping_to(function, [], lanes=3, batch_size=2)
    mapping.put([record(number, key="abc"[number % 3]) for number in range(12)])
    mapping.poll()
    for rest in range(3):
        numbers = [number for batch in function.given for number in batch if number % 3 == rest]
        assert numbers == sorted(numbers)
    assert sum(map(len, function.given)) == 12


def test_the_order_of_keys_does_not_change_a_records_lane() -> None:
    settings = StreamSettings(lanes=1000)
    keys = {"owner": {"S": "a"}, "request_id": {"S": "b"}}
    turned = dict(reversed(keys.items()))
    one, other = ({"dynamodb": {"Keys": each}} for each in (keys, turned))
    assert settings.lane_of(one) == settings.lane_of(other)


def test_a_record_must_match_one_filter_pattern() -> None:
    """Values, `anything-but`, and existing attributes."""
    pattern = {
        "eventName": ["MODIFY"],
        "new": {"S": ["P"]},
        "old": {"S": [{"anything-but": ["P"]}]},
    }
    fitting = {"eventName": "MODIFY", "new": {"S": "P"}, "old": {"S": "R"}}
    assert matches(pattern, fitting)
    assert not matches(pattern, fitting | {"eventName": "INSERT"})
    assert not matches(pattern, fitting | {"old": {"S": "P"}})
    assert not matches(pattern, {"eventName": "MODIFY", "new": {"S": "P"}})


def test_an_empty_answer_is_success_and_a_malformed_id_fails_the_batch() -> None:
    assert failed_names(None) == failed_names({}) == set()
    assert failed_names(failing(1, 2)) == {"1", "2"}
    assert failed_names({"batchItemFailures": [{"itemIdentifier": 3}]}) is None
    assert failed_names({"batchItemFailures": [{"itemIdentifier": ""}]}) is None
    assert failed_names("no") is None
