"""`jobplane bench cost`: what a million of each, and a month, cost on AWS."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from jobplane.bench import _billing as billing
from jobplane.bench._billing import MILLION, Prices
from jobplane.bench._report import Report, Table, reported
from jobplane.bench._scenarios import FILES, MESSAGES, PING_MINUTES, SOCKET_HOURS, measure
from jobplane.deploy.local_stage import down, up
from jobplane.stage import emulator
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository

RECORDED = Path(__file__).with_name("used.json")
REGION = "eu-west-1"
# An answer of DynamoDB, SQS or the socket API, if they are waited for one after another.
WAIT_MS = 5
SIZES_MB = (128, 256, 512, 1024)
WEBHOOK = "deliver-webhook"
COLUMNS = {
    "Lambda requests": ("invocations",),
    "DynamoDB": ("write_units", "read_units"),
    "API Gateway": ("socket_messages", "connection_minutes", "http_requests"),
    "SQS": ("queue_requests",),
    "Step Functions, S3": ("transitions", "puts", "gets"),
    "logs, traces": ("log_bytes", "traces"),
}
MINUTES_A_MONTH = 60 * 24 * 30
# Of Lambda's pollers of a queue: five at least, a request in 20 seconds each while nothing comes.
POLLS_A_MONTH = 5 * 3 * MINUTES_A_MONTH
QUEUES = 2
# Of one person in a month: hours with an open socket, and how often each thing is done.
PERSON = {
    "socket-hour": 160, "echo": 400, "job": 800, "assembly": 100, "webhook": 100,
    "look-up by HTTP": 400, "claim": 20, "flow": 20,
}  # fmt: skip
TEAMS = (5, 50, 500)
SHOWN = {
    "look-up": "status look-up, invoked",
    "look-up by HTTP": "status look-up over HTTP",
    "echo": "echo",
    "job": f"job with {MESSAGES} progress messages",
    "assembly": f"assembly of {FILES} files",
    "webhook": "webhook",
    "claim": "claim cycle: acquire, renew, release",
    "flow": "flow execution",
    "socket-hour": "socket-hour",
}

type Row = dict[str, Any]
type Used = Mapping[str, Any]


@click.command()
@click.option(
    "--region", type=click.Choice(billing.regions()), default=REGION, show_default=True,
    help="Whose prices.",
)  # fmt: skip
@click.option("--recorded", is_flag=True, help="Price what was recorded last; start no stage.")
@click.option(
    "--stage", default="cost", show_default=True, help="The stage; started unless it runs."
)
@reported("cost")
def command(region: str, recorded: bool, stage: str) -> Report:
    """What a million of each, and a month, cost on AWS, by calls that a local stage makes.

    Counts request units with indexes and transactions, messages, requests, state transitions, log
    bytes, traces and processor time, and applies AWS's rules and the prices of
    scripts/jobplane/bench/prices.toml. Without free tiers, storage and data transfer. A new
    recording replaces used.json beside it.
    """
    repository = Repository.here()
    if recorded:
        used = json.loads(RECORDED.read_text(encoding="utf-8"))
    else:
        used = record(Stage(repository, stage))
        RECORDED.write_text(json.dumps(used, indent=1) + "\n", encoding="utf-8")
    memory = {one.name: int(one.config["memorySize"]) for one in repository.functions()}
    return report(used, Prices.read(region), memory)


def record(stage: Stage) -> Row:
    """What the scenarios use on a stage, which is started unless it runs."""
    state = stage.read_state()
    was_up = state is not None and emulator.is_running(state)
    if not was_up:
        up(stage)
    try:
        return measure(stage) | {"alarms": len(_alarms(stage))}
    finally:
        if not was_up:
            down(stage)


def _alarms(stage: Stage) -> Sequence[Any]:
    pages = stage.client("cloudwatch").get_paginator("describe_alarms").paginate()
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


@dataclass(frozen=True)
class Item:
    """What one of something uses: parts of functions' invocations, and units outside of them."""

    functions: Mapping[str, Row]
    units: Mapping[str, float] = field(default_factory=dict)

    def times(self, number: float) -> "Item":
        functions = {
            name: of | {
                "invocations": of["invocations"] * number,
                "units": {unit: count * number for unit, count in of["units"].items()},
            }
            for name, of in self.functions.items()
        }  # fmt: skip
        return Item(functions, {name: count * number for name, count in self.units.items()})

    @property
    def all_units(self) -> Counter[str]:
        total = Counter(self.units)
        for of in self.functions.values():
            total += Counter(of["units"])
        return total


