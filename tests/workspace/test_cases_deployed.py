"""Every case that can be sent to a stage passes with the deployed artifact."""

import pytest

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from jobplane.trying import cases
from jobplane.trying.cases import Case, StageTarget

pytestmark = pytest.mark.e2e

REPOSITORY = Repository.here()
CASES = [case for case in cases.all_cases(REPOSITORY) if not cases.only_in_process(case)]


@pytest.fixture(scope="module")
def stage(stage_name: str) -> StageTarget:
    return StageTarget(Stage(REPOSITORY, stage_name))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_passes_on_the_stage(stage: StageTarget, case: Case) -> None:
    result = cases.run(case, stage)
    assert result.passed, (result.problems, result.outcome)
