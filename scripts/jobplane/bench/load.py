"""`jobplane bench load`: many sockets with jobs; checks that each message comes once, in order."""

import asyncio
import resource
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import psutil
from websockets.exceptions import WebSocketException

from jobplane.bench._claims import contend
from jobplane.bench._crowd import RefusedError, gathered
from jobplane.bench._engine import keep_killing, slots_of_tenants
from jobplane.bench._histories import check_histories
from jobplane.bench._ledger import percentiles
from jobplane.bench._phases import FanOut, Load, Outcome, Plan
from jobplane.bench._remains import check_tables, clear
from jobplane.bench._report import Chart, Report, Table, reported
from jobplane.bench._usage import Growth, Shares, Usage, sampled
from jobplane.deploy.local_stage import down, up
from jobplane.histories.operations import recording
from jobplane.stage import emulator
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane.terminal import interrupts
from jobplane.terminal.console import note
from jobplane.tree.repository import Repository
from jobplane_client import mint_token

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
FUNCTIONS = ("connect", "disconnect", "dispatch", "processor", "router", "status")
MAX_SOCKETS = 5000
MAX_JOBS = 1000
MAX_REQUESTS = 50_000
# For Python, look-ups and the emulator's own files, in addition to one per socket.
SPARE_DESCRIPTORS = 512
AT_ONCE = "--at-once"
# By phase, what limits it on a machine with idle cores.
PACES = {"open": AT_ONCE, "jobs": "the schedule", "fan-out": "the job", "soak": AT_ONCE}
# A request that is sent later than that has waited for others.
LATE_SECONDS = 1.0
FLAT_WORDS = {True: "yes", False: "no", None: "–"}


@click.command()
@click.option("--sockets", type=click.IntRange(2, MAX_SOCKETS), default=1000, show_default=True)
@click.option(
    "--jobs", type=click.IntRange(1, MAX_JOBS), default=2, show_default=True,
    help="Requests a socket: delay and echo in turn; every 50th socket runs an assembly as well.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=60.0, show_default=True,
    help="The time over which the requests are sent.",
)  # fmt: skip
@click.option(
    "--hold", type=click.FloatRange(0, 3600), default=10.0, show_default=True,
    help="Seconds for which all sockets are open and idle, before the requests.",
)  # fmt: skip
@click.option(
    "--soak", "soak_minutes", type=click.FloatRange(0, 120), default=0.0, metavar="MINUTES",
    help="Then run jobs for so long, while sockets are lost and opened again.",
)  # fmt: skip
@click.option(
    "--reconnect-every", type=click.FloatRange(1, 3600), default=120.0, show_default=True,
    help="Seconds between two lost connections of a socket, during the soak.",
)  # fmt: skip
@click.option(
    "--subscribers", type=click.IntRange(0, MAX_SOCKETS), default=None,
    help="Sockets that listen to one request.  [default: 500, or all but one]",
)  # fmt: skip
@click.option(
    "--at-once", type=click.IntRange(1, 64), default=16, show_default=True,
    help="Handshakes and messages in flight at once; each one occupies a worker.",
)  # fmt: skip
@click.option(
    "--patience", type=click.FloatRange(1, 3600), default=600.0, show_default=True,
    help="Seconds to wait for open requests, after the last one is sent.",
)  # fmt: skip
@click.option(
    "--slots", type=click.IntRange(0, 10_000), default=0, show_default=True,
    help="Jobs of the tenant that may run at a time; 0: no lanes.",
)  # fmt: skip
@click.option(
    "--kill-every", type=click.FloatRange(0, 60), default=0.0, show_default=True,
    help="Seconds between two killed workers of dispatch, processor and router; 0: none.",
)  # fmt: skip
@click.option(
    "--stage", default="load", show_default=True, help="The stage; started unless it runs."
)
@reported("load")
def command(stage: str, subscribers: int | None, **numbers: Any) -> Report:
    """Put a load of many sockets on a local stage: latencies, processor time, memory.

    Checks that every request is acknowledged once and ends once for its socket, that its messages
    come in the order of `seq`, that no user receives another user's messages, that the tables
    agree, and that the specifications explain the histories of requests and claims. The exit code
    is 1 if a check fails.
    """
    repository = Repository.here()
    repository.require("`jobplane bench load`", *FUNCTIONS)
    there = Stage(repository, stage)
    most = numbers["sockets"] - 1
    if subscribers is not None and subscribers > most:
        raise click.UsageError(f"{subscribers} subscribers need {subscribers + 1} sockets")
    if (total := numbers["sockets"] * numbers["jobs"]) > MAX_REQUESTS:
        raise click.UsageError(f"{total:,} requests are more than {MAX_REQUESTS:,}")
    plan = Plan(subscribers=min(500, most) if subscribers is None else subscribers, **numbers)
    allow_descriptors(plan.sockets)
    tenant = f"load-{secrets.token_hex(4)}"
    with interrupts.as_keyboard_interrupt():
        state = there.read_state()
        was_up = state is not None and emulator.is_running(state)
        if not was_up:
            up(there)
        try:
            outcome, usage = run(there, plan, tenant)
        finally:
            if was_up:
                clear(there, tenant)
            else:
                down(there)
    return report(outcome, usage)


def allow_descriptors(sockets: int) -> None:
    """Raise this process's limit of open files, which the emulator inherits."""
    needed = sockets + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise click.ClickException(
                f"{sockets} sockets need {needed} open files, and {hard} are allowed: raise the "
                f"hard limit (`ulimit -Hn`; limits.conf or the service's LimitNOFILE on Linux, "
                f"`launchctl limit maxfiles` on macOS), or use fewer sockets"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def run(stage: Stage, plan: Plan, tenant: str) -> tuple[Outcome, Usage]:
    """Put a load on a running stage, as users of this tenant."""
    state = stage.read_state()
    if state is None:
        raise click.UsageError(f"stage {stage.name!r} is not a local one")
    require_loopback(state.description)
    _check_emulator(state.pid, plan.sockets)
    outcome = Outcome(plan)
    lanes = slots_of_tenants(stage, plan.slots)
    with lanes, recording(stage.directory) as folder, sampled(state.pid) as usage:
        asyncio.run(_bounded(stage, state.description, tenant, outcome))
        note("load: all sockets are closed, checking the tables and the histories")
        check_tables(stage, tenant, outcome)
        check_histories(folder, tenant, outcome)
    note(f"load: histories: {outcome.history.line}")
    return outcome, usage


def require_loopback(description: Mapping[str, Any]) -> None:
    for name in ("websocket_url", "http_url"):
        host = urlsplit(description[name]).hostname
        if host not in LOOPBACK:
            raise click.UsageError(f"a load runs only on a local stage; the {name} is at {host}")


def _check_emulator(pid: int, sockets: int) -> None:
    process = psutil.Process(pid)
    if not hasattr(process, "rlimit"):
        return
    soft, _hard = process.rlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < sockets + SPARE_DESCRIPTORS:
        raise click.ClickException(
            f"the stage's emulator may open {soft} files and {sockets} sockets need "
            f"{sockets + SPARE_DESCRIPTORS}: stop it with `jobplane down` and repeat"
        )


async def _bounded(stage: Stage, there: Mapping[str, Any], tenant: str, outcome: Outcome) -> None:
    plan, secret, url = outcome.plan, jwt_secret(stage), there["websocket_url"]
    lifetime = int(plan.longest) + 600
    claim = there["functions"].get("claim")

    def url_of(user: str) -> str:
        token = mint_token(
            secret, user=user, tenant=tenant, permissions=["tenant:read"], ttl=lifetime
        )
        return f"{url}?{urlencode({'Authorization': token})}"

    users = [f"user-{number:04}" for number in range(plan.sockets)]
    limit = asyncio.timeout(plan.longest)
    try:
        async with limit, gathered(users, url_of, plan.at_once) as crowd:
            contending = partial(contend, stage, claim, tenant) if claim else None
            state = stage.read_state()
            killing = partial(keep_killing, state.pid) if state and plan.kill_every else None
            await Load(plan, crowd, outcome, contending, killing).run()
    except (ExceptionGroup, OSError, WebSocketException, RefusedError) as failure:
        if limit.expired():
            text = f"the load did not end within {plan.longest:.0f} seconds"
            raise click.ClickException(text) from failure
        cause = _first(failure)
        if not isinstance(cause, (OSError, WebSocketException, RefusedError)):
            raise
        raise click.ClickException(f"the load failed: {cause!r}") from failure


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def report(outcome: Outcome, usage: Usage) -> Report:
    shares = {name: usage.between(*times) for name, times in outcome.phases.items()}
    document = {
        "plan": asdict(outcome.plan),
        "latencies_ms": {name: {"count": count, **of} for name, count, of in _latencies(outcome)},
        "throughput": _throughput(outcome),
        "subscribers": outcome.fan_out.subscribers if outcome.fan_out else 0,
        "handshakes_refused": dict(outcome.refused),
        "errors": dict(outcome.errors),
        "reconnects": outcome.reconnects,
        "resumed": outcome.resumed,
        "overlaps": outcome.overlaps,
        "repeats": outcome.repeats,
        "looked_up": outcome.looked_up,
        "killed": outcome.killed,
        "most_at_once": outcome.most_at_once,
        "histories": {
            "operations": outcome.history.operations,
            "indeterminate": outcome.history.indeterminate,
            "unexplained": len(outcome.history.unexplained),
        },
        "cores": {
            name: asdict(of) | {"bottleneck": _bottleneck(outcome, name, of)}
            for name, of in shares.items()
        },
        "memory": {
            name: asdict(of) | {"flat": _is_flat(outcome, of)}
            for name, of in usage.growth().items()
        },
        "emulator_mb": _emulator_memory(outcome, usage),
        "most_workers": usage.most_workers(),
        "faults": outcome.faults,
    }
    return Report(document, _tables(outcome, usage, shares), _charts(usage), outcome.faults)


def _bottleneck(outcome: Outcome, phase: str, shares: Shares) -> str | None:
    if phase not in PACES:
        return None
    pace = PACES[phase]
    if phase == "jobs" and max(entry.late for entry in outcome.entries[phase]) > LATE_SECONDS:
        pace = AT_ONCE
    return shares.bottleneck(pace)


def _is_flat(outcome: Outcome, growth: Growth) -> bool | None:
    return growth.is_flat if "soak" in outcome.phases else None


def _latencies(outcome: Outcome) -> list[tuple[str, int, dict[str, float]]]:
    """Name, count and percentiles of each latency."""
    named = [("handshake", outcome.handshakes)]
    for phase in ("jobs", "soak"):
        entries = outcome.entries.get(phase, [])
        jobs = [entry for entry in entries if entry.is_job]
        named += [
            (f"{phase}: sent after due time", [entry.late for entry in entries]),
            (
                f"{phase}: acknowledgment",
                [entry.acknowledged - entry.sent for entry in jobs if entry.acknowledged],
            ),
        ]
        for action in ("echo", "delay", "process_assembly"):
            named.append((
                f"{phase}: end of {action}",
                [
                    entry.ended - entry.sent
                    for entry in entries
                    if entry.ended and entry.action == action
                ],
            ))  # fmt: skip
    if outcome.fan_out:
        named += [
            ("fan-out: after the first listener", outcome.fan_out.delays()),
            ("fan-out: from first to last listener", outcome.fan_out.spreads()),
        ]
    return [(name, len(values), percentiles(values)) for name, values in named if values]


def _fan_out_note(fan_out: FanOut | None) -> str:
    if fan_out is None:
        return ""
    return (
        f" The fan-out's request had {fan_out.subscribers} subscribers, the last of them after "
        f"{fan_out.subscribing_seconds:.0f} s, and was cancelled in the end."
    )


def _verdict(outcome: Outcome) -> str:
    if outcome.faults:
        return f"{len(outcome.faults)} faults."
    return (
        f"{outcome.looked_up} look-ups and all rows agree; no message was lost or out of "
        f"order, {outcome.repeats} came twice.{_engine_note(outcome)} Histories of requests and "
        f"claims: {outcome.history.line}."
    )


def _engine_note(outcome: Outcome) -> str:
    slots, killed = outcome.plan.slots, Counter(name.split("-", 2)[2] for name in outcome.killed)
    kills = ", ".join(f"{name} {count}" for name, count in sorted(killed.items()))
    texts = [f" {outcome.most_at_once} jobs ran at a time, with {slots} slots."] if slots else []
    texts += [f" Killed workers: {kills}."] if kills else []
    return "".join(texts)


def _throughput(outcome: Outcome) -> dict[str, float]:
    found = {}
    for phase in ("open", "jobs", "soak"):
        if phase in outcome.phases:
            began, ended = outcome.phases[phase]
            ends = [entry.ended for entry in outcome.entries[phase] if entry.ended]
            if ends:
                found[f"{phase}: requests a second"] = round(len(ends) / (max(ends) - began), 1)
            else:
                found["open: sockets a second"] = round(outcome.plan.sockets / (ended - began), 1)
    if outcome.fan_out:
        found["fan-out: messages a second"] = round(outcome.fan_out.messages_a_second, 1)
    return found


def _emulator_memory(outcome: Outcome, usage: Usage) -> dict[str, int]:
    """MB at the end of each phase."""
    found = {}
    for name, (_began, ended) in outcome.phases.items():
        before = [sample for sample in usage.samples if sample.at <= ended]
        if before:
            found[name] = round(before[-1].emulator_bytes / 1e6)
    return found


def _tables(outcome: Outcome, usage: Usage, shares: Mapping[str, Shares]) -> list[Table]:
    plan = outcome.plan
    entries = [entry for of in outcome.entries.values() for entry in of]
    errors = ", ".join(f"{code} {count}" for code, count in sorted(outcome.errors.items()))
    refused = ", ".join(f"{code} {count}" for code, count in sorted(outcome.refused.items()))
    rates = ", ".join(f"{name} {rate:g}" for name, rate in _throughput(outcome).items())
    memory = _emulator_memory(outcome, usage)
    latencies = Table(
        f"{plan.sockets:,} sockets, {len(entries):,} requests, {plan.soak_minutes:g} minutes of "
        f"soak: milliseconds",
        ("what", "count", "p50", "p95", "p99", "max"),
        [(name, count, *of.values()) for name, count, of in _latencies(outcome)],
        [f"{rates}.{_fan_out_note(outcome.fan_out)}",
         f"Errors: {errors or 'none'}. Handshakes tried again: {refused or 'none'}. "
         f"{outcome.reconnects} reconnects resumed {outcome.resumed} requests; {outcome.overlaps} "
         f"messages were covered by a subscription's answer. {_verdict(outcome)}"],
    )  # fmt: skip
    cores = Table(
        "Busy cores and the bottleneck, by phase",
        ("phase", "seconds", "functions", "emulator", "client", "others", "idle", "bottleneck"),
        [
            (
                name, round(of.seconds), round(of.functions, 2), round(of.emulator, 2),
                round(of.client, 2), round(of.others, 2), round(of.idle, 2),
                _bottleneck(outcome, name, of),
            )
            for name, of in shares.items()
        ],
    )  # fmt: skip
    resident = Table(
        "Resident memory of the functions' workers, MB",
        ("function", "workers", "at the end", "growth, median", "growth, largest", "flat"),
        [
            (name.split("-", 2)[2], of.workers, round(of.typical, 1), round(of.median_growth, 2),
             round(of.largest_growth, 2), FLAT_WORDS[_is_flat(outcome, of)])
            for name, of in usage.growth().items()
        ],
        [f"Workers that ran for 20 seconds or longer. Growth is from the second fifth of a "
         f"worker's time to the last; it is flat up to 5%, which only a soak can show. At most "
         f"{usage.most_workers()} workers at a time. Memory of the emulator, which holds all "
         f"tables and logs, at the end of each phase: "
         f"{', '.join(f'{name} {megabytes}' for name, megabytes in memory.items())} MB."],
    )  # fmt: skip
    return [latencies, cores, resident]


def _charts(usage: Usage) -> list[Chart]:
    samples = usage.samples
    start = samples[0].at
    step = max(1, len(samples) // 60)
    chosen = samples[::step]
    functions = sorted({name for sample in samples for name in sample.workers})

    def mean(sample_workers: Mapping[int, int]) -> float | None:
        if not sample_workers:
            return None
        return round(sum(sample_workers.values()) / len(sample_workers) / 1e6, 1)

    return [
        Chart(
            "Resident memory of a worker, mean by function",
            [f"{sample.at - start:.0f} s" for sample in chosen],
            {
                name.split("-", 2)[2]: [mean(sample.workers.get(name, {})) for sample in chosen]
                for name in functions
            },
            "MB",
            kind="lines",
        )
    ]