@dataclass(frozen=True)
class Cost:
    """US dollars of one item, by unit; of computing, without and with waits for AWS."""

    units: Mapping[str, Decimal]
    computing: Decimal
    waiting: Decimal

    @classmethod
    def of(cls, item: Item, prices: Prices, memory: Mapping[str, int]) -> "Cost":
        least, most = (
            sum((_gb_seconds(of, memory[name], wait) for name, of in item.functions.items()),
                Decimal(0))
            for wait in (0, WAIT_MS)
        )  # fmt: skip
        costs = [prices.cost({"gb_seconds": seconds})["gb_seconds"] for seconds in (least, most)]
        return cls(prices.cost(item.all_units), costs[0], costs[1] - costs[0])

    @property
    def least(self) -> Decimal:
        return sum(self.units.values(), self.computing)

    @property
    def total(self) -> Decimal:
        return self.least + self.waiting


def _gb_seconds(of: Row, memory_mb: int, wait_ms: int) -> Decimal:
    """Of all invocations of a function in an item."""
    one = billing.billed_ms(of["processor_ms"], memory_mb, wait_ms * of["calls"])
    return billing.gb_seconds(one, memory_mb) * Decimal(str(of["invocations"]))


def items(used: Used) -> dict[str, Item]:
    """What is priced, from the recorded scenarios."""
    recorded = {name: Item(of["functions"], of["units"]) for name, of in used["scenarios"].items()}
    both = recorded.pop("assembly")
    of_webhook = {name: of for name, of in both.functions.items() if name == WEBHOOK}
    others = {name: of for name, of in both.functions.items() if name != WEBHOOK}
    parts = (
        recorded.pop("handshake").times(1 / SOCKET_HOURS),
        recorded["ping"].times(60 / PING_MINUTES),
    )
    hour: dict[str, Row] = {}
    for part in parts:
        hour |= part.functions
    return {
        **recorded,
        "assembly": Item(others, both.units),
        "webhook": Item(of_webhook),
        "socket-hour": Item(hour, {"connection_minutes": 60}),
    }


def report(used: Used, prices: Prices, memory: Mapping[str, int]) -> Report:
    known = items(used)
    costs = {name: Cost.of(item, prices, memory) for name, item in known.items()}
    tables = [
        _per_million(costs, prices),
        _usage(known),
        _sizes(used, memory, prices),
        _months(used, costs, prices),
    ]
    document = {
        "region": prices.region,
        "as_of": prices.as_of,
        "dollars_a_million": {name: _money(cost.total * MILLION) for name, cost in costs.items()},
        "used": used,
    }
    return Report(document, tables)


def _per_million(costs: Mapping[str, Cost], prices: Prices) -> Table:
    rows = []
    for name, what in SHOWN.items():
        cost = costs[name]
        columns = [sum(cost.units.get(unit, Decimal(0)) for unit in of) for of in COLUMNS.values()]
        sums = (cost.computing, *columns, cost.least, cost.total)
        rows.append((what, *(_money(one * MILLION) if one else None for one in sums)))
    second = prices.cost({"gb_seconds": 1})["gb_seconds"]
    return Table(
        f"US dollars for a million of each; prices of {prices.region} as of {prices.as_of}",
        ("what", "computing", *COLUMNS, "at least", f"with {WAIT_MS} ms a call"),
        rows,
        [f"Computing is the processor time that was measured, at the size of each function; AWS "
         f"also bills the time in which a function waits. *With {WAIT_MS} ms a call* adds that for "
         f"each call of AWS. What a job itself takes is not in the table: a million seconds of it "
         f"cost ${_money(second * MILLION)} for each gigabyte, divided by the jobs that share an "
         f"invocation."],
    )  # fmt: skip


