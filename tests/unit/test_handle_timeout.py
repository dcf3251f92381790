"""handle-timeout: one record, one dead letter, one released claim, even if interrupted."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from jobplane_keys import (
    TLS_ONLY_POLICY,
    ValidationError,
    Workspace,
    dead_letter_id,
    dead_letter_queue_name,
    record_id,
)
from tests.unit.claims import (
    HOSTILE_IDS,
    NOW,
    STEPS,
    WORKSPACE,
    CrashError,
    Jobs,
    crash,
    holding,
    iso,
    nested,
    status_change,
)
from tests.unit.stack import PREFIX, Context, Output

EXECUTION = "arn:aws:states:eu-west-1:123456789012:execution:job-flow:abc"
OTHER_EXECUTION = EXECUTION.replace("abc", "def")
DAY = 24 * 3600
type Json = dict[str, Any]
NOTHING = {
    "released": False, "superseded": False, "recorded": False, "duplicate": False,
    "recordId": None, "dlqMessageId": None,
}  # fmt: skip


@pytest.fixture
def claim(jobs: Jobs) -> dict[str, Any]:
    """A claim of the execution."""
    return jobs.hold(owner=EXECUTION)


def timeout_of(claim: Json, **event: Any) -> dict[str, Any]:
    """The flow's event for a job that timed out."""
    return {
        **holding(claim), "messageId": "message-1", "threadId": "thread-1", "kind": "timeout",
        "error": "States.Timeout", "cause": "too long", "executionArn": EXECUTION,
    } | event  # fmt: skip


def handle(jobs: Jobs, event: dict[str, Any]) -> dict[str, Any]:
    return jobs.call("handle-timeout", **event)


def break_off(jobs: Jobs, event: Json, step: str, *, after: bool = False) -> None:
    """A run that ends before a step, or after it with its answer lost."""
    with crash(jobs.function("handle-timeout"), step, after=after), pytest.raises(CrashError):
        handle(jobs, event)


def ended(status: str = "FAILED", **detail: Any) -> dict[str, Any]:
    """The rule's event for the execution of message-1."""
    given = {"projectId": "amelia", "userId": "scott", "messageId": "message-1"}
    return status_change(EXECUTION, status, given, **detail)


