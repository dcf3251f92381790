"""The job flow within AWS's bounds: sizes of payloads, seconds of time-outs, as arithmetic."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.workspace.flow_machine import BUCKET, MAX_BYTES, Run, TaskError, size

IDS = {"projectId": "p" * 128, "userId": "u" * 128, "threadId": "t" * 128, "messageId": "m" * 128}
LIMIT = 255 * 1024
HOLDER = {"threadId": "t" * 128, "messageId": "m" * 128, "containerId": "c" * 128,
          "claimId": "i" * 36, "fence": 2**53, "expiresInSeconds": 86400}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "StoreInstruction": {"ETag": '"e"'},
    "CheckActiveJob": {"shouldInterrupt": False, "activeJob": None, "inputQueueName": "q" * 80},
    "ClaimJob": {
        "claimed": True,
        "claimId": "i" * 36,
        "fence": 2**53,
        "containerId": "c" * 128,
        "expiresAt": 2**33,
    },
    "HeadAttachment": {"ContentLength": 2**53},
    "OpenInputQueue": {"QueueUrl": "https://sqs/" + "q" * 150},
    "OpenHolderQueue": {"QueueUrl": "https://sqs/" + "q" * 150},
    "SendToContainer": {"answer": 42},
    "JoinHolder": {"MessageId": "m"},
    "ReleaseClaim": {"released": True, "repeated": False},
    "ReleaseAfterFailure": {"released": True, "repeated": False},
    "ReleaseAfterPreemption": {"released": True, "repeated": False},
    "RecordPreemption": {"recorded": True, "duplicate": False, "recordId": "r" * 60},
    "HandleTimeout": {"released": True},
}
BUSY = {"claimed": False, "reason": "same_thread", "holder": HOLDER}


def filled(limit: int, character: str) -> str:
    """A text whose JSON has exactly `limit` bytes."""
    each = size(character) - 2
    text = character * ((limit - 2) // each)
    return text + "x" * (limit - size(text))


def attachments(characters: int, character: str) -> list[dict[str, str]]:
    """As many as are allowed, whose JSON text has almost so many characters."""
    empty = [{"bucket": "b" * 3, "key": ""}] * 400
    left = characters - size(empty) - 10
    cost = size(character) - 2 if ord(character) < 128 else 1
    return [{"bucket": "b" * 3, "key": character * (left // cost // 400)}] * 400


def input_of(instruction: Any, **given: Any) -> dict[str, Any]:
    return {**IDS, "instruction": instruction, **given}


CHARACTERS = ["x", '"', "\x01", "é", "名", "😀"]


@pytest.mark.parametrize("character", CHARACTERS)
@pytest.mark.parametrize("limit", [LIMIT, 16_386, 65_536])
@pytest.mark.parametrize("claim", [ANSWERS["ClaimJob"], BUSY], ids=["claims", "joins"])
def test_the_largest_job_fits(character: str, limit: int, claim: Any) -> None:
    """No payload of any state is above 256 KiB, for the largest instruction and result."""
    run = Run(ANSWERS | {"ClaimJob": claim, "SendToContainer": filled(LIMIT, character)})
    output = run.start(input_of(filled(limit, character)))

    assert output["outcome"] in ("Completed", "Joined")
    assert within_bounds(run) == {}


@pytest.mark.parametrize("character", CHARACTERS)
@pytest.mark.parametrize("claim", [ANSWERS["ClaimJob"], BUSY], ids=["claims", "joins"])
def test_the_largest_message_fits(character: str, claim: Any) -> None:
    """A worker's message holds the largest instruction that it may hold, and all attachments."""
    # Bytes may be four times as many as characters.
    text = filled(16_384, character) if ord(character) < 128 else character * 16_380
    given = input_of(text, attachments=attachments(24_576, character))
    for found in ({"ContentLength": 2**53}, TaskError("S3." + "E" * 60)):
        run = Run(ANSWERS | {"ClaimJob": claim, "HeadAttachment": found})
        output = run.start(given)
        assert output["outcome"] in ("Completed", "Joined"), output
        assert "StoreInstruction" not in run.path
        assert within_bounds(run) == {}


