"""Every case of every function passes in process."""

import re
from pathlib import Path

import pytest

from jobplane.reference.metrics import emitted
from jobplane.tree.repository import Repository
from jobplane.trying import cases
from jobplane.trying.case_files import UnreadableEventError
from jobplane.trying.cases import Case
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
