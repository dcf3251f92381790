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
    status_change,
)
from tests.unit.stack import PREFIX, Context, Output, Stack

EXECUTION = "arn:aws:states:eu-west-1:123456789012:execution:job-flow:abc"
OTHER_EXECUTION = EXECUTION.replace("abc", "def")
DAY = 24 * 3600
NOTHING = {
    "released": False,
    "superseded": False,
    "recorded": False,
    "duplicate": False,
    "recordId": None,
    "dlqMessageId": None,
}


@pytest.fixture
def jobs(stack: Stack) -> Jobs:
    return Jobs(stack)


@pytest.fixture
def claim(jobs: Jobs) -> dict[str, Any]:
    """A claim of the execution."""
    return jobs.hold(owner=EXECUTION)


def timeout_of(claim: dict[str, Any], **event: Any) -> dict[str, Any]:
    """The flow's event for a job that timed out."""
    return {
        **holding(claim),
        "messageId": "message-1",
        "threadId": "thread-1",
        "kind": "timeout",
        "error": "States.Timeout",
        "cause": "too long",
        "executionArn": EXECUTION,
    } | event


def handle(jobs: Jobs, event: dict[str, Any]) -> dict[str, Any]:
    return jobs.call("handle-timeout", **event)


def ended(status: str = "FAILED", **detail: Any) -> dict[str, Any]:
    """The rule's event for the execution of message-1."""
    given = {"projectId": "amelia", "userId": "scott", "messageId": "message-1"}
    return status_change(EXECUTION, status, given, **detail)


