"""A reset and a completion at once, thousands of times: a completed file stays completed.

Files stuck in processing are completed by a pipeline, conditionally and without a condition, while
an operator resets them. All answers are recorded and compared with the stored rows.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from jobplane.pipeline import planting
from jobplane.pipeline.state import HOUR, Row
from jobplane_keys import from_item, iso_time, to_item, tracking
from jobplane_keys.tracking import FileStatus
from tests.e2e.in_process import context, load
from tests.e2e.pipeline_operator import Operator, key_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROUNDS = 25
FILES = 100
WORKERS = 6
DATE = "2026-11-20"
ENDS = ("completed", "reset, then completed", "reset, then not completed")

type Reset = Callable[[Sequence[Row]], set[str]]
"""Resets what is stuck among the files; the keys of those that it says it has reset."""


@dataclass(frozen=True)
class Completion:
    """The result of the pipeline's write of `completed`."""

    conditional: bool
    written: bool
    before: str | None = None
    """The status that it has overwritten."""


def stuck_files(round_number: int, count: int = FILES) -> list[Row]:
    """Files in processing for hours, in all shards and without one."""
    since = iso_time(time.time() - 5 * HOUR)
    rows = []
    for number in range(count):
        name = f"race-{round_number}-{number}{tracking.FILE_SUFFIX}"
        shard = f"#{tracking.file_shard(name)}" if number % 5 else ""
        row: Row = {"date_prefix": DATE, "file_key": name, "status": f"processing{shard}"}
        row |= {"processing_start_time": since, "manifest_path": None}
        row |= {"glue_job_run_id": f"jr_{number}"} | ({"updated_at": since} if number % 3 else {})
        rows.append(row)
    return rows


def complete(operator: Operator, row: Row, conditional: bool) -> Completion:
    """The write of the pipeline's updater at the end of a run."""
    done = tracking.in_same_shard(row["status"], FileStatus.COMPLETED)
    values = {":done": done, ":now": iso_time(time.time())}
    condition = {}
    if conditional:
        values[":seen"] = row["status"]
        condition = {"ConditionExpression": "#status = :seen"}
    try:
        answer = operator.dynamodb.update_item(
            TableName=operator.layout.tracking_table,
            Key=to_item(key_of(row)),
            UpdateExpression="SET #status = :done, completed_time = :now",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues=to_item(values),
            ReturnValues="ALL_OLD",
            **condition,
        )
    except operator.dynamodb.exceptions.ConditionalCheckFailedException:
        return Completion(conditional, written=False)
    return Completion(conditional, written=True, before=from_item(answer["Attributes"])["status"])


@dataclass(frozen=True)
class Race:
    """The answers that both sides got, by file key."""

    completions: Mapping[str, Completion]
    reset: set[str]
    seconds: float
    """How long the reset took."""


def race(
    operator: Operator, rows: Sequence[Row], reset: Reset, seconds: float, chance: random.Random
) -> Race:
    """Complete every file at some time within these seconds, and reset stuck ones meanwhile."""
    operator.put(*rows)
    began = time.monotonic()
    plan = [(row, chance.uniform(0, seconds), chance.random() < 0.5) for row in rows]
    plan.sort(key=lambda part: part[1])

    def finish(part: tuple[Row, float, bool]) -> Completion:
        row, moment, conditional = part
        time.sleep(max(0.0, began + moment - time.monotonic()))
        return complete(operator, row, conditional)

    def put_back() -> tuple[set[str], float]:
        return reset(rows), time.monotonic() - began

    with ThreadPoolExecutor(WORKERS + 1) as pool:
        told = pool.submit(put_back)
        ends = list(pool.map(finish, plan))
        completions = {row["file_key"]: end for (row, _, _), end in zip(plan, ends, strict=True)}
        return Race(completions, *told.result())


def faults(rows: Sequence[Row], raced: Race, stored: Mapping[tuple[str, str], Row]) -> list[str]:
    """Contradictions between the answers and the stored rows."""
    found = []
    for row in rows:
        name, end = row["file_key"], stored[row["date_prefix"], row["file_key"]]
        completion, was_reset = raced.completions[name], name in raced.reset
        done = tracking.in_same_shard(row["status"], FileStatus.COMPLETED)
        back = tracking.in_same_shard(row["status"], FileStatus.PENDING)
        if completion.written and end["status"] != done:
            found.append(f"{name} was completed and is {end['status']}")
        if not completion.written and (end["status"], was_reset) != (back, True):
            found.append(f"{name} was not completed, is {end['status']}, reset: {was_reset}")
        if completion.before == back and not was_reset:
            found.append(f"{name} was {back}, but no operator's answer lists it as reset")
        if completion.before == row["status"] and was_reset:
            found.append(f"{name} was reset after it had been completed")
        if was_reset != ("last_changed_by" in end):
            found.append(f"{name} has another audit trail than what was said of it")
        if "reset_count" in end and "glue_job_run_id" in end:
            found.append(f"{name} was reset and still names its run")
    return found


