"""Workspaces: claims, the executions of the job flow, interruptions."""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobplane.console import api
from jobplane.console.backend import Backend, NotAvailableError, ProblemError
from jobplane_keys import claim_expiry, claim_start, claim_state, from_item, iso_time, pages

MAX_CLAIMS = 500
MAX_EXECUTIONS = 50
MAX_INTERRUPTIONS = 200
MAX_EVENTS = 1_000
GRACE_SECONDS = 120
"""The sweep of claims frees one whose execution has ended after so long."""

type Row = dict[str, Any]


def workspaces(backend: Backend, _asked: None) -> api.Workspaces:
    """Held claims, the newest executions and interruptions."""
    now = time.time()
    rows, all_claims = _scanned(backend, "active-jobs", MAX_CLAIMS)
    held = [row for row in rows if row.get("state") != "free"]
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(map(_name_of, held), pool.map(_execution_of(backend), held), strict=True))
    claims = [claim_of(row, found, now) for row in rows]
    records, all_records = _scanned(backend, "interruptions", MAX_INTERRUPTIONS)
    of_workspace = {name: row["projectUserId"] for row in held if (name := _name_of(row))}
    return api.Workspaces(
        claims=sorted(claims, key=lambda claim: (claim.state == "free", -(claim.age_seconds or 0))),
        executions=[
            _shown(each, of_workspace.get(each["name"]), now) for each in _executions(backend)
        ],
        interruptions=sorted(map(_interruption, records), key=lambda each: each.at or "")[::-1],
        is_complete=all_claims and all_records,
        now=iso_time(now),
    )


def _scanned(backend: Backend, table: str, most: int) -> tuple[list[Row], bool]:
    """At most so many rows of a table, and whether these are all."""
    rows: list[Row] = []
    for page in pages(backend.dynamodb.scan, {"TableName": backend.table(table)}):
        rows += map(from_item, page["Items"])
        if len(rows) > most:
            return rows[:most], False
    return rows, True


def _name_of(claim: Mapping[str, Any]) -> str | None:
    """The name of the execution that owns a claim."""
    owner = str(claim.get("owner") or "")
    return owner.rpartition(":")[2] if ":execution:" in owner else None


def _execution_of(backend: Backend) -> Any:
    def read(claim: Mapping[str, Any]) -> str | None:
        if _name_of(claim) is None:
            return None
        client = backend.client("stepfunctions")
        try:
            return str(client.describe_execution(executionArn=claim["owner"])["status"])
        except client.exceptions.ClientError:
            return None

    return read


def claim_of(
    row: Mapping[str, Any], statuses: Mapping[str | None, str | None], now: float
) -> api.Claim:
    """A claim for the page; `statuses` are those of executions by their names."""
    project, _, user = row["projectUserId"].partition("#")
    state, began, expiry = claim_state(row, now), claim_start(row), claim_expiry(row)
    names = {"live": "held", "none": "free"}
    shown = names.get(state.reason, state.reason)
    execution = _name_of(row)
    status = statuses.get(execution) if execution else None
    is_over = status not in (None, "RUNNING", "PENDING_REDRIVE")
    is_stuck = shown in {"expired", "malformed"} or (shown == "held" and is_over)
    return api.Claim.model_validate({
        "project": project,
        "user": user,
        "state": shown,
        "holder": row.get("containerId"),
        "taker": row.get("taker"),
        "thread": row.get("threadId"),
        "message_id": row.get("messageId"),
        "claim_id": row.get("claimId"),
        "fence": row.get("fence"),
        "claimed_at": iso_time(began) if began is not None else None,
        "age_seconds": round(now - began, 1) if began is not None and shown != "free" else None,
        "expires_at": iso_time(expiry) if expiry is not None and shown != "free" else None,
        "execution": execution,
        "execution_status": status,
        "is_stuck": is_stuck,
        "explanation": _explained(shown, status, is_over=is_over),
        "last_released": _released(row.get("lastReleased")),
    })  # fmt: skip


def _released(last: Any) -> str | None:
    if not isinstance(last, Mapping):
        return str(last) if last else None
    return ", ".join(f"{name} {value}" for name, value in last.items())


def _explained(state: str, status: str | None, *, is_over: bool) -> str:
    if state == "free":
        return "No job runs in the workspace."
    if state == "expired":
        return (
            "The claim's time is over and it was not released: its worker and its execution have"
            " stopped. The next message takes the workspace; release it to clean up now."
        )
    if state == "malformed":
        return "The claim has no readable end; it counts for an hour after its start. Release it."
    if is_over:
        return (
            f"Its execution has ended as {status}, and the claim is still held. sweep-claims frees"
            f" it within {GRACE_SECONDS // 60 + 1} minutes; release it to do so now."
        )
    if status is None:
        return "A worker has the workspace without an execution that Step Functions knows."
    return "A job runs in the workspace."


