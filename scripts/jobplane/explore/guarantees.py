"""The guarantees of docs/architecture.md as checks of a world, after each step and at rest.

A guarantee is a class whose docstring is its sentence. `changed` sees each change of a row,
`rested` the world when nothing moves any more. What a fault makes impossible is not required: a
worker that is killed after it has stored an end posts nothing.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from jobplane.explore.tables import Row
from jobplane.explore.world import TTL, Change, World
from jobplane.histories.checker import check
from jobplane.histories.operations import operations_of
from jobplane_keys import parse_iso_time
from jobplane_keys.lanes import lane_rows, split_lane_row

QUEUE_LAG_SECONDS = 3.0
"""So old must the last request's wait be before a lane's queue may be taken to be empty."""

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
FIXED_AT_END = (
    "status", "result", "error", "seq", "ended_at", "cancel_requested", "starts_at",
)  # fmt: skip
END_KINDS = frozenset({"complete", "error"})
# Clocks differ by two seconds in each direction, and rows have whole seconds.
TOLERANCE_SECONDS = 5.0
# Faults that no program notices.
HARMLESS = frozenset({"repeat", "twice", "again", "stale", "expire"})


class BrokenGuaranteeError(Exception):
    """A guarantee does not hold in this schedule."""

    def __init__(self, guarantee: str, sentence: str, problem: str) -> None:
        super().__init__(f"{sentence} But {problem}")
        self.guarantee = guarantee


class Guarantee:
    """One guarantee, watched in one world."""

    known: ClassVar[list[type["Guarantee"]]] = []

    def __init_subclass__(cls) -> None:
        Guarantee.known.append(cls)

    def __init__(self, world: World) -> None:
        self.world = world

    def changed(self, change: Change) -> None:
        """Look at a change of a row."""

    def stepped(self) -> None:
        """Look at what a program says."""

    def rested(self) -> None:
        """Look at the state when nothing moves any more."""

    def broken(self, problem: str) -> BrokenGuaranteeError:
        sentence = " ".join((self.__doc__ or "").split())
        return BrokenGuaranteeError(type(self).__name__, sentence, problem)

    def has_lease(self, change: Change, row: Mapping[str, Any]) -> bool:
        """Whether the lease of a request is that of who changes it: of an invocation, or of the
        job worker that has asked for it, under its claim and fence.
        """
        owner = row.get("lease_owner")
        flow, worker = (
            self.world.programs.get("flow"),
            re.split("[./]", change.process.removeprefix("late/"))[0],
        )
        started = [one for one in flow.started if one.process == worker] if flow else []
        names = {f"{one.claim_id}/{one.fence}" for one in started}
        return owner in {f"invocation-{change.process}", *names}

    def met(self, process: str) -> set[str]:
        """The faults of a process."""
        return {fault for fault, _ in self.world.faulted.get(process, ())}


def watch(world: World) -> list[Guarantee]:
    """Watch all guarantees in a world: a change that breaks one ends its schedule."""
    guarantees = [guarantee(world) for guarantee in Guarantee.known]

    def changed(change: Change) -> None:
        if world.scheduler.current is None:
            return
        for guarantee in guarantees:
            try:
                guarantee.changed(change)
            except BrokenGuaranteeError as error:
                world.scheduler.fail(error)

    def stepped() -> None:
        for guarantee in guarantees:
            try:
                guarantee.stepped()
            except BrokenGuaranteeError as error:
                world.scheduler.fail(error)

    world.watchers.append(changed)
    world.checks.append(stepped)
    return guarantees


def at_rest(guarantees: Iterable[Guarantee]) -> None:
    """Raises BrokenGuaranteeError if one does not hold at rest."""
    for guarantee in guarantees:
        guarantee.rested()


def key_of(row: Row) -> str:
    return f"{row['owner']}#{row['request_id']}"


class GoneStaysGone(Guarantee):
    """A row that has expired or was removed stays gone: an update makes no other one."""

    # What a row has from its beginning, and keeps.
    born_with: ClassVar = {
        "active-jobs": "fence",
        "assemblies": "request_id",
        "connections": "connected_at",
        "files": "status",
        "interruptions": "kind",
        "lanes": "lane_limit",
        "requests": "created_at",
        "subscriptions": "user_id",
    }

    def changed(self, change: Change) -> None:
        name = self.born_with.get(change.table, "")
        if name and change.new and name not in change.new:
            raise self.broken(f"{change.task} makes a row of {change.table} without {name}.")


class OneEnd(Guarantee):
    """A job ends once: COMPLETED, FAILED or CANCELLED."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "requests" or not old or not new or old["status"] not in TERMINAL:
            return
        for name in FIXED_AT_END:
            if old.get(name) != new.get(name):
                raise self.broken(
                    f"{change.task} changes {name} of {new['request_id']}, which has ended,"
                    f" from {old.get(name)!r} to {new.get(name)!r}."
                )

    def rested(self) -> None:
        for row in self.world.rows("requests"):
            if row["status"] not in TERMINAL:
                raise self.broken(f"{row['request_id']} stays {row['status']} for ever.")
            left = row.keys() & {"lease_owner", "lease_until", "lease_shard"}
            if left:
                raise self.broken(f"{row['request_id']} keeps {', '.join(sorted(left))}.")
            if row["attempts"] > row["max_attempts"]:
                raise self.broken(f"{row['request_id']} had {row['attempts']} attempts.")


class EveryListenerHears(Guarantee):
    """Each listener receives the end of a job once, with increasing `seq`."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.expected: dict[str, tuple[str, set[str]]] = {}

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table == "subscriptions" and new and not old:
            self._has_not_ended(change.task, new["request_key"])
        if change.table != "requests" or not new or new["status"] not in TERMINAL:
            return
        if old and old["status"] in TERMINAL:
            return
        key = key_of(new)
        rows = self.world.rows("subscriptions")
        listening = {row["connection_id"] for row in rows if row["request_key"] == key}
        alive = (listening | {new.get("connection_id", "")}) & self.world.sockets.open
        self.expected[key] = (change.process, alive)

    def rested(self) -> None:
        rows = {row["request_id"]: row for row in self.world.rows("requests")}
        heard: dict[tuple[str, str], list[Row]] = {}
        for connection_id, message in self.world.sockets.heard:
            if message.get("seq") is not None and message.get("request_id") in rows:
                heard.setdefault((connection_id, message["request_id"]), []).append(message)
        for (connection_id, request_id), messages in heard.items():
            self._check(connection_id, rows[request_id], messages)
        for key, (process, listeners) in self.expected.items():
            request_id = key.rpartition("#")[2]
            origin = rows[request_id].get("connection_id", "")
            # Who has unsubscribed meanwhile expects nothing.
            left = {row["connection_id"] for row in self.world.rows("subscriptions")} | {origin}
            excused = self._excused(process, origin)
            for connection_id in (listeners & left & self.world.sockets.open) - excused:
                messages = heard.get((connection_id, request_id), [])
                if not any(message["type"] in END_KINDS for message in messages):
                    raise self.broken(
                        f"{connection_id} never hears of the end of {request_id}, which"
                        f" {process} has written."
                    )

    def _has_not_ended(self, task: str, key: str) -> None:
        for row in self.world.rows("requests"):
            if key_of(row) == key and row["status"] in TERMINAL:
                raise self.broken(f"{task} subscribes to {row['request_id']}, which has ended.")

    def _excused(self, process: str, origin: str) -> set[str]:
        """The connections that a fault of an end's writer keeps from hearing of it."""
        excused: set[str] = set()
        for fault, call in self.world.faulted.get(process, ()):
            operation, _, target = call.partition(" ")
            if operation == "PostToConnection" and fault in {"lost", "late", "delayed", "fail"}:
                excused.add(target)
            elif operation == "Query" and fault == "fail":
                excused |= self.world.sockets.open - {origin}
            elif fault not in HARMLESS:
                excused |= self.world.sockets.open
        return excused

    def _check(self, connection_id: str, row: Row, messages: list[Row]) -> None:
        seqs = [message["seq"] for message in messages]
        if self._is_delayed():
            messages = sorted(messages, key=lambda message: message["seq"])
        elif seqs != sorted(seqs):
            raise self.broken(f"{connection_id} hears of {row['request_id']} in the order {seqs}.")
        ends = {
            message["seq"]: message["type"] for message in messages if message["type"] in END_KINDS
        }
        if len(ends) > 1:
            raise self.broken(f"{connection_id} hears of {len(ends)} ends of {row['request_id']}.")
        for seq, kind in ends.items():
            if (kind == "complete") != (row["status"] == "COMPLETED") or seq != row["seq"]:
                raise self.broken(
                    f"{connection_id} hears {kind} {seq} of {row['request_id']}, which is"
                    f" {row['status']} {row['seq']}."
                )

    def _is_delayed(self) -> bool:
        """Whether posts may arrive late, so that their order is that of the network."""
        faulted = self.world.faulted
        is_silent = ("hang", "PostToConnection")  # for longer than a job that is put back waits
        return any(self.met(name) & {"late", "delayed", "freeze"} for name in faulted) or any(
            (fault, call.split(" ")[0]) == is_silent
            for met in faulted.values()
            for fault, call in met
        )


class LeaseWhileItLives(Guarantee):
    """A worker keeps its lease while its process lives and can reach the table, and leaves no job
    without a reason.
    """

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "requests" or not old or not new or "lease_owner" not in old:
            return
        if new.get("lease_owner") == old["lease_owner"] or new["status"] in TERMINAL:
            return
        owner = old["lease_owner"].removeprefix("invocation-")
        if change.process == owner or self._is_newer_fence(owner, new.get("lease_owner", "")):
            return
        left = old["lease_until"] - self.world.now
        if left > TOLERANCE_SECONDS:
            raise self.broken(
                f"{change.task} takes {new['request_id']} from {owner} {left:.0f} s too early."
            )
        alive = any(
            task.process.name == owner
            and not task.done
            and not task.process.dead
            and not task.name.startswith("late/")
            for task in self.world.scheduler.tasks
        )
        others = ("PostToConnection", "SendMessage")
        # One answer that does not come does not suffice: the write is made again.
        weighty = any(
            fault in {"kill", "freeze"} or not call.startswith(others)
            for fault, call in self.world.faulted.get(owner, ())
            if fault not in HARMLESS | {"delayed"}
        )
        if alive and not weighty:
            raise self.broken(
                f"the lease of {owner}, which works on {new['request_id']}, has run out."
            )
        if owner.startswith("processor") and self.met(owner) <= HARMLESS:
            raise self.broken(f"{owner} leaves {new['request_id']}, and no fault has met it.")

    def _is_newer_fence(self, old: str, new: str) -> bool:
        """Whether the job worker that has taken a claim over follows the one before."""
        (claim, _, fence), (same, _, newer) = old.rpartition("/"), new.rpartition("/")
        return bool(claim) and claim == same and int(newer) > int(fence)


