"""`jobplane bench growth`: the cost of operations as tables grow."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from jobplane.bench._report import Chart, Report, Spread, Table, progress, reported
from jobplane.deploy.local_stage import down, up
from jobplane.pipeline import faults, planting
from jobplane.pipeline.generating import Plan, generate
from jobplane.pipeline.layout import Layout
from jobplane.pipeline.state import Row, State
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from jobplane_keys import tracking

SIZES = (1_000, 10_000, 100_000)
IN_FLIGHT = 200
ORPHANS = (100, 400, 1600)
PAGES = (10, 100, 1000)
TAKES = 5
OPERATIONS: dict[str, dict[str, Any]] = {
    "get_stats": {"operation": "get_stats"},
    "find_orphans": {"operation": "find_orphans"},
    "reset_stuck_files, dry": {"operation": "reset_stuck_files"},
    "query_by_status, 100": {"operation": "query_by_status", "status": "completed"},
    "get_stats, exact": {"operation": "get_stats", "exact": True},
}
SEARCHES = ("find_orphans", "reset_stuck_files, dry")


@dataclass(frozen=True)
class Cost:
    read_units: float
    milliseconds: Spread
    found: int

    def as_json(self) -> dict[str, Any]:
        return {
            "read_units": self.read_units,
            "milliseconds": self.milliseconds.as_json(1),
            "found": self.found,
        }


@dataclass
class Costs:
    """Costs by operation and by files, orphans or the size of a page."""

    by_files: dict[str, dict[int, Cost]] = field(default_factory=dict)
    by_orphans: dict[str, dict[int, Cost]] = field(default_factory=dict)
    by_page: dict[int, Cost] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        def plain(costs: dict[int, Cost]) -> dict[str, Any]:
            return {str(size): cost.as_json() for size, cost in costs.items()}

        return {
            "by_files": {name: plain(costs) for name, costs in self.by_files.items()},
            "by_orphans": {name: plain(costs) for name, costs in self.by_orphans.items()},
            "by_page": plain(self.by_page),
        }


@click.command()
@click.option(
    "--files",
    "sizes",
    type=click.IntRange(min=1000),
    multiple=True,
    default=SIZES,
    show_default=True,
    help="A size of the table; repeatable.",
)
@click.option("--takes", type=click.IntRange(min=1), default=TAKES, show_default=True)
@click.option(
    "--stage", default="growth", show_default=True, help="A stage for this measurement alone."
)
@reported("growth")
def command(sizes: tuple[int, ...], takes: int, stage: str) -> Report:
    """state-manager on tables of growing size, with the same files in flight in each.

    Request units are those that the operations report; times are the emulator's, which walks
    through a whole partition for every page.
    """
    repository = Repository.here()
    repository.require("`jobplane bench growth`", "state-manager")
    own = Stage(repository, stage)
    if own.read_state() is not None:
        raise click.UsageError(
            f"stage {stage!r} is in use, and its files would be deleted; choose another"
        )
    up(own)
    try:
        costs = _measure(own, sorted(sizes), takes)
    finally:
        down(own)
    return Report(
        document={"in_flight": IN_FLIGHT, "takes": takes, **costs.as_json()},
        tables=_tables(costs),
        charts=_charts(costs),
    )


def _measure(stage: Stage, sizes: Sequence[int], takes: int) -> Costs:
    layout, costs, steps = Layout.of(stage), Costs(), len(sizes) + len(ORPHANS)
    _pause_counting(stage)
    planting.clear(stage, layout)
    state = _state(layout, sizes[-1], ORPHANS[0], time.time(), in_flight=IN_FLIGHT)
    with progress("growth", steps) as advance:
        busy, done = _parts(state)
        # These operations don't read input objects.
        for bucket in (layout.manifest_bucket, layout.output_bucket):
            planting.put_objects(stage, bucket, state.objects[bucket])
        planting.put_rows(stage, layout.tracking_table, busy)
        loaded = 0
        for size in sizes:
            rows = size - sum(map(_is_file, busy))
            planting.put_rows(stage, layout.tracking_table, done[loaded:rows])
            loaded = rows
            for name, request in OPERATIONS.items():
                cost = _cost(stage, request, takes)
                costs.by_files.setdefault(name, {})[size] = cost
            advance(f"{size} files")
        for limit in PAGES:
            request = {**OPERATIONS["query_by_status, 100"], "limit": limit}
            costs.by_page[limit] = _cost(stage, request, takes)
        for orphans in ORPHANS:
            more = _state(layout, orphans, orphans, state.now + 1)
            bucket = layout.manifest_bucket
            planting.put_objects(stage, bucket, more.objects[bucket])
            planting.put_rows(stage, layout.tracking_table, _parts(more)[0])
            for name in SEARCHES:
                cost = _cost(stage, OPERATIONS[name], takes)
                costs.by_orphans.setdefault(name, {})[cost.found] = cost
            advance(f"{orphans} orphans")
    return costs


def _state(layout: Layout, files: int, orphans: int, now: float, in_flight: int = 0) -> State:
    planted = faults.spread(orphans, "find_orphans")
    return generate(Plan(files, now, seed=orphans, faults=planted, in_flight=in_flight), layout)


def _parts(state: State) -> tuple[list[Row], list[Row]]:
    """Split rows into those in flight or faulty, and those of completed files and manifests."""
    faulty = {(one.date_prefix, one.file_key) for one in state.ledger}
    busy: list[Row] = []
    done: list[Row] = []
    for key, row in state.rows.items():
        ended = str(row.get("status")).partition("#")[0] in {"completed", "failed", "quarantined"}
        is_needed = key in faulty or not (ended and _is_file(row))
        (busy if is_needed else done).append(row)
    return busy, done


def _is_file(row: Row) -> bool:
    kind = tracking.row_kind(row["date_prefix"], row["file_key"])
    return kind is tracking.RowKind.FILE


def _pause_counting(stage: Stage) -> None:
    """Disable the function's stream: an exact count sets the counters instead."""
    client, name = stage.client("lambda"), stage.names.of("state-manager")
    for mapping in client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]:
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)


