"""Every case of every function passes in process."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobplane.reference.metrics import emitted
from jobplane.tree.repository import Function, Repository
from jobplane.trying import cases
from jobplane.trying.case_files import UnreadableEventError
from jobplane.trying.cases import Case, InProcessTarget, Outcome
from jobplane.trying.inprocess import InProcess
from tests.workspace.answers import answer_faults
from tests.workspace.emitted import in_lines

REPOSITORY = Repository.here()
CASES = cases.all_cases(REPOSITORY)


@pytest.mark.parametrize("spoilt", ["case.json", "case.given.json", "case.expect.json"])
@pytest.mark.parametrize("text", [b"", b"{bad", b"\xff\xfe", b"[" * 100_000])
def test_a_case_file_that_is_not_json_is_named(tmp_path: Path, spoilt: str, text: bytes) -> None:
    (tmp_path / "case.json").write_text("{}")
    (tmp_path / spoilt).write_bytes(text)
    with pytest.raises(UnreadableEventError, match=rf"{re.escape(spoilt)} is not JSON"):
        Case.read(Repository.here().functions()[0], tmp_path / "case.json")


def test_every_given_and_expect_file_has_its_event() -> None:
    events = {path for f in REPOSITORY.functions() for path in cases.case_paths(f).values()}
    for kind in ("given", "expect"):
        for path in REPOSITORY.root.glob(f"functions/*/events/*.{kind}.json"):
            event = path.with_name(path.name.removesuffix(f".{kind}.json") + ".json")
            assert event in events, path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_passes_in_process(case: Case) -> None:
    result = cases.run_in_process(case, REPOSITORY)
    assert result.passed, (result.problems, result.outcome)
    assert result.outcome is not None
    assert answer_faults(case, result.outcome) == []
    assert in_lines(result.outcome.log, case.function.name) <= emitted(REPOSITORY)


class Shared(InProcessTarget):
    """Says that others use the tables, and notes what it sends."""

    is_shared = True

    def __init__(self, aws: InProcess) -> None:
        super().__init__(aws)
        self.sent: list[Any] = []

    def invoke(self, function: Function, event: Any, environment: Mapping[str, str]) -> Outcome:
        self.sent.append(event)
        return super().invoke(function, event, environment)


@pytest.mark.parametrize("name", ["router/status-of-another-user", "report-job/events"])
def test_no_two_runs_on_a_stage_share_the_ids_of_rows(name: str) -> None:
    """A job of an earlier run may still post to its connection, and delete its row."""
    (case,) = (case for case in CASES if str(case) == name)
    with InProcess(REPOSITORY) as aws:
        target = Shared(aws)
        for _ in range(2):
            result = cases.run(case, target)
            assert result.passed, (result.problems, result.outcome)
    ids = [set(re.findall(r"(?:req|conn)-1[\w-]*", str(event))) for event in target.sent]
    assert ids[0].isdisjoint(ids[1])
    assert not {"req-1", "conn-1"} & (ids[0] | ids[1])
