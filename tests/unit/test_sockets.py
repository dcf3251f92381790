"""jobplane_sockets: outcomes of posts, and subscriptions."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from botocore.stub import Stubber

from jobplane_keys import owner_key, request_key, to_item
from jobplane_sockets import (
    Delivery,
    Listeners,
    LiveConnections,
    Outbox,
    drop_connection,
    drop_subscriptions,
    encode_message,
    forget_listener,
    listeners,
    post,
    rights_end,
    transact,
    unsubscribe,
)
from tests.unit.clock import Clock
from tests.unit.stack import (
    OWNER,
    PREFIX,
    REGION,
    Sockets,
    Stack,
    client_error,
    connection,
    ended,
    iso,
    request,
    subscription,
    until,
)

KEY = f"{OWNER}#req-1"


def test_a_message_is_sent_as_compact_utf_8() -> None:
    text = encode_message({"text": "Grüße 🎉", "n": [1, 2]})
    assert text == '{"text":"Grüße 🎉","n":[1,2]}'.encode()


def test_a_message_is_posted_once_to_each_target() -> None:
    """Even if a target is named twice."""
    sockets = Sockets()
    delivery = post(sockets, ["b", "a", "b"], {"type": "ping"})
    assert delivery == Delivery(delivered=("a", "b"), gone=(), failed={})
    assert post(sockets, [], {}) == Delivery((), (), {})
    assert sockets.attempts == {"a": 1, "b": 1}


def test_delivered_gone_and_failed_connections_are_reported_separately() -> None:
    """A failure does not stop the others."""
    sockets = Sockets()
    sockets.gone = {"gone"}
    codes = {429: "LimitExceededException", 500: "InternalServerError", 403: "ForbiddenException"}
    sockets.failing = {str(status): (status, code) for status, code in codes.items()}
    delivery = post(sockets, ["ok", "gone", *sockets.failing], {"type": "ping"})
    failed = {str(status): code for status, code in codes.items()}
    assert delivery == Delivery(delivered=("ok",), gone=("gone",), failed=failed)


def test_an_error_below_http_is_a_failed_post() -> None:
    """With the name of botocore's error."""

    class Unreachable:
        def post_to_connection(self, **_: Any) -> None:
            raise ConnectTimeoutError(endpoint_url="https://sockets.example.com")

    assert post(Unreachable(), ["a"], {}).failed == {"a": "ConnectTimeoutError"}


@pytest.mark.parametrize("code", ["GoneException", "410", "Unknown"])
def test_a_410_means_gone_whatever_the_error_code(code: str) -> None:
    """AWS and emulators use different codes."""
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    url = "https://sockets.example.com/test"
    client = boto3.client("apigatewaymanagementapi", region_name=REGION, endpoint_url=url, **keys)
    with Stubber(client) as stubber:
        stubber.add_client_error("post_to_connection", code, http_status_code=410)
        assert post(client, ["a"], {"type": "ping"}).gone == ("a",)


def test_sixteen_posts_run_concurrently() -> None:
    """Each waits until all have begun."""
    together = threading.Barrier(16)

    class Slow:
        def post_to_connection(self, **_: Any) -> None:
            together.wait(10)

    delivery = post(Slow(), [f"conn-{number}" for number in range(16)], {})
    assert len(delivery.delivered) == 16


def test_the_failed_ones_of_500_posts_are_reported() -> None:
    sockets = Sockets()
    everyone = [f"conn-{number:03d}" for number in range(500)]
    sockets.gone = set(everyone[::50])
    sockets.failing = {name: (500, "InternalServerError") for name in everyone[7::100]}
    delivery = post(sockets, everyone, {"type": "ping"})
    assert set(delivery.gone) == sockets.gone
    assert set(delivery.failed) == set(sockets.failing)
    assert len(delivery.delivered) == 500 - len(sockets.gone) - len(sockets.failing)