class NeverEarly(Guarantee):
    """A scheduled job does not start before it is due."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "requests" or not old or not new or old["status"] != "SCHEDULED":
            return
        early = old["lease_until"] - self.world.now
        if new["status"] in {"PENDING", "PROCESSING"} and early > TOLERANCE_SECONDS:
            raise self.broken(f"{change.task} starts {new['request_id']} {early:.0f} s too early.")


class RateKept(Guarantee):
    """No more jobs of a lane start in a minute than its rate, and none before its start time."""

    def changed(self, change: Change) -> None:
        new = change.new
        if change.table != "requests" or not new or "lane_rate" not in new:
            return
        if new["status"] == "PROCESSING" and "starts_at" not in new:
            raise self.broken(f"{change.task} starts {new['request_id']} without a start time.")
        if "starts_at" not in new:
            return
        known = (change.old or {}).get("starts_at", new["starts_at"])
        if known != new["starts_at"]:
            raise self.broken(f"{change.task} moves {new['request_id']}'s start from {known}.")
        early = parse_iso_time(new["starts_at"]) - self.world.now
        if new["status"] == "PROCESSING" and early > TOLERANCE_SECONDS:
            raise self.broken(f"{change.task} starts {new['request_id']} {early:.0f} s too early.")
        rows = [row for row in self.world.rows("requests") if row.get("lane") == new["lane"]]
        times = sorted(parse_iso_time(row["starts_at"]) for row in rows if "starts_at" in row)
        if any(later - times[n] < 60 for n, later in enumerate(times[new["lane_rate"] :])):
            raise self.broken(f"{change.task} gives the start times {times}.")


class LaneSlotsKept(Guarantee):
    """A lane runs at most as many jobs as it has slots, and no slot stays with an ended job."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table == "lanes":
            self._look_at_row(change.task, old or {}, new)
        if change.table != "requests" or not new or "lane" not in new:
            return
        rows = [row for row in self.world.rows("requests") if row.get("lane") == new["lane"]]
        running = [row for row in rows if row["status"] == "PROCESSING"]
        if len(running) > max((row["lane_limit"] for row in running), default=0):
            names = ", ".join(row["request_id"] for row in running)
            raise self.broken(f"{names} run at the same time.")

    def _look_at_row(self, task: str, old: Row, new: Row | None) -> None:
        if new is None:
            if old.get("slots"):
                raise self.broken(f"{task} deletes {old['lane']}, of which slots are taken.")
            if "waiting_at" in old and old["lane"].endswith("#0"):
                raise self.broken(f"{task} deletes {old['lane']}, for which requests wait.")
            if old.get("next_start", 0) / 1000 > self.world.now:
                raise self.broken(f"{task} deletes {old['lane']}, and its next start.")
            return
        name, number = split_lane_row(new["lane"])
        most = dict(enumerate(lane_rows(new["lane_limit"]))).get(number, 0)
        if len(new.get("slots", ())) > max(most, len(old.get("slots", ()))):
            raise self.broken(f"{task} gives out {len(new['slots'])} of {most} slots of a row.")
        since, until = old.get("waiting_at", 0), new.get("waiting_at", 0)
        if 0 < until < since:
            raise self.broken(f"{task} sets the time since when requests wait for {name} back.")
        # Clocks that differ may make the queue look older.
        age = self.world.now - since / 1000
        if since and not until and self.world.seed == 0 and age < QUEUE_LAG_SECONDS:
            raise self.broken(f"{task} lets all enter {age:.1f} s after one began to wait.")

    def rested(self) -> None:
        for row in self.world.rows("lanes"):
            if row.get("slots"):
                raise self.broken(f"{', '.join(sorted(row['slots']))} keep slots for ever.")


