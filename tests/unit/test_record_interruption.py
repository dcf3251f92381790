"""record-interruption: one record for each event, for any cause."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_keys import ValidationError, record_id
from tests.examples import with_fixtures
from tests.unit.claims import HOSTILE_IDS, NOW, WORKSPACE, Jobs, iso, nested
from tests.unit.stack import PREFIX, Output

EVENT = {
    "projectUserId": WORKSPACE, "messageId": "message-1", "interruptedClaimId": "claim-1",
    "interruptedContainer": "container-1", "newThreadId": "thread-2",
    "interruptingMessageId": "message-2",
}  # fmt: skip
DAY = 24 * 3600


def record(jobs: Jobs, **event: Any) -> dict[str, Any]:
    return jobs.call("record-interruption", **EVENT | event)


def stored_cause(jobs: Jobs, cause: Any) -> Any:
    """The stored form of a cause."""
    record(jobs, cause=cause)
    (item,) = jobs.records()
    return item.get("cause")


def test_an_interruption_is_recorded_for_thirty_days(jobs: Jobs) -> None:
    answer = record(jobs, cause="stopped")
    assert answer == {
        "recorded": True,
        "duplicate": False,
        "recordId": record_id("interruption", "claim-1", "message-2", WORKSPACE),
    }
    (stored,) = jobs.records()
    assert stored.pop("write_id")
    assert stored == EVENT | {
        "recordId": answer["recordId"], "kind": "interruption", "cause": "stopped",
        "timestamp": iso(0), "ttl": int(NOW) + 30 * DAY,
    }  # fmt: skip


def test_a_record_whose_answer_is_lost_is_no_duplicate(jobs: Jobs) -> None:
    """botocore's repetition finds what the first attempt has stored."""
    lost = jobs.stack.lose_answer(jobs.function("record-interruption").dynamodb, "PutItem")
    assert record(jobs)["duplicate"] is False
    assert lost["PutItem"] == 1


@pytest.mark.parametrize("claim", ["claim-1", None])
def test_workspaces_with_equal_message_ids_have_records_of_their_own(
    jobs: Jobs, claim: str | None
) -> None:
    answers = [
        record(jobs, projectUserId=workspace, interruptedClaimId=claim)
        for workspace in (WORKSPACE, "amelia#taylor", "other#scott")
    ]
    assert [answer["duplicate"] for answer in answers] == [False] * 3
    assert {row["projectUserId"] for row in jobs.records()} == {
        WORKSPACE, "amelia#taylor", "other#scott",
    }  # fmt: skip


def test_a_record_needs_only_workspace_and_message(jobs: Jobs) -> None:
    """Unknown values are omitted."""
    jobs.call("record-interruption", projectId="amelia", userId="scott", messageId="message-1")
    (item,) = jobs.records()
    assert item.keys() == {
        "messageId", "recordId", "projectUserId", "kind", "timestamp", "ttl", "write_id",
    }  # fmt: skip


def test_a_repeated_event_keeps_the_first_record(jobs: Jobs) -> None:
    first = record(jobs, cause="first")
    before = jobs.records()
    jobs.clock.advance(60)
    assert record(jobs, cause="second") == first | {"duplicate": True}
    assert jobs.records() == before


def test_the_reports_of_both_executions_give_one_record(jobs: Jobs) -> None:
    """The interrupter names its message, the interrupted one finds it in the cause."""
    first = record(jobs)
    cause = json.dumps({"interruptingMessageId": "message-2", "newThreadId": "thread-2"})
    second = record(jobs, interruptingMessageId=None, newThreadId=None, cause=cause)
    assert second == first | {"duplicate": True}


@pytest.mark.parametrize(
    "change",
    [
        *({"kind": kind} for kind in ("timeout", "heartbeat_lost", "forced")),
        {"interruptedClaimId": "claim-2"},
        {"interruptingMessageId": "message-3"},
        {"messageId": "message-9"},
    ],
)
def test_different_events_are_different_records(jobs: Jobs, change: dict[str, Any]) -> None:
    record(jobs)
    assert record(jobs, **change)["duplicate"] is False
    assert len(jobs.records()) == 2


def test_handle_timeout_does_not_change_an_interruption_of_the_message(jobs: Jobs) -> None:
    record(jobs)
    event = {"projectUserId": WORKSPACE, "messageId": "message-1", "kind": "timeout"}
    jobs.call("handle-timeout", claimId="claim-1", fence=1, **event)
    assert sorted(item["kind"] for item in jobs.records()) == ["interruption", "timeout"]


DEEP = "[" * 200 + "]" * 200
FULL = "x" * (32 * 1024 - len('{"log": ""}'))