def test_a_timed_out_job_is_recorded_released_and_dead_lettered(jobs: Jobs, claim: Json) -> None:
    jobs.clock.advance(60)
    event = timeout_of(claim)
    answer = handle(jobs, event)
    assert answer.pop("dlqMessageId")
    assert answer == {
        "released": True, "superseded": False, "recorded": True, "duplicate": False,
        "recordId": record_id("timeout", claim["claimId"], None, WORKSPACE),
    }  # fmt: skip
    (record,) = jobs.records()
    assert record.pop("dlqMessageId")
    assert record.pop("write_id")
    assert record == {
        "messageId": "message-1", "recordId": answer["recordId"], "projectUserId": WORKSPACE,
        "kind": "timeout", "interruptedClaimId": claim["claimId"], "fence": claim["fence"],
        "threadId": "thread-1", "executionArn": EXECUTION, "error": "States.Timeout",
        "cause": "too long", "timestamp": iso(60), "ttl": int(NOW) + 60 + 30 * DAY,
    }  # fmt: skip
    row = jobs.row()
    assert (row["state"], row["fence"]) == ("free", claim["fence"])
    assert row["lastReleased"] == {"claimId": claim["claimId"], "at": iso(60), "reason": "timeout"}
    assert "claimId" not in row
    assert jobs.letters() == [
        {
            "type": "JOB_TIMEOUT",
            "deadLetterId": dead_letter_id("timeout", WORKSPACE, "message-1", claim["claimId"]),
            "projectUserId": WORKSPACE, "messageId": "message-1", "threadId": "thread-1",
            "claimId": claim["claimId"], "fence": claim["fence"], "kind": "timeout",
            "error": "States.Timeout", "cause": "too long", "executionArn": EXECUTION,
            "timestamp": iso(60), "repeated": False,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["timeout", "heartbeat_lost", "forced"])
def test_record_row_dead_letter_and_metric_have_the_kind(
    jobs: Jobs, claim: Json, output: Output, kind: str
) -> None:
    """The metric counts the job once."""
    for _ in range(2):
        handle(jobs, timeout_of(claim, kind=kind))
    assert jobs.records()[0]["kind"] == kind
    assert jobs.row()["lastReleased"]["reason"] == kind
    assert jobs.letters()[0]["kind"] == kind
    assert [metric["Kind"] for metric in output.metric("JobTimedOut")] == [kind]
    line = output.logged("job timed out")[0]
    names = ("project_user_id", "message_id", "claim_id")
    assert [line[name] for name in names] == [WORKSPACE, "message-1", claim["claimId"]]


def test_a_repetition_changes_nothing(jobs: Jobs, claim: Json) -> None:
    """Its answer has the same ids; nothing is sent, even after SQS has forgotten the first."""
    event = timeout_of(claim)
    first = handle(jobs, event)
    before = jobs.records(), jobs.row()["lastReleased"], jobs.row()["fence"]
    jobs.clock.advance(600)
    calls = jobs.stack.calls(jobs.function("handle-timeout").sqs)
    assert handle(jobs, event) == first | {"duplicate": True}
    assert (jobs.records(), jobs.row()["lastReleased"], jobs.row()["fence"]) == before
    assert calls == []
    assert len(jobs.letters()) == 1


@pytest.mark.parametrize("after", [False, True], ids=["call not made", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("taken_over", [False, True], ids=["", "taken over"])
def test_an_interrupted_run_is_completed_by_the_next(
    jobs: Jobs, claim: Json, step: str, after: bool, taken_over: bool
) -> None:
    """Interrupted around any call: one record, one dead letter, one released claim."""
    event = timeout_of(claim)
    if taken_over:
        jobs.clock.now = claim["expiresAt"] + 2
        jobs.hold(threadId="thread-2", messageId="message-2")
    row = jobs.row()
    break_off(jobs, event, step, after=after)
    jobs.clock.advance(30)
    answer = handle(jobs, event)
    assert (answer["released"], answer["superseded"]) == (not taken_over, taken_over)
    (record,) = jobs.records()
    assert record["dlqMessageId"] == answer["dlqMessageId"]
    (letter,) = jobs.letters()
    assert letter["timestamp"] == record["timestamp"]
    if taken_over:
        assert jobs.row() == row
    else:
        assert jobs.row()["state"] == "free"
        assert jobs.row()["lastReleased"]["claimId"] == claim["claimId"]


@pytest.mark.parametrize(
    ("step", "seconds", "repeated"),
    [("letter", 30, False), ("letter", 301, True), ("mark", 301, True), ("release", 301, True)],
)
def test_a_dead_letter_sent_after_five_minutes_is_marked_as_possible_repetition(
    jobs: Jobs, claim: Json, step: str, seconds: int, repeated: bool
) -> None:
    """SQS drops repetitions only for so long."""
    event = timeout_of(claim)
    break_off(jobs, event, step)
    jobs.clock.advance(seconds)
    calls = jobs.stack.calls(jobs.function("handle-timeout").sqs)
    handle(jobs, event)
    (sent,) = calls.of("SendMessage")
    letter = json.loads(sent["MessageBody"])
    assert letter["repeated"] is repeated
    assert letter["deadLetterId"] == sent["MessageDeduplicationId"]


@pytest.mark.parametrize("after", [False, True], ids=["call not made", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
def test_the_rules_event_completes_an_interrupted_clean_up(
    jobs: Jobs, claim: Json, step: str, after: bool
) -> None:
    """After the flow has given up; nothing is made twice."""
    break_off(jobs, timeout_of(claim), step, after=after)
    answer = handle(jobs, ended(error="Lambda.Unknown"))
    (record,) = jobs.records()
    (letter,) = jobs.letters()
    assert record["kind"] == letter["kind"]
    assert record["dlqMessageId"]
    assert jobs.row()["state"] == "free"
    if record["kind"] == "timeout":
        assert letter["error"] == "States.Timeout"
    if (step, after) != ("mark", True):
        assert answer["dlqMessageId"] == record["dlqMessageId"]
    # The rule's events may come twice.
    assert handle(jobs, ended()) == NOTHING
    assert (len(jobs.records()), jobs.letters()) == (1, [])


def test_an_expired_record_is_not_created_again(jobs: Jobs, claim: Json) -> None:
    """A mark without its record would have no time to live."""
    module = jobs.function("handle-timeout")
    timeout = module.Timeout.of(timeout_of(claim))
    with pytest.raises(module.RecordGoneError):
        module.mark_done(timeout, "letter-1")
    assert jobs.records() == []


@pytest.mark.parametrize(
    ("operation", "expression"),
    [("PutItem", "messageId"), ("UpdateItem", "lastReleased"), ("UpdateItem", "dlqMessageId")],
)
def test_a_clean_up_whose_answer_is_lost(
    jobs: Jobs, claim: Json, operation: str, expression: str
) -> None:
    """It is as one whose answers all arrived: one record, one release, one letter."""
    lost = jobs.stack.lose_answer(
        jobs.function("handle-timeout").dynamodb, operation, when=lambda body: expression in body
    )
    answer = handle(jobs, timeout_of(claim))
    assert lost[operation] == 1
    assert (answer["released"], answer["duplicate"]) == (True, False)
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


@pytest.mark.parametrize("is_newer", [True, False], ids=["newer claim", "other fence"])
def test_a_claim_with_another_fence_is_not_released(
    jobs: Jobs, claim: Json, is_newer: bool
) -> None:
    event = timeout_of(claim, fence=claim["fence"] + (not is_newer))
    if is_newer:
        jobs.clock.now = claim["expiresAt"] + 2
        jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()
    answer = handle(jobs, event)
    assert (answer["released"], answer["superseded"], answer["recorded"]) == (False, True, True)
    assert jobs.row() == before
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_a_claim_that_expired_or_was_released_before_is_success(jobs: Jobs, claim: Json) -> None:
    """Also with a successor."""
    jobs.clock.now = claim["expiresAt"] + DAY
    assert handle(jobs, timeout_of(claim))["released"] is True
    claim = jobs.hold(owner=EXECUTION)
    jobs.let_go(claim)
    assert handle(jobs, timeout_of(claim))["released"] is True
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()
    assert handle(jobs, timeout_of(claim, kind="forced"))["released"] is True
    assert jobs.row() == before


def test_no_row_is_created_for_a_deleted_claim(jobs: Jobs) -> None:
    answer = handle(jobs, timeout_of({"claimId": "claim-1", "fence": 1}))
    assert (answer["released"], answer["superseded"]) == (True, False)
    assert jobs.row() == {}
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_a_job_without_a_claim_is_recorded_and_dead_lettered(jobs: Jobs) -> None:
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()
    event = {"projectUserId": WORKSPACE, "messageId": "message-1", "kind": "timeout"}
    answer = handle(jobs, event)
    assert (answer["released"], answer["superseded"], answer["recorded"]) == (False, False, True)
    assert answer["recordId"] == record_id("timeout", None, None, WORKSPACE)
    assert jobs.row() == before
    (letter,) = jobs.letters()
    assert (letter["claimId"], letter["threadId"], letter["executionArn"]) == (None, None, None)
    assert handle(jobs, event)["duplicate"] is True
    assert (len(jobs.records()), jobs.letters()) == (1, [])


def test_workspaces_with_equal_message_ids_have_a_dead_letter_each(jobs: Jobs) -> None:
    for workspace in (WORKSPACE, "amelia#taylor"):
        event = {"projectUserId": workspace, "messageId": "message-1", "kind": "timeout"}
        assert handle(jobs, event)["duplicate"] is False
    assert {letter["projectUserId"] for letter in jobs.letters()} == {WORKSPACE, "amelia#taylor"}


def test_a_record_of_an_older_version_is_finished_under_its_own_id(jobs: Jobs, claim: Json) -> None:
    break_off(jobs, timeout_of(claim), "letter")
    (record,) = jobs.records()
    table, older = f"{PREFIX}interruptions", record | {"recordId": "timeout#older"}
    jobs.stack.dynamodb.delete_item(
        TableName=table,
        Key={name: {"S": record[name]} for name in ("messageId", "recordId")},
    )
    jobs.stack.put("interruptions", older)
    handle(jobs, ended())
    (finished,) = jobs.records()
    assert (finished["recordId"], "dlqMessageId" in finished) == ("timeout#older", True)


def test_the_order_is_record_release_dead_letter_mark(jobs: Jobs, claim: Json) -> None:
    module = jobs.function("handle-timeout")
    calls = jobs.stack.calls(module.dynamodb, module.sqs)
    handle(jobs, timeout_of(claim))
    assert [name for name, _ in calls] == ["PutItem", "UpdateItem", "SendMessage", "UpdateItem"]
    (letter,) = calls.of("SendMessage")
    fixed = dead_letter_id("timeout", WORKSPACE, "message-1", claim["claimId"])
    assert letter["MessageDeduplicationId"] == letter["MessageGroupId"] == fixed


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("x" * 5000, "x" * 4096),
        ({"why": "because"}, '{"why": "because"}'),
        (float("nan"), "NaN"),
        ("half \ud800", "half ?"),
        (7, "7"),
        (nested(50_000), "(nested too deeply)"),
    ],
    ids=lambda value: str(value)[:9] if isinstance(value, str) else "",
)
def test_error_and_cause_are_cut_to_short_texts(
    jobs: Jobs, claim: Json, given: Any, stored: str
) -> None:
    handle(jobs, timeout_of(claim, error=given, cause=given))
    (record,) = jobs.records()
    (letter,) = jobs.letters()
    assert record["error"] == record["cause"] == letter["error"] == letter["cause"] == stored


def test_DLQ_PER_WORKSPACE_sends_to_the_workspaces_own_queue(jobs: Jobs, claim: Json) -> None:
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    name = dead_letter_queue_name(PREFIX, Workspace("amelia", "scott"))
    for kind in ("timeout", "forced"):
        module.handler(timeout_of(claim, kind=kind), Context())
    url = jobs.stack.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    attributes = jobs.stack.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    assert attributes["Attributes"]["FifoQueue"] == "true"
    assert json.loads(attributes["Attributes"]["Policy"]) == json.loads(TLS_ONLY_POLICY)
    assert attributes["Attributes"]["MessageRetentionPeriod"] == str(14 * DAY)
    assert jobs.letters() == []
    letters = jobs.letters(name.removeprefix(PREFIX))
    assert sorted(letter["kind"] for letter in letters) == ["forced", "timeout"]


def test_a_new_queue_of_a_workspace_is_used_after_one_second(jobs: Jobs, claim: Json) -> None:
    """SQS may refuse messages before."""
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    with jobs.new_queues_refused(module):
        assert module.handler(timeout_of(claim), Context())["dlqMessageId"]


def test_an_existing_queue_with_other_attributes_is_used(jobs: Jobs, claim: Json) -> None:
    name = dead_letter_queue_name(PREFIX, Workspace("amelia", "scott"))
    attributes = {"FifoQueue": "true", "MessageRetentionPeriod": "3600"}
    jobs.stack.sqs.create_queue(QueueName=name, Attributes=attributes)
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    module.handler(timeout_of(claim), Context())
    assert len(jobs.letters(name.removeprefix(PREFIX))) == 1


def test_a_queue_is_created_only_if_it_is_missing(jobs: Jobs, claim: Json) -> None:
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    jobs.stack.fail(module.sqs, "GetQueueUrl", "AccessDenied", status=403)
    calls = jobs.stack.calls(module.sqs)
    with pytest.raises(ClientError, match="AccessDenied"):
        module.handler(timeout_of(claim), Context())
    assert "CreateQueue" not in calls.counts()


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [("FAILED", "Boom", "forced"), ("TIMED_OUT", "Boom", "timeout"), ("ABORTED", None, "forced")],
)
def test_a_claim_of_an_ended_execution_is_recorded_released_and_dead_lettered(
    jobs: Jobs, claim: Json, status: str, error: str | None, kind: str
) -> None:
    """Without an error the status is recorded."""
    answer = handle(jobs, ended(status, error=error, cause="it broke"))
    assert (answer["released"], answer["recorded"]) == (True, True)
    (record,) = jobs.records()
    assert (record["kind"], record["cause"]) == (kind, "it broke")
    assert record["error"] == (error or status)
    assert (record["interruptedClaimId"], record["threadId"]) == (claim["claimId"], "thread-1")
    assert jobs.row()["state"] == "free"
    (letter,) = jobs.letters()
    assert (letter["claimId"], letter["executionArn"]) == (claim["claimId"], EXECUTION)


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "PENDING_REDRIVE", ""])
def test_events_of_running_executions_are_ignored(jobs: Jobs, claim: Json, status: str) -> None:
    assert handle(jobs, ended(status)) == NOTHING
    assert jobs.row()["state"] == "held"