REQUEST = {"owner": "o" * 1024, "requestId": "r" * 128}


@pytest.mark.parametrize("character", CHARACTERS)
def test_the_largest_job_of_a_request_fits(character: str) -> None:
    text = filled(16_384, character) if ord(character) < 128 else character * 16_380
    given = input_of(text, attachments=attachments(24_576, character), request=REQUEST)
    run = Run(ANSWERS | {"BeginJob": {"begun": True}})
    assert run.start(given)["outcome"] == "Completed"
    assert run.arguments["SendToContainer"]["MessageBody"]["request"] == REQUEST
    assert within_bounds(run) == {}


def test_a_request_that_was_cancelled_gives_the_claim_back() -> None:
    released = {"ReleaseUnused": ANSWERS["ReleaseClaim"]}
    run = Run(ANSWERS | {"BeginJob": {"begun": False}} | released)
    assert run.start(input_of("x", request=REQUEST))["outcome"] == "Cancelled"
    assert run.path[-4:] == ["BeginJob", "HasBegun", "ReleaseUnused", "Cancelled"]
    assert run.arguments["ReleaseUnused"]["Payload"]["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("given", "passed"), [({}, "the stage's"), ({"minIntervalSeconds": 60}, 60)]
)
def test_a_job_waits_for_the_interval_after_the_last_one(given: Any, passed: Any) -> None:
    """That of the input, or of the stage; however often it was tried."""
    answers = [{"claimed": False, "reason": "rate_limited", "retryAfterSeconds": 41}] * 2
    answers.append(ANSWERS["ClaimJob"])
    run = Run(ANSWERS | {"ClaimJob": lambda _: answers.pop(0)})
    run.start(input_of("x", maxClaimTries=1, **given))
    assert run.path.count("WaitForInterval") == 2
    asked = run.arguments["ClaimJob"]["Payload"]["minIntervalSeconds"]
    assert asked == (passed if given else "${param:minIntervalSeconds}")


@pytest.mark.parametrize("request_", [REQUEST | {"owner": "é" * 120_000}, "x" * 250_000, None])
def test_a_request_that_is_too_large_is_cut(request_: Any) -> None:
    run = Run(ANSWERS | {"BeginJob": {"begun": True}})
    run.start(input_of("x", request=request_))
    assert within_bounds(run) == {}


@pytest.mark.parametrize("character", CHARACTERS)
@pytest.mark.parametrize("error", ["PREEMPTED", "States.Timeout", "BrokenError"])
def test_the_largest_failure_fits(character: str, error: str) -> None:
    """An error's cause of 32 KB is passed on, and is shortened where it would be too long."""
    failure = TaskError(error, character * 32_768)
    run = Run(ANSWERS | {"SendToContainer": failure})
    run.start(input_of(filled(LIMIT, character)))

    assert within_bounds(run) == {}


@pytest.mark.parametrize("field", sorted(IDS))
@pytest.mark.parametrize("value", ["x" * 250_000, ["x" * 250_000], "é" * 120_000, 7, None])
def test_ids_that_are_too_large_are_refused(field: str, value: Any) -> None:
    """By the function that checks them, in payloads that fit."""
    refusal = TaskError("ValidationError", f"{field}: 1 to 128 of A-Z are required")
    run = Run(ANSWERS | {"CheckActiveJob": refusal})
    end = run.start(input_of("x") | {field: value})

    assert end["Error"] == "ValidationError"
    assert within_bounds(run) == {}
    assert size(run.arguments["CheckActiveJob"]) < 2000


def within_bounds(run: Run) -> dict[str, int]:
    """The payloads that are too large."""
    return {key: size for key, size in run.sizes.items() if size > MAX_BYTES}


@pytest.mark.parametrize("character", CHARACTERS)
def test_the_first_instruction_that_is_refused(character: str) -> None:
    """One byte more than 255 KB, whatever its characters; the field and the bound are named."""
    run = Run(ANSWERS)
    end = run.start(input_of(filled(LIMIT + 1, character)))

    assert end["Error"] == "ValidationError"
    assert "instruction: at most 261120 bytes" in end["Cause"]
    assert run.path == ["Begin", "IsInputAllowed", "InputRefused"]