def test_a_silent_endpoint_is_given_up() -> None:
    """After sixteen posts without an answer the remaining ones fail without a call."""
    calls: list[str] = []
    answers: list[None] = []
    together = threading.Barrier(16)

    class Silent:
        def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> None:  # noqa: N803
            calls.append(ConnectionId)
            if ConnectionId in everyone[:16]:
                together.wait(20)
            if ConnectionId == "conn-00":
                raise client_error("InternalServerError", 500)
            raise ReadTimeoutError(endpoint_url="https://sockets.example.com")

    everyone = [f"conn-{number:02d}" for number in range(100)]
    delivery = post(Silent(), everyone, {}, on_answer=lambda: answers.append(None))
    assert set(delivery.failed) == set(everyone)
    assert set(delivery.failed.values()) == {"InternalServerError", "ReadTimeoutError", "NoAnswer"}
    assert (17 <= len(calls) < 64, answers) == (True, [None])


def test_an_outbox_posts_in_order_and_keeps_the_newest_progress() -> None:
    """The first is never replaced, and what is not replaceable waits for what is before it."""
    outbox, made, go = Outbox(), list[str](), threading.Event()

    def note(name: str) -> Callable[[], None]:
        return lambda: (go.wait(), made.append(name))[1]

    for number in range(5):
        outbox.put(note(f"progress {number}"), replaceable=True)
    outbox.put(note("end"))
    go.set()
    assert outbox.close(60) is True
    assert made == ["progress 0", "progress 4", "end"]


