"""The simulated event source mappings keep AWS's rules."""

from typing import Any

import pytest

from jobplane.stage.mappings import Delivery, FunctionError, StreamSettings, failed_names
from tests.faults.mappings import Clock, StreamMapping, matches

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
    """Answers, or fails, as it is told; keeps which records it was given."""

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
    """What a function was given of a stream with so many records, and what was given up."""
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
def test_checkpoint(answer: Answer, then: list[list[int]]) -> None:
    """The lowest failed number and all after it come again; a malformed answer fails the batch."""
    given, _ = read(Function(answer), 5)
    assert given == [[1, 2, 3, 4, 5], *then]


def test_checkpoint_needs_to_be_declared() -> None:
    """Without ReportBatchItemFailures whatever is answered is success."""
    given, _ = read(Function(failing(2)), 3, reports=False)
    assert given == [[1, 2, 3]]


def test_bisecting() -> None:
    """A failed batch is split down to one record, at no cost in retries."""
    given, discarded = read(Function(None, None, None, None), 4, retries=0)
    assert given == [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4]]
    assert [numbers for numbers, _, _ in discarded] == [[1], [2]]


def test_whole_batches_without_bisecting() -> None:
    """A failed batch comes again as it was."""
    given, discarded = read(Function(None), 3, bisects=False)
    assert given == [[1, 2, 3], [1, 2, 3]]
    assert discarded == []


def test_retry_cap() -> None:
    """After the retries the rest goes to the destination, and the shard goes on."""
    given, discarded = read(Function(*[failing(2)] * 3), 3, retries=2, batch_size=2)
    assert given == [[1, 2], [2], [2], [3]]
    assert discarded == [([2], "RetryAttemptsExhausted", 3)]


def test_record_age() -> None:
    """Without a cap a record is tried until it is too old."""
    function = Function(*[None] * 1000)
    given, discarded = read(function, 1, retries=-1, max_age=600.0)
    assert 10 < len(given) < 30
    assert discarded[0][1] == "RecordAgeExceeded"


def test_record_age_of_a_batch() -> None:
    """A batch is as old as its first record."""
    discarded: Discarded = []
    function = Function()
    mapping = mapping_to(function, discarded, max_age=600.0)
    mapping.put([record(1, created=-700.0), record(2, created=-1.0)])
    mapping.poll()
    assert function.given == []
    assert discarded == [([1, 2], "RecordAgeExceeded", 0)]


def test_record_age_of_a_day() -> None:
    """A day of failures is over when the records are that old, however many they were."""
    given, discarded = read(Function(*[None] * 2000), 1, retries=-1)
    assert 1440 < len(given) < 1500
    assert [condition for _, condition, _ in discarded] == ["RecordAgeExceeded"]


def test_lanes() -> None:
    """With a parallelization factor the records of one item stay in one lane, in order."""
    function = Function()
    mapping = mapping_to(function, [], lanes=3, batch_size=2)
    mapping.put([record(number, key="abc"[number % 3]) for number in range(12)])
    mapping.poll()
    for rest in range(3):
        numbers = [number for batch in function.given for number in batch if number % 3 == rest]
        assert numbers == sorted(numbers)
    assert sum(map(len, function.given)) == 12


def test_lane_of_an_item() -> None:
    """The order in which a record spells its keys does not change its lane."""
    settings = StreamSettings(lanes=1000)
    keys = {"owner": {"S": "a"}, "request_id": {"S": "b"}}
    turned = dict(reversed(keys.items()))
    one, other = ({"dynamodb": {"Keys": each}} for each in (keys, turned))
    assert settings.lane_of(one) == settings.lane_of(other)


def test_filters() -> None:
    """A record must fit one pattern: values, `anything-but`, and an attribute that is there."""
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


def test_names_of_failures() -> None:
    """Nothing answered is success; a name that is no text fails everything."""
    assert failed_names(None) == failed_names({}) == set()
    assert failed_names(failing(1, 2)) == {"1", "2"}
    assert failed_names({"batchItemFailures": [{"itemIdentifier": 3}]}) is None
    assert failed_names({"batchItemFailures": [{"itemIdentifier": ""}]}) is None
    assert failed_names("no") is None
