"""The console: its server lets no other client in, and its lists are those of the tables."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    UnauthorizedSSOTokenError,
)

from jobplane.console import api
from jobplane.console.backend import Backend, ProblemError
from jobplane.console.jobs import _is_about, job, lane_of, lanes, replay, why
from jobplane.console.listing import Listing
from jobplane.console.routes import ROUTES
from jobplane.console.server import ConsoleServer, serving
from jobplane.console.typescript import PLACE, api_types
from jobplane.stage.framework import install_framework
from jobplane.stage.stages import Stage, State
from jobplane.tree.repository import Repository
from jobplane_keys import iso_time, owner_key, tenant_shard
from jobplane_keys.lanes import waiting_shard
from tests.unit.console_backend import SHARDS, backend_of
from tests.unit.stack import PREFIX, Stack, request

NOW = 1_800_000_000.0
PAGE = "<!doctype html><title>console</title>"


@pytest.fixture
def backend(stack: Stack) -> Backend:
    return backend_of(stack)


@dataclass
class Browser:
    """What a browser sends; it keeps the cookie."""

    server: ConsoleServer
    cookie: str = ""

    def send(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        port = self.server.server_port
        sent = {"Host": f"127.0.0.1:{port}", "Cookie": self.cookie}
        if method == "POST":
            sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in (sent | given).items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = socket.socket()
        try:
            connection.sock.connect(("127.0.0.1", port))
            text = json.dumps(body) if body is not None else None
            connection.putrequest(method, path, skip_host=True)
            for name, value in kept.items():
                connection.putheader(name, value)
            if text is not None:
                connection.putheader("Content-Length", str(len(text)))
            connection.endheaders(text.encode() if text is not None else None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def enter(self) -> None:
        _, headers, _ = self.send("GET", self.server.url.partition("/?")[2].join(["/?", ""]))
        self.cookie = headers["Set-Cookie"].partition(";")[0]


@pytest.fixture
def browser(backend: Backend, tmp_path: Path) -> Iterator[Browser]:
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a-1.js").write_text("1")
    with serving(ConsoleServer(backend, tmp_path)) as server:
        yield Browser(server)


def code_of(body: bytes) -> str:
    found: str = json.loads(body)["error"]["code"]
    return found


def test_the_token_is_good_once_and_becomes_a_cookie(browser: Browser) -> None:
    """A second browser with the same URL gets nothing."""
    path = "/?" + browser.server.url.partition("/?")[2]
    status, headers, _ = browser.send("GET", path)
    assert (status, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert browser.send("GET", path)[0] == 401
    browser.cookie = headers["Set-Cookie"].partition(";")[0]
    assert browser.send("GET", "/")[::2] == (200, PAGE.encode())
    # The one who has the cookie may open the URL again.
    assert browser.send("GET", path)[0] == 303


@pytest.mark.parametrize("token", ["", "x", "%00", "a" * 5000])
def test_another_token_is_refused(browser: Browser, token: str) -> None:
    """Nothing but the token that was printed opens a session."""
    assert browser.send("GET", f"/?token={token}")[0] == 401
    browser.enter()
    assert browser.cookie


@pytest.mark.parametrize(
    ("cookie", "path"),
    [("", "/api/stage"), ("x=1", "/"), ("jobplane_console_{port}=x", "/api/jobs")],
)
def test_nothing_is_shown_without_the_cookie(browser: Browser, cookie: str, path: str) -> None:
    """Neither the page nor the API."""
    browser.cookie = cookie.format(port=browser.server.server_port)
    assert browser.send("GET", path)[0] == 401
    assert browser.send("POST", "/api/jobs/cancel", {})[0] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:{port}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_sites_are_refused(browser: Browser, headers: dict[str, str]) -> None:
    """Also with the cookie: a name that leads to loopback is not enough."""
    browser.enter()
    port = browser.server.server_port
    filled = {name: value.format(port=port) for name, value in headers.items()}
    for method, path in (("GET", "/api/stage"), ("POST", "/api/jobs/cancel")):
        status, _, body = browser.send(method, path, {} if method == "POST" else None, **filled)
        assert (status, code_of(body)) == (403, "FORBIDDEN")


def test_a_change_needs_an_origin_and_json(browser: Browser) -> None:
    """A form of another page can send neither."""
    browser.enter()
    path, key = "/api/jobs/cancel", {"tenant": "t", "user": "u", "id": "j"}
    assert browser.send("POST", path, key, Origin=None)[0] == 403
    assert browser.send("POST", path, key, Content_Type="text/plain")[0] == 400
    assert browser.send("POST", path, key, Content_Length="9999999")[0] == 400


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, PAGE),
        ("/jobs/a/b", 200, PAGE),
        ("/assets/a-1.js", 200, "1"),
        ("/assets/b.js", 404, "no file"),
        ("/../secret.txt", 404, "no file"),
        ("/%2e%2e/secret.txt", 404, "no file"),
        ("/api/nothing", 404, "NOT_FOUND"),
        ("/api/jobs?limit=0", 400, "VALIDATION_ERROR"),
        ("/api/jobs?status=DONE", 400, "VALIDATION_ERROR"),
        ("/api/jobs?color=red", 400, "VALIDATION_ERROR"),
        ("/api/jobs?user=u", 400, "VALIDATION_ERROR"),
        ("/api/jobs?since=yesterday&tenant=t", 400, "VALIDATION_ERROR"),
        ("/api/jobs?next=x", 400, "VALIDATION_ERROR"),
        ("/api/job?tenant=t&user=u&id=j", 404, "NOT_FOUND"),
    ],
)
def test_paths(browser: Browser, tmp_path: Path, path: str, status: int, text: str) -> None:
    """Files of the page, the page's own paths, and what is wrong in words."""
    (tmp_path.parent / "secret.txt").write_text("secret")
    browser.enter()
    found = browser.send("GET", path)
    assert (found[0], text in found[2].decode()) == (status, True), found[2]