def test_a_timed_out_job_is_recorded_released_and_dead_lettered(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """All with the same ids."""
    jobs.clock.advance(60)
    event = timeout_of(claim)

    answer = handle(jobs, event)

    assert answer.pop("dlqMessageId")
    assert answer == {
        "released": True,
        "superseded": False,
        "recorded": True,
        "duplicate": False,
        "recordId": record_id("timeout", claim["claimId"], None),
    }
    (record,) = jobs.records()
    assert record.pop("dlqMessageId")
    assert record.pop("write_id")
    assert record == {
        "messageId": "message-1",
        "recordId": answer["recordId"],
        "projectUserId": WORKSPACE,
        "kind": "timeout",
        "interruptedClaimId": claim["claimId"],
        "fence": claim["fence"],
        "threadId": "thread-1",
        "executionArn": EXECUTION,
        "error": "States.Timeout",
        "cause": "too long",
        "timestamp": iso(60),
        "ttl": int(NOW) + 60 + 30 * DAY,
    }
    row = jobs.row()
    assert (row["state"], row["fence"]) == ("free", claim["fence"])
    assert row["lastReleased"] == {"claimId": claim["claimId"], "at": iso(60), "reason": "timeout"}
    assert "claimId" not in row
    assert jobs.letters() == [
        {
            "type": "JOB_TIMEOUT",
            "deadLetterId": dead_letter_id("timeout", WORKSPACE, "message-1", claim["claimId"]),
            "projectUserId": WORKSPACE,
            "messageId": "message-1",
            "threadId": "thread-1",
            "claimId": claim["claimId"],
            "fence": claim["fence"],
            "kind": "timeout",
            "error": "States.Timeout",
            "cause": "too long",
            "executionArn": EXECUTION,
            "timestamp": iso(60),
            "repeated": False,
        }
    ]


@pytest.mark.parametrize("kind", ["timeout", "heartbeat_lost", "forced"])
def test_record_row_and_dead_letter_have_the_kind(
    jobs: Jobs, claim: dict[str, Any], kind: str
) -> None:
    handle(jobs, timeout_of(claim, kind=kind))
    assert jobs.records()[0]["kind"] == kind
    assert jobs.row()["lastReleased"]["reason"] == kind
    assert jobs.letters()[0]["kind"] == kind


def test_a_repetition_changes_nothing(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Its answer has the same ids."""
    event = timeout_of(claim)
    first = handle(jobs, event)
    before = jobs.records(), jobs.row()["lastReleased"], jobs.row()["fence"]
    jobs.clock.advance(600)

    assert handle(jobs, event) == first | {"duplicate": True}
    assert (jobs.records(), jobs.row()["lastReleased"], jobs.row()["fence"]) == before
    assert len(jobs.letters()) == 1


def test_a_finished_clean_up_is_not_sent_again(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Even after SQS has forgotten the first message."""
    event = timeout_of(claim)
    handle(jobs, event)
    calls = jobs.stack.calls(jobs.function("handle-timeout").sqs)
    handle(jobs, event)
    assert calls == []


@pytest.mark.parametrize("after", [False, True], ids=["call not made", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("taken_over", [False, True], ids=["", "taken over"])
def test_an_interrupted_run_is_completed_by_the_next(
    jobs: Jobs, claim: dict[str, Any], step: str, after: bool, taken_over: bool
) -> None:
    """Interrupted around any call: one record, one dead letter, one released claim."""
    event = timeout_of(claim)
    module = jobs.function("handle-timeout")
    newer: dict[str, Any] = {}
    if taken_over:
        jobs.clock.now = claim["expiresAt"] + 2
        newer = jobs.hold(threadId="thread-2", messageId="message-2")
    row = jobs.row()

    with crash(module, step, after=after), pytest.raises(CrashError):
        handle(jobs, event)
    jobs.clock.advance(30)
    answer = handle(jobs, event)

    assert (answer["released"], answer["superseded"]) == (not taken_over, taken_over)
    (record,) = jobs.records()
    assert record["dlqMessageId"] == answer["dlqMessageId"]
    (letter,) = jobs.letters()
    assert letter["timestamp"] == record["timestamp"]
    if taken_over:
        assert jobs.row() == row
        assert jobs.row()["claimId"] == newer["claimId"]
    else:
        assert jobs.row()["state"] == "free"
        assert jobs.row()["lastReleased"]["claimId"] == claim["claimId"]


@pytest.mark.parametrize(
    ("step", "seconds", "repeated"),
    [("letter", 30, False), ("letter", 301, True), ("mark", 301, True), ("release", 301, True)],
)
def test_a_dead_letter_sent_after_five_minutes_is_marked_as_possible_repetition(
    jobs: Jobs, claim: dict[str, Any], step: str, seconds: int, repeated: bool
) -> None:
    """SQS drops repetitions only for so long."""
    module = jobs.function("handle-timeout")
    event = timeout_of(claim)
    with crash(module, step, after=False), pytest.raises(CrashError):
        handle(jobs, event)
    jobs.clock.advance(seconds)
    calls = jobs.stack.calls(module.sqs)
    handle(jobs, event)

    (sent,) = calls.of("SendMessage")
    letter = json.loads(sent["MessageBody"])
    assert letter["repeated"] is repeated
    assert letter["deadLetterId"] == sent["MessageDeduplicationId"]


@pytest.mark.parametrize("after", [False, True], ids=["call not made", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
def test_the_rules_event_completes_an_interrupted_clean_up(
    jobs: Jobs, claim: dict[str, Any], step: str, after: bool
) -> None:
    """After the flow has given up; nothing is made twice."""
    module = jobs.function("handle-timeout")
    with crash(module, step, after=after), pytest.raises(CrashError):
        handle(jobs, timeout_of(claim))

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


def test_an_expired_record_is_not_created_again(jobs: Jobs, claim: dict[str, Any]) -> None:
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
    jobs: Jobs, claim: dict[str, Any], operation: str, expression: str
) -> None:
    """It is as one whose answers all arrived: one record, one release, one letter."""
    lost = jobs.stack.lose_answer(
        jobs.function("handle-timeout").dynamodb, operation, when=lambda body: expression in body
    )
    answer = handle(jobs, timeout_of(claim))
    assert lost[operation] == 1
    assert (answer["released"], answer["duplicate"]) == (True, False)
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_a_newer_claim_is_not_released(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Record and dead letter are made."""
    jobs.clock.now = claim["expiresAt"] + 2
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()

    answer = handle(jobs, timeout_of(claim))

    assert (answer["released"], answer["superseded"], answer["recorded"]) == (False, True, True)
    assert jobs.row() == before
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_a_claim_released_before_is_success(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Also with a successor."""
    jobs.let_go(claim)
    assert handle(jobs, timeout_of(claim))["released"] is True
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()
    assert handle(jobs, timeout_of(claim, kind="forced"))["released"] is True
    assert jobs.row() == before


def test_an_expired_claim_is_released(jobs: Jobs, claim: dict[str, Any]) -> None:
    jobs.clock.now = claim["expiresAt"] + DAY
    assert handle(jobs, timeout_of(claim))["released"] is True


def test_no_row_is_created_for_a_deleted_claim(jobs: Jobs) -> None:
    """Record and dead letter are made."""
    answer = handle(jobs, timeout_of({"claimId": "claim-1", "fence": 1}))
    assert (answer["released"], answer["superseded"]) == (True, False)
    assert jobs.row() == {}
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_a_job_without_a_claim_is_recorded_and_dead_lettered(jobs: Jobs) -> None:
    """No claim is touched."""
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()
    event = {"projectUserId": WORKSPACE, "messageId": "message-1", "kind": "timeout"}

    answer = handle(jobs, event)

    assert (answer["released"], answer["superseded"], answer["recorded"]) == (False, False, True)
    assert answer["recordId"] == record_id("timeout", None, None)
    assert jobs.row() == before
    (letter,) = jobs.letters()
    assert (letter["claimId"], letter["threadId"], letter["executionArn"]) == (None, None, None)
    assert handle(jobs, event)["duplicate"] is True
    assert (len(jobs.records()), jobs.letters()) == (1, [])


def test_a_claim_with_another_fence_is_not_released(jobs: Jobs, claim: dict[str, Any]) -> None:
    answer = handle(jobs, timeout_of(claim, fence=claim["fence"] + 1))
    assert (answer["released"], answer["superseded"]) == (False, True)
    assert jobs.row()["state"] == "held"


def test_the_order_is_record_release_dead_letter_mark(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Without reads."""
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
    ],
)
def test_error_and_cause_are_cut_to_short_texts(
    jobs: Jobs, claim: dict[str, Any], given: Any, stored: str
) -> None:
    """In the record and in the dead letter."""
    handle(jobs, timeout_of(claim, error=given, cause=given))
    (record,) = jobs.records()
    (letter,) = jobs.letters()
    assert record["error"] == record["cause"] == letter["error"] == letter["cause"] == stored


def test_a_cause_nested_too_deeply_is_replaced_by_a_note(jobs: Jobs, claim: dict[str, Any]) -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    handle(jobs, timeout_of(claim, cause=deep))
    (record,) = jobs.records()
    assert record["cause"] == "(nested too deeply)"


def test_DLQ_PER_WORKSPACE_sends_to_the_workspaces_own_queue(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """The queue is created if it is missing."""
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


def test_a_new_queue_of_a_workspace_is_used_after_one_second(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """SQS may refuse messages before."""
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    with jobs.new_queues_refused(module):
        assert module.handler(timeout_of(claim), Context())["dlqMessageId"]


def test_an_existing_queue_with_other_attributes_is_used(jobs: Jobs, claim: dict[str, Any]) -> None:
    name = dead_letter_queue_name(PREFIX, Workspace("amelia", "scott"))
    jobs.stack.sqs.create_queue(
        QueueName=name, Attributes={"FifoQueue": "true", "MessageRetentionPeriod": "3600"}
    )
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    module.handler(timeout_of(claim), Context())
    assert len(jobs.letters(name.removeprefix(PREFIX))) == 1


def test_a_queue_is_created_only_if_it_is_missing(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Not after another error of the look-up."""
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    jobs.stack.fail(module.sqs, "GetQueueUrl", "AccessDenied", status=403)
    calls = jobs.stack.calls(module.sqs)
    with pytest.raises(ClientError, match="AccessDenied"):
        module.handler(timeout_of(claim), Context())
    assert "CreateQueue" not in calls.counts()


@pytest.mark.parametrize(
    ("status", "kind"), [("FAILED", "forced"), ("TIMED_OUT", "timeout"), ("ABORTED", "forced")]
)
def test_a_claim_of_an_ended_execution_is_recorded_released_and_dead_lettered(
    jobs: Jobs, claim: dict[str, Any], status: str, kind: str
) -> None:
    answer = handle(jobs, ended(status, error="Boom", cause="it broke"))

    assert (answer["released"], answer["recorded"]) == (True, True)
    (record,) = jobs.records()
    assert (record["kind"], record["error"], record["cause"]) == (kind, "Boom", "it broke")
    assert (record["interruptedClaimId"], record["threadId"]) == (claim["claimId"], "thread-1")
    assert jobs.row()["state"] == "free"
    (letter,) = jobs.letters()
    assert (letter["claimId"], letter["executionArn"]) == (claim["claimId"], EXECUTION)


def test_an_execution_without_an_error_is_recorded_with_its_status(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """Such as ABORTED."""
    handle(jobs, ended("ABORTED"))
    assert jobs.records()[0]["error"] == "ABORTED"


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "PENDING_REDRIVE", ""])
def test_events_of_running_executions_are_ignored(
    jobs: Jobs, claim: dict[str, Any], status: str
) -> None:
    assert handle(jobs, ended(status)) == NOTHING
    assert jobs.row()["state"] == "held"


@pytest.mark.parametrize("before", ["nothing", "released", "of another", "older"])
def test_nothing_is_done_for_an_execution_without_a_claim(
    jobs: Jobs, before: str, output: Output
) -> None:
    """No row, a released one, another execution's, an older writer's."""
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


def test_records_of_other_executions_stay_as_they_are(jobs: Jobs, claim: dict[str, Any]) -> None:
    """An interruption, and an unfinished clean-up."""
    jobs.call("record-interruption", projectUserId=WORKSPACE, messageId="message-1")
    module = jobs.function("handle-timeout")
    with crash(module, "letter", after=False), pytest.raises(CrashError):
        handle(jobs, timeout_of(claim, executionArn=OTHER_EXECUTION))
    before = jobs.records()
    assert handle(jobs, ended()) == NOTHING
    assert jobs.records() == before


@pytest.mark.parametrize(
    "given",
    [None, "", "{", "null", "[]", '"text"', "7", "{}", "[" * 100_000, '{"projectUserId": 7}',
     '{"projectUserId": "amelia#scott"}', '{"projectUserId": "amelia#scott", "messageId": "a/b"}'],
)  # fmt: skip
def test_the_claim_of_an_execution_with_malformed_input_is_found_by_owner(
    jobs: Jobs, claim: dict[str, Any], given: Any, output: Output
) -> None:
    """Another execution's claim is not touched."""
    other = ended(input=given)
    other["detail"]["executionArn"] = OTHER_EXECUTION
    assert handle(jobs, other) == NOTHING
    assert jobs.row()["state"] == "held"
    assert handle(jobs, ended(input=given))["released"]
    assert jobs.row()["state"] == "free"
    assert output.logged("execution had no usable input")


def test_a_clean_up_works_without_the_input(jobs: Jobs, claim: dict[str, Any]) -> None:
    """EventBridge omits a large one."""
    event = ended()
    del event["detail"]["input"]
    answer = handle(jobs, event)
    assert (answer["released"], answer["recorded"]) == (True, True)
    (record,), (letter,) = jobs.records(), jobs.letters()
    assert record["messageId"] == letter["messageId"] == "message-1"
    assert letter["claimId"] == claim["claimId"]
    assert handle(jobs, event) == NOTHING


def test_an_interrupted_clean_up_is_found_by_the_claims_row(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """Without input, as long as the claim is held."""
    module = jobs.function("handle-timeout")
    with crash(module, "release", after=False), pytest.raises(CrashError):
        handle(jobs, timeout_of(claim))
    handle(jobs, ended(input=None))
    assert jobs.row()["state"] == "free"
    assert [letter["kind"] for letter in jobs.letters()] == ["timeout"]


@pytest.mark.parametrize("step", ["letter", "mark"])
def test_an_interrupted_clean_up_after_the_release_is_found_by_the_cause(
    jobs: Jobs, claim: dict[str, Any], step: str
) -> None:
    """Without input: the cause of the flow's end names workspace and message."""
    module = jobs.function("handle-timeout")
    with crash(module, step, after=False), pytest.raises(CrashError):
        handle(jobs, timeout_of(claim))
    assert jobs.row()["state"] == "free"
    told = {"cause": "Broken", "messageId": "message-1", "projectUserId": WORKSPACE}
    answer = handle(jobs, ended(input=None, cause=json.dumps(told)))
    assert answer["duplicate"]
    assert "dlqMessageId" in jobs.records()[0]
    assert [letter["kind"] for letter in jobs.letters()] == ["timeout"]


@pytest.mark.parametrize(
    "cause", ["it broke", "{}", '{"errorMessage":"e"}', "[" * 100_000, None, 7]
)
def test_a_cause_without_a_message_falls_back_to_the_owner(
    jobs: Jobs, claim: dict[str, Any], cause: Any
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
    """ValidationError of detail; nothing is written."""
    event = status_change(EXECUTION, "FAILED", {}) | {"detail": detail}
    with pytest.raises(ValidationError, match="^detail: "):
        handle(jobs, event)
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize("value", HOSTILE_IDS)
def test_a_malformed_message_id_is_refused(jobs: Jobs, value: Any) -> None:
    """ValidationError of messageId; nothing is written."""
    event = {"projectUserId": WORKSPACE, "messageId": value, "kind": "timeout"}
    with pytest.raises(ValidationError, match="^messageId: "):
        handle(jobs, event)
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": None}, "kind"),
        ({"kind": "interruption"}, "kind"),
        ({"kind": ["timeout"]}, "kind"),
        ({"claimId": "a/b"}, "claimId"),
        ({"fence": None}, "fence"),
        ({"fence": "1"}, "fence"),
        ({"threadId": "a#b"}, "threadId"),
        ({"projectUserId": "amelia"}, "projectUserId"),
        ({"projectUserId": None}, "projectId"),
        ({"userId": "other"}, "userId"),
    ],
)
def test_malformed_input_is_refused_with_the_fields_name(
    jobs: Jobs, change: dict[str, Any], field: str
) -> None:
    """Nothing is written."""
    with pytest.raises(ValidationError) as refused:
        handle(jobs, timeout_of({"claimId": "claim-1", "fence": 1}, **change))
    assert refused.value.field == field
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize(
    ("client", "operation"),
    [("dynamodb", "PutItem"), ("dynamodb", "UpdateItem"), ("sqs", "SendMessage")],
)
def test_an_error_of_a_service_is_raised(
    jobs: Jobs, claim: dict[str, Any], client: str, operation: str
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


def test_a_timed_out_job_is_counted_once(jobs: Jobs, claim: dict[str, Any], output: Output) -> None:
    """The metric has the kind, the log line the ids."""
    for _ in range(2):
        handle(jobs, timeout_of(claim))
    (metric,) = output.metric("JobTimedOut")
    assert metric["Kind"] == "timeout"
    line = output.logged("job timed out")[0]
    assert (line["project_user_id"], line["message_id"], line["claim_id"]) == (
        WORKSPACE,
        "message-1",
        claim["claimId"],
    )
