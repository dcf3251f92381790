"""disconnect: deletes a connection's rows and cancels its requests, whatever step fails."""

import json
import threading
import time
from itertools import product
from types import ModuleType
from typing import Any

import pytest

from jobplane_keys import to_item
from tests.unit.stack import (
    Context,
    Output,
    Row,
    Stack,
    connection,
    ended,
    event,
    iso,
    request,
    subscription,
)


@pytest.fixture
def disconnect(stack: Stack) -> ModuleType:
    return stack.function("disconnect")


def leave(disconnect: ModuleType, case: str = "closed") -> None:
    """A disconnection, whose answer is always the same."""
    answer = disconnect.handler(event("disconnect", case), Context())
    assert (answer["statusCode"], answer["headers"]) == (200, {"Content-Type": "application/json"})
    assert json.loads(answer["body"]) == {"message": "Disconnected successfully"}


@pytest.fixture
def listening(stack: Stack) -> None:
    """A connection with a request and its subscription."""
    stack.put("connections", connection())
    stack.put("requests", request(on_disconnect="cancel", subscriber_count=1))
    stack.put("subscriptions", subscription("req-1", "conn-1"))


def cancelled(stack: Stack) -> set[str]:
    return {row["request_id"] for row in stack.items("requests") if row["cancel_requested"]}


def test_only_the_connections_own_row_is_deleted(stack: Stack, disconnect: ModuleType) -> None:
    stack.put("connections", connection("conn-1"), connection("conn-2"))
    leave(disconnect)
    assert [row["connection_id"] for row in stack.items("connections")] == ["conn-2"]