@pytest.mark.parametrize("before", ["nothing", "released", "of another", "older"])
def test_nothing_is_done_for_an_execution_without_a_claim(
    jobs: Jobs, before: str, output: Output
) -> None:
    if before == "released":
        jobs.let_go(jobs.hold(owner=EXECUTION))
    elif before == "of another":
        jobs.hold(owner=OTHER_EXECUTION)
    elif before == "older":
        jobs.put(threadId="thread-1", ttl=int(NOW) + 60)
    row = jobs.row()
    assert handle(jobs, ended()) == NOTHING
    assert (jobs.row(), jobs.records(), jobs.letters()) == (row, [], [])
    assert output.logged("execution left nothing behind")


def test_records_of_other_executions_stay_as_they_are(jobs: Jobs, claim: Json) -> None:
    jobs.call("record-interruption", projectUserId=WORKSPACE, messageId="message-1")
    break_off(jobs, timeout_of(claim, executionArn=OTHER_EXECUTION), "letter")
    before = jobs.records()
    assert handle(jobs, ended()) == NOTHING
    assert jobs.records() == before


@pytest.mark.parametrize(
    "given",
    [None, "", "{", "null", "[]", '"text"', "7", "{}", "[" * 100_000, '{"projectUserId": 7}',
     '{"projectUserId": "amelia#scott"}', '{"projectUserId": "amelia#scott", "messageId": "a/b"}'],
)  # fmt: skip
def test_the_claim_of_an_execution_with_malformed_input_is_found_by_owner(
    jobs: Jobs, claim: Json, given: Any, output: Output
) -> None:
    """Another execution's claim is not touched."""
    other = ended(input=given)
    other["detail"]["executionArn"] = OTHER_EXECUTION
    assert handle(jobs, other) == NOTHING
    assert jobs.row()["state"] == "held"
    assert handle(jobs, ended(input=given))["released"]
    assert jobs.row()["state"] == "free"
    assert output.logged("execution had no usable input")