def test_an_answer_has_a_tag(browser: Browser) -> None:
    """A page that polls gets a list again only if it has changed."""
    browser.enter()
    _, headers, _ = browser.send("GET", "/api/jobs")
    assert browser.send("GET", "/api/jobs", If_None_Match=headers["ETag"])[::2] == (304, b"")


def test_a_console_that_reads_changes_nothing(browser: Browser, backend: Backend) -> None:
    """Every path that changes something is refused with the reason, before it is read."""
    backend.read_only_because = "it only reads"
    browser.enter()
    good = {
        "files/reset": {"dry_run": False},
        "files/update": dict.fromkeys(("date", "key", "reason"), "x")
        | dict.fromkeys(("new_status", "expected_status"), "pending"),
        "bulk/preview": {"action": "cancel", "filter": {}},
        "webhooks/resend": {"assembly_id": "a"},
    }
    claim = dict.fromkeys(("project", "user", "claim_id", "reason"), "x") | {"fence": 1}
    for path, (model, _) in api.POSTS.items():
        key = {"tenant": "t", "user": "u", "id": "j"} if model is api.JobKey else {"id": "b"}
        body = good.get(path, claim if model is api.ClaimAction else key)
        status, _, answer = browser.send("POST", f"/api/{path}", body)
        assert (path, status, code_of(answer)) == (path, 403, "READ_ONLY")


def test_the_pages_types_are_those_of_the_models() -> None:
    """`web/console/src/api.ts` is made from the models by `jobplane schema`."""
    repository = Repository.here()
    if not (repository.root / "web").is_dir():
        pytest.skip("needs the folder web, which a made project does not have; copy it to check it")
    install_framework(repository)
    assert (repository.root / PLACE).read_text() == api_types(repository)


def test_every_path_has_an_answer() -> None:
    """The models and the routes name the same paths."""
    assert ROUTES.keys() == api.GETS.keys() | api.POSTS.keys()


