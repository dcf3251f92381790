"""What a load does, one phase after the other, on the same sockets."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from jobplane.bench._claims import CLAIMS
from jobplane.bench._crowd import Crowd, Member
from jobplane.bench._ledger import Entry
from jobplane.bench._report import Advance, progress
from jobplane.histories.checker import Verdict
from jobplane.terminal.console import note

ASSEMBLY_EVERY = 50
DELAY = {"seconds": 0.2, "steps": 2}
SOAK_DELAY = {"seconds": 0.5, "steps": 3}
FAN_OUT_DELAY = {"seconds": 60, "steps": 60}
FAN_OUT_HEARD = 3
ASK_AGAIN_SECONDS = 15.0


@dataclass(frozen=True)
class Plan:
    sockets: int
    jobs: int
    seconds: float
    """The time over which jobs are sent."""
    hold: float
    """Seconds for which all sockets are open and idle."""
    soak_minutes: float
    reconnect_every: float
    subscribers: int
    at_once: int
    """Handshakes and messages that may wait for their answer at once."""
    patience: float
    """Seconds to wait for ends after the last request."""
    slots: int = 0
    """Jobs that may run at a time; 0: all."""
    kill_every: float = 0.0
    """Seconds between two killed workers; 0: none is killed."""

    @property
    def longest(self) -> float:
        """Seconds after which the load is aborted."""
        own = self.hold + self.seconds + self.soak_minutes * 60
        return 600 + self.sockets + own + self.patience * 3


@dataclass
class FanOut:
    subscribers: int
    """Listeners that subscribed before it ended."""
    subscribing_seconds: float
    last_seq: int
    heard: dict[int, list[float]]
    """When each subscriber received a message, by `seq`, after all had subscribed."""

    def spreads(self) -> list[float]:
        """Seconds from the first listener to the last one, for each message."""
        return [max(times) - min(times) for times in self.heard.values()]

    def delays(self) -> list[float]:
        """Seconds of each listener after the first one, over all messages."""
        return [at - min(times) for times in self.heard.values() for at in times]

    @property
    def messages_a_second(self) -> float:
        return sum(map(len, self.heard.values())) / (sum(self.spreads()) or 1.0)


@dataclass
class Outcome:
    plan: Plan
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Start and end of each phase, by the monotonic clock."""
    entries: dict[str, list[Entry]] = field(default_factory=dict)
    """Requests by phase."""
    handshakes: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    fan_out: FanOut | None = None
    reconnects: int = 0
    resumed: int = 0
    """Requests that a new socket resumed."""
    overlaps: int = 0
    repeats: int = 0
    looked_up: int = 0
    killed: list[str] = field(default_factory=list)
    """The functions whose workers were killed."""
    most_at_once: int = 0
    """Jobs that ran at the same time."""
    history: Verdict = field(default_factory=Verdict)
    """Of the operations on requests and claims."""
    faults: list[str] = field(default_factory=list)


class Load:
    def __init__(
        self,
        plan: Plan,
        crowd: Crowd,
        outcome: Outcome,
        contend: Callable[[Advance], None] | None,
        kill: Callable[[float, list[str]], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._plan = plan
        self._crowd = crowd
        self._outcome = outcome
        self._contend = contend
        self._kill = kill

    async def run(self) -> None:
        plan = self._plan
        with self._phase("open", plan.sockets) as advance:
            await self._crowd.each(lambda member: member.open(), advance)
        with self._phase("hold", 1) as advance:
            await asyncio.sleep(plan.hold)
            advance("")
        with self._phase("warm up", plan.at_once) as advance:
            first = self._crowd.members[: plan.at_once]
            await self._crowd.each(lambda member: member.ask("health", {}), advance, first)
        with self._phase("jobs", plan.sockets * plan.jobs) as advance:
            async with self._killing():
                await self._jobs(advance)
            await self._settled()
        if plan.subscribers:
            with self._phase("fan-out", plan.subscribers) as advance:
                await self._fan_out(advance)
        if plan.soak_minutes:
            with self._phase("soak", int(plan.soak_minutes * 60)) as advance:
                await self._soak(advance)
        if self._contend is not None:
            with self._phase("claims", CLAIMS) as advance:
                await asyncio.to_thread(self._contend, advance)
        with self._phase("look up", plan.sockets) as advance:
            await self._crowd.each(self._look_up, advance)
        self._gather()

    @contextmanager
    def _phase(self, name: str, steps: int) -> Iterator[Advance]:
        note(f"load: {name}")
        before = {id(entry) for entry in self._crowd.entries}
        began = time.monotonic()
        with progress(name, steps) as advance:
            yield advance
        self._outcome.phases[name] = (began, time.monotonic())
        self._outcome.entries[name] = [
            entry for entry in self._crowd.entries if id(entry) not in before
        ]

    @asynccontextmanager
    async def _killing(self) -> AsyncIterator[None]:
        if self._kill is None:
            yield
            return
        killing = asyncio.create_task(self._kill(self._plan.kill_every, self._outcome.killed))
        try:
            yield
        finally:
            killing.cancel()

    async def _jobs(self, advance: Advance) -> None:
        """Every socket's requests, at times that are drawn in advance."""
        began, seconds = time.monotonic(), self._plan.seconds

        async def one(member: Member, at: float, number: int) -> None:
            await asyncio.sleep(began + at - time.monotonic())
            if number % 2 == 0:
                await member.send("delay", DELAY, is_job=True, due=began + at)
            else:
                await member.send("echo", {"n": number}, is_job=False, due=began + at)
            advance(member.user)

        async def assemble(member: Member, at: float) -> None:
            await asyncio.sleep(began + at - time.monotonic())
            payload = await member.upload(self._crowd.http, f"of {member.user}\n".encode())
            await member.send("process_assembly", payload, is_job=True, due=time.monotonic())

        async with asyncio.TaskGroup() as group:
            for position, member in enumerate(self._crowd.members):
                for number in range(self._plan.jobs):
                    group.create_task(one(member, random.uniform(0, seconds), number))
                if position % ASSEMBLY_EVERY == 0:
                    group.create_task(assemble(member, random.uniform(0, seconds)))

    async def _settled(self) -> None:
        """Wait for open requests; those without an end in time are reported as missing later."""
        waiting = [
            asyncio.create_task(member.ended(entry))
            for member in self._crowd.members
            for entry in member.ledger.open_entries()
        ]
        end = time.monotonic() + self._plan.patience
        pending = set(waiting)
        while pending and (left := end - time.monotonic()) > 0:
            step = ASK_AGAIN_SECONDS if self._kill else left
            _done, pending = await asyncio.wait(pending, timeout=min(step, left))
            if pending and self._kill:
                # A killed worker may have written an end that it did not post.
                await self._crowd.each(lambda member: member.resume(), lambda _user: None)
        for task in pending:
            task.cancel()

    async def _fan_out(self, advance: Advance) -> None:
        """A long job with many listeners, cancelled when all of them have received a message."""
        owner, *others = self._crowd.members
        listeners = others[: self._plan.subscribers]
        entry = await owner.send("delay", FAN_OUT_DELAY, is_job=True, due=time.monotonic())
        began = time.monotonic()

        async def listen(member: Member) -> bool:
            return await member.listen(owner.user, entry.id)

        answers = await self._crowd.each(listen, advance, listeners)
        seconds = time.monotonic() - began
        heard = {
            member.user: member.ledger.hearings[entry.id]
            for member, is_subscribed in zip(listeners, answers, strict=True)
            if is_subscribed
        }
        common = max((hearing.since for hearing in heard.values()), default=0)
        while entry.ended is None and len(entry.seqs - set(range(common + 1))) < FAN_OUT_HEARD:
            await asyncio.sleep(0.1)
        if entry.ended is None:
            await owner.ask("cancel", {"request_id": entry.id})
        end = time.monotonic() + self._plan.patience
        while any(of.end is None for of in heard.values()) and time.monotonic() < end:
            await asyncio.sleep(0.1)
        await self._settled()
        for user, hearing in heard.items():
            missed = {seq for seq in entry.seqs if seq > hearing.since} - set(hearing.times)
            if missed:
                self._outcome.faults.append(f"{user}: has not heard {sorted(missed)} of {entry.id}")
        self._outcome.fan_out = FanOut(
            len(heard),
            seconds,
            entry.seq,
            {
                seq: [hearing.times[seq] for hearing in heard.values() if seq in hearing.times]
                for seq in sorted(entry.seqs)
                if seq > common
            },
        )

    async def _soak(self, advance: Advance) -> None:
        """A few jobs at any time, on sockets that are lost and opened again."""
        end = time.monotonic() + self._plan.soak_minutes * 60
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell(advance))
            for number in range(self._plan.at_once):
                members = self._crowd.members[number :: self._plan.at_once]
                if members:
                    group.create_task(self._keep_working(members, end))
                    group.create_task(self._keep_losing(members, end))
        await self._settled()

    async def _keep_working(self, members: Sequence[Member], end: float) -> None:
        while time.monotonic() < end:
            member = random.choice(members)
            if member.is_open:
                entry = await member.send("delay", SOAK_DELAY, is_job=True, due=time.monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(member.ended(entry), self._plan.patience)
            else:
                await asyncio.sleep(0.01)

    async def _keep_losing(self, members: Sequence[Member], end: float) -> None:
        """Lose sockets; every other time one with an open request, if there is one."""
        pause = self._plan.reconnect_every / len(members)
        for number in itertools.count():
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            if time.monotonic() >= end:
                return
            waiting = [member for member in members if member.ledger.open_entries()]
            chosen = waiting[0] if waiting and number % 2 else members[number % len(members)]
            await chosen.reconnect(abruptly=random.random() < 0.5)

    async def _tell(self, advance: Advance) -> None:
        for _ in range(int(self._plan.soak_minutes * 60)):
            await asyncio.sleep(1)
            advance(f"{sum(member.reconnects for member in self._crowd.members)} reconnects")

    async def _look_up(self, member: Member) -> None:
        """Compare the last job of each socket with the answer of `status`."""
        jobs = [entry for entry in member.ledger.entries.values() if entry.is_job]
        if not jobs:
            return
        state = await member.ask("status", {"request_id": jobs[-1].id})
        member.ledger.agree(jobs[-1].id, state)
        self._outcome.looked_up += 1

    def _gather(self) -> None:
        outcome = self._outcome
        outcome.resumed = sum(entry.resumed for entry in self._crowd.entries)
        for member in self._crowd.members:
            outcome.handshakes += member.handshakes
            outcome.refused += member.refused
            outcome.errors += member.ledger.errors
            outcome.reconnects += member.reconnects
            outcome.overlaps += member.ledger.overlaps
            outcome.repeats += member.ledger.repeats
            outcome.faults += member.ledger.faults + member.ledger.missing()