def test_an_outbox_gives_up_a_silent_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one that still answers; progress is dropped, and an end may be posted later."""
    monkeypatch.setattr("jobplane_sockets._outbox.SILENCE_SECONDS", 0.3)
    outbox, made, go = Outbox(), list[str](), threading.Event()

    def slow() -> None:
        for _ in range(8):
            time.sleep(0.1)
            outbox.answered()
        made.append("slow")

    outbox.put(slow)
    assert outbox.drain(60) is True
    outbox.put(lambda: go.wait())
    outbox.put(lambda: made.append("progress"), replaceable=True)
    outbox.put(lambda: made.append("end"))
    assert outbox.close(0.0) is False
    go.set()
    until(lambda: "end" in made)
    assert made == ["slow", "end"]


def test_a_dropped_outbox_posts_nothing_more() -> None:
    outbox, made, go = Outbox(), list[str](), threading.Event()
    outbox.put(lambda: go.wait())
    outbox.put(lambda: made.append("waiting"))
    outbox.drop()
    go.set()
    assert (outbox.close(60), made) == (True, [])


ENDED = {
    "token": {"token_expires_at": 0},
    "row": {"ttl": 0},
    "two hours": {"connected_at": "2026-01-01T00:00:00.000Z"},
    "damaged": {"connected_at": "yesterday"},
    "another type": {"ttl": "soon"},
}


def test_rights_end_with_the_first_of_three_times() -> None:
    """The token's, the row's, and two hours after the handshake."""
    row = connection(connected_at=iso(1000), token_expires_at=9000, ttl=9001)
    assert rights_end(row) == 1000 + 2 * 3600
    assert rights_end(row | {"token_expires_at": 8000}) == 8000
    assert rights_end(row | {"ttl": 7000}) == 7000
    assert rights_end({}) == 0.0


@pytest.mark.parametrize("changes", ENDED.values(), ids=ENDED)
def test_connections_without_rights_get_no_message(stack: Stack, changes: dict[str, Any]) -> None:
    """As one that has no row. They are gone, and never read again."""
    stack.put("connections", connection("live"), connection("ended", **changes))
    calls = stack.calls(stack.dynamodb)
    connections = LiveConnections(stack.dynamodb, PREFIX)
    for later in (0, 61):
        now = time.time() + later
        found = connections.send(stack.sockets, ["live", "ended", "rowless"], {}, now)
        assert found == Delivery(("live",), ("ended", "rowless"), {})
    assert stack.sockets.attempts == {"live": 2}
    first, second = (read["RequestItems"] for read in calls.of("BatchGetItem"))
    assert [len(read[f"{PREFIX}connections"]["Keys"]) for read in (first, second)] == [3, 1]
    assert first[f"{PREFIX}connections"]["ConsistentRead"] is True


def test_a_connection_is_read_once_a_minute_and_its_end_is_known(stack: Stack) -> None:
    """Its row is deleted in between."""
    now = time.time()
    stack.put("connections", connection("a", token_expires_at=int(now) + 30), connection("b"))
    calls = stack.calls(stack.dynamodb)
    connections = LiveConnections(stack.dynamodb, PREFIX)

    def gone(later: float) -> tuple[str, ...]:
        return connections.send(stack.sockets, "ab", {}, now + later).gone

    assert gone(0) == gone(29) == ()
    drop_connection(stack.dynamodb, PREFIX, "b")
    # A newer token might have put the end off, so that the row is read once more.
    assert gone(31) == gone(59) == ("a",)
    assert calls.counts()["BatchGetItem"] == 2
    assert gone(60) == gone(130) == ("a", "b")
    assert calls.counts()["BatchGetItem"] == 3


def test_a_connection_whose_token_was_renewed_goes_on(stack: Stack) -> None:
    """Its former end was read less than a minute ago."""
    now = time.time()
    stack.put("connections", connection("a", token_expires_at=int(now) + 30))
    connections = LiveConnections(stack.dynamodb, PREFIX)
    assert connections.send(stack.sockets, "a", {}, now).delivered == ("a",)
    stack.put("connections", connection("a", token_expires_at=int(now) + 40))
    assert connections.send(stack.sockets, "a", {}, now + 31).delivered == ("a",)
    assert connections.send(stack.sockets, "a", {}, now + 41).gone == ("a",)


def test_a_connection_whose_row_is_not_read_gets_no_message(stack: Stack) -> None:
    """Not even one that was live a minute ago; the next post reads it again."""
    now = time.time()
    stack.put("connections", connection("known"), connection("new"))
    connections = LiveConnections(stack.dynamodb, PREFIX)
    connections.send(stack.sockets, ["known"], {}, now)
    code = "ProvisionedThroughputExceededException"
    failed = stack.fail(stack.dynamodb, "BatchGetItem", times=2)
    asked = ["known", "new"]
    assert connections.send(stack.sockets, asked, {}, now + 1) == (
        Delivery(("known",), (), {"new": code})
    )
    assert connections.send(stack.sockets, asked, {}, now + 60) == (
        Delivery((), (), dict.fromkeys(asked, code))
    )
    assert connections.send(stack.sockets, asked, {}, now + 61).delivered == ("known", "new")
    assert failed["BatchGetItem"] == 2


@pytest.mark.parametrize("error", [ConnectTimeoutError(endpoint_url="https://x"), None])
def test_rows_that_stay_unread_are_failed(error: Exception | None) -> None:
    class Busy:
        def batch_get_item(self, RequestItems: Any) -> dict[str, Any]:  # noqa: N803
            if error:
                raise error
            return {"Responses": {}, "UnprocessedKeys": RequestItems}

    found = LiveConnections(Busy(), PREFIX).send(Sockets(), ["a"], {}, 0.0)
    reason = "ConnectTimeoutError" if error else "UnprocessedKeys"
    assert found == Delivery((), (), {"a": reason})


def test_keys_that_are_left_out_are_read_again(stack: Stack) -> None:
    names = [f"conn-{number:03d}" for number in range(130)]
    stack.put("connections", *map(connection, names[:-1]))
    whole, reads = stack.dynamodb.batch_get_item, []

    class Stingy:
        """Reads sixty rows at a time."""

        def batch_get_item(self, RequestItems: Any) -> Any:  # noqa: N803
            ((table, wanted),) = RequestItems.items()
            keys = wanted["Keys"]
            reads.append(len(keys))
            answer = whole(RequestItems={table: wanted | {"Keys": keys[:60]}})
            left = {table: wanted | {"Keys": keys[60:]}}
            return answer | {"UnprocessedKeys": left if keys[60:] else {}}

    found = LiveConnections(Stingy(), PREFIX).send(stack.sockets, names, {}, time.time())
    assert (len(found.delivered), found.gone, found.failed) == (129, (names[-1],), {})
    assert reads == [100, 40, 30]


def test_listeners_are_unexpired_rows_of_the_request(stack: Stack) -> None:
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
    stack.put("subscriptions", *(subscription("req-1", f"conn-{n}") for n in range(7)))
    whole = stack.dynamodb.query
    stack.monkeypatch.setattr(stack.dynamodb, "query", lambda **q: whole(**q, Limit=3))
    assert len(listeners(stack.dynamodb, PREFIX, KEY, time.time())) == 7


def test_listeners_are_read_consistently(stack: Stack) -> None:
    """The next message may be the last."""
    calls = stack.calls(stack.dynamodb)
    listeners(stack.dynamodb, PREFIX, KEY, time.time())
    assert [query["ConsistentRead"] for query in calls.of("Query")] == [True]


def test_unsubscribing_deletes_the_row_and_decrements_the_count(stack: Stack) -> None:
    stack.put("requests", request(subscriber_count=2))
    stack.put("subscriptions", subscription("req-1", "conn-1"), subscription("req-1", "conn-2"))
    assert unsubscribe(stack.dynamodb, PREFIX, KEY, "conn-1") is True
    assert [row["connection_id"] for row in stack.items("subscriptions")] == ["conn-2"]
    assert stack.request()["subscriber_count"] == 1


def test_unsubscribing_twice_counts_once(stack: Stack) -> None:
    stack.put("requests", request(subscriber_count=1))
    stack.put("subscriptions", subscription("req-1", "conn-1"))
    answers = [unsubscribe(stack.dynamodb, PREFIX, KEY, "conn-1") for _ in range(2)]
    assert answers == [True, False]
    assert stack.request()["subscriber_count"] == 0


def test_unsubscribing_from_an_expired_request_creates_no_row(stack: Stack) -> None:
    """The subscription's row is deleted, and the connection has one less."""
    stack.put("subscriptions", subscription("req-1", "conn-1"))
    stack.put("connections", {"connection_id": "conn-1", "subscriptions": 1})
    assert unsubscribe(stack.dynamodb, PREFIX, KEY, "conn-1") is True
    assert stack.items("subscriptions") == []
    assert stack.items("requests") == []
    assert [row["subscriptions"] for row in stack.items("connections")] == [0]


