"""`jobplane fuzz`, with a stage in its own process."""

import json

import pytest
from click.testing import CliRunner

from jobplane.fuzzing.subjects import CONTRACTS, Subject
from jobplane.verbs.fuzz import command

ARGUMENTS = ["claim", "--inputs", "30", "--way", "hypothesis", "--json"]


def test_a_clean_run_prints_one_line_and_exits_with_0() -> None:
    done = CliRunner().invoke(command, ARGUMENTS)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["function"], report["inputs"], report["findings"]) == ("claim", 30, [])


def test_a_new_function_may_only_raise_ValidationError(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CONTRACTS, "claim")
    assert CliRunner().invoke(command, ARGUMENTS).exit_code == 0
    monkeypatch.delitem(CONTRACTS, "count-files")
    done = CliRunner().invoke(command, ["count-files", "--inputs", "200", *ARGUMENTS[3:]])
    assert done.exit_code == 1
    found = json.loads(done.stdout)["findings"]
    assert {finding["problem"].partition(":")[0] for finding in found} == {
        "raised UnreadableRecordError"
    }


def test_a_finding_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is printed with its shortest input and its count."""
    monkeypatch.setattr(Subject, "_problems", lambda subject, event, done: ["something is wrong"])
    done = CliRunner().invoke(command, ARGUMENTS)
    assert done.exit_code == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["problem"], finding["times"]) == ("something is wrong", 30)
