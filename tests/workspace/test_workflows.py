"""The workflows in .github are valid and safe."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobplane.tree.repository import Repository

ROOT = Repository.here().root
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LINTERS = {
    "actionlint": ["actionlint"],
    "zizmor": ["zizmor", "--offline", "--min-severity=medium", "--no-progress"],
}
BROKEN = """on: pull_request_target
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
      - run: echo ${{ nothing.here }}
      - uses: somebody/something@main
"""


def linted(linter: str, *paths: Path) -> "subprocess.CompletedProcess[str]":
    program, *options = LINTERS[linter]
    return subprocess.run(
        [Path(sys.prefix, "bin", program), *options, *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("linter", LINTERS)
def test_linters_accept_the_workflows(linter: str) -> None:
    done = linted(linter, *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("linter", LINTERS)
def test_linters_find_the_faults_of_a_wrong_workflow(linter: str, tmp_path: Path) -> None:
    broken = tmp_path / ".github" / "workflows" / "broken.yml"
    broken.parent.mkdir(parents=True)
    broken.write_text(BROKEN)
    assert linted(linter, broken).returncode != 0


def test_no_workflow_has_an_access_key() -> None:
    """AWS is accessed with GitHub's token and a role of the environment."""
    text = "".join(path.read_text() for path in WORKFLOWS)
    assert "secrets." not in text
    assert "aws-access-key-id" not in text
    deploy: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
    job = deploy["jobs"]["deploy"]
    assert job["permissions"] == {"contents": "read", "id-token": "write"}
    assert job["environment"] == "${{ inputs.stage }}"
    (role,) = [
        step["with"]["role-to-assume"] for step in job["steps"] if "aws" in str(step.get("uses"))
    ]
    assert role == "${{ vars.DEPLOYER_ROLE }}"