def put_jobs(stack: Stack, number: int = 60) -> list[dict[str, Any]]:
    """Jobs of three tenants, a second apart; every third one has ended."""
    rows = []
    for n in range(number):
        tenant, status = f"tenant-{n % 3}", ("PENDING", "PROCESSING", "FAILED")[n // 3 % 3]
        job_id = f"job-{n:03}"
        row = request(
            job_id, owner=owner_key(tenant, f"user-{n % 2}"), status=status,
            tenant_id=tenant_shard(tenant, job_id, SHARDS),
            created_at=iso_time(NOW + n // 2), updated_at=iso_time(NOW + n // 2),
            action=("echo", "delay")[n % 2], metadata={"tags": "red, blue"} if n % 5 == 0 else {},
            ttl=int(time.time()) + 1000,
        )  # fmt: skip
        if status == "FAILED":
            del row["lease_shard"], row["lease_until"]
            row |= {"ended_at": iso_time(NOW + n), "error": {"code": "X", "message": "Y"}}
        rows.append(row)
    stack.put("requests", *rows)
    return rows


FILTERS: list[dict[str, Any]] = [
    {},
    {"status": ["FAILED"]},
    {"status": ["PENDING"]},
    {"status": ["PENDING", "PROCESSING"], "tenant": "tenant-1"},
    {"status": ["PROCESSING", "FAILED"], "action": ["echo"]},
    {"tenant": "tenant-2"},
    {"tenant": "tenant-2", "user": "user-1", "action": ["delay"]},
    {"tag": "red"},
    {"tag": "red", "tenant": "tenant-0", "status": ["PENDING"]},
    {"since": iso_time(NOW + 5), "until": iso_time(NOW + 9)},
    {"tenant": "no-such"},
]


@pytest.mark.parametrize("limit", [2, 100])
@pytest.mark.parametrize("chosen", FILTERS, ids=str)
def test_pages_of_a_list_have_each_job_once(
    stack: Stack, backend: Backend, chosen: dict[str, Any], limit: int
) -> None:
    """Newest first, whatever the filter and the page's size; also jobs of the same moment."""
    rows = put_jobs(stack, 27)
    asked = api.JobsQuery(**chosen, limit=limit)
    found: list[api.JobRow] = []
    while True:
        page = Listing(backend).page(asked)
        assert len(page.jobs) <= limit
        found += page.jobs
        if page.next is None:
            break
        asked = asked.model_copy(update={"next": page.next})

    def is_wanted(row: dict[str, Any]) -> bool:
        tenant, _, user = row["owner"].partition("#")
        return (
            row["status"] in chosen.get("status", [row["status"]])
            and row["action"] in chosen.get("action", [row["action"]])
            and tenant == chosen.get("tenant", tenant)
            and user == chosen.get("user", user)
            and ("tag" not in chosen or chosen["tag"] in row["metadata"].get("tags", ""))
            and chosen.get("since", "") <= row["created_at"] <= chosen.get("until", "z")
        )

    wanted = [row for row in rows if is_wanted(row)]
    assert sorted(each.id for each in found) == sorted(row["request_id"] for row in wanted)
    times = [each.created_at for each in found]
    assert times == sorted(times, reverse=True)


def test_a_list_names_its_access_path_and_its_cost(stack: Stack, backend: Backend) -> None:
    """Jobs in flight cost what is in flight, a tenant's jobs a page."""
    put_jobs(stack)
    pending = Listing(backend).page(api.JobsQuery(status=["PENDING"], limit=5))
    assert (pending.access, pending.rows_read) == ("in-flight", 42 + 42)
    of_tenant = Listing(backend).page(api.JobsQuery(tenant="tenant-1", limit=5))
    assert of_tenant.access == "by-tenant"
    assert of_tenant.rows_read <= SHARDS * 25 + 5
    of_user = Listing(backend).page(api.JobsQuery(tenant="tenant-1", user="user-0", limit=5))
    assert (of_user.access, of_user.rows_read) == ("by-owner", 10 + 5)
    assert Listing(backend).page(api.JobsQuery(limit=5)).access == "all-tenants"


@pytest.mark.parametrize(
    ("status", "seconds", "lost"),
    [("PROCESSING", -31, True), ("PROCESSING", 60, False), ("PENDING", -31, False)],
)
def test_a_list_says_when_a_job_lost_its_worker(
    stack: Stack, backend: Backend, status: str, seconds: int, lost: bool
) -> None:
    """The end of its lease."""
    until = int(time.time()) + seconds
    stack.put("requests", request("job-1", status=status, lease_until=until))
    (shown,) = Listing(backend).page(api.JobsQuery(status=[status], limit=5)).jobs
    assert shown.worker_lost_at == (iso_time(until) if lost else None)


def test_a_token_of_another_list_is_refused(stack: Stack, backend: Backend) -> None:
    """A page's token belongs to its filter."""
    put_jobs(stack)
    page = Listing(backend).page(api.JobsQuery(limit=5))
    with pytest.raises(ProblemError, match="belongs to another request"):
        Listing(backend).page(api.JobsQuery(limit=5, tenant="tenant-1", next=page.next))


WAITS: list[tuple[dict[str, Any], str, str, bool]] = [
    ({"updated_at": iso_time(NOW - 5)}, "in the queue", "next free worker", False),
    ({"updated_at": iso_time(NOW - 500)}, "in the queue", "sends another", True),
    (
        {"status": "PROCESSING", "attempts": 1, "lease_until": NOW + 60, "lease_owner": "w"},
        "attempt 1 of 4", "renews its lease", False,
    ),
    (
        {"status": "PROCESSING", "attempts": 1, "lease_until": NOW - 600, "lease_owner": "w"},
        "Its worker has stopped", "back into the queue", True,
    ),
    (
        {"status": "PROCESSING", "attempts": 4, "lease_until": NOW - 600, "lease_owner": "w"},
        "Its worker has stopped", "ends it as FAILED", True,
    ),
    ({"status": "SCHEDULED", "run_at": iso_time(NOW + 9), "lease_until": NOW + 9},
     "not due before", "when it is due", False),
    ({"status": "RETRYING", "attempts": 1, "lease_until": NOW + 9}, "put back", "sweeper", False),
    ({"status": "RETRYING", "attempts": 1, "lease_until": NOW - 600}, "put back", "sweeper", True),
    ({"status": "RETRYING", "attempts": 1, "lease_until": NOW + 9, "lease_owner": "w"},
     "its worker keeps it", "within seconds", False),
    ({"status": "RETRYING", "lease_until": NOW + 9, "callback": {"sent": True, "expires": NOW}},
     "answer from outside", "The holder of the token", False),
    ({"starts_at": iso_time(NOW + 30)}, "have started as may", "start time", False),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "summary", "step", "late"), WAITS)
def test_why_a_job_waits(changes: dict[str, Any], summary: str, step: str, late: bool) -> None:
    """One sentence on the cause, one on who acts when, and whether that is late."""
    found = why(request(**{"max_attempts": 4, "lease_until": NOW + 300, **changes}), None, NOW)
    assert summary in found.summary
    assert step in found.next_step
    assert found.is_problem is late


def test_a_job_behind_a_full_lane(stack: Stack, backend: Backend) -> None:
    """The lane's slots, and how many jobs wait before it."""
    lane = "tenant#tenant-1"
    slots = {"lane": {"S": f"{lane}#0"}, "lane_limit": {"N": "2"}, "slots": {"SS": ["a", "b"]}}
    stack.dynamodb.put_item(TableName=PREFIX + "lanes", Item=slots)
    rows = [
        request(
            f"job-{n}", lane=lane, lane_limit=2, waiting_order=f"1#{iso_time(NOW + n)}",
            waiting_lane=waiting_shard(lane, f"k{n}"), waiting_since=iso_time(NOW),
        )
        for n in range(9)
    ]  # fmt: skip
    stack.put("requests", *rows)
    found = why(rows[4], lane_of(backend, rows[4]), NOW + 10)
    assert "2 of 2 are taken, and 4 jobs wait before it" in found.summary
    assert (found.lane_running, found.lane_slots, found.ahead) == (2, 2, 4)
    (shown,) = lanes(backend).lanes
    assert (shown.name, shown.running, shown.waiting, shown.is_full) == ("tenant-1", 2, 9, True)
    assert shown.oldest_since == iso_time(NOW)
    assert shown.oldest is not None
    assert shown.oldest.id == "job-0"


def test_a_job_that_has_ended(stack: Stack, backend: Backend) -> None:
    """Its page has a timeline and the error, and says what can be done."""
    row = put_jobs(stack, 9)[6]
    key = api.JobKey(tenant="tenant-0", user="user-0", id=row["request_id"])
    found = job(backend, key)
    assert (found.waits, found.can.cancel, found.can.replay) == (None, False, True)
    assert [event.kind for event in found.timeline] == ["received", "ended"]
    assert found.timeline[-1].is_problem
    backend.read_only_because = "it only reads"
    assert not job(backend, key).can.replay


def test_a_job_is_replayed_once(stack: Stack, backend: Backend) -> None:
    """By two operators too: the second one learns of the new job, which can be replayed in turn."""
    row = put_jobs(stack, 9)[6]
    key = api.JobKey(tenant="tenant-0", user="user-0", id=row["request_id"])
    sent: list[dict[str, Any]] = []

    def router(_function: str, event: dict[str, Any]) -> Any:
        message = json.loads(event["messages"][0])
        sent.append(message)
        original = message["payload"]["request_id"]
        again = {"request_id": message["id"], "replay_of": original}
        stack.put("requests", row | again)
        return {"answers": [{"type": "acknowledgment", "request_id": message["id"]}]}

    backend.invoke = router  # type: ignore[method-assign]
    first = replay(backend, key).job
    found = job(backend, key)
    assert (found.replayed_as, found.can.replay) == (first.id, False)
    with pytest.raises(ProblemError, match=f"as {first.id}, which is FAILED; to run it once more"):
        replay(backend, key)
    second = replay(backend, first).job
    assert [message["id"] for message in sent] == [first.id, second.id]
    assert second.id.startswith(f"{key.id}.replay-")
    assert len(second.id) == len(first.id)


def local(backend: Backend, tmp_path: Path, **state: Any) -> None:
    """Make the stage a local one with a state."""
    repository = Repository(tmp_path)
    stage = Stage(repository, "dev")
    known = {"pid": 1, "started": "", "port": 1, "region": "eu-west-1", "log": "", "jwt_secret": ""}
    stage.write_state(State(**known | {"description": {"port": 1}} | state))
    backend.stage = stage


def test_a_local_stage_that_was_stopped_is_never_looked_for_on_aws(
    backend: Backend, tmp_path: Path
) -> None:
    """The page says how to start it again, and shows it when it is up."""
    local(backend, tmp_path)
    backend.refresh()
    backend.stage.state_path.unlink()
    with pytest.raises(ProblemError, match="start it again: jobplane up --stage dev"):
        backend.refresh()
    known = backend.dynamodb
    local(backend, tmp_path, pid=2, description={"port": 2})
    backend.refresh()
    assert backend.description == {"port": 2}
    assert backend.dynamodb is not known


def test_a_local_stage_that_does_not_answer(backend: Backend, tmp_path: Path) -> None:
    """Its error names the command that starts it."""
    local(backend, tmp_path)
    problem = backend.problem_of(EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))
    assert "jobplane up --stage dev" in str(problem)


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ExpiredTokenException", "Message": "expired"}}, "Query"),
        UnauthorizedSSOTokenError(),
    ],
)
def test_credentials_that_expire_are_read_again(backend: Backend, error: Exception) -> None:
    """The page says what to do; afterwards the console has new clients."""
    assert backend._clients
    problem = backend.problem_of(error)
    assert str(problem).startswith("the AWS credentials of the console are no longer accepted")
    assert not backend._clients


@pytest.mark.parametrize(
    ("at", "fields", "is_about"),
    [
        (0, {"request_id": "j", "tenant_id": "t", "user_id": "u"}, True),
        (0, {"request_id": "j", "tenant_id": "t", "user_id": "v"}, False),
        (0, {"request_id": "k"}, False),
        (1, {"request_ids": ["i", "j"]}, True),
        (-1, {"request_ids": ["i", "j"]}, False),
    ],
)
def test_a_line_of_another_job_with_the_same_id_is_left_out(
    at: int, fields: dict[str, Any], is_about: bool
) -> None:
    """Ids are those of an owner: two may have the same one."""
    line = api.LogLine(
        at=iso_time(NOW + at), function="f", level="INFO", message="m", invocation=None,
        fields=fields, is_problem=False,
    )  # fmt: skip
    key = api.JobKey(tenant="t", user="u", id="j")
    assert _is_about(line, key, {"created_at": iso_time(NOW)}) is is_about
