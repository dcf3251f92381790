"""record-interruption: one record an event, whatever the worker's cause looks like."""

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
    """What is stored of a cause."""
    record(jobs, cause=cause)
    (item,) = jobs.records()
    return item.get("cause")


def test_an_interruption_is_recorded(jobs: Jobs) -> None:
    """The record says which job, by what, when, and goes after thirty days."""
    answer = record(jobs, cause="stopped")

    assert answer == {
        "recorded": True,
        "duplicate": False,
        "recordId": record_id("interruption", "claim-1", "message-2"),
    }
    assert jobs.records() == [
        EVENT
        | {
            "recordId": answer["recordId"],
            "kind": "interruption",
            "cause": "stopped",
            "timestamp": iso(0),
            "ttl": int(NOW) + 30 * DAY,
        }
    ]


def test_a_cause_that_no_text_holds(jobs: Jobs) -> None:
    """One that is nested beyond what can be written is told by that."""
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    assert stored_cause(jobs, deep) == "(nested too deeply)"


def test_a_record_needs_little(jobs: Jobs) -> None:
    """Workspace and message are enough; what is not known is not stored."""
    jobs.call("record-interruption", projectId="amelia", userId="scott", messageId="message-1")
    (item,) = jobs.records()
    assert item.keys() == {"messageId", "recordId", "projectUserId", "kind", "timestamp", "ttl"}


def test_the_second_time_changes_nothing(jobs: Jobs) -> None:
    """A retry is told so, and what was stored first stays."""
    first = record(jobs, cause="first")
    before = jobs.records()
    jobs.clock.pass_(60)
    assert record(jobs, cause="second") == first | {"duplicate": True}
    assert jobs.records() == before


def test_both_executions_describe_one_event(jobs: Jobs) -> None:
    """The interrupter names its message, the interrupted finds it in the cause: one record."""
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
    """Another kind, claim or message is another record; both are kept."""
    record(jobs)
    assert record(jobs, **change)["duplicate"] is False
    assert len(jobs.records()) == 2


def test_an_interruption_and_a_timeout_of_a_message_are_two(jobs: Jobs) -> None:
    """What handle-timeout records of a message leaves its interruption alone."""
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
def test_a_cause_is_stored_whatever_it_is(jobs: Jobs, cause: Any, stored: Any) -> None:
    """JSON that fits into an item is parsed; everything else is kept as text."""
    assert stored_cause(jobs, cause) == stored


def test_nested_as_deep_as_an_item_goes(jobs: Jobs) -> None:
    """Thirty levels are stored as what they are."""
    cause: Any = []
    for _ in range(29):
        cause = [cause]
    assert stored_cause(jobs, json.dumps(cause)) == cause


@pytest.mark.parametrize("letter", ["x", "é", "名", "😀"])
def test_a_huge_cause_is_cut(jobs: Jobs, letter: str) -> None:
    """At most 32 KB, and no half characters."""
    cause = letter * 40_000
    stored = stored_cause(jobs, cause)
    assert 32 * 1024 - 4 < len(stored.encode()) <= 32 * 1024
    assert cause.startswith(stored)


def test_a_cause_is_measured_in_bytes(jobs: Jobs) -> None:
    """Fewer characters than the limit may still be too many bytes."""
    stored = stored_cause(jobs, "名" * 20_000)
    assert 32 * 1024 - 4 < len(stored.encode()) <= 32 * 1024


def test_huge_json_is_cut_as_text(jobs: Jobs) -> None:
    """Cut JSON is none any more, and tells nothing of ids."""
    cause = json.dumps({"interruptingMessageId": "message-7", "log": "x" * 40_000})
    record(jobs, interruptingMessageId=None, cause=cause)
    (item,) = jobs.records()
    assert item["cause"] == cause[: 32 * 1024]
    assert "interruptingMessageId" not in item


def test_json_of_just_32_kb_is_parsed(jobs: Jobs) -> None:
    """The limit itself is allowed."""
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
def test_no_cause_stops_the_record(jobs: Jobs, cause: Any) -> None:
    """Whatever a worker says, its interruption is recorded."""
    jobs.stack.dynamodb.delete_item(
        TableName=f"{PREFIX}interruptions",
        Key={
            "messageId": {"S": "message-1"},
            "recordId": {"S": record_id("interruption", "claim-1", "message-2")},
        },
    )
    assert record(jobs, cause=cause)["duplicate"] is False


@pytest.mark.parametrize("told", ["a#b", "", 7, None, ["message-2"], "x" * 200])
def test_malformed_ids_in_a_cause_are_not_taken(jobs: Jobs, told: Any) -> None:
    """A worker's words are checked like any input; they refuse nothing."""
    record(jobs, interruptingMessageId=None, cause={"interruptingMessageId": told})
    (item,) = jobs.records()
    assert "interruptingMessageId" not in item


def test_the_input_goes_before_the_cause(jobs: Jobs) -> None:
    """What the flow knows is not replaced by what the worker says."""
    record(jobs, cause={"interruptingMessageId": "message-9", "newThreadId": "thread-9"})
    (item,) = jobs.records()
    assert (item["interruptingMessageId"], item["newThreadId"]) == ("message-2", "thread-2")


@pytest.mark.parametrize("value", HOSTILE_IDS)
def test_a_hostile_message_is_refused_by_name(jobs: Jobs, value: Any) -> None:
    """What is no id is a ValidationError of messageId."""
    with pytest.raises(ValidationError, match="^messageId: "):
        record(jobs, messageId=value)
    assert jobs.records() == []


@pytest.mark.parametrize(
    "field",
    ["interruptedClaimId", "interruptedContainer", "newThreadId", "interruptingMessageId"],
)
@pytest.mark.parametrize("value", ["", "a/b", "x" * 200, 7])
def test_every_malformed_id_is_refused_by_name(jobs: Jobs, field: str, value: Any) -> None:
    """Ids that may be absent must be ids when they are there."""
    with pytest.raises(ValidationError) as refused:
        record(jobs, **{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("kind", ["", "crash", None, 7, ["timeout"], {}])
def test_an_unknown_kind_is_refused(jobs: Jobs, kind: Any) -> None:
    """There are four kinds."""
    with pytest.raises(ValidationError, match="^kind: "):
        record(jobs, kind=kind)


def test_one_write_and_no_read(jobs: Jobs) -> None:
    """A record, and its repetition, is one PutItem."""
    calls = jobs.stack.calls(jobs.function("record-interruption").dynamodb)
    record(jobs)
    assert calls.counts() == {"PutItem": 1}
    record(jobs)
    assert calls.counts() == {"PutItem": 2}


def test_a_failing_store_is_raised(jobs: Jobs) -> None:
    """The flow tries again by the error's own name."""
    module = jobs.function("record-interruption")
    jobs.stack.fail(module.dynamodb, "PutItem")
    with pytest.raises(module.dynamodb.exceptions.ProvisionedThroughputExceededException):
        record(jobs)


def test_a_repetition_is_not_counted(jobs: Jobs, output: Output) -> None:
    """The metric counts events; the log has the ids and none of the cause."""
    for _ in range(2):
        record(jobs, cause="what-the-worker-said")
    (metric,) = output.metric("InterruptionRecorded")
    assert metric["Kind"] == "interruption"
    first, second = output.logged("interruption recorded")
    assert (first["project_user_id"], first["message_id"]) == (WORKSPACE, "message-1")
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert "what-the-worker-said" not in output.text
