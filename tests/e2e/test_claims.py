"""A workspace has one holder at a time, with sixteen concurrent callers on the local stage.

The claim and handle-timeout modules run in this process, against the stage's tables; the history
of every call is checked afterwards. Expiry takes no waiting: the modules' clock is moved ahead.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from tests.e2e.claim_history import Answer, History, Key, faults
from tests.e2e.deployed import Deployed, unique
from tests.e2e.in_process import context, load, wire

pytestmark = pytest.mark.e2e

CONTENDERS = 16
WORKSPACES = 25
ROUNDS = 1000
TTL = 60
# What the holder of a workspace does while fifteen others try to claim it.
ENDS = ("release", "release", "renew", "timeout", "broken timeout", "crash")


class Clock:
    """The time, which can be moved ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


class BrokenOffError(Exception):
    """Ends a run of handle-timeout early."""


@dataclass
class Contest:
    """The functions, the clock and the history that the rounds share."""

    claim: ModuleType
    handle_timeout: ModuleType
    clock: Clock
    pool: ThreadPoolExecutor
    history: History
    breaking: threading.local = field(default_factory=threading.local)
    cleaned: list[tuple[str, str]] = field(default_factory=list)

    def acquire(self, workspace: str, message: str) -> Answer:
        thread, owner = f"thread-{message}", f"of-{message}"
        event = {"threadId": thread, "messageId": message, "owner": owner, "ttlSeconds": TTL}
        return self.history.note(
            workspace, "acquire", message, 0, lambda: run(self.claim, workspace, event)
        )

    def want(self, workspace: str, message: str, times: int) -> None:
        for _ in range(times):
            self.acquire(workspace, message)

    def hold(self, workspace: str, operation: str, key: Key) -> Answer:
        """Renew or release."""
        claim, fence = key
        event = {"operation": operation, "claimId": claim, "fence": fence, "ttlSeconds": TTL}
        return self.history.note(
            workspace, operation, claim, fence, lambda: run(self.claim, workspace, event)
        )

    def time_out(self, workspace: str, message: str, key: Key, *, breaks: bool) -> None:
        """Clean up after a holder; a run that is interrupted before its dead letter is repeated."""
        claim, fence = key
        event = {"messageId": message, "claimId": claim, "fence": fence, "kind": "timeout"}

        def clean_up() -> Answer:
            # One operation for the checker, because either run may release.
            if breaks:
                self.breaking.off = True
                with suppress(BrokenOffError):
                    run(self.handle_timeout, workspace, event)
                self.breaking.off = False
            return run(self.handle_timeout, workspace, event)

        answer = self.history.note(workspace, "timeout", claim, fence, clean_up)
        assert answer["recorded"]
        self.cleaned.append((message, answer["recordId"]))


def run(function: ModuleType, workspace: str, event: dict[str, Any]) -> Answer:
    answer: Answer = function.handler({"projectUserId": workspace} | event, context())
    return answer


@pytest.fixture
def contest(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Contest]:
    clock = Clock()
    claim = load(deployed, "claim", monkeypatch, LOG_LEVEL="ERROR")
    handle_timeout = load(deployed, "handle-timeout", monkeypatch, LOG_LEVEL="ERROR")
    config = Config(max_pool_connections=2 * CONTENDERS, parameter_validation=False)
    session = botocore.session.get_session()
    for module in (claim, handle_timeout):
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "dynamodb", session.create_client("dynamodb", config=config))
    with ThreadPoolExecutor(CONTENDERS) as pool:
        contest = Contest(claim, handle_timeout, clock, pool, History(clock.time))
        send = handle_timeout.send_dead_letter

        def send_or_break_off(*arguments: Any) -> Any:
            if getattr(contest.breaking, "off", False):
                raise BrokenOffError
            return send(*arguments)

        monkeypatch.setattr(handle_timeout, "send_dead_letter", send_or_break_off)
        yield contest


@dataclass
class Ground:
    """A workspace with the claims that were granted in earlier rounds."""

    workspace: str
    claims: list[tuple[str, Key]] = field(default_factory=list)
    """Every claim that was granted so far with its message, the newest last."""
    given_up: bool = True

    def learn(self, history: History, seen: int) -> None:
        """Store the claims of the last round."""
        done = [o for o in history.operations[seen:] if o.workspace == self.workspace]
        granted = {o.grant: o.subject for o in done if o.grant is not None}
        known = {key for _, key in self.claims}
        new = [(message, key) for key, message in granted.items() if key not in known]
        self.claims += sorted(new, key=lambda claim: claim[1][1])
        if self.claims:
            newest = self.claims[-1][1]
            self.given_up = any(
                o.frees and (o.subject, o.fence) == newest for o in history.operations
            )


