"""The guarantees of docs/architecture.md as checks of a world, after each step and at rest.

A guarantee is a class whose docstring is its sentence. `changed` sees each change of a row,
`rested` the world when nothing moves any more. What a fault makes impossible is not required: a
worker that is killed after it has stored an end posts nothing.
"""

from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

from jobplane.explore.tables import Row
from jobplane.explore.world import Change, World
from jobplane.histories.checker import check
from jobplane.histories.operations import operations_of

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
END_KINDS = frozenset({"complete", "error"})
# Clocks differ by two seconds in each direction, and rows have whole seconds.
TOLERANCE_SECONDS = 5.0


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


class OneEnd(Guarantee):
    """A job ends once: COMPLETED, FAILED or CANCELLED."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "requests" or not old or not new or old["status"] not in TERMINAL:
            return
        for name in ("status", "result", "error", "seq", "ended_at"):
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
        if change.table != "requests" or not new or new["status"] not in TERMINAL:
            return
        if old and old["status"] in TERMINAL:
            return
        key = key_of(new)
        rows = self.world.rows("subscriptions")
        listening = {row["connection_id"] for row in rows if row["request_key"] == key}
        alive = (listening | {new["connection_id"]}) & self.world.sockets.open
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
            origin = rows[request_id]["connection_id"]
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

    def _excused(self, process: str, origin: str) -> set[str]:
        """The connections that a fault of an end's writer keeps from hearing of it."""
        excused: set[str] = set()
        for fault, call in self.world.faulted.get(process, ()):
            operation, _, target = call.partition(" ")
            if operation == "PostToConnection" and fault in {"lost", "late", "fail"}:
                excused.add(target)
            elif operation == "Query" and fault == "fail":
                excused |= self.world.sockets.open - {origin}
            elif fault not in {"repeat", "twice"}:
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
        return any(self.met(name) & {"late", "freeze"} for name in self.world.faulted)


class LeaseWhileItLives(Guarantee):
    """A worker keeps its lease while its process lives and can reach the table."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "requests" or not old or not new or "lease_owner" not in old:
            return
        if new.get("lease_owner") == old["lease_owner"] or new["status"] in TERMINAL:
            return
        owner = old["lease_owner"].removeprefix("invocation-")
        if change.process == owner:
            return
        left = old["lease_until"] - self.world.now
        if left > TOLERANCE_SECONDS:
            raise self.broken(
                f"{change.task} takes {new['request_id']} from {owner} {left:.0f} s too early."
            )
        alive = any(
            task.process.name == owner and not task.done and not task.process.dead
            for task in self.world.scheduler.tasks
        )
        others = ("PostToConnection", "SendMessage")
        weighty = any(
            fault in {"kill", "freeze"} or not call.startswith(others)
            for fault, call in self.world.faulted.get(owner, ())
            if fault not in {"repeat", "twice"}
        )
        if alive and not weighty:
            raise self.broken(
                f"the lease of {owner}, which works on {new['request_id']}, has run out."
            )


class LaneSlotsKept(Guarantee):
    """A lane runs at most as many jobs as it has slots, and no slot stays with an ended job."""

    def changed(self, change: Change) -> None:
        new = change.new
        if change.table == "lanes" and new and len(new.get("slots", ())) > new["lane_limit"]:
            raise self.broken(f"{change.task} gives out {len(new['slots'])} slots of a row.")
        if change.table != "requests" or not new or "lane" not in new:
            return
        rows = [row for row in self.world.rows("requests") if row.get("lane") == new["lane"]]
        running = [row["request_id"] for row in rows if row["status"] == "PROCESSING"]
        if len(running) > new["lane_limit"]:
            raise self.broken(f"{', '.join(running)} run at the same time.")

    def rested(self) -> None:
        for row in self.world.rows("lanes"):
            if row.get("slots"):
                raise self.broken(f"{', '.join(sorted(row['slots']))} keep slots for ever.")


class SubscribersCounted(Guarantee):
    """A job's row has the number of its subscribers."""

    def rested(self) -> None:
        found = Counter(row["request_key"] for row in self.world.rows("subscriptions"))
        for row in self.world.rows("requests"):
            if row["subscriber_count"] != found[key_of(row)]:
                raise self.broken(
                    f"{row['request_id']} counts {row['subscriber_count']} of"
                    f" {found[key_of(row)]} subscribers."
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
            ends = row["connection_id"] == gone and row.get("on_disconnect") == "cancel"
            if ends and row["status"] not in TERMINAL and not row["cancel_requested"]:
                raise self.broken(
                    f"{change.task} deletes from {change.table} before it asks"
                    f" {row['request_id']} to stop."
                )


class AssemblyAndJobAgree(Guarantee):
    """A job ends as its assembly has ended, and the results of a completed one are there."""

    def rested(self) -> None:
        documents = {row["assembly_id"]: row for row in self.world.rows("assemblies")}
        for document in documents.values():
            if "lease_until" in document:
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


class WebhookDelivered(Guarantee):
    """A webhook is delivered at least once, with a stable id."""

    def rested(self) -> None:
        accepted = {message for message, was in self.world.received if was}
        for document in self.world.rows("assemblies"):
            state = document.get("webhook")
            if state is None:
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
        if old["status"].startswith("completed") and new["status"].startswith("pending"):
            raise self.broken(f"{change.task} resets {new['file_key']}, which was completed.")
        if new.get("reset_count", 0) > 1:
            raise self.broken(f"{change.task} resets {new['file_key']} twice.")


class OneHolder(Guarantee):
    """Two jobs never hold a workspace, and the fence grows with every claim and take-over."""

    def changed(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.table != "active-jobs" or not old:
            return
        if not new:
            raise self.broken(f"{change.task} deletes the row, and its fence with it.")
        if new["fence"] < old["fence"]:
            raise self.broken(f"{change.task} sets the fence back from {old['fence']}.")
        was_held = old["state"] == "held"
        if new.get("claimId") == old.get("claimId"):
            taken = old.get("taker") and new.get("taker") not in {None, old["taker"]}
            if was_held and taken and new["fence"] == old["fence"]:
                raise self.broken(f"{change.task} takes a job over under the same fence.")
            return
        if new["state"] == "held" and new["fence"] == old["fence"]:
            raise self.broken(f"{change.task} claims the workspace under a fence that was used.")
        if was_held and new["state"] == "held" and old["expiresAt"] > self.world.now:
            raise self.broken(
                f"{change.task} claims the workspace while {old['messageId']} has it."
            )
        released = (new.get("lastReleased") or {}).get("claimId")
        if was_held and new["state"] == "free" and released != old["claimId"]:
            raise self.broken(f"{change.task} releases the claim of {old['messageId']}.")

    def rested(self) -> None:
        for row in self.world.rows("active-jobs"):
            # A killed worker's claim for a follow-up ends by itself, within a minute.
            if row["state"] == "held" and row["expiresAt"] > self.world.now + 60:
                raise self.broken(f"{row['messageId']} holds the workspace after all have ended.")


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
        calls = [call for met in self.world.faulted.values() for _, call in met]
        if any(call.startswith(("SendTask", "Invoke")) for call in calls):
            return
        for task in self.world.flows.tasks.values():
            if task.end == "timed out" and task.gap:
                raise self.broken(f"{task.token} had none for {task.gap:.0f} s.")


class HistoriesExplained(Guarantee):
    """The writes to requests and claims, with their answers, are what the specifications allow."""

    def rested(self) -> None:
        for unexplained in check(operations_of(self.world.writes)).unexplained:
            raise self.broken(str(unexplained))