class StepsKept(Guarantee):
    """The steps of a job are stored by the worker that has it, and stay as they are."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "requests" or not old or not new or new["status"] in TERMINAL:
            return
        before, after = old.get("steps", []), new.get("steps", [])
        if after[: len(before)] != before and "steps_object" not in new:
            raise self.broken(f"{change.task} changes {before} of {new['request_id']} to {after}.")
        is_worker = self.has_lease(change, new)
        if before != after and not (is_worker and new["status"] == "PROCESSING"):
            raise self.broken(f"{change.task} stores steps of {new['request_id']}, not having it.")


class EventsKept(Guarantee):
    """The events of a job are stored by the worker that has it, are numbered without a gap, and
    stay as they are; listeners hear what is stored.
    """

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table == "events" and old and new:
            raise self.broken(f"{change.task} changes {old['events']} to {new['events']}.")
        if change.table != "requests" or not old or not new:
            return
        before, after = old.get("event_count", 0), new.get("event_count", 0)
        if after < before:
            raise self.broken(f"{change.task} sets the count from {before} to {after}.")
        kept, tail = old.get("event_tail", ""), new.get("event_tail", "")
        if kept != tail and (before == after or (tail and not tail.startswith(kept))):
            raise self.broken(f"{change.task} changes the newest events from {kept} to {tail}.")
        is_worker = self.has_lease(change, old)
        if before != after and not (is_worker and new["status"] == "PROCESSING"):
            raise self.broken(f"{change.task} stores events of {new['request_id']}, not having it.")

    def rested(self) -> None:
        stored: dict[str, list[object]] = {}
        for row in sorted(self.world.rows("events"), key=lambda row: row["first"]):
            events = stored.setdefault(row["owner"].rpartition("#")[2], [])
            if row["first"] != len(events) + 1:
                raise self.broken(f"{row['first']} follows {len(events)} events.")
            events += json.loads(row["events"])
        for row in self.world.rows("requests"):
            newest = json.loads(f"[{row.get('event_tail', '')}]")
            stored[row["request_id"]] = [*stored.get(row["request_id"], ()), *newest]
            count, found = row.get("event_count", 0), len(stored[row["request_id"]])
            if count != found:
                raise self.broken(f"{row['request_id']} counts {count} events of {found}.")
        for connection_id, message in self.world.sockets.heard:
            if message["type"] == "event":
                first, events = message["first"], message["events"]
                kept = stored[message["request_id"]][first - 1 :][: len(events)]
                if events != kept:
                    raise self.broken(f"{connection_id} hears {events}, {kept} are stored.")


class SubscribersCounted(Guarantee):
    """A job's row has the number of its subscribers, a connection's that of its subscriptions."""

    def changed(self, change: Change) -> None:
        if change.table == "connections" and change.new:
            found, most = change.new.get("subscriptions", 0), self.world.most_subscriptions
            if found > most:
                raise self.broken(f"{change.task} makes {found} of {most} subscriptions.")

    def rested(self) -> None:
        found = Counter(row["request_key"] for row in self.world.rows("subscriptions"))
        for row in self.world.rows("requests"):
            if row["subscriber_count"] != found[key_of(row)]:
                raise self.broken(
                    f"{row['request_id']} counts {row['subscriber_count']} of"
                    f" {found[key_of(row)]} subscribers."
                )
        of_connection = Counter(row["connection_id"] for row in self.world.rows("subscriptions"))
        open_ones = self.world.sockets.open
        for row in self.world.rows("connections"):
            counted, is_open = row.get("subscriptions", 0), row["connection_id"] in open_ones
            if is_open and counted != of_connection[row["connection_id"]]:
                raise self.broken(
                    f"{row['connection_id']} counts {counted} of"
                    f" {of_connection[row['connection_id']]} subscriptions."
                )


class CancelledWithItsConnection(Guarantee):
    """A job with `on_disconnect: cancel` is asked to stop before anything else is cleaned up."""

    def changed(self, change: Change) -> None:
        if change.new is not None or not change.task.startswith("disconnect"):
            return
        if self.met(change.process) - {"twice"}:
            return
        gone = (change.old or {}).get("connection_id")
        for row in self.world.rows("requests"):
            ends = row.get("connection_id") == gone and row.get("on_disconnect") == "cancel"
            if ends and row["status"] not in TERMINAL and not row["cancel_requested"]:
                raise self.broken(
                    f"{change.task} deletes from {change.table} before it asks"
                    f" {row['request_id']} to stop."
                )


class ConnectionLasts(Guarantee):
    """A connection's end is only put off, and only before it has come; it keeps the permission that
    its subscriptions may need.
    """

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "connections" or not old or not new:
            return
        before, after = old["token_expires_at"], new["token_expires_at"]
        if after < before:
            raise self.broken(f"{change.task} sets it back by {before - after} s.")
        past = self.world.now - TOLERANCE_SECONDS
        if after > before and min(before, old["ttl"]) < past:
            raise self.broken(f"{change.task} puts it off after it has come.")
        if {"tenant:read"} & {*old["permissions"]} - {*new["permissions"]}:
            raise self.broken(f"{change.task} takes the permission tenant:read from it.")


class AssemblyAndJobAgree(Guarantee):
    """A job ends as its assembly has ended, and the results of a completed one are there."""

    def changed(self, change: Change) -> None:
        old, new = change.old or {}, change.new or {}
        if len(new.get("followers", ())) > self.world.most_followers:
            raise self.broken(f"{change.task} is one follower too many.")
        if change.table != "assemblies" or "lease_until" in new:
            return
        if {*new.get("followers", ())} - {*old.get("followers", ())}:
            raise self.broken(f"{change.task} waits for the end of an assembly that has ended.")

    def rested(self) -> None:
        documents = {row["assembly_id"]: row for row in self.world.rows("assemblies")}
        for document in documents.values():
            if "lease_until" in document or not (document.get("ok") or document.get("error")):
                raise self.broken(f"the document of {document['request_id']} never ends.")
            self._check_results(document)
        for row in self.world.rows("requests"):
            document = documents.get(row.get("assembly_id", ""), {})
            if document.get("request_id") != row["request_id"]:
                continue
            ok, error = document.get("ok"), document.get("error")
            expected = (
                "FAILED" if error else "CANCELLED" if ok == "ASSEMBLY_CANCELED" else "COMPLETED"
            )
            if row["status"] != expected:
                raise self.broken(
                    f"{row['request_id']} is {row['status']}, its assembly {error or ok}."
                )

    def _check_results(self, document: Row) -> None:
        if document.get("ok") != "ASSEMBLY_COMPLETED":
            return
        keys = {file["key"] for files in document["results"].values() for file in files}
        missing = keys - self.world.s3.objects.keys()
        if missing:
            raise self.broken(
                f"{len(missing)} of {len(keys)} results of a completed assembly are missing."
            )


class WebhookInTurn(Guarantee):
    """One receive delivers a webhook at a time, and nothing recorded of a delivery is undone."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.claimed: dict[str, str] = {}
        """The process that has claimed the delivery of each assembly's webhook."""
        self.overtaken: dict[str, set[str]] = {}
        """The processes that may have read each assembly before its newest execution began."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "assemblies" or not old or not new:
            return
        if old.get("execution") != new.get("execution"):
            alive = {task.process.name for task in self.world.scheduler.tasks}
            self.overtaken[new["assembly_id"]] = alive
            return
        is_known = old.get("webhook_execution") == old.get("execution")
        was = is_known and (old.get("webhook") or {}).get("status") == "delivered"
        self._look_at_claim(change, old, new, was)
        before = old.get("webhook_cooldown_until", 0)
        if new.get("webhook_cooldown_until", 0) != before > self.world.now + TOLERANCE_SECONDS:
            raise self.broken(f"{change.task} delivers on demand too soon after another.")
        if old.get("webhook") == new.get("webhook"):
            return
        status = (new.get("webhook") or {}).get("status")
        if was and status not in {"delivered", "disabled"}:
            raise self.broken(f"{change.task} records {status} of what was delivered.")
        is_queued = change.process.startswith(("processor", "sweeper", "cancel"))
        if not is_queued and new.get("webhook_execution") != new.get("execution"):
            raise self.broken(f"{change.task} records {status} of another execution.")

    def _look_at_claim(self, change: Change, old: Row, new: Row, was_delivered: bool) -> None:
        name, until = new["assembly_id"], old.get("webhook_claim_until", 0)
        is_held = until > self.world.now + TOLERANCE_SECONDS
        mine = self.claimed.get(name) == change.process
        if "webhook_claim_until" not in new:
            is_end = (new.get("webhook") or {}).get("status") == "delivered"
            if is_held and not mine and not is_end:
                raise self.broken(f"{change.task} ends another's claim on a delivery.")
        elif new["webhook_claim_until"] != until:
            if is_held and not mine:
                raise self.broken(f"{change.task} claims a delivery that another one makes.")
            if was_delivered and change.process not in self.overtaken.get(name, ()):
                raise self.broken(f"{change.task} claims a delivery that was made.")
            self.claimed[name] = change.process


class NewestRunLast(Guarantee):
    """The document of an older run of an assembly is not sent after that of a newer one."""

    def stepped(self) -> None:
        message_id, process = self.world.posts[-1] if self.world.posts else ("", "")
        # On demand, the document is sent that the user has asked for.
        if process.startswith("demand") or "freeze" in self.met(process):
            return
        assembly, _, run = message_id.rpartition("_")
        for other, _ in self.world.posts[:-1]:
            name, _, later = other.rpartition("_")
            if name == assembly and int(later) > int(run):
                raise self.broken(f"{process} sends that of run {run} after that of run {later}.")


class WebhookDelivered(Guarantee):
    """A webhook is delivered at least once, with a stable id."""

    def rested(self) -> None:
        accepted = {message for message, was in self.world.received if was}
        latest = self.world.now + TOLERANCE_SECONDS  # expired by a clock that is fast
        for document in self.world.rows("assemblies"):
            state = document.get("webhook")
            if state is None or document.get("ttl", latest + 1) <= latest:
                continue
            name = f"{document['assembly_id']}"
            if not any(name in message for message in accepted):
                raise self.broken(f"the receiver never gets that of {document['request_id']}.")
            if state["status"] not in {"delivered", "disabled"}:
                raise self.broken(f"it stays {state['status']} after it was delivered.")


class CountersExact(Guarantee):
    """The counters of a pipeline's files equal an exact count."""

    def rested(self) -> None:
        if not self.world.counts_files:
            return
        exact = Counter(row["status"].partition("#")[0] for row in self.world.rows("files"))
        counted: Counter[str] = Counter()
        for row in self.world.rows("metrics"):
            if row["metric_type"] == "files_by_status":
                names = row.keys() - {"metric_type", "timestamp", "changes", "counted_from"}
                counted.update({name: row[name] for name in names})
        if {name: n for name, n in counted.items() if n} != dict(exact):
            raise self.broken(f"they are {dict(counted)}, and the files {dict(exact)}.")


