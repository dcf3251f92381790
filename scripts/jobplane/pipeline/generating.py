"""Generates a pipeline's state: files of past days, files in flight, then faults."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date as Date
from datetime import timedelta
from typing import Literal

from jobplane.pipeline import faults
from jobplane.pipeline.layout import Layout
from jobplane.pipeline.state import (
    BUILDERS,
    DAY,
    HOUR,
    MAX_DAYS,
    MINUTE,
    Builder,
    File,
    State,
    date_of,
    midnight,
)
from jobplane_keys.tracking import FileStatus

BATCH = (50, 100)
IN_FLIGHT_SHARE = 0.03
WEEKEND = 0.6
# Healthy files in flight are at most this old; a file is stuck after two hours.
FRESH = 70 * MINUTE
# For states that end within minutes: a claimed file, a completed manifest with unmarked files.
MOMENT = 3 * MINUTE
# Files that arrived earlier than this are done.
SETTLED = 4 * HOUR


@dataclass(frozen=True)
class Plan:
    """The number of rows of files, including those with faults, and the days they arrive on."""

    files: int
    now: float
    days: int = MAX_DAYS
    seed: int = 1
    faults: Mapping[str, int] = field(default_factory=dict)
    in_flight: int | None = None
    """The number of healthy files in flight; IN_FLIGHT_SHARE of all by default."""


def generate(plan: Plan, layout: Layout | None = None) -> State:
    """The state of a pipeline, the same for the same plan and layout."""
    state = State(layout or Layout(), plan.now)
    files = plan.files - faults.files_of(plan.faults)
    if files < 0:
        raise faults.TooManyFaultsError(
            f"{plan.files} files are too few: {faults.files_of(plan.faults)} have faults"
        )
    _healthy(state, plan, files)
    for kind in sorted(plan.faults):
        chance = random.Random(f"{plan.seed}/{kind}")
        faults.REGISTER[kind].plant(state, chance, plan.faults[kind])
    _outputs(state, random.Random(f"{plan.seed}/outputs"))
    state.ledger.sort()
    return state


def _healthy(state: State, plan: Plan, files: int) -> None:
    chance = random.Random(f"{plan.seed}/healthy")
    in_flight = round(files * IN_FLIGHT_SHARE) if plan.in_flight is None else plan.in_flight
    quarantined = files // 500
    _past(state, chance, plan.days, files - in_flight - quarantined)
    _present(state, chance, in_flight)
    _quarantine(state, chance, plan.days, quarantined, without_row=files // 200)
    for number in range(3 + files // 5000):
        state.add_lock(f"builder-{number}", state.now - chance.uniform(0, 5), chance)


def _past(state: State, chance: random.Random, days: int, files: int) -> None:
    """Files that arrived more than SETTLED ago: completed, and a few failed."""
    weights = _daily_weights(state.now, days)
    for date, count in _shares(files, weights).items():
        end = min(midnight(date) + DAY, state.now - SETTLED)
        share = _shares(count, {str(n): 1.0 + n % 3 for n in range(len(BUILDERS))})
        for number, part in share.items():
            builder = BUILDERS[int(number)]
            times = sorted(chance.uniform(midnight(date), end) for _ in range(part))
            for chunk in _chunks(chance, times):
                _past_batch(state, chance, builder, date, chunk)


def _past_batch(
    state: State, chance: random.Random, builder: Builder, date: str, times: Sequence[float]
) -> None:
    files = [state.new_file(chance, builder, created, date=date) for created in times]
    batch = state.new_batch(chance, builder, date, times[-1] + chance.uniform(10, 300))
    failed = chance.random() < 0.02
    state.publish(batch, files, "failed" if failed else "completed")
    status = FileStatus.FAILED if failed else FileStatus.COMPLETED
    for file in files:
        row = state.add(file, status, batch)
        if chance.random() < 0.005:
            row["reset_count"] = chance.randint(1, 3)


def _present(state: State, chance: random.Random, files: int) -> None:
    """Files in flight: pending, claimed, published, processing, or just completed."""
    stages = {"pending": 8.0, "claimed": 2.0, "published": 5.0, "processing": 4.0, "done": 1.0}
    for stage, count in _shares(files, stages).items():
        for chunk in _chunks(chance, [0.0] * count):
            _present_batch(state, chance, stage, len(chunk))


def _present_batch(state: State, chance: random.Random, stage: str, size: int) -> None:
    if stage == "pending":
        for _ in range(size):
            created = state.now - chance.uniform(1, FRESH)
            state.add(state.new_file(chance, chance.choice(BUILDERS), created), FileStatus.PENDING)
        return
    builder = chance.choice(BUILDERS)
    if stage == "claimed":
        for index in range(size):
            file = state.new_file(chance, builder, state.now - chance.uniform(2, MOMENT))
            state.add_claimed(file, index, file.created + 1)
        return
    # `done`: the manifest is completed, and its files are not marked yet.
    latest = MOMENT if stage == "done" else FRESH
    ended = state.now - chance.uniform(1, latest)
    published = ended - 10 * MINUTE if stage == "done" else ended
    date = date_of(published)
    times = sorted(published - chance.uniform(1, 5 * MINUTE) for _ in range(size))
    files = [state.new_file(chance, builder, one, date=date) for one in times]
    batch = state.new_batch(chance, builder, date, published)
    batch = replace(batch, started=min(batch.started, state.now - 1), ended=ended)
    manifest: dict[str, Literal["pending", "processing", "completed"]] = {
        "published": "pending", "processing": "processing", "done": "completed",
    }  # fmt: skip
    state.publish(batch, files, manifest[stage])
    status = FileStatus.MANIFESTED if stage == "published" else FileStatus.PROCESSING
    for file in files:
        state.add(file, status, batch)


def _quarantine(
    state: State, chance: random.Random, days: int, rows: int, without_row: int
) -> None:
    """Files in quarantine: with a row if an operator moved them, without if a builder did."""
    for number in range(rows + without_row):
        created = state.now - chance.uniform(SETTLED, days * DAY - SETTLED)
        file = state.new_file(chance, chance.choice(BUILDERS), created)
        _put_aside(state, file)
        if number < rows:
            state.add(file, FileStatus.QUARANTINED)


def _put_aside(state: State, file: File) -> None:
    inside = file.key.removeprefix(state.layout.input_prefix)
    key = state.layout.quarantine_prefix + inside
    state.objects[state.layout.quarantine_bucket][key] = file.body


def _outputs(state: State, chance: random.Random) -> None:
    """Parquet for each date with a completed file, except for the fault missing_outputs."""
    without = {one.date_prefix for one in state.ledger if one.fault == faults.MISSING_OUTPUTS}
    completed = {
        row["date_prefix"] for row in state.files if str(row["status"]).startswith("completed")
    }
    for date in sorted(completed - without):
        for part in range(chance.randint(1, 3)):
            # Only the object's existence matters.
            state.objects[state.layout.output_bucket][state.output_key(date, part)] = b"PAR1PAR1"


def _daily_weights(now: float, days: int) -> dict[str, float]:
    """The share of files by date: less on weekends, and today in proportion to the time of day."""
    today = Date.fromisoformat(date_of(now))
    weights = {}
    for back in range(days - 1, -1, -1):
        date = today - timedelta(days=back)
        share = min(1.0, (now - SETTLED - midnight(str(date))) / DAY)
        if share > 0:
            weights[str(date)] = share * (WEEKEND if date.weekday() >= 5 else 1.0)
    return weights or {str(today - timedelta(days=1)): 1.0}


def _shares(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    whole, given, taken, shares = sum(weights.values()), 0.0, 0, {}
    for name, weight in weights.items():
        given += weight
        shares[name] = round(total * given / whole) - taken
        taken += shares[name]
    return shares


def _chunks(chance: random.Random, times: Sequence[float]) -> Iterator[Sequence[float]]:
    start = 0
    while start < len(times):
        size = chance.randint(*BATCH)
        yield times[start : start + size]
        start += size