def _usage(known: Mapping[str, Item]) -> Table:
    names = sorted({unit for name in SHOWN for unit in known[name].all_units})
    rows = [
        (what, *(round(known[name].all_units.get(unit, 0), 2) or None for unit in names))
        for name, what in SHOWN.items()
    ]
    return Table(
        "What one of each uses",
        ("what", *(name.replace("_", " ") for name in names)),
        rows,
        ["Write units include those of indexes, and count twice in a transaction. Of the traces, "
         f"{billing.TRACED:%} are recorded."],
    )  # fmt: skip


def _sizes(used: Used, memory: Mapping[str, int], prices: Prices) -> Table:
    """Of each function: what a million invocations cost by its size, and how long one takes."""
    seen: dict[str, Row] = {}
    for scenario in used["scenarios"].values():
        for name, of in scenario["functions"].items():
            if name not in seen or of["processor_ms"] > seen[name]["processor_ms"]:
                seen[name] = of
    rows = []
    for name, of in sorted(seen.items()):
        cells = []
        for size in SIZES_MB:
            takes = billing.billed_ms(of["processor_ms"], size, WAIT_MS * of["calls"])
            price = prices.cost({"gb_seconds": billing.gb_seconds(takes, size)})["gb_seconds"]
            cells.append(f"{takes} ms, ${_money(price * MILLION)}")
        peak = max(
            one["functions"][name]["peak_mb"]
            for one in used["scenarios"].values()
            if name in one["functions"]
        )
        rows.append((name, memory[name], of["processor_ms"], peak, *cells))
    return Table(
        "A million invocations of each function, by its size",
        ("function", "size, MB", "processor ms", "peak MB", *(f"{size} MB" for size in SIZES_MB)),
        rows,
        ["Of the most expensive scenario of each. Below 1,769 MB a function gets a part of a "
         "processor, so that computing takes longer and costs the same; only waiting costs less."],
    )  # fmt: skip


def _months(used: Used, costs: Mapping[str, Cost], prices: Prices) -> Table:
    polls = prices.cost({"queue_requests": POLLS_A_MONTH * QUEUES})["queue_requests"]
    sweeps = costs["sweeps"].total * MINUTES_A_MONTH
    watching = sum(
        (prices.of[f"{of}_month"] * used[f"{of}s"] for of in ("metric", "alarm")), Decimal(0)
    )
    rows = []
    for people in TEAMS:
        each = {name: costs[name].total * number * people for name, number in PERSON.items()}
        sockets = each["socket-hour"]
        rest = sum(each.values(), -sockets)
        parts = (rest, sockets, polls + sweeps, watching)
        rows.append((f"{people} people", *map(_money, parts), _money(sum(parts, Decimal(0)))))
    habits = ", ".join(f"{number} × {name}" for name, number in PERSON.items())
    return Table(
        f"A month of a stage, US dollars; prices of {prices.region} as of {prices.as_of}",
        ("team", "what they do", "open sockets", "idle", "metrics, alarms", "together"),
        rows,
        [f"Each person in a month: {habits}. Idle: Lambda's polls of {QUEUES} queues, and the "
         f"sweeps of every minute. {used['metrics']} metrics, {used['alarms']} alarms. Without "
         f"free tiers, storage, data transfer, KMS and the jobs' own time."],
    )  # fmt: skip


def _money(dollars: Decimal) -> str:
    return f"{dollars:,.2f}"
