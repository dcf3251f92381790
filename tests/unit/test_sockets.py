"""sockets: what becomes of a post, and who listens to what."""

import json
import threading
import time
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from botocore.stub import Stubber

from jobplane_keys import to_item
from jobplane_sockets import (
    Delivery,
    drop_connection,
    drop_subscriptions,
    encode_message,
    listeners,
    post,
    transact,
    unsubscribe,
)
from tests.unit.stack import (
    OWNER,
    PREFIX,
    REGION,
    Sockets,
    Stack,
    connection,
    ended,
    request,
    subscription,
)

KEY = f"{OWNER}#req-1"


def test_a_message_travels_as_compact_utf8() -> None:
    """No spaces, no escapes for what UTF-8 can say."""
    assert (
        encode_message({"text": "Grüße 🎉", "n": [1, 2]})
        == '{"text":"Grüße 🎉","n":[1,2]}'.encode()
    )


def test_a_delivered_message_arrives_once_at_each_target() -> None:
    """Twice the same target is one post."""
    sockets = Sockets()
    delivery = post(sockets, ["b", "a", "b"], {"type": "ping"})

    assert delivery == Delivery(delivered=("a", "b"), gone=(), failed={})
    assert sockets.attempts == {"a": 1, "b": 1}


def test_nobody_to_post_to_is_no_failure() -> None:
    """An empty audience is an empty delivery."""
    assert post(Sockets(), [], {}) == Delivery((), (), {})


def test_outcomes_are_told_apart() -> None:
    """Delivered, gone and failed connections are reported apart; one failure stops no other."""
    sockets = Sockets()
    sockets.gone = {"gone"}
    sockets.failing = {
        "slow": (429, "LimitExceededException"),
        "broken": (500, "InternalServerError"),
        "denied": (403, "ForbiddenException"),
    }
    delivery = post(sockets, ["ok", "gone", "slow", "broken", "denied"], {"type": "ping"})

    assert delivery.delivered == ("ok",)
    assert delivery.gone == ("gone",)
    assert delivery.failed == {
        "slow": "LimitExceededException",
        "broken": "InternalServerError",
        "denied": "ForbiddenException",
    }


def test_a_broken_network_is_a_failed_post() -> None:
    """What botocore raises below HTTP counts as failed, under its own name."""

    class Unreachable:
        def post_to_connection(self, **_: Any) -> None:
            raise ConnectTimeoutError(endpoint_url="https://sockets.example.com")

    assert post(Unreachable(), ["a"], {}).failed == {"a": "ConnectTimeoutError"}