def _interruption(row: Mapping[str, Any]) -> api.Interruption:
    project, _, user = str(row.get("projectUserId", "")).partition("#")
    cause = row.get("cause")
    return api.Interruption(
        project=project,
        user=user,
        at=row.get("timestamp"),
        kind=str(row.get("kind", "interruption")),
        message_id=row.get("messageId"),
        reason=row.get("reason") or row.get("error"),
        detail=cause if isinstance(cause, str) else json.dumps(cause) if cause else None,
    )


def _machine(backend: Backend) -> str:
    arn: str | None = backend.description.get("state_machine_arn")
    if arn is None:
        raise NotAvailableError("state machine")
    return arn


def _executions(backend: Backend) -> list[Row]:
    client = backend.client("stepfunctions")
    found: list[Row] = []
    for status in ("RUNNING", None):
        more = {"statusFilter": status} if status else {}
        page = client.list_executions(
            stateMachineArn=_machine(backend), maxResults=MAX_EXECUTIONS, **more
        )
        names = {each["name"] for each in found}
        found += [each for each in page["executions"] if each["name"] not in names]
    return sorted(found, key=lambda each: each["startDate"].timestamp(), reverse=True)


def _shown(found: Mapping[str, Any], workspace: str | None, now: float) -> api.Execution:
    began = found["startDate"].timestamp()
    ended = found["stopDate"].timestamp() if found.get("stopDate") else None
    return api.Execution.model_validate({
        "name": found["name"],
        "status": found["status"],
        "started_at": iso_time(began),
        "ended_at": iso_time(ended) if ended is not None else None,
        "duration_seconds": round((ended or now) - began, 1),
        "workspace": workspace,
    })  # fmt: skip


def execution(backend: Backend, asked: api.ExecutionQuery) -> api.ExecutionDetail:
    """One execution: the flow as a graph, with what it has done and where it is."""
    client, machine, now = backend.client("stepfunctions"), _machine(backend), time.time()
    arn = f"{machine.replace(':stateMachine:', ':execution:')}:{asked.name}"
    try:
        found = client.describe_execution(executionArn=arn)
    except client.exceptions.ExecutionDoesNotExist:
        raise ProblemError(404, "NOT_FOUND", f"no execution {asked.name}") from None
    flow = json.loads(client.describe_state_machine(stateMachineArn=machine)["definition"])
    history: list[Row] = []
    token: Row = {}
    while len(history) < MAX_EVENTS:
        page = client.get_execution_history(executionArn=arn, maxResults=MAX_EVENTS, **token)
        history += page["events"]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    given = json.loads(found.get("input") or "{}")
    workspace = given.get("projectUserId") or "#".join(
        str(given.get(name, "")) for name in ("projectId", "userId")
    )
    shown = _shown(found, workspace.strip("#") or None, now)
    states = list(graph_of(flow, history, is_over=shown.ended_at is not None))
    events = list(_events(history))
    return api.ExecutionDetail(
        execution=shown,
        start=flow["StartAt"],
        states=states,
        events=events,
        summary=_summary(shown, states, found),
        input=_text(found.get("input")),
        output=_text(found.get("output")),
        error=found.get("error"),
        cause=found.get("cause"),
        is_complete=len(history) < MAX_EVENTS,
        now=iso_time(now),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:20_000]


def _next_of(state: Mapping[str, Any]) -> list[str]:
    """The states that may follow."""
    targets = [state.get("Next"), state.get("Default")]
    targets += [choice.get("Next") for choice in state.get("Choices", ())]
    targets += [catcher.get("Next") for catcher in state.get("Catch", ())]
    return list(dict.fromkeys(target for target in targets if target))


WAITS = {
    "SendToContainer": "A worker has the job, or its message waits for one: the execution waits"
    " for the result.",
    "WaitForHolder": "Another job holds the workspace: it waits some seconds, and tries again.",
    "WaitForInterval": "The workspace's last job began a short time ago: it waits until the next"
    " one may.",
}
"""What an execution does in the states in which it stays."""

ENDS = {
    "WorkspaceBusy": "It gave up: another job holds the workspace, and did not end in time.",
    "TimedOut": "Its worker was lost, or took longer than it may; the cause says which.",
    "ValidationError": "Its input was refused; the cause names the field.",
}
"""What the errors of the flow mean."""


