"""Changes of many jobs: the plan is what the preview shows, and each job is changed once."""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from jobplane.console import api, bulk
from jobplane.console.backend import Backend, FunctionFailedError, ProblemError
from jobplane_keys import owner_key, tenant_shard
from jobplane_leases import RequestLease
from tests.unit.console_backend import SHARDS, backend_of
from tests.unit.stack import PREFIX, Stack, ended, request

TENANTS = 3


class Router:
    """What router does with messages of owners; an invocation may die before or after its work."""

    def __init__(self, stack: Stack, dies: Callable[[], str] = lambda: "") -> None:
        self.stack, self.dies = stack, dies
        self.cancelled: Counter[str] = Counter()
        self.replayed: Counter[str] = Counter()
        self.busy: set[str] = set()
        self.died = 0

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        assert function == "router"
        end = self.dies()
        if end == "before":
            self.die()
        caller = event["caller"]
        owner = owner_key(caller["tenant_id"], caller["user_id"])
        answers = [self.answer(owner, json.loads(message)) for message in event["messages"]]
        if end == "after":
            self.die()
        return {"answers": answers}

    def die(self) -> None:
        self.died += 1
        raise FunctionFailedError("router", {"errorType": "Runtime.ExitError"})

    def answer(self, owner: str, message: Mapping[str, Any]) -> dict[str, Any]:
        job = message["payload"]["request_id"]
        if message["action"] == "replay":
            # The same id makes one job.
            self.replayed[message["id"]] = 1
            return {"type": "acknowledgment", "request_id": message["id"]}
        row = self.stack.request(job, owner)
        if not row:
            return {"type": "error", "error": {"code": "NOT_FOUND", "message": "gone"}}
        if row["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
            return {"type": "response", "data": {"status": row["status"].lower()}}
        if job in self.busy:
            return {"type": "response", "data": {"status": "cancelling"}}
        lease = RequestLease(self.stack.dynamodb, PREFIX + "requests", owner, job)
        if lease.cancel(row, {"code": "CANCELLED", "message": "Cancelled"}, 1.0):
            self.cancelled[job] += 1
        return {"type": "response", "data": {"status": "cancelled"}}


@pytest.fixture
def backend(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Backend:
    stack.create("operations")
    for name, value in (("JOBS_PER_ROW", 7), ("PAUSE_SECONDS", 0.0), ("SETTLE_SECONDS", 0.01)):
        monkeypatch.setattr(bulk, name, value)
    return backend_of(stack)


def put(stack: Stack, number: int, **changes: Any) -> list[str]:
    rows = [
        request(f"job-{n:03}", owner=owner_key(f"t{n % TENANTS}", "u"), **changes)
        for n in range(number)
    ]  # fmt: skip
    stack.put("requests", *rows)
    return [row["request_id"] for row in rows]


def planned(backend: Backend, action: str = "cancel", **chosen: Any) -> api.BulkPreview:
    return bulk.preview(
        backend, api.BulkPreviewRequest.model_validate({"action": action, "filter": chosen})
    )


def finished(backend: Backend, operation: str, reason: str | None = "tests") -> api.BulkOperation:
    """Start or resume an operation, and wait for the thread that drives it."""
    bulk.start(backend, api.BulkRunRequest(id=operation, reason=reason))
    run = backend.runs.of(operation)
    assert run is not None
    assert run.thread is not None
    run.thread.join()
    return bulk.operation(backend, api.BulkId(id=operation))


def audit(backend: Backend, operation: str) -> list[api.BulkJob]:
    asked, found = api.BulkJobsQuery(id=operation), list[api.BulkJob]()
    while True:
        page = bulk.bulk_jobs(backend, asked)
        found += page.jobs
        if page.next is None:
            return found
        asked = asked.model_copy(update={"next": page.next})


def test_a_preview_changes_nothing_and_is_what_is_changed(stack: Stack, backend: Backend) -> None:
    """Jobs that come later are not part of the plan, and those that ended meanwhile stay so."""
    names = put(stack, 20)
    before = stack.everything()
    plan = planned(backend, tenant="t1")
    assert stack.everything() == before
    mine = {name for n, name in enumerate(names) if n % TENANTS == 1}
    assert (plan.total, {row.id for row in plan.sample}) == (len(mine), mine)
    assert [(count.name, count.count) for count in plan.by_tenant] == [("t1", len(mine))]
    stack.put(
        "requests",
        request("late", owner=owner_key("t1", "u"), tenant_id="t1"),
        ended("job-001", owner=owner_key("t1", "u"), tenant_id="t1"),
    )
    router = Router(stack)
    backend.invoke = router.invoke  # type: ignore[method-assign]
    done = finished(backend, plan.id)
    assert (done.state, done.outcomes) == ("done", {"cancelled": len(mine) - 1, "unchanged": 1})
    assert router.cancelled == Counter(mine - {"job-001"})
    assert stack.request("late", owner_key("t1", "u"))["status"] == "PENDING"


def test_each_job_is_cancelled_once_while_workers_die(stack: Stack, backend: Backend) -> None:
    """Router dies before and after its work, and so does the console: the audit agrees."""
    names, chance = put(stack, 60), random.Random(17)
    router = Router(stack, lambda: chance.choice(["before", "after", "", ""]))
    plan = planned(backend)
    starts = 0
    while True:
        starts += 1
        console = backend_of(stack)
        console.invoke = router.invoke  # type: ignore[method-assign]
        if finished(console, plan.id).state == "done":
            break
    assert (router.died > 5, router.cancelled) == (True, Counter(names))
    rows = audit(backend, plan.id)
    assert sorted(row.job.id for row in rows) == names
    assert {row.outcome for row in rows} == {"cancelled"}
    assert all(row.at for row in rows)


def test_two_consoles_drive_an_operation(stack: Stack, backend: Backend) -> None:
    """Each outcome is recorded once, whichever of them made the change."""
    names = put(stack, 40)
    router, plan = Router(stack), planned(backend)
    consoles = [backend, backend_of(stack)]
    for console in consoles:
        console.invoke = router.invoke  # type: ignore[method-assign]
        bulk.start(console, api.BulkRunRequest(id=plan.id, reason="tests"))
    for console in consoles:
        run = console.runs.of(plan.id)
        assert run is not None
        assert run.thread is not None
        run.thread.join()
    assert bulk.operation(backend, api.BulkId(id=plan.id)).outcomes == {"cancelled": 40}
    assert router.cancelled == Counter(names)


def test_a_job_whose_worker_was_asked_is_recorded_when_it_has_ended(
    stack: Stack, backend: Backend
) -> None:
    """An operation is done when no worker runs one of its jobs."""
    put(stack, 3)
    router = Router(stack)
    router.busy |= {"job-000", "job-001"}
    backend.invoke = router.invoke  # type: ignore[method-assign]
    plan = planned(backend)
    bulk.start(backend, api.BulkRunRequest(id=plan.id, reason="tests"))
    run = backend.runs.of(plan.id)
    assert run is not None
    assert run.thread is not None
    while sum(run.outcomes.values(), Counter())["asked"] < 2:
        run.thread.join(0.01)
    for name, tenant, status in (("job-000", "t0", "CANCELLED"), ("job-001", "t1", "COMPLETED")):
        stack.put("requests", ended(name, status, owner=owner_key(tenant, "u"), tenant_id=tenant))
    run.thread.join()
    done = bulk.operation(backend, api.BulkId(id=plan.id))
    assert done.outcomes == {"cancelled": 2, "unchanged": 1}
    messages = {row.job.id: row.message for row in audit(backend, plan.id)}
    assert messages["job-001"] == "ended as COMPLETED before its worker stopped"


def test_a_replay_has_the_same_id_each_time(stack: Stack, backend: Backend) -> None:
    """Neither a resumed operation nor that of a second operator makes a second job."""
    rows = [
        ended(f"job-{n}", "FAILED", owner=owner_key("t", "u"),
              tenant_id=tenant_shard("t", f"job-{n}", SHARDS))
        for n in range(9)
    ]  # fmt: skip
    stack.put("requests", *rows, request("running", owner=owner_key("t", "u"), tenant_id="t"))
    ends = iter(["after"] * 3)
    router = Router(stack, lambda: next(ends, ""))
    backend.invoke = router.invoke  # type: ignore[method-assign]
    plan = planned(backend, "replay", tenant="t")
    assert plan.total == 9
    assert finished(backend, plan.id).outcomes == {"replayed": 9}
    assert len(router.replayed) == 9
    assert {row.new_id for row in audit(backend, plan.id)} == set(router.replayed)
    again = planned(backend, "replay", tenant="t")
    assert finished(backend, again.id).outcomes == {"replayed": 9}
    assert len(router.replayed) == 9


def test_a_page_of_an_operations_jobs_reads_no_earlier_ones(stack: Stack, backend: Backend) -> None:
    """Of 70 jobs in rows of 7, each page of the second half reads fewer rows than there are."""
    put(stack, 70)
    plan, read = planned(backend), list[int]()
    backend.dynamodb.meta.events.register(
        "after-call.dynamodb.Query", lambda parsed, **_: read.append(parsed["ScannedCount"])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "PAGE_JOBS", 7)
        assert len(audit(backend, plan.id)) == 70
    assert read == [*range(10, -1, -1)]


def test_an_operation_that_stops_can_be_resumed(stack: Stack, backend: Backend) -> None:
    """Router fails again and again: the console says why it stopped, and what to do."""
    put(stack, 20)
    backend.invoke = Router(stack, lambda: "before").invoke  # type: ignore[method-assign]
    plan = planned(backend)
    stopped = finished(backend, plan.id)
    assert (stopped.outcomes, stopped.runs_here) == ({"planned": 20}, False)
    assert "resume it later" in (stopped.problem or "")
    bulk.stop(backend, api.BulkId(id=plan.id))
    other = backend_of(stack)
    other.invoke = Router(stack).invoke  # type: ignore[method-assign]
    assert bulk.operation(other, api.BulkId(id=plan.id)).state == "interrupted"
    done = finished(other, plan.id, None)
    assert (done.state, done.outcomes, done.reason) == ("done", {"cancelled": 20}, "tests")
    assert [each.id for each in bulk.operations(other, None).operations] == [plan.id]


REFUSED: list[tuple[Callable[[Backend], Any], str]] = [
    (lambda b: planned(b, status=["FAILED"]), "a cancel is for jobs that have not ended"),
    (lambda b: planned(b, "replay", status=["PENDING"]), "a replay is for jobs that have ended"),
    (lambda b: bulk.operation(b, api.BulkId(id="x")), "no operation x"),
    (lambda b: bulk.bulk_jobs(b, api.BulkJobsQuery(id="x", next="y")), "next: is damaged"),
    (lambda b: bulk.start(b, api.BulkRunRequest(id=planned(b).id)), "reason: is required"),
]


@pytest.mark.parametrize(("ask", "message"), REFUSED)
def test_what_is_refused(backend: Backend, ask: Callable[[Backend], Any], message: str) -> None:
    """With the field and the reason."""
    with pytest.raises(ProblemError, match=message):
        ask(backend)


def test_an_old_plan_is_refused(
    stack: Stack, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it shows may no longer be so."""
    monkeypatch.setattr(bulk, "PLAN_SECONDS", -10)
    plan = planned(backend)
    with pytest.raises(ProblemError, match="preview again"):
        bulk.start(backend, api.BulkRunRequest(id=plan.id, reason="tests"))
    assert bulk.operation(backend, api.BulkId(id=plan.id)).state == "expired"
