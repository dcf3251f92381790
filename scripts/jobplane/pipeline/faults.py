"""The kinds of faults that state-manager finds: how each one arises, and what finds it."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import click

from jobplane.pipeline.state import (
    BUILDERS,
    DAY,
    HOUR,
    MAX_DAYS,
    MINUTE,
    Batch,
    Builder,
    File,
    Operation,
    State,
    date_of,
    midnight,
)
from jobplane_keys.tracking import FILE_SUFFIX, FileStatus

MISSING_OUTPUTS = "missing_outputs"
# Older than the two hours of a search for stuck files, younger than a manifest's lifetime.
STUCK_HOURS = (3.0, 40.0)
TOGETHER = 25
OUTPUTLESS_DATES = 3
# Older than all other files, so that the dates without output have no other file.
OUTPUTLESS_DAYS = MAX_DAYS + 1
UNREADABLE: tuple[Any, ...] = ("yesterday", "2026-13-45T25:61:00Z", "", -1, True, "1e400")
UNKNOWN_STATUSES = ("archived", "PENDING", "pending#99", "completed#", "done#1")


class TooManyFaultsError(click.ClickException):
    """There are more faults than files."""

    exit_code = 2


type Plant = Callable[[State, random.Random, int], None]
type Found = tuple[Operation, str]


@dataclass(frozen=True)
class Fault:
    kind: str
    story: str
    found: tuple[Found, ...]
    has_row: bool
    """Whether each fault is in the row of one file."""
    plant: Plant


REGISTER: dict[str, Fault] = {}


def fault(*found: Found, has_row: bool = True) -> Callable[[Plant], Plant]:
    """Register a function that plants `count` faults of the kind that it is named after."""

    def register(plant: Plant) -> Plant:
        story = (plant.__doc__ or "").strip()
        kind = plant.__name__
        REGISTER[kind] = Fault(kind, story, found, has_row, plant)
        return plant

    return register


def spread(count: int, found_by: Operation | None = None) -> dict[str, int]:
    kinds = sorted(
        kind
        for kind, known in REGISTER.items()
        if found_by is None or found_by in {operation for operation, _ in known.found}
    )
    share, more = divmod(count, len(kinds))
    return {
        kind: share + (index < more) for index, kind in enumerate(kinds) if share or index < more
    }


def files_of(counts: Mapping[str, int]) -> int:
    return sum(count for kind, count in counts.items() if REGISTER[kind].has_row)


def orphan(kind: str) -> Found:
    return "find_orphans", kind


def issue(kind: str) -> Found:
    return "validate_consistency", kind


@fault(orphan("stuck_pending"))
def stuck_pending(state: State, chance: random.Random, count: int) -> None:
    """The file has been pending for hours, and no builder has claimed it."""
    for _ in range(count):
        file = old_file(state, chance)
        state.add(file, FileStatus.PENDING)
        note(state, "stuck_pending", file)


@fault(orphan("stuck_manifested"))
def stuck_manifested(state: State, chance: random.Random, count: int) -> None:
    """Its manifest was published hours ago, and no workflow has started on it."""
    for batch, files in stuck_batches(state, chance, count):
        state.publish(batch, files, "pending")
        add_all(state, "stuck_manifested", files, FileStatus.MANIFESTED, batch)


@fault(orphan("stuck_in_processing"))
def stuck_in_processing(state: State, chance: random.Random, count: int) -> None:
    """Its workflow ended without recording an outcome."""
    for batch, files in stuck_batches(state, chance, count):
        state.publish(batch, files, "processing")
        add_all(state, "stuck_in_processing", files, FileStatus.PROCESSING, batch)


@fault(orphan("lagging_files"))
def lagging_files(state: State, chance: random.Random, count: int) -> None:
    """Its manifest is completed and its data is in the output, but its row was not updated."""
    for batch, files in stuck_batches(state, chance, count):
        state.publish(batch, files, "completed")
        status = chance.choice((FileStatus.MANIFESTED, FileStatus.PROCESSING))
        add_all(state, "lagging_files", files, status, batch)


@fault(orphan("missing_manifests"), issue("missing_manifest"))
def missing_manifests(state: State, chance: random.Random, count: int) -> None:
    """Its row names a manifest that does not exist: the builder failed before writing it."""
    for batch, files in stuck_batches(state, chance, count):
        add_all(state, "missing_manifests", files, FileStatus.MANIFESTED, batch)


@fault(orphan("expired_manifests"))
def expired_manifests(state: State, chance: random.Random, count: int) -> None:
    """The bucket's lifecycle has deleted its manifest before it was processed."""
    hours = state.layout.manifest_days * 24.0
    for batch, files in stuck_batches(state, chance, count, (hours + 4, hours + 72)):
        state.publish(batch, files, "pending")
        add_all(state, "expired_manifests", files, FileStatus.MANIFESTED, batch)


