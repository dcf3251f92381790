"""The five functions of the claims against a model, through any sequence of calls and crashes.

One process and one clock that the test moves: what is tried here is order, not
concurrency, which tests/e2e/test_claims.py tries on the local stage.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobplane_keys import record_id
from tests.unit.claims import NOW, STEPS, CrashError, Jobs, crash, holding, status_change
from tests.unit.clock import Clock
from tests.unit.stack import AWS, UNSET, Stack, aws

SKEW = 2
WORKSPACES = st.integers(0, 1)
THREADS = st.integers(1, 2)
MESSAGES = st.integers(1, 3)
TTLS = st.sampled_from([1, 5, 60, 3600])
PICKS = st.integers(0, 10**6)
KINDS = st.sampled_from(["timeout", "heartbeat_lost", "forced"])
CRASHES = st.none() | st.tuples(st.sampled_from([*STEPS]), st.booleans())
EXAMPLES = count()


@dataclass(eq=False)
class Claim:
    """A granted claim, as its holder knows it."""

    workspace: str
    thread: str
    message: str
    owner: str
    claim_id: str
    fence: int
    believed_end: float
    given_up: bool = False

    @property
    def named(self) -> dict[str, Any]:
        return holding({"claimId": self.claim_id, "fence": self.fence}, self.workspace)


@dataclass
class Held:
    """The model's state of a workspace: the holder, and the end."""

    claim: Claim
    end: float


@dataclass
class Model:
    """The expected state."""

    held: dict[str, Held] = field(default_factory=dict)
    granted: list[Claim] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    records: set[tuple[str, str]] = field(default_factory=set)
    timeouts: set[tuple[str, str]] = field(default_factory=set)
    interrupts: dict[str, tuple[str, int]] = field(default_factory=dict)
    broken_off: list[dict[str, Any]] = field(default_factory=list)
    cleaned: list[Claim] = field(default_factory=list)


