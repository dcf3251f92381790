"""record-interruption: one record for each event, for any cause."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobplane_keys import ValidationError, record_id
from tests.unit.claims import HOSTILE_IDS, NOW, WORKSPACE, Jobs, iso
from tests.unit.stack import PREFIX, Output, Stack

EVENT = {
    "projectUserId": WORKSPACE,
    "messageId": "message-1",
    "interruptedClaimId": "claim-1",
    "interruptedContainer": "container-1",
    "newThreadId": "thread-2",
    "interruptingMessageId": "message-2",
}
DAY = 24 * 3600


@pytest.fixture
def jobs(stack: Stack) -> Jobs:
    return Jobs(stack)


def record(jobs: Jobs, **event: Any) -> dict[str, Any]:
    return jobs.call("record-interruption", **EVENT | event)


def stored_cause(jobs: Jobs, cause: Any) -> Any:
    """The stored form of a cause."""
    record(jobs, cause=cause)
    (item,) = jobs.records()
    return item.get("cause")


def test_an_interruption_is_recorded_for_thirty_days(jobs: Jobs) -> None:
    """With the job, the interrupting message and the time."""
    answer = record(jobs, cause="stopped")

    assert answer == {
        "recorded": True,
        "duplicate": False,
        "recordId": record_id("interruption", "claim-1", "message-2"),
    }
    (stored,) = jobs.records()
    assert stored.pop("write_id")
    assert stored == EVENT | {
        "recordId": answer["recordId"],
        "kind": "interruption",
        "cause": "stopped",
        "timestamp": iso(0),
        "ttl": int(NOW) + 30 * DAY,
    }


def test_a_record_whose_answer_is_lost_is_no_duplicate(jobs: Jobs) -> None:
    """botocore's repetition finds what the first attempt has stored."""
    lost = jobs.stack.lose_answer(jobs.function("record-interruption").dynamodb, "PutItem")
    assert record(jobs)["duplicate"] is False
    assert lost["PutItem"] == 1


def test_a_cause_nested_too_deeply_is_replaced_by_a_note(jobs: Jobs) -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    assert stored_cause(jobs, deep) == "(nested too deeply)"


def test_a_record_needs_only_workspace_and_message(jobs: Jobs) -> None:
    """Unknown values are omitted."""
    jobs.call("record-interruption", projectId="amelia", userId="scott", messageId="message-1")
    (item,) = jobs.records()
    assert item.keys() == {
        "messageId", "recordId", "projectUserId", "kind", "timestamp", "ttl", "write_id",
    }  # fmt: skip


def test_a_repeated_event_keeps_the_first_record(jobs: Jobs) -> None:
    """The answer reports it."""
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
        {"kind": "timeout"},
        {"kind": "heartbeat_lost"},
        {"kind": "forced"},
        {"interruptedClaimId": "claim-2"},
        {"interruptingMessageId": "message-3"},
        {"messageId": "message-9"},
    ],
)
def test_different_events_are_different_records(jobs: Jobs, change: dict[str, Any]) -> None:
    """Another kind, claim or message."""
    record(jobs)
    assert record(jobs, **change)["duplicate"] is False
    assert len(jobs.records()) == 2


def test_handle_timeout_does_not_change_an_interruption_of_the_message(jobs: Jobs) -> None:
    record(jobs)
    jobs.call(
        "handle-timeout",
        projectUserId=WORKSPACE,
        messageId="message-1",
        claimId="claim-1",
        fence=1,
        kind="timeout",
    )
    assert sorted(item["kind"] for item in jobs.records()) == ["interruption", "timeout"]


DEEP = "[" * 200 + "]" * 200


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
    ],
)  # fmt: skip
def test_a_cause_is_stored_as_json_if_it_fits_else_as_text(
    jobs: Jobs, cause: Any, stored: Any
) -> None:
    assert stored_cause(jobs, cause) == stored


def test_a_cause_with_thirty_levels_is_stored_as_json(jobs: Jobs) -> None:
    cause: Any = []
    for _ in range(29):
        cause = [cause]
    assert stored_cause(jobs, json.dumps(cause)) == cause


@pytest.mark.parametrize("letter", ["x", "é", "名", "😀"])
def test_a_cause_is_cut_to_32_kb_between_characters(jobs: Jobs, letter: str) -> None:
    cause = letter * 40_000
    stored = stored_cause(jobs, cause)
    assert 32 * 1024 - 4 < len(stored.encode()) <= 32 * 1024
    assert cause.startswith(stored)


def test_a_cause_is_measured_in_bytes(jobs: Jobs) -> None:
    """Fewer characters than the limit may be too many bytes."""
    stored = stored_cause(jobs, "名" * 20_000)
    assert 32 * 1024 - 4 < len(stored.encode()) <= 32 * 1024


def test_json_above_32_kb_is_cut_as_text(jobs: Jobs) -> None:
    """No ids are read from it."""
    cause = json.dumps({"interruptingMessageId": "message-7", "log": "x" * 40_000})
    record(jobs, interruptingMessageId=None, cause=cause)
    (item,) = jobs.records()
    assert item["cause"] == cause[: 32 * 1024]
    assert "interruptingMessageId" not in item


def test_json_of_32_kb_is_parsed(jobs: Jobs) -> None:
    cause = json.dumps({"log": "x" * (32 * 1024 - 11)})
    assert len(cause) == 32 * 1024
    assert stored_cause(jobs, cause) == json.loads(cause)


@given(st.text() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
))  # fmt: skip
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_interruption_with_any_cause_is_recorded(jobs: Jobs, cause: Any) -> None:
    jobs.stack.dynamodb.delete_item(
        TableName=f"{PREFIX}interruptions",
        Key={
            "messageId": {"S": "message-1"},
            "recordId": {"S": record_id("interruption", "claim-1", "message-2")},
        },
    )
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


@pytest.mark.parametrize("value", HOSTILE_IDS)
def test_a_malformed_message_id_is_refused(jobs: Jobs, value: Any) -> None:
    """ValidationError of messageId."""
    with pytest.raises(ValidationError, match="^messageId: "):
        record(jobs, messageId=value)
    assert jobs.records() == []


@pytest.mark.parametrize(
    "field",
    ["interruptedClaimId", "interruptedContainer", "newThreadId", "interruptingMessageId"],
)
@pytest.mark.parametrize("value", ["", "a/b", "x" * 200, 7])
def test_a_malformed_optional_id_is_refused_with_its_name(
    jobs: Jobs, field: str, value: Any
) -> None:
    with pytest.raises(ValidationError) as refused:
        record(jobs, **{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("kind", ["", "crash", None, 7, ["timeout"], {}])
def test_an_unknown_kind_is_refused(jobs: Jobs, kind: Any) -> None:
    with pytest.raises(ValidationError, match="^kind: "):
        record(jobs, kind=kind)


def test_a_record_costs_one_write_and_no_read(jobs: Jobs) -> None:
    """A repetition as well."""
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