@fault(orphan("not_in_manifest"), issue("not_in_manifest"))
def not_in_manifest(state: State, chance: random.Random, count: int) -> None:
    """Two builders wrote the same manifest, and the second one omitted the file."""
    for batch, files in stuck_batches(state, chance, count):
        overwritten(state, chance, batch, files, "processing")
        add_all(state, "not_in_manifest", files, FileStatus.PROCESSING, batch)


@fault(issue("not_in_manifest"))
def never_read(state: State, chance: random.Random, count: int) -> None:
    """As not_in_manifest, but marked completed: its data is not in the output."""
    for batch, files in stuck_batches(state, chance, count):
        overwritten(state, chance, batch, files, "completed")
        add_all(state, "never_read", files, FileStatus.COMPLETED, batch)


@fault(orphan("abandoned_claims"))
def abandoned_claims(state: State, chance: random.Random, count: int) -> None:
    """A builder claimed it, and ended before it wrote the manifest."""
    for index in range(count):
        file = old_file(state, chance)
        state.add_claimed(file, index, state.now - chance.uniform(30 * MINUTE, 2.5 * HOUR))
        note(state, "abandoned_claims", file)


@fault(orphan("unreadable_times"))
def unreadable_times(state: State, chance: random.Random, count: int) -> None:
    """Its row has a malformed time."""
    for number in range(count):
        builder = chance.choice(BUILDERS)
        file = state.new_file(chance, builder, state.now - chance.uniform(5, 60) * MINUTE)
        written = UNREADABLE[number % len(UNREADABLE)]
        where = chance.choice((builder.arrival, "updated_at", "manifest_time"))
        row = state.add(file, FileStatus.PENDING)
        row[where] = written
        note(state, "unreadable_times", file)


@fault(orphan(MISSING_OUTPUTS), issue("missing_output"))
def missing_outputs(state: State, chance: random.Random, count: int) -> None:
    """It is completed, but its date has no output."""
    for number in range(count):
        back = OUTPUTLESS_DAYS + number % OUTPUTLESS_DATES
        created = midnight(date_of(state.now - back * DAY)) + chance.uniform(1, 20) * HOUR
        file = state.new_file(chance, chance.choice(BUILDERS), created)
        completed(state, chance, file)
        note(state, MISSING_OUTPUTS, file)


@fault(orphan("stale_locks"), has_row=False)
def stale_locks(state: State, chance: random.Random, count: int) -> None:
    """Its builder ended without releasing the lock, and DynamoDB can't read its expiry."""
    for number in range(count):
        taken = state.now - chance.uniform(1, 40) * HOUR
        expiries = (None, int(taken + 300) * 1000, "in five minutes")
        name = f"stale-{chance.getrandbits(32):08x}"
        state.add_lock(name, taken, chance, expiries[number % len(expiries)])
        expect(state, "stale_locks", f"LOCK#{name}", "LOCK")


@fault(issue("missing_in_dynamodb"), has_row=False)
def missing_in_dynamodb(state: State, chance: random.Random, count: int) -> None:
    """The file arrived, but the event that creates its row was lost."""
    for _ in range(count):
        file = recent_file(state, chance)
        expect(state, "missing_in_dynamodb", file.date, file.name)


@fault(issue("missing_in_s3"))
def missing_in_s3(state: State, chance: random.Random, count: int) -> None:
    """It was deleted from the input before it was read."""
    for number in range(count):
        if number % 2:
            created = state.now - chance.uniform(1, 60) * MINUTE
            file = state.new_file(chance, chance.choice(BUILDERS), created, uploaded=False)
            state.add(file, FileStatus.PENDING)
        else:
            file = recent_file(state, chance, uploaded=False)
            batch = new_batch_for(state, chance, file)
            state.publish(batch, [file], "failed")
            state.add(file, FileStatus.FAILED, batch)
        note(state, "missing_in_s3", file)


@fault(issue("size_mismatch"))
def size_mismatch(state: State, chance: random.Random, count: int) -> None:
    """It was uploaded again with another size after its row was written."""
    for _ in range(count):
        file = recent_file(state, chance)
        row = completed(state, chance, file)
        row["file_size_mb"] = round(row["file_size_mb"] + chance.uniform(0.02, 50), 6)
        note(state, "size_mismatch", file)