class ResetOnlyWhatIsStuck(Guarantee):
    """A reset is conditional: what the pipeline has changed in the meantime stays."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "files" or not old or not new or change.process.startswith("pipeline"):
            return
        if new.get("previous_status", old["status"]) != old["status"]:
            raise self.broken(f"{change.task} changes {new['file_key']}, which it has read before.")
        if old["status"].startswith("completed") and new["status"].startswith("pending"):
            raise self.broken(f"{change.task} resets {new['file_key']}, which was completed.")
        if new.get("reset_count", 0) > 1:
            raise self.broken(f"{change.task} resets {new['file_key']} twice.")


class OneHolder(Guarantee):
    """Two jobs never hold a workspace, and the fence grows with every claim and take-over."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "active-jobs" or not old or change.process == TTL:
            return
        if not new:
            raise self.broken(f"{change.task} deletes the row, and its fence with it.")
        if new["fence"] < old.get("fence", 0):
            raise self.broken(f"{change.task} sets the fence back from {old['fence']}.")
        was_held = old.get("state") == "held"
        if new.get("claimId") == old.get("claimId"):
            self._look_at_claim(change, old, new)
            taken = old.get("taker") and new.get("taker") not in {None, old["taker"]}
            if was_held and taken and new["fence"] == old.get("fence"):
                raise self.broken(f"{change.task} takes a job over under the same fence.")
            return
        if new["state"] == "held" and new["fence"] == old.get("fence"):
            raise self.broken(f"{change.task} claims the workspace under a fence that was used.")
        if was_held and new["state"] == "held" and old["expiresAt"] > self.world.now:
            raise self.broken(
                f"{change.task} claims the workspace while {old['messageId']} has it."
            )
        released = (new.get("lastReleased") or {}).get("claimId")
        if was_held and new["state"] == "free" and self._is_others(change, old):
            raise self.broken(f"{change.task} releases a job that {old['taker']} has.")
        if was_held and new["state"] == "free" and released != old["claimId"]:
            raise self.broken(f"{change.task} releases the claim of {old['messageId']}.")

    def _look_at_claim(self, change: Change, old: Row, new: Row) -> None:
        """A change that leaves the claim what it is."""
        now, task = self.world.now, change.task
        if old.get("state") == "free":
            raise self.broken(f"{task} changes a claim that was released.")
        # A message that joins a job; its worker renews the claim for as long as it needs.
        joins = change.process.startswith("flow")
        if joins and new["expiresAt"] < old["expiresAt"] - TOLERANCE_SECONDS:
            raise self.broken(f"{task} shortens the claim of {old['messageId']}.")
        if new["expiresAt"] > old["expiresAt"] < now - TOLERANCE_SECONDS:
            raise self.broken(f"{task} renews the claim of {old['messageId']}, which has expired.")
        if new.get("taker") != old.get("taker"):
            if old.get("takenUntil", 0) > now + TOLERANCE_SECONDS:
                raise self.broken(f"{task} takes the job of {old['taker']}, which works on it.")
        elif self._is_others(change, old):
            raise self.broken(f"{task} renews a job that {old['taker']} has.")

    def _is_others(self, change: Change, row: Row) -> bool:
        """Whether a worker changes the claim of a job that another one has."""
        worker = change.process.partition("/")[0].partition(".")[0]
        return worker.startswith("worker") and worker not in row.get("taker", worker)

    def rested(self) -> None:
        is_late = any("delayed" in self.met(name) for name in self.world.faulted)
        for row in self.world.rows("active-jobs"):
            # Only that of an execution is swept when it has been written after its end.
            if is_late and row.get("owner") not in self.world.flows.executions:
                continue
            # A killed worker's claim for a follow-up ends by itself, within a minute.
            if row.get("state") == "held" and row["expiresAt"] > self.world.now + 60:
                raise self.broken(f"{row['messageId']} holds the workspace after all have ended.")