def ending(completion: Completion, was_reset: bool) -> str:
    if not completion.written:
        return "reset, then not completed"
    return "reset, then completed" if was_reset else "completed"


@pytest.fixture
def clean(operator: Operator) -> Operator:
    """The operator of a table without files."""
    planting.clear(operator.deployed.stage, operator.layout)
    return operator


def by_reset_stuck_files(operator: Operator) -> Reset:
    def reset(_rows: Sequence[Row]) -> set[str]:
        pages = operator.pages("reset_stuck_files", dry_run=False, statuses=["processing"])
        return {one["file_key"] for page in pages for one in page["stuck_files"]}

    return reset


def by_batch_update(operator: Operator) -> Reset:
    def reset(rows: Sequence[Row]) -> set[str]:
        change = {"new_status": "pending", "expected_status": "processing", "force": True}
        because = {"reason": "its run has been silent"}
        changes = [key_of(row) | change | because for row in rows]
        _, body = operator.ask("batch_update", files=changes)
        return {
            result["file"].partition("/")[2] for result in body["results"] if "new_status" in result
        }

    return reset


def many_races(operator: Operator, reset: Reset, rounds: int) -> tuple[list[str], Counter[str]]:
    """Many rounds: what can't be, and how often races ended in which way.

    Files are completed for as long as the last reset took and a quarter more, so that both
    sides may win on any machine.
    """
    chance, found, ends = random.Random(11), list[str](), Counter[str]()
    seconds = 1.0
    for number in range(rounds):
        rows = stuck_files(number)
        raced = race(operator, rows, reset, seconds, chance)
        found += faults(rows, raced, operator.rows())
        ends.update(ending(end, name in raced.reset) for name, end in raced.completions.items())
        seconds = 1.25 * raced.seconds
    return found, ends


@pytest.mark.parametrize("how", [by_reset_stuck_files, by_batch_update])
def test_a_reset_never_undoes_a_completion(
    clean: Operator, how: Callable[[Operator], Reset]
) -> None:
    found, ends = many_races(clean, how(clean), ROUNDS)
    assert found == []
    assert ends.total() == ROUNDS * FILES
    # Each side has won often enough to prove that there was a race.
    assert min(ends[end] for end in ENDS) >= ends.total() // 50, ends


def test_the_check_finds_an_unconditional_reset(
    clean: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = load(clean.deployed, "state-manager", monkeypatch)
    plain = function.dynamodb.update_item

    def update_item(**request: Any) -> Any:
        seen = [name for name in request["ExpressionAttributeValues"] if ":seen_" in name]
        for name in seen:
            del request["ExpressionAttributeValues"][name]
        return plain(**request | {"ConditionExpression": "attribute_exists(date_prefix)"})

    monkeypatch.setattr(function.dynamodb, "update_item", update_item)

    def reset(_rows: Sequence[Row]) -> set[str]:
        event = {"operation": "reset_stuck_files", "dry_run": False, "statuses": ["processing"]}
        body = json.loads(function.handler(event, context())["body"])
        return {one["file_key"] for one in body["stuck_files"]}

    found, _ = many_races(clean, reset, rounds=3)
    assert any("was completed and is pending" in fault for fault in found)
    assert any("was reset after it had been completed" in fault for fault in found)


def test_one_of_eight_concurrent_changes_of_a_file_succeeds(clean: Operator) -> None:
    """The others get 409."""
    with ThreadPoolExecutor(8) as pool:
        for row in stuck_files(0, count=10):
            clean.put(row)
            key = key_of(row)

            def change(number: int, key: dict[str, str] = key) -> tuple[int, Any]:
                return clean.ask(
                    "update_state",
                    **key,
                    new_status=("completed", "failed")[number % 2],
                    expected_status="processing",
                    additional_fields={"operator": number},
                )

            answers = list(pool.map(change, range(8)))
            won = [number for number, (status, _) in enumerate(answers) if status == 200]
            assert sorted(status for status, _ in answers) == [200] + [409] * 7
            assert clean.do("get_file_state", **key)["file"]["operator"] == won[0]
