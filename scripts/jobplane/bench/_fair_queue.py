"""A queue that Lambda reads, as a discrete-event simulation: in order of arrival, or fair.

The rule of SQS's fair queues is that of its developer guide ("How Amazon SQS fair queues work"): a
group is noisy with more than a tenth of all messages in flight and at least 30 of its own, or with
more than a tenth of the recent processing time, and stays so until its backlog is empty. Messages
of quiet groups come first; among noisy groups, those of the one with the fewest in flight. The
guide does not say how long *recent* is; here it is a minute.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

SHARE = 0.1
MOST_IN_FLIGHT = 30
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class Sent:
    """A message: when it arrives, whose it is, and how long its job takes."""

    at: float
    group: str
    seconds: float


class Queue:
    """Invocations that receive one message each."""

    def __init__(self, invocations: int, *, is_fair: bool) -> None:
        self._free = invocations
        self._is_fair = is_fair
        self._waiting: dict[str, deque[tuple[float, int, Sent]]] = defaultdict(deque)
        self._in_flight: dict[str, int] = defaultdict(int)
        self._worked: deque[tuple[float, str, float]] = deque()
        self._noisy: set[str] = set()

    def run(self, messages: Iterable[Sent]) -> dict[Sent, float]:
        """Seconds from the arrival of each message to the end of its job."""
        events: list[tuple[float, int, Sent, bool]] = []
        for number, message in enumerate(messages):
            heapq.heappush(events, (message.at, number, message, True))
        number = len(events)
        found: dict[Sent, float] = {}
        while events:
            now, order, message, has_arrived = heapq.heappop(events)
            if has_arrived:
                self._waiting[message.group].append((now, order, message))
            else:
                self._end(now, message)
            while self._free and any(self._waiting.values()):
                taken = self._receive(now)
                self._free -= 1
                number += 1
                ends = now + taken.seconds
                found[taken] = ends - taken.at
                heapq.heappush(events, (ends, number, taken, False))
        return found

    def _end(self, now: float, message: Sent) -> None:
        self._free += 1
        self._in_flight[message.group] -= 1
        self._worked.append((now, message.group, message.seconds))

    def _receive(self, now: float) -> Sent:
        groups = [group for group, waiting in self._waiting.items() if waiting]
        if self._is_fair:
            self._judge(now, groups)
            quiet = [group for group in groups if group not in self._noisy]
            if not quiet:
                groups = [min(groups, key=lambda group: self._in_flight[group])]
            groups = quiet or groups
        group = min(groups, key=lambda group: self._waiting[group][0][:2])
        self._in_flight[group] += 1
        return self._waiting[group].popleft()[2]

    def _judge(self, now: float, groups: list[str]) -> None:
        while self._worked and self._worked[0][0] < now - RECENT_SECONDS:
            self._worked.popleft()
        worked: dict[str, float] = defaultdict(float)
        for _, group, seconds in self._worked:
            worked[group] += seconds
        all_work, flying = sum(worked.values()), sum(self._in_flight.values())
        self._noisy &= set(groups)
        for group in groups:
            own = self._in_flight[group]
            is_busy = own >= MOST_IN_FLIGHT and own > SHARE * flying
            if is_busy or worked[group] > SHARE * all_work:
                self._noisy.add(group)
