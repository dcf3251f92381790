"""What the console says needs a look, and what it notes of an operator's actions."""

import time
from typing import Any

import pytest

from jobplane.console import api, audit, bulk, findings, jobs, routes
from jobplane.console.backend import Backend, FunctionFailedError, ProblemError
from jobplane_keys import iso_time, owner_key, parse_iso_time, tenant_shard
from jobplane_keys.lanes import waiting_shard
from tests.unit.console_backend import SHARDS, backend_of
from tests.unit.stack import PREFIX, Stack, ended, request

KEY = api.JobKey(tenant="t", user="u", id="job-1")


@pytest.fixture
def backend(stack: Stack) -> Backend:
    stack.create("operations")
    there = backend_of(stack)
    there.__dict__["parts"] = ["jobs"]
    return there


def put(stack: Stack, name: str = "job-1", **changes: Any) -> None:
    owner = owner_key("t", "u")
    place = tenant_shard("t", name, SHARDS)
    row = request(name, owner=owner, tenant_id=place, max_attempts=4, attempts=1)
    stack.put("requests", row | changes)


def found(backend: Backend) -> list[api.Finding]:
    answer = findings.findings(backend, None)
    assert answer.unchecked == []
    return answer.findings


def test_nothing_needs_a_look(stack: Stack, backend: Backend) -> None:
    """Jobs that wait or run as they should, and a lane that has a free slot."""
    now = time.time()
    moment = iso_time(now)
    put(stack, updated_at=moment, lease_until=now + 60)
    put(stack, "job-2", status="PROCESSING", updated_at=moment, lease_until=now + 60)
    lane = {"lane": {"S": "tenant#t#0"}, "lane_limit": {"N": "2"}, "slots": {"SS": ["a"]}}
    stack.dynamodb.put_item(TableName=PREFIX + "lanes", Item=lane)
    assert found(backend) == []


def test_a_lost_worker_is_found_with_its_job(stack: Stack, backend: Backend) -> None:
    """Since the end of the lease; two of them lead to the list."""
    until = int(time.time()) - 31
    lost = {"status": "PROCESSING", "lease_until": until, "lease_owner": "w"}
    put(stack, **lost)
    (one,) = found(backend)
    assert (one.title, one.since) == ("1 job has lost its worker", iso_time(until))
    assert (one.place, one.is_urgent) == (["job", "t", "u", "job-1"], True)
    put(stack, "job-2", **lost)
    backend.forget("in-flight")
    (both,) = found(backend)
    assert (both.count, both.place, both.filter) == (2, ["jobs"], {"status": "PROCESSING"})


def test_a_full_lane_is_found_when_a_job_has_waited_for_a_minute(
    stack: Stack, backend: Backend
) -> None:
    """It may be as it should be, so it is not urgent."""
    now = time.time()
    lane = {"lane": {"S": "tenant#t#0"}, "lane_limit": {"N": "1"}, "slots": {"SS": ["a"]}}
    stack.dynamodb.put_item(TableName=PREFIX + "lanes", Item=lane)
    for seconds, number in ((30, 0), (90, 1)):
        put(
            stack, lane="tenant#t", lane_limit=1, waiting_since=iso_time(now - seconds),
            waiting_order=f"1#{iso_time(now - seconds)}", lease_until=now + 300,
            waiting_lane=waiting_shard("tenant#t", "k"),
        )  # fmt: skip
        backend.forget("lanes")
        backend.forget("in-flight")
        assert len(found(backend)) == number
    (full,) = found(backend)
    assert full.title == ("The lane of tenant t is full: 1 of 1 slots are taken, and 1 job waits")
    assert (full.is_urgent, full.filter["tenant"]) == (False, "t")


def test_failed_jobs_are_found_with_their_most_frequent_error(
    stack: Stack, backend: Backend
) -> None:
    """Those of the last hour or two."""
    moment = iso_time(time.time())
    for number, code in enumerate(("A", "B", "B")):
        name = f"job-{number}"
        place = {"owner": owner_key("t", "u"), "tenant_id": tenant_shard("t", name, SHARDS)}
        error = {"error": {"code": code, "message": ""}}
        times = {"created_at": moment}
        stack.put("requests", ended(name, "FAILED", **place, **error, **times))
    (one,) = found(backend)
    assert one.title.startswith("3 jobs have failed")
    assert one.title.endswith("most of them with B")
    assert parse_iso_time(one.since or "") == pytest.approx(parse_iso_time(moment))


def test_a_part_that_cannot_be_read_hides_no_other(stack: Stack, backend: Backend) -> None:
    """The page says which one, and why."""
    put(stack, status="PROCESSING", lease_until=0, lease_owner="w")
    backend.__dict__["parts"] = ["workspaces", "jobs"]
    answer = findings.findings(backend, None)
    assert len(answer.findings) == 1
    (problem,) = answer.unchecked
    assert problem == "workspaces: this stage has no table active-jobs"


def test_what_hides_several_parts_is_said_once(backend: Backend) -> None:
    """With the parts that it hides."""
    backend.__dict__["parts"] = ["jobs", "workspaces", "files"]
    checks = dict.fromkeys(findings.CHECKS, lambda _backend, _now: raising(REFUSAL)())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "CHECKS", checks)
        assert findings.findings(backend, None).unchecked == [f"jobs, workspaces, files: {REFUSAL}"]


class Processor:
    """What the sweep of processor does with a job."""

    def __init__(self, stack: Stack, **changes: Any) -> None:
        self.stack, self.changes = stack, changes

    def __call__(self, function: str, event: Any) -> Any:
        assert (function, event) == ("processor", {"sweep": "leases"})
        put(self.stack, **self.changes)
        return {"swept": {}}


