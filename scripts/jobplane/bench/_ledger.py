"""What one socket of a load has sent and received, and the faults in it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobplane_keys import TERMINAL_STATUSES

type Message = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Entry:
    """One request on its socket; times are seconds of the monotonic clock."""

    id: str
    action: str
    payload: Message
    is_job: bool
    """Whether it is acknowledged and then run, or answered at once."""
    sent: float
    user: str = ""
    late: float = 0.0
    """Seconds from when it was due to when it was sent."""
    sends: int = 1
    acknowledged: float | None = None
    acknowledgments: int = 0
    ended: float | None = None
    ends: int = 0
    """Set by messages, not by look-ups."""
    status: str | None = None
    """COMPLETED, FAILED or CANCELLED, or empty before the end."""
    code: str | None = None
    """The code of its error."""
    seqs: set[int] = field(default_factory=set)
    """The `seq` of each message that came."""
    told: int = 0
    """The `seq` in a subscription's answer."""
    resumed: bool = False

    @property
    def seq(self) -> int:
        return max(self.told, *self.seqs, 0)


@dataclass(slots=True, eq=False)
class Hearing:
    """Another user's request that a socket listens to."""

    since: int
    """The `seq` in the subscription's answer."""
    times: dict[int, float] = field(default_factory=dict)
    """When each message came, by `seq`."""
    end: int | None = None
    """The `seq` of the last message."""


@dataclass(eq=False)
class Ledger:
    """One socket's requests and their messages, over all of its connections."""

    owner: str
    entries: dict[str, Entry] = field(default_factory=dict)
    hearings: dict[str, Hearing] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    overlaps: int = 0
    """Messages with a `seq` that a subscription's answer had covered."""
    repeats: int = 0
    """Messages that came again: a post without an answer within three seconds is repeated."""
    errors: Counter[str] = field(default_factory=Counter)
    """Refusals and failures, by code."""

    def open_entries(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.ended is None]

    def hear(self, message: Message, at: float) -> None:
        """Record a message that is not an answer to the client's own request."""
        request_id = str(message.get("request_id"))
        if request_id in self.hearings:
            self._overhear(self.hearings[request_id], request_id, message, at)
            return
        entry = self.entries.get(request_id)
        if entry is None:
            self._fault(request_id, f"a stranger's {message.get('type')}")
            return
        if "seq" in message and message["seq"] == max(entry.seqs, default=0):
            self.repeats += 1
            return
        match message["type"]:
            case "acknowledgment":
                self._acknowledge(entry, at)
            case "response":
                self._acknowledge(entry, at)
                self._end(entry, "COMPLETED", None, at)
            case "progress":
                self._advance(entry, message)
            case "complete":
                self._advance(entry, message)
                self._end(entry, "COMPLETED", None, at)
            case "error":
                code = str(message["error"]["code"])
                self.errors[code] += 1
                if "seq" in message:
                    self._advance(entry, message)
                else:
                    self._acknowledge(entry, at)
                self._end(entry, "CANCELLED" if code == "CANCELLED" else "FAILED", code, at)
            case kind:
                self._fault(request_id, f"an unknown {kind}")

    def resume(self, request_id: str, state: Message, asked_at: int, at: float) -> None:
        """Record a subscription's answer about a request of this socket.

        `asked_at` is the last `seq` before the subscription was sent: later messages may arrive
        before the answer.
        """
        entry = self.entries[request_id]
        entry.resumed = True
        if state["seq"] < asked_at:
            self._fault(request_id, f"stored seq {state['seq']}, heard {asked_at}")
        entry.told = max(entry.told, state["seq"])
        if state["status"] in TERMINAL_STATUSES and entry.ended is None:
            entry.ended, entry.status = at, state["status"]
            entry.code = (state.get("error") or {}).get("code")

    def agree(self, request_id: str, state: Message) -> None:
        """Compare what the socket received with a request's stored state."""
        entry = self.entries[request_id]
        if state["status"] != entry.status:
            self._fault(request_id, f"stored {state['status']}, heard {entry.status}")
        if state["seq"] != entry.seq:
            self._fault(request_id, f"stored seq {state['seq']}, heard {entry.seq}")

    def missing(self) -> list[str]:
        """Add a fault for each message that should have come and has not."""
        found = []
        for entry in self.entries.values():
            if entry.acknowledged is None:
                found.append(f"{entry.id}: no acknowledgment")
            if entry.ended is None:
                found.append(f"{entry.id}: no end")
            elif not entry.ends and not entry.resumed:
                found.append(f"{entry.id}: no message of its end")
        return found

    def _acknowledge(self, entry: Entry, at: float) -> None:
        entry.acknowledgments += 1
        if entry.acknowledged is None:
            entry.acknowledged = at
        if entry.acknowledgments > entry.sends:
            self._fault(entry.id, f"acknowledged {entry.acknowledgments} times")

    def _advance(self, entry: Entry, message: Message) -> None:
        seq = message["seq"]
        if entry.ends:
            self._fault(entry.id, f"a {message['type']} after the end")
        elif seq <= max(entry.seqs, default=0):
            self._fault(entry.id, f"seq {seq} after {max(entry.seqs)}")
        elif seq <= entry.told:
            self.overlaps += 1
        entry.seqs.add(seq)

    def _end(self, entry: Entry, status: str, code: str | None, at: float) -> None:
        entry.ends += 1
        if entry.ends > 1:
            self._fault(entry.id, f"ended {entry.ends} times")
        if entry.ended is None:
            entry.ended, entry.status, entry.code = at, status, code

    def _overhear(self, hearing: Hearing, request_id: str, message: Message, at: float) -> None:
        seq = message["seq"]
        if seq == max(hearing.times, default=0):
            self.repeats += 1
            return
        if hearing.end is not None:
            self._fault(request_id, f"seq {seq} came after the end")
        elif hearing.times and seq < max(hearing.times):
            self._fault(request_id, f"seq {seq} after {max(hearing.times)}")
        hearing.times[seq] = at
        if message["type"] in ("complete", "error"):
            hearing.end = seq

    def _fault(self, request_id: str, what: str) -> None:
        self.faults.append(f"{self.owner} {request_id}: {what}")


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in milliseconds, of seconds; by nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        name: round(1000 * ordered[math.ceil(len(ordered) * share) - 1], 1)
        for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }
