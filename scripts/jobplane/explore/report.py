"""What an exploration says: a line for each scenario, and the schedule of a failure."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from jobplane.explore.search import Outcome, Report
from jobplane.histories.operations import operations_of


def line_of(report: Report) -> str:
    """The result of one scenario in one line."""
    mark = "FAIL" if report.found else "ok  "
    reached = f"all with {report.complete} deviations" if report.complete else "a part"
    return (
        f"{mark} {report.scenario:12} {report.schedules:>7,} schedules in {report.seconds:.0f} s"
        f" ({reached}), {len(report.states):,} states, up to {report.longest} moments"
    )


TABLE_HEAD = (
    "| scenario | schedules | all deviations up to | states | steps | faults | findings |\n"
    "|---|---|---|---|---|---|---|"
)


def row_of(report: Report) -> str:
    """The result of one scenario as a row of the table in docs/faults.md."""
    found = f"{report.found.kind} by `{report.found.line}`" if report.found else "none"
    cells = (
        report.scenario, f"{report.schedules:,}", f"{report.complete}", f"{len(report.states):,}",
        f"{report.steps:,}", f"{report.faults:,}", found,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def document_of(report: Report) -> dict[str, Any]:
    """The result of one scenario as JSON."""
    found = report.found
    return {
        "scenario": report.scenario,
        "schedules": report.schedules,
        "states": len(report.states),
        "seconds": round(report.seconds, 1),
        "deviations": report.complete,
        "found": found
        and {
            "guarantee": found.kind,
            "problem": str(found.failure),
            "line": found.line,
            "moments": found.calls,
            "seconds": round(report.found_after, 1),
        },
    }


def histories_of(outcome: Outcome) -> dict[str, list[dict[str, Any]]]:
    """The operations on each row of requests, claims and lanes in a schedule, as JSON."""
    return {
        subject: [asdict(operation) for operation in operations]
        for subject, operations in operations_of(outcome.writes).items()
    }


def rows_of(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """The table of a schedule: when, who, what."""
    for moment, who, what in outcome.log:
        yield f"{moment:.1f} s", who, what


def lines_of(outcome: Outcome) -> Iterator[str]:
    """A failure as text: what is broken, the schedule, and how to run it again."""
    if outcome.failure is None:
        yield "Every guarantee holds in this schedule."
    else:
        yield f"{outcome.kind}: {outcome.failure}"
    rows = list(rows_of(outcome))
    width = max((len(who) for _, who, _ in rows), default=0)
    for moment, who, what in rows:
        yield f"  {moment:>9}  {who:{width}}  {what}"
    yield f"  replay with: jobplane explore --replay '{outcome.line}'"