class ClaimMachine(RuleBasedStateMachine):
    """Workspaces, threads, messages, executions; each step is an event of a function."""

    jobs: Jobs

    @initialize()
    def begin(self) -> None:
        example = next(EXAMPLES)
        self.clock: Clock = self.jobs.clock
        self.clock.now = NOW
        self.model = Model()
        self.names = [f"e{example}#a-b", f"e{example}-a#b"]

    def claim(self, pick: int) -> Claim:
        return self.model.granted[pick % len(self.model.granted)]

    def wish(self, workspace: int, thread: int, message: int, ttl: int) -> dict[str, Any]:
        name = self.names[workspace]
        message_id = f"{name.replace('#', '.')}-{thread}-{message}"
        return {
            "projectUserId": name, "threadId": f"thread-{thread}", "messageId": message_id,
            "owner": f"arn:execution:{message_id}", "ttlSeconds": ttl,
        }  # fmt: skip

    @rule(workspace=WORKSPACES, thread=THREADS, message=MESSAGES, ttl=TTLS, lost=st.booleans())
    def acquire(self, workspace: int, thread: int, message: int, ttl: int, lost: bool) -> None:
        wish = self.wish(workspace, thread, message, ttl)
        name, now = wish["projectUserId"], self.clock.now
        before = self.model.held.get(name)
        answer = self.jobs.call("claim", **wish)
        if before is None or before.end + SKEW <= now:
            self.granted(wish, answer)
            if lost:
                assert self.jobs.call("claim", **wish) == answer
            return
        runs = before.end > now
        held = before.claim
        if runs and (held.message, held.owner) == (wish["messageId"], wish["owner"]):
            assert (answer["claimId"], answer["fence"]) == (held.claim_id, held.fence)
            return
        self.model.refused.append((name, wish["messageId"], wish["owner"]))
        joins = runs and held.thread == wish["threadId"]
        assert answer["claimed"] is False
        assert answer["reason"] == ("same_thread" if joins else "held")
        assert answer["holder"]["claimId"] == held.claim_id
        if joins:
            before.end = max(before.end, math.ceil(now) + ttl)

    def granted(self, wish: dict[str, Any], answer: dict[str, Any]) -> None:
        name = wish["projectUserId"]
        assert answer["claimed"] is True, answer
        earlier = [claim.fence for claim in self.model.granted if claim.workspace == name]
        assert all(answer["fence"] > fence for fence in earlier)
        asked = (wish[key] for key in ("threadId", "messageId", "owner"))
        claim = Claim(name, *asked, answer["claimId"], answer["fence"], answer["expiresAt"])
        assert claim.claim_id not in {other.claim_id for other in self.model.granted}
        self.model.granted.append(claim)
        self.model.held[name] = Held(claim, answer["expiresAt"])

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICKS, ttl=TTLS)
    def renew(self, pick: int, ttl: int) -> None:
        claim = self.claim(pick)
        held = self.model.held.get(claim.workspace)
        answer = self.jobs.call("claim", operation="renew", ttlSeconds=ttl, **claim.named)
        good = held is not None and held.claim is claim and held.end > self.clock.now
        assert answer["renewed"] is good, answer
        if held is not None and good:
            held.end = claim.believed_end = answer["expiresAt"]

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICKS, again=st.booleans())
    def release(self, pick: int, again: bool) -> None:
        claim = self.claim(pick)
        held = self.model.held.get(claim.workspace)
        mine = held is not None and held.claim is claim
        answer = self.jobs.call("claim", operation="release", **claim.named)
        if mine:
            assert answer == {"released": True, "repeated": False}
            self.freed(claim)
            if again:
                answer = self.jobs.call("claim", operation="release", **claim.named)
                assert answer == {"released": True, "repeated": True}
        else:
            assert answer.get("repeated") or answer["reason"] in ("superseded", "absent")
        claim.given_up = True

    def freed(self, claim: Claim) -> None:
        claim.given_up = True
        del self.model.held[claim.workspace]

    @rule(seconds=st.sampled_from([0.25, 1, 2, 5, 58, 3600, 40 * 24 * 3600]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(workspace=WORKSPACES, offset=st.sampled_from([-1, -0.25, 0, 0.25, 1, 1.75, 2]))
    def an_end_comes(self, workspace: int, offset: float) -> None:
        """The clock moves close to a claim's end."""
        if held := self.model.held.get(self.names[workspace]):
            self.clock.now = max(self.clock.now, held.end + offset)

    @rule(workspace=WORKSPACES)
    def a_free_row_is_purged(self, workspace: int) -> None:
        name = self.names[workspace]
        if self.jobs.row(name).get("purgeAt", self.clock.now) < self.clock.now:
            self.jobs.delete(name)
            self.model.held.pop(name, None)

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICKS, kind=KINDS, crashes=CRASHES, gives_up=st.booleans())
    def time_out(
        self, pick: int, kind: str, crashes: tuple[str, bool] | None, gives_up: bool
    ) -> None:
        claim = self.claim(pick)
        event = {
            **claim.named, "messageId": claim.message, "threadId": claim.thread, "kind": kind,
            "error": "States.Timeout", "executionArn": claim.owner,
        }  # fmt: skip
        waiting = len(self.model.broken_off)
        self.clean_up(event, crashes)
        if gives_up and len(self.model.broken_off) > waiting:
            self.the_flow_gives_up("FAILED")

    @precondition(lambda self: self.model.refused)
    @rule(pick=PICKS, kind=KINDS)
    def time_out_without_a_claim(self, pick: int, kind: str) -> None:
        name, message, owner = self.model.refused[pick % len(self.model.refused)]
        self.clean_up(
            {"projectUserId": name, "messageId": message, "kind": kind, "executionArn": owner}, None
        )

    @precondition(lambda self: self.model.broken_off)
    @rule(crashes=CRASHES)
    def try_again(self, crashes: tuple[str, bool] | None) -> None:
        self.clean_up(self.model.broken_off.pop(0), crashes)

    def clean_up(self, event: dict[str, Any], crashes: tuple[str, bool] | None) -> None:
        """A run of handle-timeout; an interrupted one must be repeated."""
        name, claim_id = event["projectUserId"], event.get("claimId")
        key = (event["messageId"], record_id(event["kind"], claim_id, None, name))
        held = self.model.held.get(name)
        mine = held is not None and held.claim.claim_id == claim_id
        newer = held is not None and claim_id is not None and not mine
        if held is not None and mine:
            self.model.cleaned.append(held.claim)
        self.model.timeouts.add(key)
        if crashes is None:
            answer = self.jobs.call("handle-timeout", **event)
            assert answer["recorded"] is True
            assert answer["dlqMessageId"]
            if claim_id is None:
                assert (answer["released"], answer["superseded"]) == (False, False)
            elif mine:
                assert (answer["released"], answer["superseded"]) == (True, False)
            elif newer and answer["superseded"]:
                assert answer["released"] is False
        else:
            step, after = crashes
            try:
                with crash(self.jobs.function("handle-timeout"), step, after=after):
                    self.jobs.call("handle-timeout", **event)
            except CrashError:
                self.model.broken_off.append(event)
        released = crashes is None or crashes in {
            ("release", True), ("letter", False), ("letter", True), ("mark", False), ("mark", True)
        }  # fmt: skip
        if held is not None and mine and (released or self.jobs.row(name)["state"] == "free"):
            self.freed(held.claim)

    @precondition(lambda self: self.model.granted)
    @rule(pick=PICKS, status=st.sampled_from(["FAILED", "TIMED_OUT", "ABORTED", "SUCCEEDED"]))
    def execution_ends(self, pick: int, status: str) -> None:
        self.end_execution(self.claim(pick), status)

    @precondition(lambda self: self.model.broken_off)
    @rule(status=st.sampled_from(["FAILED", "TIMED_OUT", "ABORTED"]))
    def the_flow_gives_up(self, status: str) -> None:
        """An interrupted clean-up is not repeated; the execution's end completes it."""
        event = self.model.broken_off.pop()
        claim_id = event["claimId"]
        key = (event["messageId"], record_id(event["kind"], claim_id, None, event["projectUserId"]))
        stored = {record["recordId"] for record in self.jobs.records_of(event["messageId"])}
        if key[1] not in stored and event not in self.model.broken_off:
            self.model.timeouts.discard(key)
        (claim,) = (c for c in self.model.granted if c.claim_id == claim_id)
        self.end_execution(claim, status)
        if claim in self.model.cleaned:
            # It held the workspace when its clean-up began, so there must be a dead letter.
            records = self.jobs.records_of(claim.message)
            assert claim_id in {record.get("interruptedClaimId") for record in records}

    def end_execution(self, claim: Claim, status: str) -> None:
        given = {"projectUserId": claim.workspace, "messageId": claim.message}
        event = status_change(claim.owner, status, given)
        unfinished = [
            record
            for record in self.jobs.records_of(claim.message)
            if record.get("executionArn") == claim.owner and "dlqMessageId" not in record
        ]
        held = self.model.held.get(claim.workspace)
        answer = self.jobs.call("handle-timeout", **event)
        if status == "SUCCEEDED":
            assert answer["recorded"] is False
            return
        settled = {record.get("interruptedClaimId") for record in unfinished}
        if held is None or held.claim.owner != claim.owner:
            assert answer["recorded"] is bool(unfinished)
            return
        assert answer["released"] is True or settled
        if held.claim.claim_id not in settled:
            kind = "timeout" if status == "TIMED_OUT" else "forced"
            name = record_id(kind, held.claim.claim_id, None, claim.workspace)
            self.model.timeouts.add((claim.message, name))
        self.freed(held.claim)

    @rule(workspace=WORKSPACES, thread=THREADS, message=MESSAGES, again=st.booleans())
    def interrupt(self, workspace: int, thread: int, message: int, again: bool) -> None:
        wish = self.wish(workspace, thread, message, 60)
        name = wish["projectUserId"]
        held = self.model.held.get(name)
        runs = held is not None and held.end > self.clock.now
        checked = self.jobs.call("check-active-job", projectUserId=name, threadId=wish["threadId"])
        assert checked["hasActiveJob"] is runs
        if held is None or not runs:
            assert checked["shouldInterrupt"] is False
            return
        claim = held.claim
        assert checked["activeJob"]["claimId"] == claim.claim_id
        assert checked["shouldInterrupt"] is (claim.thread != wish["threadId"])
        newer = {"newThreadId": wish["threadId"], "interruptingMessageId": wish["messageId"]}
        event = {"projectUserId": name, "target": checked["activeJob"], **newer}
        sent = [self.jobs.call("send-interrupt", **event) for _ in range(1 + again)]
        assert len({answer["interruptId"] for answer in sent}) == 1
        assert all(answer["sent"] is checked["shouldInterrupt"] for answer in sent)
        if not checked["shouldInterrupt"]:
            return
        # An id names one claim for ever: the holder of another one ignores it.
        claimed = (claim.claim_id, claim.fence)
        assert self.model.interrupts.setdefault(sent[0]["interruptId"], claimed) == claimed
        for _ in range(1 + again):
            event = {"messageId": claim.message, "interruptedClaimId": claim.claim_id, **newer}
            recorded = self.jobs.call("record-interruption", projectUserId=name, **event)
            key = (claim.message, recorded["recordId"])
            assert recorded["duplicate"] is (key in self.model.records)
            self.model.records.add(key)

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        for name in self.names:
            row = self.jobs.row(name)
            held = self.model.held.get(name)
            if held is None:
                assert row.get("state", "free") == "free"
            else:
                stored = [row[key] for key in ("state", "claimId", "fence", "expiresAt")]
                assert stored == ["held", held.claim.claim_id, held.claim.fence, held.end]

    @invariant()
    def no_workspace_has_two_holders(self) -> None:
        for name in self.names:
            mine = [claim for claim in self.model.granted if claim.workspace == name]
            unreleased = [claim for claim in mine if not claim.given_up]
            live = [claim for claim in unreleased if claim.believed_end > self.clock.now]
            assert len(live) <= 1
            assert all(self.model.held[name].claim is claim for claim in live)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        while self.model.broken_off:
            self.clean_up(self.model.broken_off.pop(0), None)
        self.nothing_blocks_for_good()
        self.nothing_is_lost_or_doubled()

    def nothing_blocks_for_good(self) -> None:
        """After a claim's end and the margin, any message gets the workspace."""
        for workspace, name in enumerate(self.names):
            if held := self.model.held.get(name):
                self.clock.now = max(self.clock.now, held.end + SKEW)
            wish = self.wish(workspace, 3, 1, 60)
            self.granted(wish, self.jobs.call("claim", **wish))

    def nothing_is_lost_or_doubled(self) -> None:
        """Every record exists once; every timeout has one dead letter, marked on its record."""
        stored = {
            (record["messageId"], record["recordId"]): record
            for name in self.names
            for record in self.jobs.records_of_workspace(name)
        }
        assert stored.keys() == self.model.records | self.model.timeouts
        letters = self.jobs.letters()
        sent = [
            (message, record_id(kind, claim_id, None, workspace))
            for kind, message, claim_id, workspace in map(
                itemgetter("kind", "messageId", "claimId", "projectUserId"), letters
            )
        ]
        assert sorted(sent) == sorted(self.model.timeouts)
        assert len({letter["deadLetterId"] for letter in letters}) == len(letters)
        assert all("dlqMessageId" in stored[key] for key in self.model.timeouts)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    with pytest.MonkeyPatch.context() as patch, aws(), ExitStack() as hooks:
        for name in UNSET:
            patch.delenv(name, raising=False)
        for name, value in AWS.items():
            patch.setenv(name, value)
        yield Jobs(Stack(patch, hooks))


def test_claims_match_the_model_in_any_sequence_of_calls_and_crashes(jobs: Jobs) -> None:
    """One holder, growing fences, no lasting block, nothing lost or doubled."""

    class Machine(ClaimMachine):
        pass

    Machine.jobs = jobs
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            # The same sequences in every run; search new ones by hand, with more examples.
            derandomize=True,
            # Shrinking takes minutes; add it to analyse a failure.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
