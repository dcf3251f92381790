"""A step on state-manager: find orphans of a pipeline, and correct them."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

from rich import box
from rich.table import Table

from jobplane.demo.scene import Scene
from jobplane.demo.story import CheckError, Observation, Stopwatch, check, step
from jobplane.pipeline import planting
from jobplane.pipeline.generating import Plan, generate
from jobplane.pipeline.layout import Layout
from jobplane.pipeline.state import State

FILES = 600
FAULTS = {
    "stuck_in_processing": 12,
    "stuck_manifested": 9,
    "lagging_files": 8,
    "missing_manifests": 6,
    "abandoned_claims": 6,
    "not_in_manifest": 5,
    "expired_manifests": 3,
    "stuck_pending": 3,
    "stale_locks": 2,
}
# state-manager corrects neither: only a builder's run takes a pending file or releases a lock.
LEFT = {kind: FAULTS[kind] for kind in ("stuck_pending", "stale_locks")}
LOOKS_PER_SECOND = 5

type Orphans = dict[str, list[dict[str, Any]]]


class Operator:
    def __init__(self, scene: Scene) -> None:
        self._client = scene.stage.client("lambda")
        self._name = scene.description["functions"]["state-manager"]

    async def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """The body of an answer; CheckError unless its status is 200."""
        event = json.dumps({"operation": operation, **request}).encode()
        done = await asyncio.to_thread(self._client.invoke, FunctionName=self._name, Payload=event)
        answer = json.loads(done["Payload"].read())
        if "FunctionError" in done or answer["statusCode"] != 200:
            raise CheckError(f"{operation} answered {answer}")
        body: dict[str, Any] = json.loads(answer["body"])
        return body

    async def orphans(self) -> Orphans:
        """All orphans by kind, of a search that could read every manifest.

        The search knows only the age of a file whose manifest S3 did not give, and calls it stuck.
        """
        while (answer := await self.ask("find_orphans"))["unknown"]:
            await asyncio.sleep(1 / LOOKS_PER_SECOND)
        found: Orphans = answer["orphans"]
        return found

    async def change(self, files: list[dict[str, Any]], status: str, reason: str) -> None:
        """Set the status of files, even if the pipeline does not allow the change."""
        changes = [
            {
                "date_prefix": file["date_prefix"],
                "file_key": file["file_key"],
                "new_status": status,
                "force": True,
                "reason": reason,
                "changed_by": "demo",
            }
            for file in files
        ]
        done = await self.ask("batch_update", files=changes)
        check(done["failed"] == 0, f"not changed: {done['results']}")

    async def settled(self, files: int) -> dict[str, int]:
        while (stats := await self.ask("get_stats"))["total"] != files:
            await asyncio.sleep(1 / LOOKS_PER_SECOND)
        by_status: dict[str, int] = stats["stats"]
        return by_status


@step("Find and correct the orphans of a pipeline", shows=("state-manager",), seconds=90)
async def orphans(scene: Scene) -> Observation:
    """Plant faults among files, find exactly those, correct what can be, search again."""
    operator = Operator(scene)
    state = await asyncio.to_thread(_plant, scene)
    watch = Stopwatch()
    before = await operator.orphans()
    searched = watch.ms
    planted = {
        (one.kind, one.date_prefix, one.file_key)
        for one in state.ledger
        if one.operation == "find_orphans"
    }
    found = {(kind, *_key(file)) for kind, files in before.items() for file in files}
    check(planted == found, f"missed: {planted - found}; found in error: {found - planted}")
    stats_before = await operator.settled(len(state.files))

    tried = await operator.ask("reset_stuck_files")
    done = await operator.ask("reset_stuck_files", dry_run=False, reason="the demo's reset")
    check(tried["files_reset"] == 0, f"the dry run reset {tried['files_reset']} files")
    check(
        [_key(file) for file in tried["stuck_files"]]
        == [_key(file) for file in done["stuck_files"]],
        "the dry run listed other files than the reset",
    )
    young = (await operator.orphans()).get("abandoned_claims", [])
    if young:
        await operator.change(young, "pending", "the builder that claimed it is gone")
    lagging = before["lagging_files"]
    await operator.change(lagging, "completed", "its manifest is completed")

    after = await operator.orphans()
    left = {kind: len(files) for kind, files in after.items() if files}
    check(left == LEFT, f"left after the correction: {left}")
    stats_after = await _completed(operator, stats_before, len(lagging))
    _show(scene, before, after, stats_before, stats_after)
    corrected = len(found) - sum(left.values())
    return Observation(
        f"found exactly the {len(found)} orphans among {len(state.files)} files in "
        f"{searched:.0f} ms; {corrected} corrected, {sum(left.values())} left to the operator",
        {"search_ms": searched, "orphans": len(found), "corrected": corrected},
    )


def _plant(scene: Scene) -> State:
    layout = Layout.of(scene.stage)
    state = generate(Plan(FILES, time.time(), faults=FAULTS), layout)
    planting.clear(scene.stage, layout)
    planting.write(scene.stage, state)
    return state


async def _completed(operator: Operator, before: dict[str, int], completed: int) -> dict[str, int]:
    """Files by status, once the stream has counted those that were completed."""
    expected = before["completed"] + completed
    while (stats := await operator.ask("get_stats"))["stats"]["completed"] != expected:
        await asyncio.sleep(1 / LOOKS_PER_SECOND)
    check(stats["total"] == sum(before.values()), f"counted {stats['total']} files")
    by_status: dict[str, int] = stats["stats"]
    return by_status


def _key(file: dict[str, Any]) -> tuple[str, str]:
    return file["date_prefix"], file["file_key"]


def _show(
    scene: Scene,
    before: Orphans,
    after: Orphans,
    stats_before: dict[str, int],
    stats_after: dict[str, int],
) -> None:
    """Kinds and statuses, before and after, in one table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="files")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    for status, number in stats_before.items():
        table.add_row(status, str(number), str(stats_after[status]))
    table.add_section()
    kinds = Counter({kind: len(files) for kind, files in before.items()})
    for kind, number in kinds.most_common():
        if number:
            table.add_row(kind, str(number), str(len(after.get(kind, []))))
    scene.screen.console.print(table)