def test_a_clean_up_works_without_the_input(jobs: Jobs, claim: Json) -> None:
    """EventBridge omits a large one."""
    event = ended()
    del event["detail"]["input"]
    answer = handle(jobs, event)
    assert (answer["released"], answer["recorded"]) == (True, True)
    (record,), (letter,) = jobs.records(), jobs.letters()
    assert record["messageId"] == letter["messageId"] == "message-1"
    assert letter["claimId"] == claim["claimId"]
    assert handle(jobs, event) == NOTHING


@pytest.mark.parametrize("step", ["release", "letter", "mark"])
def test_an_interrupted_clean_up_is_found_without_the_input(
    jobs: Jobs, claim: Json, step: str
) -> None:
    """By the row while the claim is held, then by the cause: it names workspace and message."""
    break_off(jobs, timeout_of(claim), step)
    named = {"cause": "Broken", "messageId": "message-1", "projectUserId": WORKSPACE}
    answer = handle(jobs, ended(input=None, cause=None if step == "release" else json.dumps(named)))
    assert answer["duplicate"]
    assert jobs.row()["state"] == "free"
    assert "dlqMessageId" in jobs.records()[0]
    assert [letter["kind"] for letter in jobs.letters()] == ["timeout"]


@pytest.mark.parametrize(
    "cause", ["it broke", "{}", '{"errorMessage":"e"}', "[" * 100_000, None, 7]
)
def test_a_cause_without_a_message_falls_back_to_the_owner(
    jobs: Jobs, claim: Json, cause: Any
) -> None:
    assert handle(jobs, ended(input=None, cause=cause))["released"]