@pytest.mark.parametrize("user", ["a#b", "100%", "ada@example.com", "Ωmega"])
def test_separators_in_ids_do_not_lead_to_another_request(stack: Stack, user: str) -> None:
    owner = owner_key("tenant-1", user)
    stack.put("requests", request("req-1", owner=owner, subscriber_count=1))
    stack.put("subscriptions", subscription("req-1", "conn-1", owner=owner))
    assert unsubscribe(stack.dynamodb, PREFIX, request_key(owner, "req-1"), "conn-1") is True
    assert stack.request(owner=owner)["subscriber_count"] == 0


def test_dropping_a_connection_deletes_all_its_subscriptions(stack: Stack) -> None:
    """Over several pages, and no other connection's."""
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


@pytest.mark.parametrize("expired", [0, 3])
def test_many_subscriptions_end_in_few_transactions(stack: Stack, expired: int) -> None:
    """Fifty in one; those whose requests have expired end one by one, the others together."""
    names = [f"req-{number}" for number in range(60)]
    stack.put("requests", *(request(name, subscriber_count=1) for name in names[expired:]))
    stack.put("subscriptions", *(subscription(name, "conn-1") for name in names))
    calls = stack.calls(stack.dynamodb)
    assert drop_subscriptions(stack.dynamodb, PREFIX, "conn-1") == 60
    assert stack.items("subscriptions") == []
    assert {row["subscriber_count"] for row in stack.items("requests")} == {0}
    assert calls.counts()["TransactWriteItems"] == (2 if not expired else 9)