class RecordedOnce(Guarantee):
    """An interruption is recorded once, and its record stays as it is."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "interruptions" or not old or not new:
            return
        if old | {"dlqMessageId": ""} != new | {"dlqMessageId": ""}:
            raise self.broken(f"{change.task} writes the record of {new['messageId']} again.")
        if old.get("dlqMessageId", "") not in {"", new.get("dlqMessageId")}:
            raise self.broken(f"{change.task} replaces the dead letter of {new['messageId']}.")


class OneWorkerPerFence(Guarantee):
    """Two workers never run a job under one fence."""

    def stepped(self) -> None:
        flow = self.world.programs.get("flow")
        if flow is None or not flow.started:
            return
        last = flow.started[-1]
        for other in flow.started[:-1]:
            if other.fence == last.fence and other.process != last.process:
                raise self.broken(
                    f"{other.process} and {last.process} both run {last.message_id} under"
                    f" fence {last.fence}."
                )


class FollowUpsWorkedOn(Guarantee):
    """A follow-up is worked on or comes again."""

    def rested(self) -> None:
        flow = self.world.programs.get("flow")
        if flow is None:
            return
        waiting = {message.body for message in flow.input.messages}
        for message_id in flow.sent:
            if message_id not in flow.worked and not any(message_id in body for body in waiting):
                raise self.broken(f"{message_id} is gone.")


class HeartbeatsInTime(Guarantee):
    """A slow service delays no heartbeat."""

    def rested(self) -> None:
        if any(self.met(name) & {"kill", "freeze"} for name in self.world.faulted):
            return
        faulted = self.world.faulted
        calls = [call for met in faulted.values() for _, call in met]
        if any(call.startswith(("SendTask", "Invoke")) for call in calls):
            return
        if any("/claim" in name for name in faulted if name.startswith("worker")):
            return  # the worker puts a message back whose claim it can't verify: it has no job
        for task in self.world.flows.tasks.values():
            if task.end == "timed out" and task.gap:
                raise self.broken(f"{task.token} had none for {task.gap:.0f} s.")


class HistoriesExplained(Guarantee):
    """What was written to requests, claims and lanes is what the specifications allow."""

    def rested(self) -> None:
        if "unrecorded" in self.world.programs:
            return
        for unexplained in check(operations_of(self.world.writes)).unexplained:
            raise self.broken(str(unexplained))
