"""handle-timeout: one record, one dead letter, the right claim; wherever a run breaks off."""

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
    """The flow's event for a job that lost its time."""
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


def test_a_timed_out_job_is_cleaned_up(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Record, release and dead letter, all with the same ids."""
    jobs.clock.pass_(60)
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
def test_the_kind_is_everywhere(jobs: Jobs, claim: dict[str, Any], kind: str) -> None:
    """Record, row and letter tell why."""
    handle(jobs, timeout_of(claim, kind=kind))
    assert jobs.records()[0]["kind"] == kind
    assert jobs.row()["lastReleased"]["reason"] == kind
    assert jobs.letters()[0]["kind"] == kind


def test_the_second_time_changes_nothing(jobs: Jobs, claim: dict[str, Any]) -> None:
    """A repetition says so, with the same ids."""
    event = timeout_of(claim)
    first = handle(jobs, event)
    before = jobs.records(), jobs.row()["lastReleased"], jobs.row()["fence"]
    jobs.clock.pass_(600)

    assert handle(jobs, event) == first | {"duplicate": True}
    assert (jobs.records(), jobs.row()["lastReleased"], jobs.row()["fence"]) == before
    assert len(jobs.letters()) == 1


def test_a_finished_clean_up_sends_nothing_more(jobs: Jobs, claim: dict[str, Any]) -> None:
    """What is marked done is not even sent again, whatever SQS remembers."""
    event = timeout_of(claim)
    handle(jobs, event)
    calls = jobs.stack.calls(jobs.function("handle-timeout").sqs)
    handle(jobs, event)
    assert calls == []


@pytest.mark.parametrize("after", [False, True], ids=["call not made", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("taken_over", [False, True], ids=["", "taken over"])
def test_a_run_that_breaks_off_is_taken_up(
    jobs: Jobs, claim: dict[str, Any], step: str, after: bool, taken_over: bool
) -> None:
    """Killed around any of its calls and run again: one record, one letter, one claim released."""
    event = timeout_of(claim)
    module = jobs.function("handle-timeout")
    newer: dict[str, Any] = {}
    if taken_over:
        jobs.clock.now = claim["expiresAt"] + 2
        newer = jobs.hold(threadId="thread-2", messageId="message-2")
    row = jobs.row()

    with crash(module, step, after=after), pytest.raises(CrashError):
        handle(jobs, event)
    jobs.clock.pass_(30)
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
def test_a_letter_that_may_be_the_second_says_so(
    jobs: Jobs, claim: dict[str, Any], step: str, seconds: int, repeated: bool
) -> None:
    """The queue drops a repetition for five minutes; nobody can say what it has from before."""
    module = jobs.function("handle-timeout")
    event = timeout_of(claim)
    with crash(module, step, after=False), pytest.raises(CrashError):
        handle(jobs, event)
    jobs.clock.pass_(seconds)
    calls = jobs.stack.calls(module.sqs)
    handle(jobs, event)

    (sent,) = calls.of("SendMessage")
    letter = json.loads(sent["MessageBody"])
    assert letter["repeated"] is repeated
    assert letter["deadLetterId"] == sent["MessageDeduplicationId"]


@pytest.mark.parametrize("after", [False, True], ids=["call not made", "answer lost"])
@pytest.mark.parametrize("step", STEPS)
def test_the_rule_takes_up_what_broke_off_for_good(
    jobs: Jobs, claim: dict[str, Any], step: str, after: bool
) -> None:
    """When the flow gives up on the clean-up, its end sees to the rest, and makes nothing twice."""
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
    # And once more, as the rule's events may come twice.
    assert handle(jobs, ended()) == NOTHING
    assert (len(jobs.records()), jobs.letters()) == (1, [])


def test_a_record_that_is_gone_is_not_made_again(jobs: Jobs, claim: dict[str, Any]) -> None:
    """A mark without its record would stay for ever: it has no time to live."""
    module = jobs.function("handle-timeout")
    timeout = module.Timeout.of(timeout_of(claim))
    with pytest.raises(module.dynamodb.exceptions.ConditionalCheckFailedException):
        module.mark_done(timeout, "letter-1")
    assert jobs.records() == []


def test_a_newer_claim_is_left_alone(jobs: Jobs, claim: dict[str, Any]) -> None:
    """The record and the letter are made all the same."""
    jobs.clock.now = claim["expiresAt"] + 2
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()

    answer = handle(jobs, timeout_of(claim))

    assert (answer["released"], answer["superseded"], answer["recorded"]) == (False, True, True)
    assert jobs.row() == before
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_a_claim_that_was_given_back_already(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Its own release is as good as this one; also under a successor."""
    jobs.let_go(claim)
    assert handle(jobs, timeout_of(claim))["released"] is True
    jobs.hold(threadId="thread-2", messageId="message-2")
    before = jobs.row()
    assert handle(jobs, timeout_of(claim, kind="forced"))["released"] is True
    assert jobs.row() == before


def test_an_expired_claim_is_released(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Nobody took it: it is freed in order."""
    jobs.clock.now = claim["expiresAt"] + DAY
    assert handle(jobs, timeout_of(claim))["released"] is True


def test_without_a_row_none_is_made(jobs: Jobs) -> None:
    """A claim that was purged is gone; the record and the letter are made."""
    answer = handle(jobs, timeout_of({"claimId": "claim-1", "fence": 1}))
    assert (answer["released"], answer["superseded"]) == (True, False)
    assert jobs.row() == {}
    assert (len(jobs.records()), len(jobs.letters())) == (1, 1)


def test_without_a_claim(jobs: Jobs) -> None:
    """A job that timed out before it had one is recorded and put aside; no claim is touched."""
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


def test_claim_and_fence_must_both_fit(jobs: Jobs, claim: dict[str, Any]) -> None:
    """A fence that is not the claim's releases nothing."""
    answer = handle(jobs, timeout_of(claim, fence=claim["fence"] + 1))
    assert (answer["released"], answer["superseded"]) == (False, True)
    assert jobs.row()["state"] == "held"


def test_an_order_that_can_be_taken_up(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Record, release, letter, mark; no reads."""
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
def test_what_is_said_of_the_cause_is_bounded(
    jobs: Jobs, claim: dict[str, Any], given: Any, stored: str
) -> None:
    """Error and cause become short texts, in the record as in the letter."""
    handle(jobs, timeout_of(claim, error=given, cause=given))
    (record,) = jobs.records()
    (letter,) = jobs.letters()
    assert record["error"] == record["cause"] == letter["error"] == letter["cause"] == stored


def test_a_cause_that_no_text_holds(jobs: Jobs, claim: dict[str, Any]) -> None:
    """One that is nested beyond what can be written is told by that."""
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    handle(jobs, timeout_of(claim, cause=deep))
    (record,) = jobs.records()
    assert record["cause"] == "(nested too deeply)"


def test_a_queue_for_each_workspace(jobs: Jobs, claim: dict[str, Any]) -> None:
    """With DLQ_PER_WORKSPACE the letter goes to the workspace's own queue, made when missing."""
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


def test_a_workspace_s_new_queue_is_used_a_second_later(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Before that SQS may refuse what is sent."""
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    with jobs.new_queues_refused(module):
        assert module.handler(timeout_of(claim), Context())["dlqMessageId"]


def test_a_workspace_s_queue_is_used_as_it_is(jobs: Jobs, claim: dict[str, Any]) -> None:
    """One that was made before, with other attributes than today's, is no fault."""
    name = dead_letter_queue_name(PREFIX, Workspace("amelia", "scott"))
    jobs.stack.sqs.create_queue(
        QueueName=name, Attributes={"FifoQueue": "true", "MessageRetentionPeriod": "3600"}
    )
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    module.handler(timeout_of(claim), Context())
    assert len(jobs.letters(name.removeprefix(PREFIX))) == 1


def test_a_queue_that_can_not_be_asked_for_is_not_made(jobs: Jobs, claim: dict[str, Any]) -> None:
    """Only one that is missing is."""
    module = jobs.function("handle-timeout", DLQ_PER_WORKSPACE="true")
    jobs.stack.fail(module.sqs, "GetQueueUrl", "AccessDenied", status=403)
    calls = jobs.stack.calls(module.sqs)
    with pytest.raises(ClientError, match="AccessDenied"):
        module.handler(timeout_of(claim), Context())
    assert "CreateQueue" not in calls.counts()


@pytest.mark.parametrize(
    ("status", "kind"), [("FAILED", "forced"), ("TIMED_OUT", "timeout"), ("ABORTED", "forced")]
)
def test_an_execution_leaves_no_claim_behind(
    jobs: Jobs, claim: dict[str, Any], status: str, kind: str
) -> None:
    """What it still holds is recorded, released and put aside."""
    answer = handle(jobs, ended(status, error="Boom", cause="it broke"))

    assert (answer["released"], answer["recorded"]) == (True, True)
    (record,) = jobs.records()
    assert (record["kind"], record["error"], record["cause"]) == (kind, "Boom", "it broke")
    assert (record["interruptedClaimId"], record["threadId"]) == (claim["claimId"], "thread-1")
    assert jobs.row()["state"] == "free"
    (letter,) = jobs.letters()
    assert (letter["claimId"], letter["executionArn"]) == (claim["claimId"], EXECUTION)


def test_an_execution_without_an_error_is_told_by_its_status(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """ABORTED has none of its own."""
    handle(jobs, ended("ABORTED"))
    assert jobs.records()[0]["error"] == "ABORTED"


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "PENDING_REDRIVE", ""])
def test_other_statuses_are_none_of_its_business(
    jobs: Jobs, claim: dict[str, Any], status: str
) -> None:
    """A rule that sends too much frees no running job."""
    assert handle(jobs, ended(status)) == NOTHING
    assert jobs.row()["state"] == "held"


@pytest.mark.parametrize("before", ["nothing", "released", "of another", "older"])
def test_an_execution_that_holds_nothing(jobs: Jobs, before: str, output: Output) -> None:
    """No row, a released one, another execution's, an older writer's: nothing is done."""
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


def test_the_records_of_others_are_not_taken_up(jobs: Jobs, claim: dict[str, Any]) -> None:
    """An interruption, and the unfinished clean-up of another execution, stay as they are."""
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
def test_an_execution_with_a_malformed_input(
    jobs: Jobs, claim: dict[str, Any], given: Any, output: Output
) -> None:
    """The claim is found by its owner, and cleaned up; another execution's is left alone."""
    other = ended(input=given)
    other["detail"]["executionArn"] = OTHER_EXECUTION
    assert handle(jobs, other) == NOTHING
    assert jobs.row()["state"] == "held"
    assert handle(jobs, ended(input=given))["released"]
    assert jobs.row()["state"] == "free"
    assert output.logged("execution had no usable input")


def test_an_input_that_was_too_large_for_the_event(jobs: Jobs, claim: dict[str, Any]) -> None:
    """EventBridge leaves it out: record, release and dead letter are made all the same."""
    event = ended()
    del event["detail"]["input"]
    answer = handle(jobs, event)
    assert (answer["released"], answer["recorded"]) == (True, True)
    (record,), (letter,) = jobs.records(), jobs.letters()
    assert record["messageId"] == letter["messageId"] == "message-1"
    assert letter["claimId"] == claim["claimId"]
    assert handle(jobs, event) == NOTHING


def test_a_clean_up_that_broke_off_is_found_without_input(
    jobs: Jobs, claim: dict[str, Any]
) -> None:
    """As long as the claim is held: its row names the message."""
    module = jobs.function("handle-timeout")
    with crash(module, "release", after=False), pytest.raises(CrashError):
        handle(jobs, timeout_of(claim))
    handle(jobs, ended(input=None))
    assert jobs.row()["state"] == "free"
    assert [letter["kind"] for letter in jobs.letters()] == ["timeout"]


@pytest.mark.parametrize("step", ["letter", "mark"])
def test_a_clean_up_that_has_released_is_found_without_input(
    jobs: Jobs, claim: dict[str, Any], step: str
) -> None:
    """Nobody owns the claim any more; the cause of the flow's end names workspace and message."""
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
def test_a_cause_that_names_no_message_is_no_fault(
    jobs: Jobs, claim: dict[str, Any], cause: Any
) -> None:
    """The claim is found by its owner, as before."""
    assert handle(jobs, ended(input=None, cause=cause))["released"]


@pytest.mark.parametrize("given", [None, '{"projectUserId":"amelia#scott","messageId":"m"}'])
@pytest.mark.parametrize("row", [{}, {"state": "held"}])
def test_an_older_claim_is_freed_by_its_owner(
    jobs: Jobs, given: str | None, row: dict[str, Any]
) -> None:
    """It has neither id nor fence; record and dead letter say so by leaving them out."""
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
def test_an_event_of_the_rule_tells_of_an_execution(jobs: Jobs, detail: Any) -> None:
    """Without ARN and status it is a ValidationError of detail, and nothing is written."""
    event = status_change(EXECUTION, "FAILED", {}) | {"detail": detail}
    with pytest.raises(ValidationError, match="^detail: "):
        handle(jobs, event)
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize("value", HOSTILE_IDS)
def test_a_hostile_message_is_refused_by_name(jobs: Jobs, value: Any) -> None:
    """What is no id is a ValidationError of messageId, and nothing is written."""
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
def test_malformed_input_is_refused_by_name(jobs: Jobs, change: dict[str, Any], field: str) -> None:
    """Each field says what is wrong with it, and nothing is written."""
    with pytest.raises(ValidationError) as refused:
        handle(jobs, timeout_of({"claimId": "claim-1", "fence": 1}, **change))
    assert refused.value.field == field
    assert (jobs.records(), jobs.letters()) == ([], [])


@pytest.mark.parametrize(
    ("client", "operation"),
    [("dynamodb", "PutItem"), ("dynamodb", "UpdateItem"), ("sqs", "SendMessage")],
)
def test_a_failing_service_is_raised(
    jobs: Jobs, claim: dict[str, Any], client: str, operation: str
) -> None:
    """What is no refused condition goes to the flow, which tries again."""
    module = jobs.function("handle-timeout")
    failed = jobs.stack.fail(getattr(module, client), operation, "ThrottlingException")
    with pytest.raises(Exception, match="ThrottlingException"):
        handle(jobs, timeout_of(claim))
    assert failed[operation] >= 1


@pytest.mark.parametrize("variable", ["ACTIVE_JOBS_TABLE", "INTERRUPTIONS_TABLE", "DLQ_URL"])
def test_a_missing_variable_stops_the_container(jobs: Jobs, variable: str) -> None:
    """The error says which one."""
    with pytest.raises(KeyError, match=variable):
        jobs.function("handle-timeout", **{variable: None})


def test_a_job_is_counted_once(jobs: Jobs, claim: dict[str, Any], output: Output) -> None:
    """The metric has the kind, the log line the ids; a repetition counts nothing."""
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
