"""How `jobplane invoke` shows answers, on the answers that functions really give."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from jobplane.tree.repository import Repository
from jobplane.trying import answers, cases
from jobplane.trying.inprocess import InProcess
from jobplane.verbs.invoke import command

REPOSITORY = Repository.here()
STARTED = "2026-11-20T01:00:00.000Z"
STUCK = 25


def answer_of(function: str, case: str) -> Any:
    """A function's answer to one of its cases."""
    (found,) = REPOSITORY.select((function,))
    result = cases.run_in_process(cases.Case.read(found, cases.case_paths(found)[case]), REPOSITORY)
    assert result.outcome is not None
    return result.outcome.answer


@pytest.fixture(scope="module")
def orphans() -> dict[str, Any]:
    """state-manager's answer with 25 stuck files."""
    with InProcess(REPOSITORY) as aws:
        for number in range(STUCK):
            row = {
                "date_prefix": "2026-11-20",
                "file_key": f"file-{number:03}.ndjson",
                "status": f"processing#{number % 10}",
                "processing_start_time": STARTED,
            }
            aws.client("dynamodb").put_item(
                TableName=aws.tables["files"],
                Item={name: {"S": value} for name, value in row.items()},
            )
        function = aws.load("state-manager")
        answer = function.handler({"operation": "find_orphans"}, aws.context("state-manager"))
    found: dict[str, Any] = json.loads(json.dumps(answer))
    return found


def test_a_status_line_comes_first() -> None:
    assert answers.readable(answer_of("router", "ping")).splitlines()[0] == "200 OK"
    refused = answers.readable(answer_of("status", "http-no-token"))
    assert refused.splitlines()[0] == "401 Unauthorized"


def test_a_single_value_is_a_line_with_its_key() -> None:
    lines = answers.readable(answer_of("router", "status-of-another-user")).splitlines()
    pairs = dict(line.split(maxsplit=1) for line in lines[1:])
    assert pairs["type"] == "error"
    assert pairs["error.code"] == "NOT_FOUND"
    assert pairs["error.retryable"] == "false"


def test_a_list_of_objects_is_a_table() -> None:
    text = answers.readable(answer_of("status", "list-malformed"))
    _, table = text.split("\nproblems (2)\n")
    heading, _, *rows = table.splitlines()
    assert heading.split() == ["field", "message"]
    assert [row.split()[0] for row in rows] == ["limit", "next"]


def test_lists_in_an_object_are_a_table_each(orphans: dict[str, Any]) -> None:
    text = answers.readable(orphans)
    assert f"\norphans.stuck_in_processing ({STUCK})\n" in text
    assert ["orphans.missing_outputs", "none"] in [line.split() for line in text.splitlines()]


def test_a_list_is_cut_after_twenty_rows(orphans: dict[str, Any]) -> None:
    text = answers.readable(orphans)
    assert text.count(".ndjson") == answers.ROWS
    assert f"… and {STUCK - answers.ROWS} more (pass --full to show all)" in text
    everything = answers.readable(orphans, full=True)
    assert everything.count(".ndjson") == STUCK
    assert "more" not in everything


def test_a_column_of_numbers_is_right_aligned(orphans: dict[str, Any]) -> None:
    lines = answers.readable(orphans).splitlines()
    heading = next(line for line in lines if "hours_stuck" in line)
    end = heading.index("hours_stuck") + len("hours_stuck")
    rows = [line for line in lines if ".ndjson" in line]
    assert all(row[end - 1].isdigit() and not row[end : end + 1].strip() for row in rows)


def test_a_long_text_loses_its_middle() -> None:
    said = f"it began {'x ' * 100}and ended"
    text = answers.readable({"files": [{"said": said}]})
    (row,) = [line for line in text.splitlines() if line.startswith("it began")]
    assert row.endswith("and ended") and "…" in row
    assert len(row) == answers.TEXT
    assert said in answers.readable({"files": [{"said": said}]}, full=True)