@fault(issue("wrong_date_partition"))
def wrong_date_partition(state: State, chance: random.Random, count: int) -> None:
    """Its row is under the next day, because the builder's clock is wrong."""
    for _ in range(count):
        file = recent_file(state, chance)
        moved = replace(file, date=date_of(midnight(file.date) + 36 * HOUR))
        completed(state, chance, moved)
        note(state, "wrong_date_partition", moved)
        # Under its own date the object has no row.
        kind = issue("missing_in_dynamodb")
        state.expect("wrong_date_partition", kind, date=file.date, key=file.name)


@fault(issue("basename_collision"))
def basename_collision(state: State, chance: random.Random, count: int) -> None:
    """Another file of the same date has the same name in another folder, and has no row."""
    for _ in range(count):
        file = recent_file(state, chance)
        completed(state, chance, file)
        folder = f"{state.layout.input_prefix}{file.date}/again/"
        state.upload(replace(file, key=f"{folder}{file.name}"))
        expect(state, "basename_collision", file.date, file.name)


@fault(issue("missing_output"))
def missing_output(state: State, chance: random.Random, count: int) -> None:
    """It is completed, but the output that its row names does not exist."""
    for _ in range(count):
        file = recent_file(state, chance)
        row = completed(state, chance, file)
        row["output_path"] += ".removed"
        note(state, "missing_output", file)


@fault(issue("unknown_status"))
def unknown_status(state: State, chance: random.Random, count: int) -> None:
    """Its status is unknown, or has a shard that no operation reads."""
    for number in range(count):
        file = recent_file(state, chance)
        row = state.add(file, FileStatus.PENDING)
        row["status"] = UNKNOWN_STATUSES[number % len(UNKNOWN_STATUSES)]
        note(state, "unknown_status", file)


def add_all(state: State, kind: str, files: list[File], status: FileStatus, batch: Batch) -> None:
    for file in files:
        state.add(file, status, batch)
        note(state, kind, file)


def note(state: State, kind: str, file: File) -> None:
    expect(state, kind, file.date, file.row_key)


def expect(state: State, kind: str, date: str, key: str) -> None:
    state.expect(kind, *REGISTER[kind].found, date=date, key=key)


def old_file(state: State, chance: random.Random) -> File:
    created = state.now - chance.uniform(*STUCK_HOURS) * HOUR
    return state.new_file(chance, chance.choice(BUILDERS), created)


def recent_file(state: State, chance: random.Random, *, uploaded: bool = True) -> File:
    """A file that arrived days ago, and whose object still exists."""
    newest, oldest = DAY, (state.layout.input_days - 1) * DAY
    created = state.now - chance.uniform(newest, max(newest, oldest))
    return state.new_file(chance, chance.choice(BUILDERS), created, uploaded=uploaded)


def completed(state: State, chance: random.Random, file: File) -> dict[str, Any]:
    batch = new_batch_for(state, chance, file)
    state.publish(batch, [file], "completed")
    return state.add(file, FileStatus.COMPLETED, batch)


def new_batch_for(state: State, chance: random.Random, file: File) -> Batch:
    return state.new_batch(chance, file.builder, file.date, file.created + chance.uniform(60, 600))


def stuck_batches(
    state: State, chance: random.Random, count: int, hours: tuple[float, float] = STUCK_HOURS
) -> Iterator[tuple[Batch, list[File]]]:
    """Batches for so many files, with times of publishing hours ago; publish them yourself."""
    while count:
        size = min(count, chance.randint(1, TOGETHER))
        count -= size
        builder: Builder = chance.choice(BUILDERS)
        published = state.now - chance.uniform(*hours) * HOUR
        date = date_of(published)
        files = [
            state.new_file(chance, builder, published - chance.uniform(10, 300), date=date)
            for _ in range(size)
        ]
        yield state.new_batch(chance, builder, date, published), files


def overwritten(
    state: State,
    chance: random.Random,
    batch: Batch,
    files: list[File],
    status: Literal["processing", "completed"],
) -> None:
    """Publish a manifest that lists other files, but as many."""
    others = [
        f"s3://{state.layout.input_bucket}/{state.layout.input_prefix}{batch.date}/"
        f"{batch.builder.source}-{chance.getrandbits(40):010x}{FILE_SUFFIX}"
        for _ in files
    ]
    state.publish(batch, files, status, listed=others)
