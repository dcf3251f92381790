"""What the console's pages make of the answers of functions and AWS."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from jobplane.console import api, files, health, webhooks, workspaces
from jobplane.console.backend import Backend, ProblemError
from jobplane.tree.repository import Repository
from jobplane_keys import iso_time
from tests.unit.console_backend import backend_of
from tests.unit.stack import Stack

NOW = 1_800_000_000.0
EXECUTION = "arn:aws:states:eu-west-1:1:execution:flow:run-1"


@pytest.fixture
def backend(stack: Stack) -> Backend:
    return backend_of(stack)


CLAIMS: list[tuple[dict[str, Any], str | None, str, bool, str]] = [
    ({"state": "free"}, None, "free", False, "No job runs"),
    ({"expiresAt": NOW + 60, "owner": EXECUTION}, "RUNNING", "held", False, "A job runs"),
    ({"expiresAt": NOW + 60, "owner": EXECUTION}, "ABORTED", "held", True, "ended as ABORTED"),
    ({"expiresAt": NOW + 60, "owner": "worker"}, None, "held", False, "without an execution"),
    ({"expiresAt": NOW - 60, "owner": EXECUTION}, "RUNNING", "expired", True, "time is over"),
    ({"claimedAt": iso_time(NOW)}, None, "malformed", True, "no readable end"),
]


@pytest.mark.parametrize(("row", "status", "state", "is_stuck", "text"), CLAIMS)
def test_a_claim_says_whether_it_is_stuck(
    row: dict[str, Any], status: str | None, state: str, is_stuck: bool, text: str
) -> None:
    """And what ends it."""
    claim = workspaces.claim_of({"projectUserId": "p#u", **row}, {"run-1": status}, NOW)
    assert (claim.state, claim.is_stuck) == (state, is_stuck)
    assert text in claim.explanation


def test_the_graph_of_an_execution_shows_where_it_is_and_where_it_failed() -> None:
    """By the states that it entered and did not leave."""
    flow = {
        "States": {
            "A": {"Type": "Task", "Next": "B", "Catch": [{"Next": "C"}]},
            "B": {"Type": "Choice", "Choices": [{"Next": "A"}], "Default": "C"},
            "C": {"Type": "Fail"},
        }
    }

    def event(kind: str, name: str) -> dict[str, Any]:
        details = f"state{kind.removeprefix('TaskState')}EventDetails"
        return {"type": kind, "timestamp": datetime.now(UTC), details: {"name": name}}

    history = [
        event("TaskStateEntered", "A"), event("TaskStateExited", "A"),
        event("TaskStateEntered", "B"), event("TaskStateExited", "B"),
        event("TaskStateEntered", "A"),
    ]  # fmt: skip
    for is_over in (False, True):
        found = {s.name: s for s in workspaces.graph_of(flow, history, is_over=is_over)}
        assert [found[name].visits for name in "ABC"] == [2, 1, 0]
        assert (found["A"].is_current, found["A"].is_failed) == (not is_over, is_over)
        assert found["A"].next == ["B", "C"]
        assert found["B"].next == ["C", "A"]
        assert [found[name].is_end for name in "ABC"] == [False, False, True]


REFUSALS = [
    (400, {"error": "1 problem", "problems": [{"message": "a: b"}]}, "VALIDATION_ERROR", "a: b"),
    (404, {"error": "x does not exist"}, "NOT_FOUND", "x does not exist"),
    (409, {"error": "x has changed", "current_status": "failed"}, "CONFLICT", "it is failed now"),
    (500, {"error": "internal"}, "FUNCTION_ERROR", "internal"),
]


@pytest.mark.parametrize(("status", "body", "code", "text"), REFUSALS)
def test_a_refusal_of_state_manager_is_shown(
    backend: Backend, status: int, body: dict[str, Any], code: str, text: str
) -> None:
    """With its problems and the status that the file has now."""
    answer = {"statusCode": status, "body": json.dumps(body)}
    backend.invoke = lambda *_: answer  # type: ignore[method-assign]
    with pytest.raises(ProblemError, match=text) as refused:
        files.operation(backend, "update_state")
    assert refused.value.code == code


def test_a_file_is_shown_without_the_shard_of_its_status() -> None:
    """And with its age, whichever time its writer keeps."""
    row = {"date_prefix": "2026-11-22", "file_key": "a", "status": "manifested#7",
           "created_at": NOW - 60, "size": 3}  # fmt: skip
    shown = files.shown_file(row, NOW)
    assert (shown.status, shown.age_seconds) == ("manifested", 60.0)
    assert shown.fields["size"] == 3


def put_webhooks(stack: Stack) -> None:
    for n, status in enumerate(("delivered", "failed", "retrying", None)):
        webhook = {"webhook": {"status": status, "attempts": n}} if status else {}
        stack.put("assemblies", {
            "assembly_id": f"a-{n}", "template_id": f"t-{n % 2}", "user_id": "u", "tenant_id": "t",
            "created_at": iso_time(NOW + n), "user": {"userId": "u"}, **webhook,
        })  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({}, {"a-0", "a-1", "a-2"}),
        ({"failing": True}, {"a-1", "a-2"}),
        ({"tenant": "t", "template": "t-0"}, {"a-0", "a-2"}),
        ({"tenant": "t", "since": iso_time(NOW + 1)}, {"a-1", "a-2"}),
        ({"tenant": "other"}, set()),
    ],
)
def test_deliveries_of_a_filter(
    stack: Stack,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
    ids: set[str],
) -> None:
    """A page at a time, each once."""
    put_webhooks(stack)
    monkeypatch.setattr(webhooks, "PAGE", 1)
    asked, found = api.WebhooksQuery(**chosen), list[api.Delivery]()
    while True:
        page = webhooks.deliveries(backend, asked)
        found += page.deliveries
        if page.next is None:
            break
        asked = asked.model_copy(update={"next": page.next})
    assert sorted(each.assembly_id for each in found) == sorted(ids)


RESENT = [
    ({"webhook": {"delivered": True, "status_code": 204}}, None, "accepted it"),
    ({"webhook": {"delivered": False, "status_code": 500}}, None, "answered 500"),
    ({"refused": "not_found"}, "NOT_FOUND", "no assembly"),
    ({"refused": "not_ended"}, "CONFLICT", "has not ended"),
    ({"refused": "too_soon", "retry_after": 9}, "CONFLICT", "try again in 9 s"),
]


@pytest.mark.parametrize(("answer", "code", "text"), RESENT)
def test_a_webhook_is_sent_again(
    stack: Stack, backend: Backend, answer: dict[str, Any], code: str | None, text: str
) -> None:
    """What the receiver answered, or why nothing was sent."""
    put_webhooks(stack)
    backend.invoke = lambda *_: answer  # type: ignore[method-assign]
    try:
        found = webhooks.resend(backend, api.AssemblyKey(assembly_id="a-1")).message
        assert code is None
    except ProblemError as refused:
        found = str(refused)
        assert refused.code == code
    assert text in found


def test_the_runbook_has_its_sections() -> None:
    """By the anchors that alarms name."""
    sections = health.runbook(Repository.here().root / health.RUNBOOK)
    assert {"function-errors", "dead-letters", "throttles"} <= sections.keys()
    assert all(title and text for title, text in sections.values())


def test_the_pictures_have_the_words_that_the_server_says() -> None:
    """Each kind of orphan in the fixtures of the page is one of state-manager's, in our words."""
    fixtures = Repository.here().root / "web/console/test/fixtures.ts"
    if not fixtures.is_file():
        pytest.skip("needs the folder web, which a made project does not have; copy it to check it")
    text = fixtures.read_text(encoding="utf-8")
    listed = re.findall(
        r'\[\s*"(\w+)",\s*"([^"]+)",\s*"([^"]+)",\s*\d+,?\s*\]',
        text[text.index("const orphanKinds") : text.index("const deliveries")],
    )
    assert len(listed) > 3
    for kind, title, explanation in listed:
        assert files.KINDS[kind] == (title, explanation)
    assert f'"{workspaces.WAITS["SendToContainer"]} Since ' in text
    assert f'"{workspaces.ENDS["WorkspaceBusy"]}"' in text
