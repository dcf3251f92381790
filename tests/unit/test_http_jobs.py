"""Jobs over HTTP: the answers of jobs, which invokes router, to its routes."""

import asyncio
import inspect
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from botocore.exceptions import ClientError

import jobplane_client
from jobplane.trying.inprocess import InProcess
from jobplane_client import AsyncHttpJobs, HttpJobs, mint_token
from jobplane_keys import from_item, iso_time, to_item
from jobplane_leases import RequestLease, store_events
from jobplane_leases.callbacks import new_token

ROOT = Path(__file__).resolve().parents[2]
POSTS = (
    "POST /jobs", "POST /jobs/batch", "POST /jobs/{request_id}/cancel",
    "POST /jobs/{request_id}/replay", "POST /uploads",
)  # fmt: skip
READS = ("GET /jobs", "GET /jobs/{request_id}")
DEEDS = ("cancel", "replay")
DELAY = {"action": "delay", "payload": {"seconds": 1}}
FILE = {"name": "a.txt", "size": 3, "mime": "text/plain", "md5hash": "0" * 32}


class Api:
    """The HTTP API's routes of jobs, as users call them."""

    def __init__(self, aws: InProcess) -> None:
        self.aws = aws
        self.table = aws.tables["requests"]
        self.router, self.jobs = aws.load("router"), aws.load("jobs")

    def __call__(
        self,
        route: str,
        body: Any = None,
        job: str | None = None,
        user: str = "user-1",
        **more: Any,
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, content and headers of an answer."""
        headers, claims = more.pop("headers", {}), more.pop("claims", {})
        token = self.token(user, claims.pop("tenant", "tenant-1"), **claims)
        text = body if isinstance(body, str | None) else json.dumps(body)
        query = {name: str(value) for name, value in more.items()}
        named = {"authorization": f"Bearer {token}"} | headers
        answer = self.answer(route, text, {"request_id": job, "token": job}, query, named)
        content = json.loads(answer["body"]) if answer["body"] else None
        return answer["statusCode"], content, answer["headers"]

    def token(self, user: str = "user-1", tenant: str = "tenant-1", **claims: Any) -> str:
        return mint_token(self.aws.jwt_secret, user=user, tenant=tenant, **claims)

    def answer(self, route: str, body: str | None, path: Any, query: Any, headers: Any) -> Any:
        event = {
            "version": "2.0",
            "routeKey": route,
            "requestContext": {"http": {"method": route.split()[0], "path": route.split()[1]}},
            "headers": headers,
            "pathParameters": path,
            "queryStringParameters": query,
            "body": body,
        }
        return self.jobs.handler(event, self.aws.context("jobs"))

    def send(self, request: httpx.Request) -> httpx.Response:
        """As a transport of httpx."""
        found = re.fullmatch("/jobs(?:/([^/]+)(/cancel|/replay)?)?", request.url.path)
        assert found
        name, deed = found.groups()
        route = f"{request.method} /jobs{'/{request_id}' if name else ''}{deed or ''}"
        headers = dict(request.headers.items())
        path, query = {"request_id": name}, dict(request.url.params)
        answer = self.answer(route, request.content.decode() or None, path, query, headers)
        return httpx.Response(
            answer["statusCode"], headers=answer["headers"], content=answer["body"]
        )

    def started(self, job: str, **more: Any) -> None:
        metadata = more.pop("metadata", {})
        assert self("POST /jobs", DELAY | {"id": job, "metadata": metadata}, **more)[0] == 202

    def change(self, job: str, owner: str = "tenant-1#user-1", **changes: Any) -> None:
        key = {"owner": owner, "request_id": job}
        dynamodb = self.aws.client("dynamodb")
        row = from_item(dynamodb.get_item(TableName=self.table, Key=to_item(key))["Item"])
        dynamodb.put_item(TableName=self.table, Item=to_item(row | changes))

    def rows(self) -> list[Any]:
        found = self.aws.client("dynamodb").scan(TableName=self.table)["Items"]
        return [from_item(item) for item in found]


@pytest.fixture(scope="module")
def stack() -> Iterator[Api]:
    """One stage for all tests: to make it takes longer than to use it."""
    with InProcess() as aws:
        yield Api(aws)


@pytest.fixture
def api(stack: Api) -> Api:
    """The API, without jobs."""
    for row in stack.rows():
        key = to_item({name: row[name] for name in ("owner", "request_id")})
        stack.aws.client("dynamodb").delete_item(TableName=stack.table, Key=key)
    return stack


def test_a_job_is_queued_read_and_cancelled(api: Api) -> None:
    code, queued, _ = api("POST /jobs", DELAY | {"id": "job-1", "metadata": {"tags": "a, b"}})
    assert (code, queued["request_id"], queued["status"]) == (202, "job-1", "queued")
    (row,) = api.rows()
    assert "connection_id" not in row
    code, state, headers = api("GET /jobs/{request_id}", job="job-1")
    assert (code, state["status"], state["why_waiting"]["reason"]) == (200, "PENDING", "queued")
    assert headers["Retry-After"] == "1"
    same = {"if-none-match": headers["ETag"]}
    assert api("GET /jobs/{request_id}", job="job-1", headers=same)[:2] == (304, None)
    code, ended, _ = api("POST /jobs/{request_id}/cancel", job="job-1")
    assert (code, ended) == (200, {"request_id": "job-1", "status": "cancelled"})
    code, state, headers = api("GET /jobs/{request_id}", job="job-1", headers=same)
    assert (code, state["status"], state["error"]["code"]) == (200, "CANCELLED", "CANCELLED")
    assert "Retry-After" not in headers


def test_a_repeated_request_makes_one_job(api: Api) -> None:
    """By the id in the body, or by the header Idempotency-Key."""
    key = {"idempotency-key": "key-1"}
    assert [api("POST /jobs", DELAY, headers=key)[0] for _ in range(2)] == [202, 202]
    assert api("POST /jobs", DELAY | {"id": "key-1"}, headers=key)[0] == 202
    assert api("POST /jobs", DELAY | {"id": "key-2"}, headers=key)[0] == 400
    code, refused, _ = api(
        "POST /jobs", {"action": "echo", "metadata": {"mode": "async"}}, headers=key
    )
    assert (code, refused["code"]) == (409, "DUPLICATE_REQUEST")
    assert len(api.rows()) == 1


@pytest.mark.parametrize(
    ("body", "code", "name"),
    [
        ("{", 400, "INVALID_MESSAGE"),
        ({}, 400, "VALIDATION_ERROR"),
        ({"action": "nothing"}, 400, "INVALID_ACTION"),
        ({"action": "delay", "payload": {"seconds": "x"}}, 400, "VALIDATION_ERROR"),
        (DELAY | {"metadata": {"on_disconnect": "cancel"}}, 400, "VALIDATION_ERROR"),
        (DELAY | {"metadata": {"tags": "a," * 10 + "b"}}, 400, "VALIDATION_ERROR"),
        (DELAY | {"metadata": {"tags": "a b"}}, 400, "VALIDATION_ERROR"),
        ({"action": "ping"}, 400, "INVALID_ACTION"),
        ({"action": "subscribe", "payload": {"request_id": "a"}}, 400, "INVALID_ACTION"),
        ({"action": "unsubscribe", "payload": {"request_id": "a"}}, 400, "INVALID_ACTION"),
        ({"action": "generate_report", "payload": {"start_date": "2026-11-01",
          "end_date": "2026-11-02"}}, 403, "FORBIDDEN"),
        ({"action": "status", "payload": {"request_id": "absent"}}, 404, "NOT_FOUND"),
        ({"action": "echo", "payload": {"text": "x" * 98_304}}, 413, "PAYLOAD_TOO_LARGE"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_sockets_code(api: Api, body: Any, code: int, name: str) -> None:
    status, refused, headers = api("POST /jobs", body)
    assert (status, refused["code"], refused["retryable"]) == (code, name, False)
    assert isinstance(refused["error"], str)
    assert headers.get("Retry-After") == ("2" if code == 404 else None)
    assert api.rows() == []


def test_short_actions_are_answered_at_once(api: Api) -> None:
    code, answer, _ = api("POST /jobs", {"id": "e", "action": "echo", "payload": {"n": 1}})
    assert (code, answer["status"], answer["result"]["echo"]) == (200, "completed", {"n": 1})
    code, answer, _ = api("POST /uploads", {"template_id": "tpl_archive", "files": [FILE]})
    assert (code, answer["uploads"][0]["method"]) == (200, "PUT")
    code, refused, _ = api("POST /uploads", {"template_id": "tpl_archive"})
    assert (code, refused["code"]) == (400, "VALIDATION_ERROR")


def test_each_job_of_a_batch_has_an_outcome(api: Api) -> None:
    jobs = [DELAY, {"action": "nothing"}, 7, {"action": "echo"}, DELAY | {"id": "own"}]
    key = {"idempotency-key": "batch"}
    for _ in range(2):
        code, answer, _ = api("POST /jobs/batch", {"jobs": jobs}, headers=key)
        assert code == 207
        assert [job["status_code"] for job in answer["jobs"]] == [202, 400, 400, 200, 202]
        assert sorted(row["request_id"] for row in api.rows()) == ["batch:0", "own"]
    for wrong in ({}, {"jobs": []}, {"jobs": [DELAY] * 101}, "["):
        code, refused, _ = api("POST /jobs/batch", wrong)
        assert (code, "error" in refused) == (400, True)


def test_a_batch_that_takes_too_long_refuses_the_rest(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.router, "BATCH_SECONDS", -1.0)
    code, answer, _ = api("POST /jobs/batch", {"jobs": [DELAY]})
    (job,) = answer["jobs"]
    assert (code, job["status_code"], job["retryable"], api.rows()) == (207, 503, True, [])


@pytest.mark.parametrize("route", [*POSTS, *READS])
def test_nothing_is_answered_without_a_token(api: Api, route: str) -> None:
    code, body, headers = api(route, DELAY, job="a", headers={"authorization": "Bearer x.y.z"})
    text = {"error": "Authentication required", "code": "UNAUTHORIZED", "retryable": False}
    assert (code, body, headers["WWW-Authenticate"]) == (401, text, 'Bearer realm="jobplane"')
    assert api.rows() == []


@pytest.mark.parametrize("claims", [{}, {"tenant": "tenant-2", "permissions": ("tenant:read",)}])
def test_a_foreign_user_gets_nothing(api: Api, claims: Any) -> None:
    api.started("mine")
    stranger = {"user": "user-2"}
    own = ("GET /jobs/{request_id}", *(f"POST /jobs/{{request_id}}/{deed}" for deed in DEEDS))
    for route in own:
        assert api(route, job="mine", **stranger, claims=dict(claims))[0] == 404
    code, page, _ = api("GET /jobs", **stranger, claims=dict(claims))
    assert (code, page) == (200, {"jobs": [], "next": None})
    code, answer, _ = api("GET /jobs", scope="tenant", **stranger, claims=dict(claims))
    assert (code, answer.get("jobs")) == ((200, []) if claims else (403, None))
    named = api(
        "GET /jobs/{request_id}", job="mine", user_id="user-1", **stranger, claims=dict(claims)
    )
    assert named[0] == (404 if claims else 403)
    assert api.rows()[0]["status"] == "PENDING"


def test_lists_are_filtered_and_come_in_pages(api: Api) -> None:
    moment = time.time() - 100
    for number in range(7):
        tags = {"tags": "odd,all" if number % 2 else "all"}
        api.started(f"job-{number}", metadata=tags)
        api.change(f"job-{number}", created_at=iso_time(moment + number))
    api.started("other", user="user-2")
    api.change("job-3", status="COMPLETED")

    def listed(**query: Any) -> list[str]:
        found: list[str] = []
        while True:
            code, page, _ = api("GET /jobs", **query)
            assert code == 200
            found += [job["request_id"] for job in page["jobs"]]
            if page["next"] is None:
                return found
            query["next"] = page["next"]

    newest_first = [f"job-{number}" for number in reversed(range(7))]
    assert listed() == listed(limit=3) == listed(limit=1) == newest_first
    assert listed(tag="odd", limit=1) == ["job-5", "job-3", "job-1"]
    assert listed(status="COMPLETED") == listed(status="RETRYING,COMPLETED") == ["job-3"]
    assert listed(status="PENDING,COMPLETED", limit=2) == newest_first
    assert listed(action="echo") == []
    assert listed(**{"from": iso_time(moment + 2), "to": iso_time(moment + 4)}) == newest_first[2:5]
    reader = {"user": "boss", "claims": {"permissions": ("tenant:read",)}}
    code, page, _ = api("GET /jobs", scope="tenant", **reader)
    assert (code, len(page["jobs"])) == (200, 8)
    assert {job["user_id"] for job in page["jobs"]} == {"user-1", "user-2"}
    code, page, _ = api("GET /jobs", limit=1)
    assert api("GET /jobs", next=page["next"], user="user-2")[0] == 400


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_tenants_list_has_the_jobs_of_all_partitions(
    api: Api, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """In the order of their times, each once, also those of one millisecond."""
    for module in (api.router, api.jobs):
        monkeypatch.setattr(module, "TENANT_PARTITIONS", 3)
    moment = time.time() - 100
    for number in range(9):
        api.started(f"job-{number}")
        api.change(f"job-{number}", created_at=iso_time(moment + number // 3))
    assert len({row["tenant_id"] for row in api.rows()}) > 1
    found, query = list[Any](), dict[str, Any]()
    while query.get("next", "") is not None:
        claims = {"permissions": ("tenant:read",)}
        _, page, _ = api("GET /jobs", scope="tenant", limit=limit, claims=claims, **query)
        found += page["jobs"]
        query = {"next": page["next"]}
    times = [job["created_at"] for job in found]
    assert times == sorted(times, reverse=True)
    assert sorted(job["request_id"] for job in found) == [f"job-{number}" for number in range(9)]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"status": "done"},
        {"status": "PENDING,done"},
        {"status": ""},
        {"from": "now"},
        {"from": "2026-01-01T00:00:00Z", "to": "2025-01-01T00:00:00Z"},
        {"next": "x"},
        {"scope": "all"},
        {"stauts": "FAILED"},
        {"user_id": "user-2"},
    ],
)
def test_malformed_lists_are_refused(api: Api, query: Any) -> None:
    code, refused, _ = api("GET /jobs", **query)
    assert (code, [problem["field"] for problem in refused["details"]]) == (400, [*query][:1])


@pytest.mark.parametrize(
    "query", [{"wait": 21}, {"wait": "x"}, {"since_seq": -1}, {"user_id": ""}, {"waits": 1}]
)
def test_malformed_look_ups_are_refused(api: Api, query: Any) -> None:
    code, refused, _ = api("GET /jobs/{request_id}", job="a", **query)
    assert (code, [problem["field"] for problem in refused["details"]]) == (400, [*query])
    assert api("GET /jobs/{request_id}", job="a b")[0] == 400


def test_a_look_up_waits_for_a_change_with_bounded_reads(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.started("job-1")
    progress = {"seq": 3, "percentage": 50, "message": "half", "at": iso_time(time.time())}
    module, clock, pauses = api.jobs, [time.time()], list[float]()

    class Clock:
        time = staticmethod(lambda: clock[0])

        @staticmethod
        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            clock[0] += seconds
            if len(pauses) == 4:
                api.change("job-1", status="PROCESSING", progress=progress)

    monkeypatch.setattr(module, "time", Clock)
    code, state, _ = api("GET /jobs/{request_id}", job="job-1", wait=20)
    assert (code, state["status"], state["seq"], len(pauses)) == (200, "PROCESSING", 3, 4)
    assert api("GET /jobs/{request_id}", job="job-1", wait=20, since_seq=2)[1]["seq"] == 3
    assert len(pauses) == 4
    assert api("GET /jobs/{request_id}", job="job-1", wait=20, since_seq=3)[0] == 200
    assert 18 <= sum(pauses[4:]) <= 20
    assert len(pauses[4:]) <= 25


def test_a_caller_with_an_older_version_does_not_wait(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with the current version does; then it has its version still."""
    api.started("job-1")
    old = api("GET /jobs/{request_id}", job="job-1")[2]["ETag"]
    api.change("job-1", status="PROCESSING", updated_at=iso_time(time.time()))
    module, clock = api.jobs, [time.time()]
    pause = SimpleNamespace(
        time=lambda: clock[0], sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    )
    monkeypatch.setattr(module, "time", pause)
    began = clock[0]

    def look_up(tag: str) -> tuple[int, str]:
        code, _, headers = api(
            "GET /jobs/{request_id}", job="job-1", wait=20, headers={"if-none-match": tag}
        )
        return code, headers["ETag"]

    code, new = look_up(old)
    assert (code, clock[0] - began) == (200, 0)
    assert look_up(new) == (304, new)
    assert clock[0] - began > 18


def test_a_result_is_shown_with_links(api: Api) -> None:
    api.started("job-1")
    api.change("job-1", status="COMPLETED", result=json.dumps({"n": 1}), ended_at=iso_time(0))
    assert api("GET /jobs/{request_id}", job="job-1", wait=20)[1]["result"] == {"n": 1}
    api.change("job-1", result=None, result_key="results/requests/a/b.json")
    assert (
        "results/requests/a/b.json"
        in api("GET /jobs/{request_id}", job="job-1")[1]["result"]["url"]
    )


def test_the_cause_of_a_failure_is_not_shown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(api.router, "respond_to_all", fail)
    monkeypatch.setattr(api.jobs, "look_up", fail)
    for route in ("POST /jobs", "GET /jobs/{request_id}"):
        code, body, _ = api(route, DELAY, job="a")
        assert code == 500
        assert "secret" not in json.dumps(body)


def test_a_job_that_has_ended_is_replayed(api: Api) -> None:
    """As a new job with its payload and tags, once for each key; one that runs is not."""
    text = "x" * 3000
    big = {"action": "echo", "payload": {"text": text}, "metadata": {"mode": "async", "tags": "a"}}
    assert api("POST /jobs", big | {"id": "old"})[0] == 202
    assert api("POST /jobs/{request_id}/replay", job="old")[0] == 400
    assert api("POST /jobs/{request_id}/replay", job="absent")[0] == 404
    api.change("old", status="FAILED")
    for _ in range(2):
        code, answer, _ = api(
            "POST /jobs/{request_id}/replay", job="old", headers={"idempotency-key": "new"}
        )
        assert (code, answer["request_id"], answer["status"]) == (202, "new", "queued")
    old, new = (next(r for r in api.rows() if r["request_id"] == name) for name in ("old", "new"))
    assert (new["replay_of"], new["metadata"]) == ("old", old["metadata"])
    assert new["payload_item"].partition("/")[2] == old["payload_item"].partition("/")[2]
    assert api("GET /jobs/{request_id}", job="new")[1]["replay_of"] == "old"
    assert api("POST /jobs/{request_id}/replay", job="old", user="user-2")[0] == 404
    (item,) = [row for row in api.rows() if row["request_id"] == old["payload_item"]]
    key = to_item({name: item[name] for name in ("owner", "request_id")})
    api.aws.client("dynamodb").delete_item(TableName=api.table, Key=key)
    code, refused, _ = api("POST /jobs/{request_id}/replay", job="old")
    assert (code, refused["error"]) == (404, "The job's payload has expired")


def test_the_id_of_an_equal_job_is_refused_for_a_replay(api: Api) -> None:
    """It would be acknowledged, and nothing would run; also that of the replayed job itself."""
    for job in ("old", "other"):
        api.started(job)
        api.change(job, status="FAILED")

    def replayed(job: str, key: str) -> Any:
        route, headers = "POST /jobs/{request_id}/replay", {"idempotency-key": key}
        code, body, _ = api(route, job=job, headers=headers)
        return code if code == 202 else (code, body["code"])

    refused = (409, "DUPLICATE_REQUEST")
    assert [replayed("old", key) for key in ("old", "other")] == [refused, refused]
    assert (replayed("old", "new"), replayed("other", "new")) == (202, refused)
    assert api("POST /jobs", DELAY | {"id": "new"})[0] == 409
    assert len(api.rows()) == 3


def test_a_callback_needs_only_its_own_token(api: Api) -> None:
    """It is answered once; a wrong one, a second answer and a late one have their own codes."""
    route, nobody = "POST /callbacks/{token}", {"authorization": "x"}

    def opened(job: str, seconds: int) -> str:
        token, digest = new_token("tenant-1#user-1", job)
        expires = int(time.time()) + seconds
        callback = {"step": "s", "digest": digest, "expires": expires, "sent": True}
        api.started(job)
        api.change(job, status="RETRYING", callback=callback)
        return token

    token, late = opened("job-1", 60), opened("job-2", -1)
    for wrong in ({}, {"result": 1, "error": "x"}, {"error": 7}, {"result": "x" * 9000}):
        code, refused, _ = api(route, wrong, job=token, headers=nobody)
        assert (code, refused["code"]) == (400, "VALIDATION_ERROR")
    assert api(route, {"result": {"n": 1}}, job=token, headers=nobody)[:2] == (204, None)
    codes = {token: (409, "CALLBACK_USED"), late: (410, "CALLBACK_OVER"), "x.y": (404, "NOT_FOUND")}
    for each, expected in codes.items():
        code, refused, _ = api(route, {"result": 1}, job=each, headers=nobody)
        assert (code, refused["code"]) == expected
    row = next(row for row in api.rows() if row["request_id"] == "job-1")
    assert (row["status"], row["callback_answer"]) == ("PENDING", '{"result":{"n":1}}')


@pytest.mark.parametrize(
    ("body", "code", "name"),
    [
        (json.dumps({"jobs": [{"action": "echo", "payload": {"t": "\x01" * 400_000}}]}), 207, None),
        (json.dumps({"jobs": [DELAY], "x": "y" * 2_500_000}), 413, "PAYLOAD_TOO_LARGE"),
        ("[" * 100_000, 400, "INVALID_MESSAGE"),
    ],
)
def test_a_batch_fits_into_an_invocation(api: Api, body: str, code: int, name: str | None) -> None:
    """The worst that is accepted has at most six megabytes as the event of router."""
    sent: list[int] = []
    invoke = api.jobs.functions().invoke

    def measured(**arguments: Any) -> Any:
        sent.append(len(arguments["Payload"]))
        return invoke(**arguments)

    with patch.object(api.jobs, "functions", lambda: SimpleNamespace(invoke=measured)):
        status, answer, _ = api("POST /jobs/batch", body)
    assert (status, answer.get("code")) == (code, name)
    assert all(size < 6_000_000 for size in sent)


def test_a_batch_stops_before_its_answers_are_too_large(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.router, "MAX_BATCH_BYTES", 1000)
    big = {"action": "echo", "payload": {"text": "x" * 2000}}
    _, answer, _ = api("POST /jobs/batch", {"jobs": [big, big]})
    assert [job["status_code"] for job in answer["jobs"]] == [200, 503]


def test_an_answer_that_lambda_cannot_send_is_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.jobs, "MAX_ANSWER_BYTES", 1000)
    api.started("job-1")
    api.change("job-1", status="COMPLETED", result=json.dumps({"text": "x" * 2000}))
    code, refused, _ = api("GET /jobs/{request_id}", job="job-1")
    assert (code, refused["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_a_throttled_router_is_said_with_retry_after(api: Api) -> None:
    def invoke(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")

    with patch.object(api.jobs, "functions", lambda: SimpleNamespace(invoke=invoke)):
        code, refused, headers = api("POST /jobs", DELAY)
    assert (code, refused["retryable"], headers["Retry-After"]) == (503, True, "1")


def emit(api: Api, job: str, *events: Any) -> None:
    """Let a worker emit events."""
    owner, now = "tenant-1#user-1", time.time()
    dynamodb = api.aws.client("dynamodb")
    running = {"status": "PROCESSING", "lease_owner": "w", "lease_until": now + 60}
    api.change(job, **running)
    (row,) = [row for row in api.rows() if row["request_id"] == job]
    lease = RequestLease(dynamodb, api.table, owner, job)
    store_events(lease, "w", row, [json.dumps(event) for event in events], now)


def test_events_are_read_from_a_number_on(api: Api) -> None:
    """In pages, without a gap; without `since_event` there are none."""
    api.started("job-1")
    emit(api, "job-1", "a" * 900, "b")
    emit(api, "job-1", "c" * 900, {"d": 4})
    state = api("GET /jobs/{request_id}", job="job-1")[1]
    assert (state["event_count"], "events" in state) == (4, False)
    page = api("GET /jobs/{request_id}", job="job-1", since_event=1)[1]["events"]
    assert (page["first"], page["count"], page["more"], page["gap"]) == (2, 4, False, False)
    assert page["events"] == ["b", "c" * 900, {"d": 4}]
    with patch.object(api.jobs, "MAX_EVENTS_BYTES", 1):
        page = api("GET /jobs/{request_id}", job="job-1", since_event=0)[1]["events"]
    assert (page["first"], page["events"], page["more"]) == (1, ["a" * 900], True)
    assert api("GET /jobs/{request_id}", job="job-1", since_event=4)[1]["events"] == {
        "first": 5, "events": [], "count": 4, "more": False, "gap": False,
    }  # fmt: skip


def test_events_that_are_gone_are_a_gap(api: Api) -> None:
    api.started("job-1")
    emit(api, "job-1", "a" * 900, "b")
    emit(api, "job-1", "c" * 900)
    dynamodb = api.aws.client("dynamodb")
    old = min((row for row in api.rows() if "events" in row), key=itemgetter("first"))
    key = to_item({name: old[name] for name in ("owner", "request_id")})
    dynamodb.delete_item(TableName=api.table, Key=key)
    page = api("GET /jobs/{request_id}", job="job-1", since_event=0)[1]["events"]
    assert (page["first"], page["events"], page["gap"]) == (3, ["c" * 900], True)


def test_a_new_event_ends_the_wait_and_changes_the_tag(api: Api) -> None:
    api.started("job-1")
    emit(api, "job-1", 1)
    _, _, headers = api("GET /jobs/{request_id}", job="job-1", since_event=1)
    emitting = threading.Timer(0.3, emit, (api, "job-1", 2))
    emitting.start()
    code, state, _ = api(
        "GET /jobs/{request_id}", job="job-1", since_event=1, wait=20,
        headers={"if-none-match": headers["ETag"]},
    )  # fmt: skip
    emitting.join()
    assert (code, state["events"]["events"]) == (200, [2])
    other = api("GET /jobs/{request_id}", job="job-1", since_event=0)[2]["ETag"]
    assert other != api("GET /jobs/{request_id}", job="job-1", since_event=1)[2]["ETag"]


@pytest.mark.parametrize("since", ["-1", "x", "1.5", "9999999999"])
def test_a_wrong_number_of_an_event_is_refused(api: Api, since: str) -> None:
    code, refused, _ = api("GET /jobs/{request_id}", job="job-1", since_event=since)
    assert (code, refused["details"][0]["field"]) == (400, "since_event")


@pytest.fixture(params=["blocking", "async"])
def call(request: pytest.FixtureRequest, api: Api) -> Iterator[Callable[..., Any]]:
    """Calls a method of a client; its pauses let the job end."""

    def end() -> None:
        for row in api.rows():
            if row.get("status") == "PENDING":
                api.change(row["request_id"], status="COMPLETED", result='{"n":1}', seq=2)

    async def end_later(_: float) -> None:
        end()

    transport = httpx.MockTransport(api.send)
    if request.param == "blocking":
        made: Any = HttpJobs(
            "http://api",
            api.token(),
            client=httpx.Client(transport=transport),
            sleep=lambda _: end(),
        )
    else:
        client = httpx.AsyncClient(transport=transport)
        made = AsyncHttpJobs("http://api", lambda: api.token(), client=client, sleep=end_later)
    with asyncio.Runner() as runner:

        def run(name: str, *arguments: Any, **more: Any) -> Any:
            outcome = getattr(made, name)(*arguments, **more)
            return runner.run(outcome) if inspect.isawaitable(outcome) else outcome

        yield run
        run("close" if request.param == "blocking" else "aclose")


def test_clients_start_read_list_cancel_and_replay(
    api: Api, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.jobs, "MAX_WAIT_SECONDS", 0)
    job = call("start", "delay", {"seconds": 1}, metadata={"tags": "a"})
    assert (job["status"], call("get", job.request_id).status) == ("queued", "PENDING")
    assert [each.tags for each in call("list", tag="a").jobs] == [["a"]]
    assert call("start", "echo", {"n": 1})["result"]["echo"] == {"n": 1}
    assert call("cancel", job.request_id) == "cancelled"
    again = call("replay", job.request_id, new_id="again")
    assert (again.request_id, call("get", "again").replay_of) == ("again", job.request_id)
    with pytest.raises(jobplane_client.JobCancelledError):
        call("wait", job.request_id, 0)
    with pytest.raises(jobplane_client.WaitTimeoutError, match="job again did not end within 0 s"):
        call("wait", "again", 0)


def test_clients_give_each_event_once_in_order(
    api: Api, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several pages, and before the result."""
    monkeypatch.setattr(api.jobs, "MAX_EVENTS_BYTES", 4)
    api.started("job-1")
    emit(api, "job-1", 1, 2, 3)
    assert call("get", "job-1", since_event=1).events.events == [2, 3]
    emit(api, "job-1", 4, 5)
    api.change("job-1", status="COMPLETED", result="{}", seq=9)
    seen: list[Any] = []
    assert call("wait", "job-1", 30, None, seen.append) == {}
    assert seen == [1, 2, 3, 4, 5]


def test_clients_wait_for_results(api: Api, call: Callable[..., Any]) -> None:
    """The service holds the answer; what fails for a passing reason is repeated."""
    api.started("job-1")
    state = {"seq": 1, "percentage": 50, "message": "half", "at": iso_time(time.time())}
    api.change("job-1", progress=state)
    seen: list[float] = []
    read, calls = api.jobs.read_item, list[int]()

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "GetItem")
        return read(*arguments)

    with patch.object(api.jobs, "read_item", failing):
        found = call("wait", "job-1", 30, lambda progress: seen.append(progress.percentage))
    assert (found, seen) == ({"n": 1}, [50])


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("get", ["absent"], "NotFoundError"),
        ("wait", ["absent", 5], "NotFoundError"),
        ("start", ["nothing", {}], "InvalidRequestError"),
        ("replay", ["a b"], "InvalidRequestError"),
    ],
)
def test_clients_raise_the_errors_of_refusals(
    call: Callable[..., Any], name: str, arguments: Any, error: str
) -> None:
    with pytest.raises(getattr(jobplane_client, error)) as raised:
        call(name, *arguments)
    assert raised.value.code in {"NOT_FOUND", "INVALID_ACTION", "VALIDATION_ERROR"}