@pytest.mark.parametrize(
    ("cause", "stored"),
    [
        (None, None),
        ("", ""),
        ("worker went away", "worker went away"),
        ('{"done": [1, 2.5, true, null]}', {"done": [1, 2.5, True, None]}),
        ({"at": "step 3"}, {"at": "step 3"}),
        ([1, 2], [1, 2]),
        ("7", 7),
        ('"text"', "text"),
        ('{"cut": ', '{"cut": '),
        ("{'single': 1}", "{'single': 1}"),
        ('{"value": NaN}', {"value": "NaN"}),
        ('{"value": -Infinity}', {"value": "-Infinity"}),
        ({"value": float("nan")}, {"value": "NaN"}),
        ('{"value": 1e400}', '{"value": 1e400}'),
        ('{"value": 1e126}', '{"value": 1e126}'),
        ('{"value": 1e-200}', '{"value": 1e-200}'),
        ('{"value": 1e100}', {"value": 1e100}),
        ('{"value": -0.0}', {"value": 0}),
        ("9" * 38, int("9" * 38)),
        ("9" * 39, "9" * 39),
        ("9" * 5000, "9" * 5000),
        ('{"": 1}', '{"": 1}'),
        ('{"a": ""}', {"a": ""}),
        (DEEP, DEEP),
        ("[" * 31 + "]" * 31, "[" * 31 + "]" * 31),
        ('"\\ud800"', '"\\ud800"'),
        ("half \ud800", "half ?"),
        ('{"name": "名前 \\u540d"}', {"name": "名前 名"}),
        ("\x00\x1f", "\x00\x1f"),
        (nested(50_000), "(nested too deeply)"),
        (json.dumps(nested(29)), nested(29)),
        (json.dumps({"log": FULL}), {"log": FULL}),
    ],
    ids=lambda value: str(value)[:9] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_cause_is_stored_as_json_if_it_fits_else_as_text(
    jobs: Jobs, cause: Any, stored: Any
) -> None:
    assert stored_cause(jobs, cause) == stored


@pytest.mark.parametrize("cause", ["x" * 40_000, "é" * 40_000, "名" * 20_000, "😀" * 40_000])
def test_a_cause_is_cut_to_32_kb_between_characters(jobs: Jobs, cause: str) -> None:
    """Measured in bytes."""
    stored = stored_cause(jobs, cause)
    assert 32 * 1024 - 4 < len(stored.encode()) <= 32 * 1024
    assert cause.startswith(stored)


def test_json_above_32_kb_is_cut_as_text(jobs: Jobs) -> None:
    """No ids are read from it."""
    cause = json.dumps({"interruptingMessageId": "message-7", "log": "x" * 40_000})
    record(jobs, interruptingMessageId=None, cause=cause)
    (item,) = jobs.records()
    assert item["cause"] == cause[: 32 * 1024]
    assert "interruptingMessageId" not in item


@given(st.text() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
))  # fmt: skip
@with_fixtures(60)
def test_an_interruption_with_any_cause_is_recorded(jobs: Jobs, cause: Any) -> None:
    name = record_id("interruption", "claim-1", "message-2", WORKSPACE)
    key = {"messageId": {"S": "message-1"}, "recordId": {"S": name}}
    jobs.stack.dynamodb.delete_item(TableName=f"{PREFIX}interruptions", Key=key)
    assert record(jobs, cause=cause)["duplicate"] is False


@pytest.mark.parametrize("told", ["a#b", "", 7, None, ["message-2"], "x" * 200])
def test_malformed_ids_in_a_cause_are_ignored(jobs: Jobs, told: Any) -> None:
    record(jobs, interruptingMessageId=None, cause={"interruptingMessageId": told})
    (item,) = jobs.records()
    assert "interruptingMessageId" not in item


def test_ids_of_the_input_win_over_those_of_the_cause(jobs: Jobs) -> None:
    record(jobs, cause={"interruptingMessageId": "message-9", "newThreadId": "thread-9"})
    (item,) = jobs.records()
    assert (item["interruptingMessageId"], item["newThreadId"]) == ("message-2", "thread-2")


OPTIONAL = ("interruptedClaimId", "interruptedContainer", "newThreadId", "interruptingMessageId")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("messageId", HOSTILE_IDS),
        ("kind", ["", "crash", None, 7, ["timeout"], {}]),
        *((field, ["", "a/b", "x" * 200, 7]) for field in OPTIONAL),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, field: str, values: list[Any]
) -> None:
    """Nothing is written."""
    for value in values:
        with pytest.raises(ValidationError) as refused:
            record(jobs, **{field: value})
        assert (refused.value.field, jobs.records()) == (field, []), value


def test_a_record_costs_one_write_and_no_read(jobs: Jobs) -> None:
    calls = jobs.stack.calls(jobs.function("record-interruption").dynamodb)
    record(jobs)
    assert calls.counts() == {"PutItem": 1}
    record(jobs)
    assert calls.counts() == {"PutItem": 2}


def test_an_error_of_dynamodb_is_raised_unchanged(jobs: Jobs) -> None:
    """The flow's Retry matches errors by name."""
    module = jobs.function("record-interruption")
    jobs.stack.fail(module.dynamodb, "PutItem")
    with pytest.raises(module.dynamodb.exceptions.ProvisionedThroughputExceededException):
        record(jobs)


def test_a_repetition_is_not_counted(jobs: Jobs, output: Output) -> None:
    """The log has the ids, and nothing of the cause."""
    for _ in range(2):
        record(jobs, cause="what-the-worker-said")
    (metric,) = output.metric("InterruptionRecorded")
    assert metric["Kind"] == "interruption"
    first, second = output.logged("interruption recorded")
    assert (first["project_user_id"], first["message_id"]) == (WORKSPACE, "message-1")
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert "what-the-worker-said" not in output.text