def graph_of(
    flow: Mapping[str, Any], history: list[Row], *, is_over: bool
) -> Iterator[api.GraphState]:
    """The states of a flow, with what an execution's history says of each."""
    visits: dict[str, list[str]] = {}
    current, failed = None, None
    for event in history:
        if event["type"].endswith("StateEntered"):
            current = event["stateEnteredEventDetails"]["name"]
            at = iso_time(event["timestamp"].timestamp())
            visits.setdefault(current, []).append(at)
        elif event["type"].endswith("StateExited"):
            current = None
    if is_over:
        failed, current = current, None
    for name, state in flow["States"].items():
        entered = visits.get(name, [])
        yield api.GraphState(
            name=name,
            type=state["Type"],
            next=_next_of(state),
            is_end=bool(state.get("End")) or state["Type"] in {"Succeed", "Fail"},
            visits=len(entered),
            is_current=name == current,
            is_failed=name == failed,
            entered_at=entered[-1] if entered else None,
            comment=state.get("Comment"),
        )


def _events(history: list[Row]) -> Iterator[api.ExecutionEvent]:
    state = None
    for event in history:
        kind = event["type"]
        details: Row = next((v for k, v in event.items() if k.endswith("EventDetails")), {}) or {}
        if kind.endswith("StateEntered"):
            state = details.get("name")
        problem = any(word in kind for word in ("Failed", "TimedOut", "Aborted"))
        if problem or kind.endswith("StateEntered") or kind.startswith("Execution"):
            text = details.get("error"), details.get("cause")
            yield api.ExecutionEvent(
                at=iso_time(event["timestamp"].timestamp()),
                state=state,
                title=f"{state}" if kind.endswith("StateEntered") else kind,
                detail=": ".join(part for part in text if part)[:500] or None,
                is_problem=problem,
            )
        if kind.endswith("StateExited"):
            state = None


def _summary(shown: api.Execution, states: list[api.GraphState], found: Mapping[str, Any]) -> str:
    current = next((state for state in states if state.is_current), None)
    if current is not None:
        text = WAITS.get(current.name, f"It is in the state {current.name}.")
        times = f", entered {current.visits} times" if current.visits > 1 else ""
        since = f" Since {current.entered_at[11:19]} UTC{times}." if current.entered_at else ""
        return f"{text}{since}"
    if shown.status == "RUNNING":
        return "It runs between two states."
    if shown.status == "SUCCEEDED":
        outcome = json.loads(found.get("output") or "{}").get("outcome")
        return f"It ended: {outcome}." if outcome else "It ended."
    if (known := ENDS.get(found.get("error", ""))) is not None:
        return known
    failed = next((state.name for state in states if state.is_failed), None)
    place = f" in the state {failed}" if failed else ""
    return f"It ended as {shown.status}{place}: {found.get('error') or 'no error was given'}."


def release(backend: Backend, asked: api.ClaimAction) -> api.Done:
    """Free a workspace, if the claim is still the one that was shown."""
    answer = backend.invoke("claim", {
        "operation": "release",
        **_workspace(asked),
        "claimId": asked.claim_id,
        "fence": asked.fence,
        "reason": f"{asked.reason} ({backend.operator})"[:2048],
    })  # fmt: skip
    name = f"{asked.project}#{asked.user}"
    if not answer["released"]:
        text = f"the claim of {name} was not released: it is {answer['reason']}; load again"
        raise ProblemError(409, "CONFLICT", text)
    again = " before" if answer["repeated"] else ""
    return api.Done(message=f"The claim of {name} was released{again}.")


def interrupt(backend: Backend, asked: api.ClaimAction) -> api.Done:
    """Ask the worker of a claim to stop, for the next message of another thread."""
    answer = backend.invoke("send-interrupt", {
        **_workspace(asked),
        "target": {"claimId": asked.claim_id, "fence": asked.fence},
        "newThreadId": "operator",
        "interruptingMessageId": f"operator-{int(time.time())}",
        "reason": f"{asked.reason} ({backend.operator})"[:1024],
    })  # fmt: skip
    if not answer["sent"]:
        raise ProblemError(409, "CONFLICT", f"nothing was sent: the claim is {answer['reason']}")
    return api.Done(
        message=f"The worker of {asked.project}#{asked.user} was asked to stop; it answers within"
        " seconds, if it runs. If it does not, release the claim."
    )


def _workspace(asked: api.ClaimAction) -> dict[str, str]:
    return {"projectId": asked.project, "userId": asked.user}
