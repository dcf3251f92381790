"""Releases claims that an ended execution still has.

Trigger: a schedule, every minute. Input: `{sweep: "claims"}`.
Result: `{held, asked, freed}`: the numbers of old claims, of those checked, of those released.
Errors: ValidationError; SweepIncompleteError at the end, if claims failed; the next run repeats.
The status event of an execution may be lost, and handle-timeout may fail. So this function asks
Step Functions about the owner of each claim that is old enough. If the execution has ended, it
invokes handle-timeout, which writes record and dead letter, and also releases the claim itself, in
case handle-timeout fails. If Lambda refuses the invocation, it is sent to the queue of
handle-timeout's failures. Claims of running, unknown or redriven executions are not released, nor
those of other owners.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from jobplane_keys import (
    CLIENT_OPTIONS,
    TIMEOUT_KIND_OF_STATUS,
    ValidationError,
    claim_start,
    from_item,
    pages,
)
from jobplane_leases import release_claim
from jobplane_telemetry import Telemetry

ACTIVE_JOBS_TABLE = os.environ["ACTIVE_JOBS_TABLE"]
STATE_MACHINE_ARN = os.environ["STATE_MACHINE_ARN"]
HANDLE_TIMEOUT_FUNCTION = os.environ["HANDLE_TIMEOUT_FUNCTION"]
FAILURES_URL = os.environ["FAILURES_URL"]
# Before that age, the status event may still release it, and is faster.
MIN_AGE_SECONDS = float(os.environ.get("MIN_AGE_SECONDS", "120"))

EXECUTIONS = STATE_MACHINE_ARN.replace(":stateMachine:", ":execution:") + ":"
# DescribeExecution allows 10 or 15 calls a second, by region, for the whole account.
MAX_ASKED = 200
PAUSE_SECONDS = 0.1
# After so many failures in a row the run stops: the service throttles or is not available.
MAX_FAULTS = 5
# The run stops this long before its end, so that the last call can finish, with its attempts.
RESERVE_SECONDS = 20
# A claim may begin this long after its execution's end: clocks differ, and a running call is not
# cancelled.
LATE_SECONDS = 60
# Owners with a name like an execution's, which Step Functions does not know.
UNKNOWN = frozenset({"ExecutionDoesNotExist", "InvalidArn", "ValidationException"})
ENDED = TIMEOUT_KIND_OF_STATUS.keys() | {"SUCCEEDED"}

telemetry = Telemetry("sweep-claims")
session = botocore.session.get_session()
config = Config(**CLIENT_OPTIONS)
dynamodb: Any = session.create_client("dynamodb", config=config)
stepfunctions: Any = session.create_client("stepfunctions", config=config)
functions: Any = session.create_client("lambda", config=config)
sqs: Any = session.create_client("sqs", config=config)


class SweepIncompleteError(Exception):
    """Some claims could not be checked or released."""


def is_due(claim: Mapping[str, Any], now: float) -> bool:
    """Whether a claim belongs to an execution and is old enough to check."""
    began = claim_start(claim)
    is_old = began is None or now - began >= MIN_AGE_SECONDS
    return is_old and str(claim["owner"]).startswith(EXECUTIONS)


def turn_of(claims: Sequence[dict[str, Any]], now: float) -> Sequence[dict[str, Any]]:
    """The claims to check in this minute: the next ones in turn, as many as can be checked."""
    start = int(now // 60) * MAX_ASKED % max(1, len(claims))
    return [*claims[start:], *claims[:start]][:MAX_ASKED]


def has_ended(claim: Mapping[str, Any], execution: Mapping[str, Any]) -> bool:
    """Whether the execution has ended, and after the claim began.

    For a redriven execution, Step Functions may still return its earlier end.
    """
    stopped = execution.get("stopDate")
    if execution["status"] not in ENDED or not isinstance(stopped, datetime):
        return False
    began = claim_start(claim)
    return began is None or stopped.timestamp() + LATE_SECONDS >= began


def timeout_of(claim: Mapping[str, Any], execution: Mapping[str, Any]) -> dict[str, Any]:
    """The input of handle-timeout for a claim; one of an older version has fewer fields."""
    fields = {
        "projectUserId": claim["projectUserId"],
        "messageId": claim.get("messageId"),
        "threadId": claim.get("threadId"),
        "claimId": claim.get("claimId"),
        "fence": claim.get("fence"),
        "kind": TIMEOUT_KIND_OF_STATUS[execution["status"]],
        "error": execution.get("error") or execution["status"],
        "cause": execution.get("cause"),
        "executionArn": claim["owner"],
    }
    return {name: value for name, value in fields.items() if value is not None}


def held_claims() -> list[dict[str, Any]]:
    """All claims with an owner; the index has only these."""
    scan = {"TableName": ACTIVE_JOBS_TABLE, "IndexName": "by-owner"}
    return [from_item(item) for page in pages(dynamodb.scan, scan) for item in page["Items"]]


def execution_of(claim: Mapping[str, Any]) -> dict[str, Any] | None:
    """The execution that owns a claim; None if Step Functions does not know it."""
    try:
        found: dict[str, Any] = stepfunctions.describe_execution(executionArn=claim["owner"])
    except ClientError as error:
        if error.response["Error"]["Code"] in UNKNOWN:
            return None
        raise
    return found


def hand_over(claim: Mapping[str, Any], execution: Mapping[str, Any]) -> None:
    """Invoke handle-timeout, without waiting, to record the end and send the dead letter."""
    timeout = json.dumps(timeout_of(claim, execution))
    try:
        functions.invoke(
            FunctionName=HANDLE_TIMEOUT_FUNCTION,
            InvocationType="Event",
            Payload=timeout.encode(),
        )
    except (ClientError, BotoCoreError) as error:
        # After the release, the row no longer has these fields.
        telemetry.error("handle-timeout was not invoked", cause=str(error))
        sqs.send_message(QueueUrl=FAILURES_URL, MessageBody=timeout)


def release(claim: Mapping[str, Any], now: float) -> bool:
    """Free the workspace if this claim still holds it; whether it did."""
    return release_claim(
        dynamodb,
        ACTIVE_JOBS_TABLE,
        claim["projectUserId"],
        claim_id=claim.get("claimId"),
        owner=claim["owner"],
        reason="swept",
        now=now,
    ).done


def settle(claim: Mapping[str, Any], now: float) -> bool:
    """Ask about a claim, and free it if its execution has ended; whether this run has freed it."""
    execution = execution_of(claim)
    if execution is None or not has_ended(claim, execution):
        return False
    telemetry.warning(
        "claim still held after its execution ended",
        project_user_id=claim["projectUserId"],
        claim_id=claim.get("claimId"),
        execution=claim["owner"],
        status=execution["status"],
    )
    if execution["status"] in TIMEOUT_KIND_OF_STATUS and claim.get("messageId"):
        hand_over(claim, execution)
    freed = release(claim, now)
    if freed:
        telemetry.metric("ClaimSwept")
    return freed


@telemetry.handler
def handler(event: Any, context: Any) -> dict[str, Any]:
    if not isinstance(event, dict) or event.get("sweep") != "claims":
        raise ValidationError("sweep", "'claims' is required")
    now = time.time()
    due = [claim for claim in held_claims() if is_due(claim, now)]
    asked = freed = in_a_row = 0
    faults: list[Exception] = []
    for claim in turn_of(due, now):
        if context.get_remaining_time_in_millis() < RESERVE_SECONDS * 1000:
            break
        time.sleep(PAUSE_SECONDS)
        try:
            asked += 1
            freed += settle(claim, now)
            in_a_row = 0
        except (ClientError, BotoCoreError) as error:
            telemetry.error(
                "claim was not settled", claim_id=claim.get("claimId"), cause=str(error)
            )
            faults.append(error)
            in_a_row += 1
            if in_a_row >= MAX_FAULTS:
                break
    telemetry.info("swept claims", held=len(due), asked=asked, freed=freed)
    if faults:
        raise SweepIncompleteError(f"{len(faults)} of {asked} claims failed") from faults[0]
    return {"held": len(due), "asked": asked, "freed": freed}