def _cost(stage: Stage, request: dict[str, Any], takes: int) -> Cost:
    client, name = stage.invoker(), stage.names.of("state-manager")
    body, times = {}, []
    for _ in range(takes):
        began = time.perf_counter()
        done = client.invoke(FunctionName=name, Payload=json.dumps(request).encode())
        answer = json.loads(done["Payload"].read())
        times.append((time.perf_counter() - began) * 1000)
        if "FunctionError" in done or answer["statusCode"] != 200:
            raise click.ClickException(f"{request} answered {answer}")
        body = json.loads(answer["body"])
        if "truncated" in body:
            raise click.ClickException(f"{request} stopped at its limit, so its cost is incomplete")
    found = [body[name] for name in ("total_orphans", "stuck_files_found", "count", "total")
             if name in body]  # fmt: skip
    return Cost(body["consumed_capacity"]["read_units"], Spread(times), found[0])


def _tables(costs: Costs) -> list[Table]:
    sizes = list(next(iter(costs.by_files.values())))
    by_files = Table(
        f"Request units and milliseconds by files in the table; {IN_FLIGHT} healthy ones and "
        f"{ORPHANS[0]} orphans in each",
        ("operation", *(f"{size:,} files" for size in sizes), "units, last / first"),
        [
            (
                name,
                *(_text(cost) for cost in of.values()),
                round(of[sizes[-1]].read_units / of[sizes[0]].read_units, 1),
            )
            for name, of in costs.by_files.items()
        ],
        ["Milliseconds are medians of calls on the local stage, whose emulator evaluates a key "
         "condition on every row of a partition; units are by the size of what is read."],
    )  # fmt: skip
    by_orphans = Table(
        f"Request units and milliseconds by what is found, among {sizes[-1]:,} files",
        ("operation", "found", "units", "units each", "milliseconds"),
        [
            (name, found, cost.read_units, round(cost.read_units / found, 2),
             cost.milliseconds.text())
            for name, of in costs.by_orphans.items()
            for found, cost in of.items()
        ],
    )  # fmt: skip
    by_page = Table(
        f"A page of query_by_status, among {sizes[-1]:,} files",
        ("files a page", "units", "units a file", "milliseconds"),
        [
            (limit, cost.read_units, round(cost.read_units / limit, 2), cost.milliseconds.text())
            for limit, cost in costs.by_page.items()
        ],
    )
    return [by_files, by_orphans, by_page]


def _text(cost: Cost) -> str:
    return f"{cost.read_units:g} units, {cost.milliseconds.median:.0f} ms"


def _charts(costs: Costs) -> list[Chart]:
    sizes = list(next(iter(costs.by_files.values())))
    return [
        Chart(
            "Request units of an operation, by files in the table",
            [f"{size:,}" for size in sizes],
            {
                name: [cost.read_units for cost in of.values()]
                for name, of in costs.by_files.items()
            },
            "read request units",
            kind="lines",
            logarithmic=True,
        )
    ]
