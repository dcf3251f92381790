"""An execution of the job flow: its Lambda tasks, with the definition's Retry and Catch.

Which task follows which is the scenario's business: expressions and waits are not evaluated here.
"""

import json
import re
from functools import cache
from typing import Any

from jobplane.stage.mappings import FunctionError
from jobplane.tree.repository import read_yaml
from jobplane.tree.resolved import ACCOUNT, REGION
from tests.faults.cloud import ROOT, Cloud, Row

WORKSPACE = "amelia#scott"
# What the definition computes for a claim of an hour.
JOB_SECONDS = 3599


@cache
def states() -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(ROOT / "resources" / "job-flow.asl.yml")["States"]
    return found


class CaughtError(Exception):
    """A task failed for good; the definition goes on at `next_state`, or the execution fails."""

    def __init__(self, state: str, next_state: str, cause: FunctionError) -> None:
        super().__init__(f"{state} → {next_state or 'failure'}: {cause}")
        self.next_state = next_state


class Execution:
    """One message's execution of the flow; `arn` and `given` are those of one that was started."""

    def __init__(
        self,
        cloud: Cloud,
        message_id: str,
        thread_id: str,
        workspace: str = WORKSPACE,
        arn: str = "",
        given: Row | None = None,
    ) -> None:
        self.cloud = cloud
        self.message_id = message_id
        self.thread_id = thread_id
        self.workspace = workspace
        self.arn = arn or f"arn:aws:states:{REGION}:{ACCOUNT}:execution:job-flow:{message_id}"
        ids = {"projectUserId": workspace, "messageId": message_id, "threadId": thread_id}
        self.given: Row = given or ids
        self.claim: Row = {}

    @property
    def holding(self) -> Row:
        return {name: self.claim[name] for name in ("claimId", "fence")}

    def task(self, state: str, **payload: Any) -> Any:
        """Run a state's function, with its Retry."""
        definition = states()[state]
        declared = definition["Arguments"]["Payload"]
        if "projectUserId" in declared:
            payload["projectUserId"] = self.workspace
        assert payload.keys() == declared.keys(), (state, declared)
        name = definition["Arguments"]["FunctionName"].strip("${}")
        function = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
        retriers = definition.get("Retry", [])
        used = [0] * len(retriers)
        while True:
            try:
                return self.cloud.invoke(function, payload)
            except FunctionError as error:
                number = first_match(retriers, error.kind)
                if number is None or used[number] >= retriers[number].get("MaxAttempts", 3):
                    catchers = definition.get("Catch", [])
                    caught = first_match(catchers, error.kind)
                    following = "" if caught is None else catchers[caught]["Next"]
                    raise CaughtError(state, following, error) from error
                retrier = retriers[number]
                delay = retrier["IntervalSeconds"] * retrier["BackoffRate"] ** used[number]
                self.cloud.clock.sleep(min(delay, retrier["MaxDelaySeconds"]))
                used[number] += 1

    def check(self) -> Row:
        found: Row = self.task("CheckActiveJob", threadId=self.thread_id)
        return found

    def interrupt(self, target: Row) -> None:
        """Interrupt the holder, and record it."""
        about = {"newThreadId": self.thread_id, "interruptingMessageId": self.message_id}
        assert self.task("SendInterrupt", target=target, **about)["sent"]
        self.task(
            "RecordInterruption",
            messageId=target["messageId"],
            interruptedClaimId=target["claimId"],
            interruptedContainer=target["containerId"],
            **about,
        )

    def acquire(self) -> Row:
        given = {"threadId": self.thread_id, "messageId": self.message_id, "owner": self.arn}
        self.claim = self.task(
            "ClaimJob", operation="acquire", ttlSeconds=3600, minIntervalSeconds=0, **given
        )
        return self.claim

    def begin(self) -> bool:
        """Whether the request that this execution runs has not been cancelled."""
        begun: bool = self.task(
            "BeginJob",
            operation="begin",
            request=self.given["request"],
            seconds=JOB_SECONDS,
            **self.holding,
        )["begun"]
        return begun

    def preempt(self, cause: Row) -> None:
        """The worker was interrupted by another thread."""
        self.task(
            "RecordPreemption",
            messageId=self.message_id,
            interruptedClaimId=self.claim["claimId"],
            interruptedContainer=self.claim["containerId"],
            cause=json.dumps(cause),
        )
        self.task("ReleaseAfterPreemption", operation="release", reason="preempted", **self.holding)

    def time_out(self) -> None:
        """The worker sends no heartbeats; the execution fails."""
        given = {"messageId": self.message_id, "threadId": self.thread_id, "cause": None}
        lost = {"kind": "heartbeat_lost", "error": "States.Timeout", "executionArn": self.arn}
        self.task("HandleTimeout", **given, **lost, **self.holding)
        self.end("FAILED")

    def release(self, state: str = "ReleaseClaim", reason: str = "completed") -> None:
        self.task(state, operation="release", reason=reason, **self.holding)

    def end(self, status: str) -> None:
        """The rule on executions that did not succeed."""
        self.cloud.invoke_later("handle-timeout", self.ended(status))

    def ended(self, status: str) -> Row:
        """EventBridge's event of the end."""
        detail = {
            "executionArn": self.arn, "status": status, "error": None, "cause": None,
            "input": json.dumps(self.given),
        }  # fmt: skip
        change = {"detail-type": "Step Functions Execution Status Change", "source": "aws.states"}
        return change | {"detail": detail}


def first_match(rules: list[Row], error: str) -> int | None:
    """The first Retry or Catch that an error's name fits."""
    names = {error, "States.ALL", "States.TaskFailed"}
    return next((n for n, rule in enumerate(rules) if names & {*rule["ErrorEquals"]}), None)