@pytest.mark.parametrize("code", ["GoneException", "410", "Unknown"])
def test_the_status_says_gone_whatever_the_code(code: str) -> None:
    """HTTP 410 is what counts; the code beside it differs between AWS and emulators."""
    client = boto3.client(
        "apigatewaymanagementapi",
        region_name=REGION,
        endpoint_url="https://sockets.example.com/test",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    with Stubber(client) as stubber:
        stubber.add_client_error("post_to_connection", code, http_status_code=410)
        assert post(client, ["a"], {"type": "ping"}).gone == ("a",)


def test_fan_out_runs_side_by_side() -> None:
    """Sixteen posts are under way at once: each waits until all have begun."""
    together = threading.Barrier(16)

    class Slow:
        def post_to_connection(self, **_: Any) -> None:
            together.wait(10)

    delivery = post(Slow(), [f"conn-{number}" for number in range(16)], {})
    assert len(delivery.delivered) == 16


def test_fan_out_to_hundreds_reports_the_failed() -> None:
    """Of five hundred connections, exactly the failing ones are named."""
    sockets = Sockets()
    everyone = [f"conn-{number:03d}" for number in range(500)]
    sockets.gone = set(everyone[::50])
    sockets.failing = {name: (500, "InternalServerError") for name in everyone[7::100]}
    delivery = post(sockets, everyone, {"type": "ping"})

    assert set(delivery.gone) == sockets.gone
    assert set(delivery.failed) == set(sockets.failing)
    assert len(delivery.delivered) == 500 - len(sockets.gone) - len(sockets.failing)


def test_listeners_are_those_not_expired(stack: Stack) -> None:
    """Rows of this request alone, without those that only wait for their deletion."""
    stack.put(
        "subscriptions",
        subscription("req-1", "conn-1"),
        subscription("req-1", "conn-2"),
        subscription("req-1", "conn-old", ttl=int(time.time()) - 1),
        subscription("req-2", "conn-3"),
    )
    found = listeners(stack.dynamodb, PREFIX, KEY, time.time())
    assert sorted(found) == ["conn-1", "conn-2"]


def test_listeners_read_every_page(stack: Stack) -> None:
    """A request may have more listeners than one page holds."""
    stack.put("subscriptions", *(subscription("req-1", f"conn-{n}") for n in range(7)))
    whole = stack.dynamodb.query
    stack.monkeypatch.setattr(stack.dynamodb, "query", lambda **q: whole(**q, Limit=3))
    assert len(listeners(stack.dynamodb, PREFIX, KEY, time.time())) == 7


def test_who_has_just_subscribed_is_a_listener(stack: Stack) -> None:
    """The rows are read consistently: the next message may be the last."""
    calls = stack.calls(stack.dynamodb)
    listeners(stack.dynamodb, PREFIX, KEY, time.time())
    assert [query["ConsistentRead"] for query in calls.of("Query")] == [True]


def test_unsubscribing_takes_row_and_count(stack: Stack) -> None:
    """The row goes and the request counts one listener less."""
    stack.put("requests", request(subscriber_count=2))
    stack.put("subscriptions", subscription("req-1", "conn-1"), subscription("req-1", "conn-2"))

    assert unsubscribe(stack.dynamodb, PREFIX, KEY, "conn-1") is True
    assert [row["connection_id"] for row in stack.items("subscriptions")] == ["conn-2"]
    assert stack.request()["subscriber_count"] == 1


def test_unsubscribing_twice_counts_once(stack: Stack) -> None:
    """The second time finds nothing and changes nothing."""
    stack.put("requests", request(subscriber_count=1))
    stack.put("subscriptions", subscription("req-1", "conn-1"))

    answers = [unsubscribe(stack.dynamodb, PREFIX, KEY, "conn-1") for _ in range(2)]

    assert answers == [True, False]
    assert stack.request()["subscriber_count"] == 0


def test_a_subscription_outlives_its_request(stack: Stack) -> None:
    """When the request has expired, the row is still removed and no request appears."""
    stack.put("subscriptions", subscription("req-1", "conn-1"))

    assert unsubscribe(stack.dynamodb, PREFIX, KEY, "conn-1") is True
    assert stack.items("subscriptions") == []
    assert stack.items("requests") == []


@pytest.mark.parametrize("user", ["a#b", "100%", "ada@example.com", "Ωmega"])
def test_owners_with_special_characters(stack: Stack, user: str) -> None:
    """Separators inside ids do not lead to somebody else's request."""
    from jobplane_keys import owner_key, request_key

    owner = owner_key("tenant-1", user)
    stack.put("requests", request("req-1", owner=owner, subscriber_count=1))
    stack.put("subscriptions", subscription("req-1", "conn-1", owner=owner))

    assert unsubscribe(stack.dynamodb, PREFIX, request_key(owner, "req-1"), "conn-1") is True
    assert stack.request(owner=owner)["subscriber_count"] == 0


def test_dropping_ends_every_subscription_of_one_connection(stack: Stack) -> None:
    """Over several pages, and of this connection only."""
    names = [f"req-{number}" for number in range(7)]
    stack.put("requests", *(request(name, subscriber_count=2) for name in names))
    for who in ("conn-1", "conn-2"):
        stack.put("subscriptions", *(subscription(name, who) for name in names))
    whole = stack.dynamodb.query
    stack.monkeypatch.setattr(stack.dynamodb, "query", lambda **q: whole(**q, Limit=2))

    assert drop_subscriptions(stack.dynamodb, PREFIX, "conn-1") == 7
    assert drop_subscriptions(stack.dynamodb, PREFIX, "conn-1") == 0
    assert {row["connection_id"] for row in stack.items("subscriptions")} == {"conn-2"}
    assert {row["subscriber_count"] for row in stack.items("requests")} == {1}


def test_dropping_a_connection_takes_its_row_too(stack: Stack) -> None:
    """The connection and its subscriptions go; a second time is no failure."""
    stack.put("connections", connection("conn-1"), connection("conn-2"))
    stack.put("requests", ended())
    stack.put("subscriptions", subscription("req-1", "conn-1"))

    for _ in range(2):
        drop_connection(stack.dynamodb, PREFIX, "conn-1")

    assert [row["connection_id"] for row in stack.items("connections")] == ["conn-2"]
    assert stack.items("subscriptions") == []


class Conflicting:
    """A DynamoDB client whose transactions are cancelled a number of times."""

    def __init__(self, times: int, *reasons: str) -> None:
        self.left = times
        self.calls = 0
        self.reasons = reasons

    def transact_write_items(self, **_: Any) -> None:
        self.calls += 1
        if self.left:
            self.left -= 1
            response: Any = {
                "Error": {"Code": "TransactionCanceledException", "Message": "cancelled"},
                "CancellationReasons": [{"Code": reason} for reason in self.reasons],
            }
            raise ClientError(response, "TransactWriteItems")


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_a_conflict_with_a_progress_write_is_tried_again(no_waits: None) -> None:
    """A transaction that met another write of the same request succeeds after it."""
    client = Conflicting(3, "None", "TransactionConflict")
    assert transact(client, []) == []
    assert client.calls == 4


def test_conflicts_end_at_some_point(no_waits: None) -> None:
    """A conflict that does not go away is raised after a bounded number of tries."""
    client = Conflicting(1000, "None", "TransactionConflict")
    with pytest.raises(ClientError):
        transact(client, [])
    assert client.calls < 10


def test_a_failed_condition_is_an_answer(no_waits: None) -> None:
    """It is told at once, item by item."""
    client = Conflicting(1, "ConditionalCheckFailed", "None")
    assert transact(client, []) == ["ConditionalCheckFailed", "None"]
    assert client.calls == 1


def test_a_failed_condition_beside_a_conflict_is_an_answer(no_waits: None) -> None:
    """Another write of the other item does not change what is known."""
    client = Conflicting(1, "ConditionalCheckFailed", "TransactionConflict")
    assert transact(client, []) == ["ConditionalCheckFailed", "TransactionConflict"]
    assert client.calls == 1


def test_other_cancellations_are_raised(no_waits: None) -> None:
    """A throttled transaction is the caller's to deal with."""
    client = Conflicting(1, "ThrottlingError", "None")
    with pytest.raises(ClientError):
        transact(client, [])
    assert client.calls == 1


def test_transact_writes_all_or_nothing(stack: Stack) -> None:
    """One failed condition keeps the other item from being written."""
    items = [
        {"Put": {"TableName": f"{PREFIX}connections", "Item": to_item(connection())}},
        {
            "Update": {
                "TableName": f"{PREFIX}requests",
                "Key": to_item({"owner": OWNER, "request_id": "req-1"}),
                "UpdateExpression": "ADD subscriber_count :one",
                "ConditionExpression": "attribute_exists(request_id)",
                "ExpressionAttributeValues": to_item({":one": 1}),
            }
        },
    ]
    assert transact(stack.dynamodb, items)[1] == "ConditionalCheckFailed"
    assert stack.items("connections") == []
    stack.put("requests", request())
    assert transact(stack.dynamodb, items) == []
    assert json.dumps(stack.request()["subscriber_count"]) == "1"