class SlowTable:
    """Subscriptions in a DynamoDB whose transactions take a second each."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.keys = [f"{OWNER}#req-{number:05d}" for number in range(count)]
        self.clock, self.lock = clock, threading.Lock()

    def query(self, *, ExclusiveStartKey: Any = None, **_: Any) -> Any:  # noqa: N803
        with self.lock:
            left = sorted(key for key in self.keys if key > (ExclusiveStartKey or {"k": ""})["k"])
        page = {"Items": [to_item({"request_key": key}) for key in left[:900]]}
        return page | ({"LastEvaluatedKey": {"k": left[899]}} if len(left) > 900 else {})

    def transact_write_items(self, *, TransactItems: list[Any]) -> None:  # noqa: N803
        with self.lock:
            self.clock.advance(1)
            ended = {each["Delete"]["Key"]["request_key"]["S"] for each in TransactItems[::2]}
            self.keys = [key for key in self.keys if key not in ended]


def test_a_clean_up_that_does_not_fit_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps to its time, whatever the number of subscriptions; the next call takes up the rest.

    One round of eight transactions may be under way when the time is over.
    """
    clock = Clock(1_800_000_000.0)
    monkeypatch.setattr("jobplane_sockets._subscriptions.time", clock)
    table, dropped = SlowTable(clock, 5000), list[int]()
    while not dropped or dropped[-1]:
        until_then = clock.now + 25
        dropped.append(drop_subscriptions(table, PREFIX, "conn-1", until=until_then))
        assert clock.now < until_then + 8
    assert (sum(dropped), table.keys) == (5000, [])
    assert dropped == [1600, 1600, 1600, 200, 0]


def test_unsubscribing_makes_room_on_the_connection(stack: Stack) -> None:
    """One that is gone is not created again."""
    stack.put("connections", connection(subscriptions=2))
    names = ("req-1", "req-2")
    stack.put("requests", *(request(name, subscriber_count=1) for name in names))
    stack.put("subscriptions", *(subscription(name, "conn-1") for name in names))
    keys = [request_key(OWNER, name) for name in names]
    assert unsubscribe(stack.dynamodb, PREFIX, keys[0], "conn-1") is True
    assert stack.get("connections", connection_id="conn-1")["subscriptions"] == 1
    forget_listener(stack.dynamodb, PREFIX, keys[1], "conn-1")
    assert stack.items("connections") == stack.items("subscriptions") == []


def test_a_clean_up_stops_in_time(stack: Stack) -> None:
    stack.put("subscriptions", subscription("req-1", "conn-1"))
    assert drop_subscriptions(stack.dynamodb, PREFIX, "conn-1", until=time.time()) == 0
    assert len(stack.items("subscriptions")) == 1