def play(contest: Contest, ground: Ground, number: int, chance: random.Random) -> str:
    """A round: the holder acts, former holders try to, all others try to claim."""
    workspace = ground.workspace
    parts: list[Callable[[], Any]] = []
    end = "none"
    if ground.claims and not ground.given_up:
        message, key = ground.claims[-1]
        end = chance.choice(ENDS)
        if end in ("release", "renew"):
            parts.append(partial(contest.hold, workspace, end, key))
        elif end == "crash":
            # It does nothing until its claim has expired, and then acts too late.
            contest.clock.ahead += TTL + 5
            parts.append(partial(contest.hold, workspace, "renew", key))
        else:
            breaks = end == "broken timeout"
            parts.append(partial(contest.time_out, workspace, message, key, breaks=breaks))
    for _, key in ground.claims[-4:-1]:
        parts.append(partial(contest.hold, workspace, chance.choice(["renew", "release"]), key))
    for rival in range(CONTENDERS - len(parts)):
        wanted = f"{workspace.replace('#', '-')}-{number}-{rival}"
        # Some lose their first answer, and repeat the call.
        parts.append(partial(contest.want, workspace, wanted, 2 if rival % 5 == 0 else 1))
    chance.shuffle(parts)
    seen = len(contest.history.operations)
    for done in [contest.pool.submit(part) for part in parts]:
        done.result()
    ground.learn(contest.history, seen)
    return end


def fight(contest: Contest, rounds: int, workspaces: int, seed: int) -> Counter[str]:
    """Many rounds over several workspaces; how often holders ended in which way."""
    chance = random.Random(seed)
    arena = unique("arena")
    grounds = [Ground(f"{arena}#user-{number}") for number in range(workspaces)]
    return Counter(play(contest, chance.choice(grounds), n, chance) for n in range(rounds))


def test_a_workspace_has_one_holder_at_a_time(deployed: Deployed, contest: Contest) -> None:
    """Five hundred rounds with eight thousand calls give a history without a fault."""
    ends = fight(contest, ROUNDS, WORKSPACES, seed=20261122)

    operations = contest.history.operations
    assert faults(operations) == []
    assert len(operations) >= ROUNDS * CONTENDERS
    assert all(ends[end] >= ROUNDS // 20 for end in ENDS)
    granted = {operation.grant for operation in operations} - {None}
    assert len(granted) >= ROUNDS // 2
    for message, record in contest.cleaned[:: max(1, len(contest.cleaned) // 50)]:
        found = deployed.get("interruptions", messageId=message, recordId=record)
        assert "dlqMessageId" in found


def test_the_check_finds_an_unconditional_release(
    deployed: Deployed, contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rounds with a claim module that lets any caller release."""
    claim = contest.claim
    write_held, release_claim = claim.write_held, claim.release_claim

    def holder(workspace: str, claim_id: str, fence: int) -> tuple[str, int]:
        """The claim and fence of the current holder, if there is one."""
        row = deployed.get("active-jobs", projectUserId=workspace)
        return row.get("claimId", claim_id), row.get("fence", fence)

    def write_any(holding: Any, *arguments: Any, **options: Any) -> Any:
        held = holder(holding.workspace.key, holding.claim_id, holding.fence)
        return write_held(claim.Holding(holding.workspace, *held), *arguments, **options)

    def release_any(
        dynamodb: Any, table: str, workspace: str, *, claim_id: str, fence: int, **how: Any
    ) -> Any:
        claim_id, fence = holder(workspace, claim_id, fence)
        return release_claim(dynamodb, table, workspace, claim_id=claim_id, fence=fence, **how)

    monkeypatch.setattr(claim, "write_held", write_any)
    monkeypatch.setattr(claim, "release_claim", release_any)
    fight(contest, 40, 2, seed=7)
    told = "\n".join(faults(contest.history.operations))
    assert "released by a stale holder" in told
    assert "renewed by a stale holder" in told
    assert "was granted while" in told


def test_acquire_is_one_write_and_check_one_read(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at the HTTP client, for a grant, a refusal and a check."""
    claim = load(deployed, "claim", monkeypatch)
    check = load(deployed, "check-active-job", monkeypatch)
    event = {"projectUserId": f"{unique('wire')}#a", "threadId": "t-1", "messageId": "m-1"}
    other = event | {"threadId": "t-2", "messageId": "m-2"}
    with wire(monkeypatch) as sent:
        assert claim.handler(event, context())["claimed"] is True
        assert claim.handler(other, context())["claimed"] is False
        assert check.handler(other, context())["shouldInterrupt"] is True
    assert sent == ["UpdateItem", "UpdateItem", "GetItem"]
