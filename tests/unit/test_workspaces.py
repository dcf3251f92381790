"""jobplane_keys of claims: rows, ids, and names of queues and records."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import jobplane_keys as keys
from jobplane_keys import ValidationError, Workspace
from tests.unit.claims import HOSTILE_IDS, HOUR, NOW, iso

IDS = st.from_regex(r"[A-Za-z0-9._@+-]{1,128}", fullmatch=True)
SHORT_IDS = st.text("aB1._@+-", min_size=1, max_size=6)
PREFIXES = st.sampled_from(["", "streamer_", "jobplane-local-", "jobplane-a-long-stage-name-"])
NAMERS = [keys.interrupt_queue_name, keys.input_queue_name, keys.dead_letter_queue_name]


@pytest.mark.parametrize("value", HOSTILE_IDS)
def test_a_malformed_id_is_refused_with_the_fields_name(value: Any) -> None:
    with pytest.raises(ValidationError, match="^threadId: ") as refused:
        keys.checked_id({"threadId": value}, "threadId")
    assert refused.value.field == "threadId"


@given(IDS)
def test_a_valid_id_is_returned_unchanged(value: str) -> None:
    assert keys.checked_id({"messageId": value}, "messageId") == value
    assert keys.optional_id({"messageId": value}, "messageId") == value


def test_an_optional_id_may_be_absent_or_null_but_not_malformed() -> None:
    assert keys.optional_id({}, "threadId") is None
    assert keys.optional_id({"threadId": None}, "threadId") is None
    with pytest.raises(ValidationError, match="^threadId: "):
        keys.optional_id({"threadId": ""}, "threadId")


@given(IDS, IDS)
def test_a_workspace_is_read_from_its_key_or_its_parts(project: str, user: str) -> None:
    workspace = Workspace(project, user)
    assert workspace.key == f"{project}#{user}"
    key, parts = {"projectUserId": workspace.key}, {"projectId": project, "userId": user}
    for event in (key, parts, key | parts, key | {"projectId": None, "userId": None}):
        assert keys.workspace_of(event) == workspace


@pytest.mark.parametrize(
    "value",
    ["", "amelia", "#", "amelia#", "#scott", "amelia#scott#x", "amelia##scott", "a/b#c", "a#b c",
     "a#b\n", "x" * 129 + "#a", "a#" + "x" * 129, "名#前", 7, True, ["a#b"], {"a": "b"}],
)  # fmt: skip
def test_a_malformed_projectUserId_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        keys.workspace_of({"projectUserId": value, "projectId": "amelia", "userId": "scott"})
    assert refused.value.field == "projectUserId"


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "projectId"),
        ({"userId": "scott"}, "projectId"),
        ({"projectId": "amelia"}, "userId"),
        ({"projectId": "a#b", "userId": "scott"}, "projectId"),
        ({"projectId": "amelia", "userId": "a#b"}, "userId"),
        ({"projectUserId": "amelia#scott", "projectId": "other"}, "projectId"),
        ({"projectUserId": "amelia#scott", "userId": "other"}, "userId"),
        ({"projectUserId": "amelia#scott", "userId": 7}, "userId"),
        ([], "input"),
        ("amelia#scott", "input"),
        (None, "input"),
    ],
)
def test_a_missing_or_different_part_of_a_workspace_is_named(event: Any, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        keys.workspace_of(event)
    assert refused.value.field == field


@pytest.mark.parametrize(("value", "number"), [(1, 1), (60.0, 60), (100, 100), (None, 7)])
def test_whole_numbers_within_bounds_are_accepted(value: Any, number: int) -> None:
    assert keys.checked_number({"ttlSeconds": value}, "ttlSeconds", 7, 1, 100) == number


@pytest.mark.parametrize(
    "value", [0, 101, -1, 1.5, float("nan"), float("inf"), "60", True, [], {}, 10**40]
)
def test_other_numbers_are_refused_with_the_fields_name(value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        keys.checked_number({"ttlSeconds": value}, "ttlSeconds", 7, 1, 100)
    assert refused.value.field == "ttlSeconds"


def test_a_missing_number_without_a_default_is_refused() -> None:
    with pytest.raises(ValidationError, match="^fence: "):
        keys.checked_number({}, "fence", None, 0, 100)


@pytest.mark.parametrize(
    ("row", "expiry"),
    [
        ({"expiresAt": 1_795_000_000}, 1_795_000_000),
        ({"expiresAt": 1_795_000_000_500}, 1_795_000_000.5),
        ({"ttl": 1_795_000_000}, 1_795_000_000),
        ({"ttl": 1_795_000_000_000}, 1_795_000_000),
        ({"expiresAt": 1_795_000_000, "ttl": 1}, 1_795_000_000),
        ({"expiresAt": "soon", "ttl": 1_795_000_000}, 1_795_000_000),
        ({"expiresAt": None, "ttl": None}, None),
        ({"expiresAt": True}, None),
        ({"expiresAt": "2026-11-22T10:00:00.000Z"}, None),
        ({}, None),
        ({"expiresAt": 10**400}, 253_402_300_799.999),
        ({"expiresAt": float("inf")}, 253_402_300_799.999),
        ({"expiresAt": float("nan")}, None),
        ({"expiresAt": 10**11}, 10**11),
        ({"expiresAt": 10**11 + 1000}, 10**8 + 1),
    ],
)
def test_the_end_of_a_claim_is_read_from_every_format(row: Any, expiry: float | None) -> None:
    """Seconds or milliseconds, expiresAt before ttl; malformed ones are ignored, late ones cut."""
    assert keys.claim_expiry(row) == expiry


@pytest.mark.parametrize(
    ("row", "live", "reason"),
    [
        ({}, False, "none"),
        ({"state": "free", "expiresAt": NOW + 9}, False, "free"),
        ({"state": "held", "expiresAt": NOW + 1}, True, "live"),
        ({"state": "held", "expiresAt": NOW}, False, "expired"),
        ({"state": "held", "expiresAt": NOW - 1}, False, "expired"),
        ({"ttl": NOW + 1}, True, "live"),
        ({"ttl": (NOW + 1) * 1000}, True, "live"),
        ({"ttl": (NOW - 1) * 1000}, False, "expired"),
        ({"claimedAt": iso(-HOUR + 1)}, True, "malformed"),
        ({"claimedAt": iso(-HOUR)}, False, "malformed"),
        ({"claimedAt": NOW - HOUR + 1}, True, "malformed"),
        ({"claimedAt": (NOW - HOUR + 1) * 1000}, True, "malformed"),
        ({"claimedAt": (NOW - HOUR - 1) * 1000}, False, "malformed"),
        ({"claimedAt": iso(5 * HOUR)}, True, "malformed"),
        ({"claimedAt": iso(25 * HOUR)}, False, "malformed"),
        ({"claimedAt": "yesterday"}, False, "malformed"),
        ({"claimedAt": None}, False, "malformed"),
        ({"claimedAt": True}, False, "malformed"),
        ({"threadId": "thread-old"}, False, "malformed"),
    ],
)
def test_a_row_of_any_format_is_live_or_not_and_why(row: Any, live: bool, reason: str) -> None:
    state = keys.claim_state(row, NOW)
    assert (state.live, state.reason) == (live, reason)
    assert state.malformed == (reason == "malformed")


@given(PREFIXES, IDS, IDS)
def test_queue_names_are_valid(prefix: str, project: str, user: str) -> None:
    """At most 80 allowed characters, readable, .fifo for FIFO queues."""
    workspace = Workspace(project, user)
    for name_of in NAMERS:
        name = name_of(prefix, workspace)
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo", name)
        assert name.startswith(prefix)
        assert name.endswith(".fifo") == (name_of is not keys.interrupt_queue_name)
        assert re.search(r"-[0-9a-f]{16}(\.fifo)?$", name)


@given(st.tuples(SHORT_IDS, SHORT_IDS), st.tuples(SHORT_IDS, SHORT_IDS))
@example(("a-b", "c"), ("a", "b-c"))
@example(("a.b", "c"), ("a@b", "c"))
@example(("a-", "b"), ("a", "-b"))
@example(("x" * 128, "y" * 127 + "1"), ("x" * 128, "y" * 127 + "2"))
def test_queue_names_never_collide(one: tuple[str, str], other: tuple[str, str]) -> None:
    names = [name_of("p-", Workspace(*pair)) for pair in (one, other) for name_of in NAMERS]
    assert len(set(names)) == len(NAMERS) * len({one, other})


def test_derived_ids_depend_on_where_a_part_ends() -> None:
    assert keys.interrupt_id("ab", "c") != keys.interrupt_id("a", "bc")
    assert keys.record_id("forced", "ab", "c", "a#b") != keys.record_id("forced", "a", "bc", "a#b")
    assert keys.dead_letter_id("forced", "a#b", "cd", "e") != keys.dead_letter_id(
        "forced", "a#bc", "d", "e"
    )
    assert keys.execution_name(Workspace("a", "b"), "cd") != keys.execution_name(
        Workspace("a", "bc"), "d"
    )


@given(IDS, st.none() | IDS, st.none() | IDS, IDS)
def test_derived_ids_are_deterministic(
    message: str, claim: str | None, interrupting: str | None, other: str
) -> None:
    record = keys.record_id("timeout", claim, interrupting, "a#b")
    assert record == keys.record_id("timeout", claim, interrupting, "a#b")
    assert record != keys.record_id("forced", claim, interrupting, "a#b")
    assert record != keys.record_id("timeout", claim, interrupting, "a#c")
    assert (record == keys.record_id("timeout", other, interrupting, "a#b")) is (other == claim)
    letter = keys.dead_letter_id("timeout", "a#b", message, claim)
    assert letter == keys.dead_letter_id("timeout", "a#b", message, claim)
    assert letter != keys.dead_letter_id("timeout", "a#c", message, claim)
    assert re.fullmatch(r"[0-9a-f]{32}", letter)
    one, two = keys.interrupt_id(message, other), keys.interrupt_id(other, message)
    assert (one == two) is (message == other)
