"""Placeholders of case files: their values, and what they match."""

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import jwt
import pytest

from jobplane.trying.placeholders import PlaceholderError, Values, mismatches

SECRET = "0123456789abcdef0123456789abcdef"
VALUES = Values("acme", "test", SECRET, tables={"connections": "jobplane-test-connections"})


def test_now_is_a_number_alone_and_a_text_within_a_text() -> None:
    before = int(time.time())
    filled = VALUES.fill("<now+60>")
    assert before <= filled - 60 <= time.time()
    assert VALUES.fill({"at": ["<iso-now>"]})["at"][0].endswith("Z")
    assert VALUES.fill("before <now-1> after").startswith("before 1")


def test_date_minus_n_is_the_utc_date_of_n_days_ago() -> None:
    today = datetime.now(UTC).date()
    filled = VALUES.fill("pipeline/<date-2>/<date>.ndjson")
    assert filled == f"pipeline/{today - timedelta(days=2)}/{today}.ndjson"


def test_token_is_a_jwt_of_the_stage() -> None:
    filled = VALUES.fill("Bearer <token:user=u,tenant=t,permissions=a+b>")
    claims = jwt.decode(filled.removeprefix("Bearer "), SECRET, algorithms=["HS256"])
    assert (claims["user_id"], claims["tenant_id"]) == ("u", "t")
    assert claims["permissions"] == ["a", "b"]


def test_table_is_its_physical_name() -> None:
    """An unknown one is an error that lists the known ones."""
    assert VALUES.fill("<table:connections>") == "jobplane-test-connections"
    with pytest.raises(PlaceholderError, match="it has connections"):
        VALUES.fill("<table:nothing>")


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": Decimal(1)}),
        ({"body": {"a": "<any>"}}, {"body": '{"a": null, "b": 1}'}),
        ("<uuid>", "01234567-89ab-cdef-0123-456789abcdef"),
        ("<iso-time>", "2026-11-21T10:00:00.000Z"),
        ("<int>", 3),
        ("<number>", 3.5),
        ("<string>", ""),
        ("<contains:ell>", "hello"),
        ("<regex:^h.*o$>", "hello"),
        ({"a": "<absent>"}, {}),
        ([1, "<any>"], [1, 2]),
    ],
)
def test_an_answer_matches_its_subset_and_placeholders(expected: Any, actual: Any) -> None:
    assert mismatches(expected, actual) == []


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": True}, {"a": 1}),
        ("1", 1),
        ("<uuid>", "x"),
        ("<iso-time>", "yesterday"),
        ("<int>", 3.5),
        ("<int>", "3"),
        ("<contains:x>", "hello"),
        ({"a": "<absent>"}, {"a": None}),
        ([1], [1, 2]),
        ({"a": {}}, {"a": []}),
    ],
)
def test_each_mismatch_is_a_line_with_its_place(expected: Any, actual: Any) -> None:
    (line,) = mismatches(expected, actual)
    assert line.startswith("answer")