@pytest.mark.parametrize("given", [None, '{"projectUserId":"amelia#scott","messageId":"m"}'])
@pytest.mark.parametrize("row", [{}, {"state": "held"}])
def test_a_claim_of_an_older_writer_is_released_by_owner(
    jobs: Jobs, given: str | None, row: dict[str, Any]
) -> None:
    """Record and dead letter omit id and fence."""
    jobs.put(owner=EXECUTION, messageId="m", threadId="t", ttl=NOW + DAY, claimedAt=NOW, **row)
    answer = handle(jobs, ended(input=given))
    assert (answer["released"], answer["recorded"]) == (True, True)
    assert jobs.row()["state"] == "free"
    assert "owner" not in jobs.row()
    assert jobs.letters()[0]["claimId"] is None


@pytest.mark.parametrize(
    "detail",
    [
        None, [], "FAILED", {}, {"status": "FAILED"}, {"executionArn": "arn:aws:states:x"},
        {"status": {}, "executionArn": "arn:aws:states:x"},
        {"status": "FAILED", "executionArn": 7}, {"status": "FAILED", "executionArn": "a\ud800"},
    ],
)  # fmt: skip
def test_an_event_of_the_rule_without_arn_and_status_is_refused(jobs: Jobs, detail: Any) -> None:
    event = status_change(EXECUTION, "FAILED", {}) | {"detail": detail}
    with pytest.raises(ValidationError, match="^detail: "):
        handle(jobs, event)
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"messageId": value}, "messageId") for value in HOSTILE_IDS),
        *(({"kind": value}, "kind") for value in (None, "interruption", ["timeout"])),
        *(({"fence": value}, "fence") for value in (None, "1")),
        ({"claimId": "a/b"}, "claimId"),
        ({"threadId": "a#b"}, "threadId"),
        ({"projectUserId": "amelia"}, "projectUserId"),
        ({"projectUserId": None}, "projectId"),
        ({"userId": "other"}, "userId"),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        handle(jobs, timeout_of({"claimId": "claim-1", "fence": 1}, **change))
    assert refused.value.field == field
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize(
    ("client", "operation"),
    [("dynamodb", "PutItem"), ("dynamodb", "UpdateItem"), ("sqs", "SendMessage")],
)
def test_an_error_of_a_service_is_raised(
    jobs: Jobs, claim: Json, client: str, operation: str
) -> None:
    """The flow tries again."""
    module = jobs.function("handle-timeout")
    failed = jobs.stack.fail(getattr(module, client), operation, "ThrottlingException")
    with pytest.raises(Exception, match="ThrottlingException"):
        handle(jobs, timeout_of(claim))
    assert failed[operation] >= 1


@pytest.mark.parametrize("variable", ["ACTIVE_JOBS_TABLE", "INTERRUPTIONS_TABLE", "DLQ_URL"])
def test_a_missing_variable_stops_the_container_and_is_named(jobs: Jobs, variable: str) -> None:
    with pytest.raises(KeyError, match=variable):
        jobs.function("handle-timeout", **{variable: None})
