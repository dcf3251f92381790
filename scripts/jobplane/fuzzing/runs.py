"""Runs of many hostile inputs, drawn by Hypothesis or guided by coverage."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from jobplane.fuzzing.mutations import Json, hostile
from jobplane.fuzzing.subjects import Answered, Situation, Subject
from jobplane.tree.repository import Repository
from lambdapack.environments import uv_command, uv_project_environment
from lambdapack.tools import ToolError

MAX_SHOWN = 2000
# The part of a problem's text that is equal for inputs with the same cause.
SAME = 60


@dataclass
class Finding:
    """A problem, and the shortest input that showed it."""

    problem: str
    situation: str
    event: str
    times: int = 0


@dataclass
class Report:
    function: str
    way: str
    seed: int
    inputs: int = 0
    raised: int = 0
    """Inputs that were refused with a documented error."""
    wrote: int = 0
    """Inputs that led to a write."""
    seconds: float = 0.0
    slowest_ms: float = 0.0
    edges: int | None = None
    """Branches that were reached in a coverage-guided run."""
    findings: list[Finding] = field(default_factory=list)

    def note(self, situation: Situation, event: Json, done: Answered) -> None:
        self.inputs += 1
        self.raised += done.error is not None
        self.wrote += bool(done.writes)
        self.slowest_ms = max(self.slowest_ms, round(done.cpu_seconds * 1000, 1))
        for problem in done.problems:
            self._note_problem(problem, situation, event)

    def _note_problem(self, problem: str, situation: Situation, event: Json) -> None:
        try:
            text = json.dumps(event)
        except (ValueError, RecursionError):
            text = "(nested too deeply to be written)"
        known = {finding.problem[:SAME]: finding for finding in self.findings}
        finding = known.get(problem[:SAME])
        if finding is None:
            finding = Finding(problem, situation.name, text)
            self.findings.append(finding)
        elif len(text) < len(finding.event):
            finding.problem, finding.situation, finding.event = problem, situation.name, text
        finding.times += 1

    def document(self) -> dict[str, Any]:
        """The report as JSON, with long inputs cut."""
        document = asdict(self)
        for finding in document["findings"]:
            finding["event"] = finding["event"][:MAX_SHOWN]
        return document


@st.composite
def inputs(draw: st.DrawFn, subject: Subject) -> tuple[Situation, Json]:
    situation = draw(st.sampled_from(subject.situations))
    return situation, hostile(draw, situation.event)


def property_of(
    subject: Subject,
    examples: int,
    use: Callable[[Situation, Json, Answered], None],
    phases: tuple[Phase, ...] = (Phase.generate,),
) -> Any:
    """A Hypothesis test that calls the function and passes on the results."""

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
    )
    @given(inputs(subject))
    def run(drawn: tuple[Situation, Json]) -> None:
        situation, event = drawn
        use(situation, event, subject.call(situation, event))

    return run


def explore(subject: Subject, examples: int, number: int) -> Report:
    report = Report(subject.name, "hypothesis", number)
    began = time.monotonic()
    test = property_of(subject, examples, report.note)
    seed(number)(test)()
    report.seconds = round(time.monotonic() - began, 1)
    return report


def explore_guided(repository: Repository, name: str, examples: int, number: int) -> Report:
    """Run inputs that are chosen by the branches they reach, in another process."""
    command = [
        *(uv_command(), "run", "--quiet", "--group", "fuzz", "python"),
        *("-m", "jobplane.fuzzing.guided", name, str(examples), str(number)),
    ]
    done = subprocess.run(
        command,
        cwd=repository.root,
        env=uv_project_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ToolError(f"fuzzing {name} ended without a report", done.stdout + done.stderr)
    document = json.loads(lines[-1])
    document["findings"] = [Finding(**finding) for finding in document["findings"]]
    return Report(**document)


def can_guide() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"