def test_a_connection_that_is_gone_costs_two_calls(stack: Stack) -> None:
    """Its other subscriptions stay, however many they are."""
    stack.put("connections", connection("conn-1"), connection("conn-2"))
    stack.put("requests", *(request(name, subscriber_count=1) for name in ("req-1", "req-2")))
    stack.put("subscriptions", *(subscription(name, "conn-1") for name in ("req-1", "req-2")))
    calls = stack.calls(stack.dynamodb)
    forget_listener(stack.dynamodb, PREFIX, request_key(OWNER, "req-1"), "conn-1")
    assert [row["connection_id"] for row in stack.items("connections")] == ["conn-2"]
    assert stack.request("req-1")["subscriber_count"] == 0
    assert stack.request("req-2")["subscriber_count"] == 1
    assert calls.counts()["TransactWriteItems"] == calls.counts()["DeleteItem"] == 1


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_connections_that_are_gone_do_not_delay_the_end(
    seconds: float, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a job waits behind a message of progress. To forget a listener is an answer, and
    those for whom no time is left get no message either.
    """
    names = [f"gone-{number}" for number in range(4)]
    stack.put("requests", request("req-1", subscriber_count=4))
    for name in names:
        stack.put("subscriptions", subscription("req-1", name))
    clock, answers = Clock(time.time()), list[float]()
    began = clock.now
    monkeypatch.setattr("jobplane_sockets._listeners.time", clock)

    def on_answer() -> None:
        answers.append(clock.now)
        clock.advance(seconds)

    audience = Listeners(
        stack.dynamodb, PREFIX, request("req-1"), on_error=pytest.fail, on_answer=on_answer
    )
    assert {*audience.send(Sockets(), {"type": "progress"}, 4).gone} == {"conn-1", *names}
    assert clock.now <= began + 3.0 + seconds
    assert len(answers) > 2
    sockets = Sockets()
    assert audience.send(sockets, {"type": "complete"}, 4) == Delivery((), (), {})
    assert sockets.attempts == {}


def test_dropping_a_connection_deletes_its_row(stack: Stack) -> None:
    """A second time is not an error."""
    stack.put("connections", connection("conn-1"), connection("conn-2"))
    stack.put("requests", ended())
    stack.put("subscriptions", subscription("req-1", "conn-1"))
    for _ in range(2):
        drop_connection(stack.dynamodb, PREFIX, "conn-1")
    assert [row["connection_id"] for row in stack.items("connections")] == ["conn-2"]
    assert stack.items("subscriptions") == []


class Conflicting:
    """A DynamoDB client that cancels so many transactions with a conflict."""

    def __init__(self, times: int, *reasons: str) -> None:
        self.left = times
        self.calls = 0
        self.reasons = reasons

    def transact_write_items(self, **_: Any) -> None:
        self.calls += 1
        if self.calls <= self.left:
            response: Any = {
                "Error": {"Code": "TransactionCanceledException", "Message": "cancelled"},
                "CancellationReasons": [{"Code": reason} for reason in self.reasons],
            }
            raise ClientError(response, "TransactWriteItems")


@pytest.mark.parametrize(
    ("times", "reasons", "calls", "answer"),
    [
        (3, ["None", "TransactionConflict"], 4, []),
        (1, ["ConditionalCheckFailed", "None"], 1, ["ConditionalCheckFailed", "None"]),
        (
            1, ["ConditionalCheckFailed", "TransactionConflict"], 1,
            ["ConditionalCheckFailed", "TransactionConflict"],
        ),
        (1, ["ThrottlingError", "None"], 1, None),
        (1000, ["None", "TransactionConflict"], 6, None),
    ],
    ids=["conflict", "condition", "condition and conflict", "throttled", "lasting conflict"],
)  # fmt: skip
def test_conflicts_are_repeated_and_failed_conditions_are_reported(
    monkeypatch: pytest.MonkeyPatch,
    times: int, reasons: list[str], calls: int, answer: list[str] | None,
) -> None:  # fmt: skip
    """A bounded number of times; None: the error is raised."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    client = Conflicting(times, *reasons)
    if answer is None:
        with pytest.raises(ClientError):
            transact(client, [])
    else:
        assert transact(client, []) == answer
    assert client.calls == calls


def test_transact_writes_all_or_nothing(stack: Stack) -> None:
    """A failed condition prevents the other write."""
    put = {"TableName": f"{PREFIX}connections", "Item": to_item(connection())}
    update = {
        "TableName": f"{PREFIX}requests",
        "Key": to_item({"owner": OWNER, "request_id": "req-1"}),
        "UpdateExpression": "ADD subscriber_count :one",
        "ConditionExpression": "attribute_exists(request_id)",
        "ExpressionAttributeValues": to_item({":one": 1}),
    }
    items: list[dict[str, Any]] = [{"Put": put}, {"Update": update}]
    assert transact(stack.dynamodb, items)[1] == "ConditionalCheckFailed"
    assert stack.items("connections") == []
    stack.put("requests", request())
    assert transact(stack.dynamodb, items) == []
    assert json.dumps(stack.request()["subscriber_count"]) == "1"
