"""Scenarios of the claims on a workspace, and of the files of a pipeline."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobplane.stage.mappings import FunctionError
from jobplane_keys import CLAIM_SKEW_SECONDS, claim_state, iso_time
from tests.faults.cloud import TRIES, Row
from tests.faults.flow import WORKSPACE, Execution
from tests.faults.scenarios import Scenario


class Workspaces(Scenario):
    """Executions of the job flow in one workspace, whose row is recorded."""

    @contextmanager
    def prepared(self) -> Iterator[None]:
        self.history: list[tuple[float, Row]] = [(self.cloud.clock.now, {})]
        self.cloud.seen = self.watch
        yield

    def watch(self) -> None:
        row = next(iter(self.cloud.items("active-jobs")), {})
        if row != self.history[-1][1]:
            self.history.append((self.cloud.clock.now, row))

    def renew(self, execution: Execution) -> None:
        """The worker renews its claim, and repeats a call without an answer."""
        event = {"operation": "renew", "projectUserId": WORKSPACE, **execution.holding}
        for _ in range(TRIES):
            try:
                assert self.cloud.invoke("claim", event)["renewed"] is True
            except FunctionError:
                continue
            return
        raise AssertionError("the claim can't be renewed")

    def rest(self) -> None:
        """Nothing: executions retry their own tasks."""

    def check_history(self, *messages: str) -> None:
        """One holder after the other, with growing fences; free at the end."""
        holders = []
        for (_, before), (now, after) in zip(self.history, self.history[1:], strict=False):
            assert after.get("fence", 0) >= before.get("fence", 0), (before, after)
            if after.get("claimId") == before.get("claimId"):
                continue
            if after["state"] == "held":
                holders.append(after["messageId"])
                assert after["fence"] > before.get("fence", 0), (before, after)
                held = claim_state(before, now - CLAIM_SKEW_SECONDS).live
                assert not held, f"{after} took what {before} held"
        assert holders == list(messages)
        assert self.history[-1][1]["state"] == "free"


class Preemption(Workspaces):
    """A job interrupts that of another thread, then its worker fails; a third one ends."""

    def play(self) -> None:
        first, second, third = (
            Execution(self.cloud, f"message-{n}", f"thread-{n}") for n in (1, 2, 3)
        )
        assert first.check()["shouldInterrupt"] is False
        assert first.acquire()["claimed"] is True
        self.renew(first)
        second.interrupt(second.check()["activeJob"])
        assert second.acquire()["reason"] == "held"
        first.preempt({"newThreadId": "thread-2", "interruptingMessageId": "message-2"})
        assert second.acquire()["claimed"] is True
        second.time_out()
        assert third.check()["hasActiveJob"] is False
        assert third.acquire()["claimed"] is True
        self.renew(third)
        third.release()

    def check(self) -> None:
        self.check_history("message-1", "message-2", "message-3")
        records = {row["messageId"]: row["kind"] for row in self.cloud.items("interruptions")}
        assert records == {"message-1": "interruption", "message-2": "heartbeat_lost"}
        assert len(self.cloud.items("interruptions")) == 2
        letters = self.cloud.messages("jobs-dlq.fifo")
        assert [letter["messageId"] for letter in letters] == ["message-2"]


class AbortedExecution(Workspaces):
    """An execution is stopped while it holds the workspace; the rule cleans up."""

    def play(self) -> None:
        first = Execution(self.cloud, "message-1", "thread-1")
        joining = Execution(self.cloud, "message-2", "thread-1")
        second = Execution(self.cloud, "message-3", "thread-2")
        assert first.acquire()["claimed"] is True
        assert joining.acquire()["reason"] == "same_thread"
        first.end("ABORTED")
        assert second.acquire()["claimed"] is True
        second.release()

    def check(self) -> None:
        self.check_history("message-1", "message-3")
        [record] = self.cloud.items("interruptions")
        assert (record["messageId"], record["kind"]) == ("message-1", "forced")
        assert [row["messageId"] for row in self.cloud.messages("jobs-dlq.fifo")] == ["message-1"]


DAY = "2026-11-22"
STUCK = ("a.ndjson", "b.ndjson", "c.ndjson")


class StuckFiles(Scenario):
    """An operator resets stuck files; the stream keeps the counters."""

    @contextmanager
    def prepared(self) -> Iterator[None]:
        self.cloud.read_stream("count-files", "files")
        long_ago = iso_time(self.cloud.clock.now - 5 * 3600)
        for number, name in enumerate(STUCK):
            self.put(name, f"processing#{number}", long_ago)
        self.put("often.ndjson", "processing#4", long_ago, reset_count=3)
        self.put("new.ndjson", "pending#1", iso_time(self.cloud.clock.now))
        self.put("done.ndjson", "completed", long_ago)
        self.put("MANIFEST#m.json", "failed", long_ago)
        yield

    def put(self, name: str, status: str, updated_at: str, **more: Any) -> None:
        row = {"date_prefix": DAY, "file_key": name, "status": status, "updated_at": updated_at}
        self.cloud.put("files", row | more)

    def play(self) -> None:
        self.cloud.flow()
        assert self.ask(
            {"operation": "reset_stuck_files", "dry_run": False, "statuses": ["processing"]}
        )
        self.cloud.flow()

    def rest(self) -> None:
        while self.cloud.flow():
            pass

    def ask(self, request: Row) -> Row:
        """Call an operation again until it succeeds."""
        for _ in range(TRIES):
            try:
                answer = self.cloud.invoke("state-manager", request)
            except FunctionError:
                continue
            if answer["statusCode"] == 200 and "the write failed" not in answer["body"]:
                body: Row = json.loads(answer["body"])
                return body
        raise AssertionError(f"there is no answer to {request}")

    def check(self) -> None:
        rows = {row["file_key"]: row for row in self.cloud.items("files")}
        statuses = {name: row["status"].partition("#")[0] for name, row in rows.items()}
        expected = dict.fromkeys((*STUCK, "new.ndjson"), "pending") | {"done.ndjson": "completed"}
        expected |= dict.fromkeys(("often.ndjson", "MANIFEST#m.json"), "failed")
        assert statuses == expected
        assert [rows[name]["reset_count"] for name in STUCK] == [1, 1, 1]
        exact = Counter(status for name, status in statuses.items() if "#" not in name)
        counted = self.ask({"operation": "get_stats"})["stats"]
        assert {name: number for name, number in counted.items() if number} == exact


OTHERS: dict[str, type[Scenario]] = {
    "preemption": Preemption,
    "aborted": AbortedExecution,
    "stuck-files": StuckFiles,
}