@pytest.mark.parametrize("character", CHARACTERS)
@pytest.mark.parametrize("limit", [LIMIT + 1, MAX_BYTES - 10, MAX_BYTES])
def test_no_result_that_step_functions_takes_is_too_large(character: str, limit: int) -> None:
    """Of another worker than JobWorker: the job fails by name, and the claim is released."""
    run = Run(ANSWERS | {"SendToContainer": filled(limit, character)})
    end = run.start(input_of("x"))

    assert end["Error"] == "ResultTooLargeError"
    assert within_bounds(run) == {}


def test_a_result_that_is_no_text_releases_the_claim() -> None:
    """Half a character can't be measured: the error is caught, where a Choice would end all."""
    run = Run(ANSWERS | {"SendToContainer": "x" * 70_000 + "\ud800"})
    end = run.start(input_of("x"))

    assert end["Error"] == "States.QueryEvaluationError"
    assert run.path[-2:] == ["ReleaseAfterFailure", "JobFailed"]


@pytest.mark.parametrize("result", [None, "", 0, False, [], [None], [["x"]], {}, {"a": []}])
def test_results_arrive_as_they_are(result: Any) -> None:
    output = Run(ANSWERS | {"SendToContainer": result}).start(input_of("x"))
    assert (output["result"], output["resultObject"]) == (result, None)


@pytest.mark.parametrize(
    ("error", "end"),
    [("PREEMPTED", "Interrupted"), ("States.Timeout", "TimedOut"), (None, "JobFailed")],
)
def test_a_failure_needs_neither_error_nor_cause(error: str | None, end: str) -> None:
    """A worker may leave out both; an expression that comes to nothing ends an execution."""
    run = Run(ANSWERS | {"SendToContainer": TaskError(error, None)})
    run.start(input_of("x"))
    assert run.path[-1] == end


@pytest.mark.parametrize(
    "each", ["s3://b/k", 7, None, [], {}, {"bucket": "b"}, {"key": "k"}, {"bucket": 7, "key": "k"}]
)
@pytest.mark.parametrize("others", [[], [{"bucket": "b", "key": "k"}]])
def test_an_attachment_that_is_no_place_is_refused(each: Any, others: list[Any]) -> None:
    """By name and before the claim, and not by the expression that stumbles over it."""
    run = Run(ANSWERS)
    end = run.start(input_of("x", attachments=[*others, each]))

    assert end["Error"] == "ValidationError"
    assert "attachments: each must be an object with bucket and key" in end["Cause"]
    assert "ClaimJob" not in run.path


def test_a_clean_up_that_fails_is_told_with_its_message() -> None:
    """By these ids the rule on ends finds what was begun, though the event has no input."""
    broken = {"SendToContainer": TaskError("States.Timeout"), "HandleTimeout": TaskError("Broken")}
    end = Run(ANSWERS | broken).start(input_of("x"))

    assert end["Error"] == "Broken"
    told = json.loads(end["Cause"])
    assert told["messageId"] == IDS["messageId"]
    assert told["projectUserId"] == f"{IDS['projectId']}#{IDS['userId']}"


@pytest.mark.parametrize("character", CHARACTERS)
def test_the_first_result_that_is_refused(character: str) -> None:
    """A result of 255 KB and a byte, not stored, fails by name, and the claim is released."""
    run = Run(ANSWERS | {"SendToContainer": filled(LIMIT + 1, character)})
    end = run.start(input_of("x"))

    assert end["Error"] == "ResultTooLargeError"
    assert "result: at most 261120 bytes" in end["Cause"]
    assert run.path[-2:] == ["ReleaseAfterFailure", "JobFailed"]


@pytest.mark.parametrize("is_older", [False, True])
def test_the_end_names_the_stored_result_that_its_worker_has_written(is_older: bool) -> None:
    """Under a key of its own, or, by an older worker, under the claim's."""
    written: list[str] = []

    def store(arguments: Any) -> Any:
        body = arguments["MessageBody"]
        own = body["resultKeyPrefix"] + f"{2**53}-{'0' * 16}.json"
        written.append(body["resultLocation"]["key"] if is_older else own)
        return {"resultObject": {"bucket": "any", "key": written[-1]}}

    output = Run(ANSWERS | {"SendToContainer": store}).start(input_of("x"))
    assert output["result"] is None
    assert output["resultObject"] == {"bucket": BUCKET, "key": written[-1]}
    assert written[-1].startswith("jobs/")