@pytest.mark.parametrize("width", ["20", "40", "80"])
def test_an_id_is_never_cut(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a URL or a token: each is on one line, so that it can be copied."""
    monkeypatch.setenv("COLUMNS", width)
    url = f"https://bucket.s3.eu-west-1.amazonaws.com/a/file.ndjson?X-Amz-Signature={'0' * 300}"
    key = "01234567-89ab-cdef-0123-456789abcdef"
    answer = {"url": url, "files": [{"id": key, "link": url, "note": "some words " * 20}] * 2}
    lines = click.unstyle(answers.readable(answer, terminal=True)).splitlines()
    assert sum(line.endswith(url) for line in lines) == 3
    assert sum(line.endswith(key) for line in lines) == 2


def test_a_long_list_of_plain_values_is_a_column() -> None:
    long = answers.readable({"kinds": [f"kind-{number:010}" for number in range(9)]})
    assert "kinds (9)" in long
    assert long.splitlines()[-1] == "kind-0000000008"


def test_a_missing_key_of_a_lists_object_is_an_empty_cell() -> None:
    text = answers.readable({"results": [{"file": "a", "error": "lost"}, {"file": "b", "new": 1}]})
    heading, _, first, second = text.splitlines()[-4:]
    assert heading.split() == ["file", "error", "new"]
    assert first.split() == ["a", "lost"]
    assert second.split() == ["b", "1"]


def test_a_table_too_wide_for_the_terminal_becomes_blocks() -> None:
    wide = {f"attribute_{number:02}": f"value-{number:02}" * 2 for number in range(30)}
    lines = answers.readable({"files": [wide, wide]}).splitlines()
    assert [line for line in lines if line in ("1.", "2.")] == ["1.", "2."]
    assert [line.split() for line in lines].count(["attribute_29", "value-29value-29"]) == 2


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (None, "null"),
        ("done", "done"),
        ([], "[]"),
        ({}, "{}"),
        (7, "7"),
        ({"statusCode": 204}, "204 No Content"),
        ({"statusCode": 200, "body": "not JSON"}, "200 OK\nnot JSON"),
        ({"statusCode": 299, "body": "null"}, "299"),
        ({"a": {}, "b": [], "c": "", "d": None}, 'a  none\nb  none\nc  ""\nd  null'),
        ({"tree": [[1, [2]]]}, "tree  [[1, [2]]]"),
        ({"claimed": True}, "claimed  true"),
        ({"note": "[bold]x[/bold]"}, "note  [bold]x[/bold]"),
        ({"kinds": ["a", "b", 3]}, "kinds  a, b, 3"),
    ],
)
def test_any_small_answer_is_shown(answer: Any, shown: str) -> None:
    assert answers.readable(answer) == shown


def test_control_characters_of_an_answer_are_escaped() -> None:
    hostile = "\x1b[2J\r\n"
    text = answers.readable({"a": hostile, hostile: 1, "rows": [{hostile: hostile}]}, terminal=True)
    assert "\x1b[2J" not in text
    assert text.count(r"\x1b[2J\r\n") == 4


def test_output_to_a_pipe_has_no_colour_and_ignores_the_terminals_width(
    orphans: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    narrow = answers.readable(orphans)
    monkeypatch.setenv("COLUMNS", "200")
    assert narrow == answers.readable(orphans)
    assert "\x1b" not in narrow
    assert not [line for line in narrow.splitlines() if line != line.rstrip()]


def test_no_line_of_a_table_exceeds_the_terminals_width(
    orphans: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = click.unstyle(answers.readable(orphans, terminal=True)).splitlines()
    assert max(map(len, lines)) <= 200
    assert len([line for line in lines if line.startswith("2026-11-20")]) == answers.ROWS
    monkeypatch.setenv("COLUMNS", "30")
    lines = click.unstyle(answers.readable(orphans, terminal=True)).splitlines()
    assert [line for line in lines if line[:-1].isdecimal()] == [f"{n}." for n in range(1, 21)]


def test_the_command_shows_tables_and_raw_answers() -> None:
    def run(*options: str) -> str:
        arguments = ["status", "list-malformed", "--in-process", *options]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    assert "problems (2)" in run()
    raw = run("--raw")
    begin, end = raw.index("\n{\n") + 1, raw.rindex("\n}\n") + 2
    assert json.loads(raw[begin:end])["statusCode"] == 400
    assert json.loads(run("--json"))["answer"]["statusCode"] == 400


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        (None, ["raised ValidationError: operation: "]),
        ({"answer": {}}, ["raised ValidationError: operation: "]),
        ({"error": "ValidationError"}, ["ValidationError: operation: "]),
        ({"error": "LeaseLostError"}, ["ValidationError: operation: ", "expected LeaseLostError"]),
    ],
)
def test_an_error_is_shown_after_the_log(tmp_path: Path, expected: Any, told: list[str]) -> None:
    """If it was not expected, it is the reason of the failed case."""
    event = tmp_path / "case.json"
    event.write_text('{"operation": "unknown"}')
    if expected is not None:
        (tmp_path / "case.expect.json").write_text(json.dumps(expected))
    done = CliRunner().invoke(command, ["claim", str(event), "--in-process"])
    assert done.exit_code == (expected != {"error": "ValidationError"})
    assert done.stdout.startswith("  ERROR   invocation failed")
    beginnings = ("ValidationError:", "raised ", "expected ")
    lines = [line.strip() for line in done.stdout.splitlines()]
    found = [line for line in lines if line.startswith(beginnings)]
    assert [line[: len(start)] for line, start in zip(found, told, strict=True)] == told