@pytest.mark.parametrize(("begun", "least", "most"), [(-90, 89, 100), (90, 0, 0)])
def test_ConnectionDuration_is_measured_from_the_deleted_row(
    stack: Stack, disconnect: ModuleType, output: Output, begun: int, least: int, most: int
) -> None:
    """ConnectionClosed is counted. Clocks may differ: the duration is never negative."""
    stack.put("connections", connection(connected_at=iso(time.time() + begun)))
    leave(disconnect)
    (line,) = output.metric("ConnectionDuration")
    assert least <= line["ConnectionDuration"] <= most
    assert line["ConnectionClosed"] == 1
    assert (line["user_id"], line["tenant_id"]) == ("user-1", "tenant-1")
    units = {m["Name"]: m["Unit"] for m in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert units["ConnectionDuration"] == "Seconds"


def test_a_missing_row_is_success(stack: Stack, disconnect: ModuleType, output: Output) -> None:
    """No connection is counted as closed, and the rest is cleaned up."""
    stack.put("requests", request(on_disconnect="cancel"))
    stack.put("subscriptions", subscription("req-1", "conn-1"))
    leave(disconnect, "gone-already")
    assert not output.metric("ConnectionClosed")
    assert not output.metric("CleanupFailed")
    assert stack.items("subscriptions") == []
    assert cancelled(stack) == {"req-1"}


def test_the_policy_decides(stack: Stack, disconnect: ModuleType, output: Output) -> None:
    """Requests in every open state are cancelled only with `on_disconnect: cancel`."""
    states = ("PENDING", "PROCESSING", "RETRYING")
    for policy, s in product(("detach", "cancel"), states):
        stack.put("requests", request(f"{policy}-{s}", status=s, on_disconnect=policy))
    leave(disconnect, "detaches-and-cancels")
    assert cancelled(stack) == {f"cancel-{state}" for state in states}
    assert {row["status"] for row in stack.items("requests")} == set(states)
    assert output.metric("RequestsCancelled")[0]["RequestsCancelled"] == 3


@pytest.mark.parametrize("is_stale", [False, True], ids=["before the query", "after it"])
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
def test_an_ended_request_keeps_every_attribute(
    stack: Stack, disconnect: ModuleType, status: str, is_stale: bool
) -> None:
    """The condition on the row decides when the index is older than the end."""
    row = ended(status=status, on_disconnect="cancel")
    stack.put("requests", row)
    if is_stale:
        found = [row | {"status": "PROCESSING"}]
        stack.monkeypatch.setattr(disconnect, "requests_of", lambda connection_id: iter(found))
    leave(disconnect)
    assert stack.request() == row


def test_no_row_is_created_for_an_expired_request(stack: Stack, disconnect: ModuleType) -> None:
    """The index may still hold it."""
    stale = request(on_disconnect="cancel")
    stack.monkeypatch.setattr(disconnect, "requests_of", lambda connection_id: iter([stale]))
    leave(disconnect)
    assert stack.items("requests") == []


def test_requests_of_other_connections_go_on(stack: Stack, disconnect: ModuleType) -> None:
    stack.put("requests", request(on_disconnect="cancel", connection_id="conn-2"))
    leave(disconnect)
    assert cancelled(stack) == set()


def test_subscriptions_are_deleted(stack: Stack, disconnect: ModuleType, output: Output) -> None:
    stack.put("requests", request(subscriber_count=2))
    stack.put("subscriptions", subscription("req-1", "conn-1"), subscription("req-1", "conn-2"))
    leave(disconnect, "ends-subscriptions")
    assert [row["connection_id"] for row in stack.items("subscriptions")] == ["conn-2"]
    assert stack.request()["subscriber_count"] == 1
    assert output.metric("SubscriptionsCancelled")[0]["SubscriptionsCancelled"] == 1


def test_all_pages_are_cleaned_up(stack: Stack, disconnect: ModuleType, output: Output) -> None:
    """Every query reads all pages."""
    names = [f"req-{number:03d}" for number in range(120)]
    stack.put("connections", connection())
    stack.put("requests", *(request(n, on_disconnect="cancel", subscriber_count=1) for n in names))
    stack.put("subscriptions", *(subscription(name, "conn-1") for name in names))
    paged = disconnect.dynamodb.query
    stack.monkeypatch.setattr(disconnect.dynamodb, "query", lambda **q: paged(**q, Limit=25))
    leave(disconnect)
    assert stack.items("subscriptions") == []
    rows = stack.items("requests")
    assert all(row["cancel_requested"] and row["subscriber_count"] == 0 for row in rows)
    assert output.metric("SubscriptionsCancelled")[0]["SubscriptionsCancelled"] == 120
    assert output.metric("RequestsCancelled")[0]["RequestsCancelled"] == 120


def test_requests_are_cancelled_whatever_the_number_of_subscriptions(
    stack: Stack, disconnect: ModuleType
) -> None:
    """The clean-up ends in time, and what must stop with the connection is asked to first."""
    stack.put("requests", request(on_disconnect="cancel"))
    stack.put("subscriptions", subscription("req-1", "conn-1"))
    calls = stack.calls(disconnect.dynamodb)
    disconnect.handler(event("disconnect", "closed"), Context(seconds=1))
    assert cancelled(stack) == {"req-1"}
    assert [name for name, _ in calls] == ["Query", "UpdateItem", "DeleteItem"]


def test_a_repeated_event_changes_nothing(
    stack: Stack, disconnect: ModuleType, output: Output, listening: None
) -> None:
    """It counts no second closing."""
    leave(disconnect)
    after_first = stack.everything()
    leave(disconnect)
    assert stack.everything() == after_first
    assert len(output.metric("ConnectionClosed")) == 1


@pytest.mark.parametrize(
    ("operation", "step"),
    [
        ("DeleteItem", "delete_connection"),
        ("TransactWriteItems", "drop_subscriptions"),
        ("UpdateItem", "cancel_request"),
        ("Query", "drop_subscriptions"),
    ],
)
def test_a_failing_step_does_not_stop_the_others(
    stack: Stack, disconnect: ModuleType, output: Output, listening: None, operation: str, step: str
) -> None:
    """It is logged and counted by step."""
    stack.fail(disconnect.dynamodb, operation)
    leave(disconnect)
    assert step in {line["ErrorType"] for line in output.metric("CleanupFailed")}
    assert output.logged("clean-up step failed")
    assert bool(stack.items("connections")) == (operation == "DeleteItem")
    assert bool(stack.items("subscriptions")) == (operation in ("TransactWriteItems", "Query"))
    assert bool(cancelled(stack)) == (operation not in ("UpdateItem", "Query"))


def test_requests_are_cancelled_concurrently(stack: Stack, disconnect: ModuleType) -> None:
    """Eight at a time; a request that takes long delays no other one of them."""
    stack.put("requests", *(request(f"req-{n}", on_disconnect="cancel") for n in range(16)))
    together, whole = threading.Barrier(8), disconnect.dynamodb.update_item

    def update_item(**update: Any) -> Any:
        together.wait(20)
        return whole(**update)

    stack.monkeypatch.setattr(disconnect.dynamodb, "update_item", update_item)
    leave(disconnect)
    assert cancelled(stack) == {f"req-{n}" for n in range(16)}


def test_other_requests_are_cancelled(stack: Stack, disconnect: ModuleType, output: Output) -> None:
    """When one cancellation is throttled."""
    stack.put("requests", *(request(f"req-{n}", on_disconnect="cancel") for n in range(4)))
    stack.fail(disconnect.dynamodb, "UpdateItem", times=1)
    leave(disconnect)
    assert len(cancelled(stack)) == 3
    assert output.metric("RequestsCancelled")[0]["RequestsCancelled"] == 3


@pytest.mark.parametrize(
    "changes", [{"connected_at": "long ago"}, {"connected_at": 17}, {"user_id": None}]
)
def test_an_unreadable_row_is_deleted(stack: Stack, disconnect: ModuleType, changes: Row) -> None:
    """The rest is cleaned up."""
    row = {name: value for name, value in (connection() | changes).items() if value is not None}
    rows = [{"Attributes": to_item(row)}]
    stack.monkeypatch.setattr(disconnect.dynamodb, "delete_item", lambda **_: rows.pop())
    stack.put("requests", request(on_disconnect="cancel"))
    leave(disconnect)
    assert rows == []
    assert cancelled(stack) == {"req-1"}


def test_leaving_costs_three_calls(stack: Stack, disconnect: ModuleType, output: Output) -> None:
    """One DeleteItem and a query of each of two indexes; the latency is counted by action."""
    stack.put("connections", connection())
    calls = stack.calls(disconnect.dynamodb)
    leave(disconnect)
    assert calls.counts() == {"DeleteItem": 1, "Query": 2}
    assert output.metric("ProcessingLatency")[0]["Action"] == "disconnect"