@pytest.mark.parametrize(
    "place",
    [
        lambda given: {"bucket": "b", "key": "k"},
        lambda given: {"key": given["resultKeyPrefix"] + "x" * 65},
        lambda given: {"key": [given["resultKeyPrefix"]]},
        lambda given: {"key": given["resultKeyPrefix"][:-1]},
        lambda given: {},
        lambda given: given["resultLocation"]["key"],
        lambda given: [given, given],
    ],
)
def test_an_object_elsewhere_is_a_result_like_any(place: Any) -> None:
    told: list[Any] = []

    def report(arguments: Any) -> Any:
        told.append({"resultObject": place(arguments["MessageBody"])})
        return told[-1]

    output = Run(ANSWERS | {"SendToContainer": report}).start(input_of("x"))
    assert (output["result"], output["resultObject"]) == (told[-1], None)


@pytest.mark.parametrize(
    "instruction", [None, "", 0, False, [], {}, {"a": None}, ["x"], "x" * 20_000]
)
def test_instructions_arrive_as_they_are(instruction: Any) -> None:
    run = Run(ANSWERS)
    run.start(input_of(instruction))
    body = run.arguments["SendToContainer"]["MessageBody"]
    if body["instructionObject"] is None:
        assert body["instruction"] == instruction
    else:
        assert body["instruction"] is None
        assert run.arguments["StoreInstruction"]["Body"] == {"instruction": instruction}
        assert run.arguments["StoreInstruction"]["Key"] == body["instructionObject"]["key"]


SECONDS = st.one_of(st.none(), st.integers(-5, 200), st.integers(-(2**40), 2**40))


@given(ttl=SECONDS, timeout=SECONDS, heartbeat=SECONDS)
@settings(deadline=None, max_examples=examples(300), derandomize=True)
def test_every_allowed_input_gives_a_legal_pair(
    ttl: int | None, timeout: int | None, heartbeat: int | None
) -> None:
    """0 < HeartbeatSeconds < TimeoutSeconds < the claim's time, or the input is refused by name."""
    named = {"claimTtlSeconds": ttl, "timeoutSeconds": timeout, "heartbeatSeconds": heartbeat}
    chosen = {name: value for name, value in named.items() if value is not None}
    run = Run(ANSWERS)
    end = run.start(input_of("x", **chosen))
    bounds = {
        "claimTtlSeconds": (3, 86_400),
        "timeoutSeconds": (2, 99_999_999),
        "heartbeatSeconds": (1, 99_999_999),
    }
    wrong = [n for n, value in chosen.items() if not bounds[n][0] <= value <= bounds[n][1]]

    if wrong:
        assert end["Error"] == "ValidationError"
        for name in wrong:
            low, high = bounds[name]
            assert f"{name}: a whole number from {low} to {high} is required" in end["Cause"]
        return
    pair = run.fields["HeartbeatSeconds"], run.fields["TimeoutSeconds"]
    assert all(isinstance(seconds, int) for seconds in pair), pair
    assert 0 < pair[0] < pair[1] < (ttl or 3600)
    assert pair[1] == min(timeout or 86_400, (ttl or 3600) - 1)
    assert pair[0] == min(heartbeat or 90, pair[1] - 1)


@pytest.mark.parametrize("value", ["60", 60.5, True, None, [], {}, "x" * 200_000])
@pytest.mark.parametrize(
    "field",
    ["claimTtlSeconds", "timeoutSeconds", "heartbeatSeconds", "maxClaimTries", "claimWaitSeconds"],
)
def test_numbers_that_are_none_are_refused(field: str, value: Any) -> None:
    end = Run(ANSWERS).start(input_of("x", **{field: value}))

    assert end["Error"] == "ValidationError"
    assert f"{field}: a whole number from" in end["Cause"]