@pytest.mark.parametrize(
    ("after", "text"),
    [
        ({"lease_until": 2**33}, "was put back into the queue"),
        ({"status": "FAILED", "lease_until": 0}, "had no attempt left"),
        ({"status": "CANCELLED", "lease_until": 0}, "has ended as CANCELLED"),
        ({"status": "PROCESSING", "lease_until": 0}, "left job-1 as it was"),
    ],
)
def test_a_job_is_put_back(
    stack: Stack, backend: Backend, after: dict[str, Any], text: str
) -> None:
    """The answer says what has become of it."""
    put(stack, status="PROCESSING", lease_until=0)
    backend.invoke = Processor(stack, **after)  # type: ignore[method-assign]
    assert text in jobs.put_back(backend, KEY).message


def test_a_job_that_a_worker_may_run_is_not_put_back(stack: Stack, backend: Backend) -> None:
    """Its lease is not over."""
    put(stack, status="PROCESSING", lease_until=int(time.time()) + 1000)
    with pytest.raises(ProblemError, match="its lease is not over"):
        jobs.put_back(backend, KEY)


def raising(error: Exception) -> Any:
    def act() -> Any:
        raise error

    return act


REFUSAL = ProblemError(409, "CONFLICT", "it has changed")
FAULT = FunctionFailedError("claim", {"errorType": "Bug"})
CLAIM = api.ClaimAction(project="p", user="u", claim_id="c", fence=7, reason="gone")
ASKED: list[tuple[str, api.Asked, str]] = [
    ("jobs/cancel", KEY, "job job-1 of t / u"),
    ("jobs/replay", KEY, "job job-1 of t / u"),
    ("jobs/put-back", KEY, "job job-1 of t / u"),
    ("workspaces/release", CLAIM, "claim of p#u, fence 7"),
    ("workspaces/interrupt", CLAIM, "claim of p#u, fence 7"),
    (
        "files/update",
        api.FileUpdate(date="d", key="f", new_status="pending", expected_status="failed",
                       force=True, reason="r"),
        "file d/f: failed to pending, forced",
    ),
    (
        "files/reset",
        api.ResetRequest(dry_run=False, reason="r"),
        "files manifested or processing for at least 2 h",
    ),
    ("webhooks/resend", api.AssemblyKey(assembly_id="a"), "webhook of assembly a"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "asked", "subject"), ASKED, ids=[each[0] for each in ASKED])
def test_an_action_is_noted_before_it_is_done(
    backend: Backend, action: str, asked: api.Asked, subject: str
) -> None:
    """With who, what and why, and then the result."""

    def act() -> api.Done:
        (before,) = audit.entries(backend, api.AuditQuery()).entries
        assert (before.outcome, before.message) == ("begun", None)
        return api.Done(message="It was done.")

    audit.audited(backend, action, asked, act)
    (entry,) = audit.entries(backend, api.AuditQuery()).entries
    assert (entry.action, entry.subject, entry.who) == (action, subject, "arn:me")
    assert (entry.outcome, entry.message) == ("done", "It was done.")
    assert entry.reason == getattr(asked, "reason", None)


def test_every_change_is_noted_here_or_as_an_operation() -> None:
    """A new path that changes something must say what it is about."""
    noted = {action for action, _, _ in ASKED}
    assert noted | {"bulk/preview", "bulk/run", "bulk/stop"} == api.POSTS.keys()
    assert noted <= routes.ROUTES.keys()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(REFUSAL, "refused"), (FAULT, "failed"), (ValueError("a fault"), "failed")],
)
def test_what_was_refused_or_failed_is_noted_too(
    backend: Backend, error: Exception, outcome: str
) -> None:
    """With the reason, and the caller gets the error."""
    with pytest.raises(type(error)):
        audit.audited(backend, "jobs/cancel", KEY, raising(error))
    (entry,) = audit.entries(backend, api.AuditQuery()).entries
    assert (entry.outcome, entry.message) == (outcome, str(error))


def test_a_dry_run_is_not_noted(backend: Backend) -> None:
    """It changes nothing."""
    answer = api.ResetAnswer(dry_run=True, reset=[], skipped=[], failed=[], next=None)
    audit.audited(backend, "files/reset", api.ResetRequest(), lambda: answer)
    assert audit.entries(backend, api.AuditQuery()).entries == []


def test_the_audit_has_pages_and_the_operations_that_were_started(
    stack: Stack, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest first, none twice, none missing; a plan that was not started is not in it."""
    monkeypatch.setattr(audit, "PAGE", 2)
    for number in range(5):
        asked = KEY.model_copy(update={"id": f"j-{number}"})
        audit.audited(backend, "jobs/cancel", asked, lambda: api.Done(message=""))
    preview = api.BulkPreviewRequest(action="cancel", filter=api.JobFilter())
    started, _left = bulk.preview(backend, preview), bulk.preview(backend, preview)
    bulk.start(backend, api.BulkRunRequest(id=started.id, reason="tests"))
    seen: list[api.AuditEntry] = []
    asked_page = api.AuditQuery()
    while True:
        page = audit.entries(backend, asked_page)
        seen += page.entries
        if page.next is None:
            break
        asked_page = api.AuditQuery(before=page.next)
    assert [entry.at for entry in seen] == sorted((entry.at for entry in seen), reverse=True)
    assert sorted(entry.subject.split()[1] for entry in seen if entry.bulk is None) == [
        f"j-{number}" for number in range(5)
    ]
    assert [entry.bulk for entry in seen if entry.bulk] == [started.id]
    with pytest.raises(ProblemError, match="before: a time"):
        audit.entries(backend, api.AuditQuery(before="yesterday"))
