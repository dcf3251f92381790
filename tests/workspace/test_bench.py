"""The code of the measurements: markers, charts, recordings of AWS, dates of zips."""

import json
import re
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobplane.bench._contenders import unpack
from jobplane.bench._recording import playing, record
from jobplane.bench._report import Chart, Report, Spread, Table, draw, markdown, marked, reported
from jobplane.bench.cold import FIRST_EVENTS
from jobplane.tree.repository import Repository
from jobplane.trying.cases import Case, case_paths
from tests.workspace.copies import Built

DOCUMENT = "before\n<!-- bench size -->\nold\n<!-- /bench size -->\nafter\n"


def test_tables_replace_the_text_between_their_markers() -> None:
    """A document without markers is refused with the missing lines."""
    once = marked(DOCUMENT, "size", "new | table")
    assert once.startswith("before\n<!-- bench size -->\n\nnew | table\n")
    assert once.endswith("<!-- /bench size -->\nafter\n")
    assert "old" not in once
    assert marked(once, "size", "new | table") == once
    with pytest.raises(click.ClickException, match="bench cold"):
        marked(DOCUMENT, "cold", "x")


def test_performance_md_has_markers_for_every_measurement() -> None:
    text = (Repository.here().root / "docs/performance.md").read_text()
    named = re.findall(r"jobplane bench (\w+) +--write", text)
    assert {"cold", "size", "build"} <= set(named)
    for name in named:
        assert marked(text, name, "x")


def test_markdown_aligns_numbers_right() -> None:
    table = markdown(Table("T", ("name", "ms"), [("a", 1.5), ("b", None)]))
    assert table.endswith("| name | ms |\n| --- | --: |\n| a | 1.5 |\n| b | – |")


def test_a_spread_has_median_minimum_and_maximum() -> None:
    assert Spread([3.0, 1.0, 9.0]).text() == "3 (1–9)"
    assert Spread([3.0, 1.0, 9.0]).as_json() == {"median": 3, "min": 1, "max": 9, "takes": 3}


def test_a_report_with_faults_is_shown_but_not_written(tmp_path: Path) -> None:
    table = Table("Sizes", ("name", "ms"), [("a", 1.5)])

    @click.command()
    @reported("size")
    def measure() -> Report:
        return Report({}, [table], faults=["one row too many"])

    document = tmp_path / "performance.md"
    document.write_text(DOCUMENT)
    done = CliRunner().invoke(measure, ["--write", str(document)])
    assert done.exit_code == 1
    assert "Sizes" in done.stdout
    assert "one row too many" in done.stderr
    assert document.read_text() == DOCUMENT


def test_each_chart_is_an_svg_file_without_external_references(tmp_path: Path) -> None:
    chart = Chart("Sizes", ["a", "b"], {"ours": [1, 2], "theirs": [3, None]}, "MB")
    draw([chart, chart], tmp_path / "sizes.svg")
    for name in ("sizes.svg", "sizes-2.svg"):
        text = (tmp_path / name).read_text()
        assert "<svg" in text
        assert "<script" not in text or "src=" not in text


@pytest.mark.parametrize("name", sorted(FIRST_EVENTS))
def test_every_measured_event_makes_an_aws_call(name: str) -> None:
    repository = Repository.here()
    (function,) = repository.select((name,))
    case = Case.read(function, case_paths(function)[FIRST_EVENTS[name]])
    assert record(repository, case).exchanges


def test_a_recorded_call_gets_its_recorded_answer() -> None:
    repository = Repository.here()
    (function,) = repository.select(("claim",))
    recording = record(repository, Case.read(function, case_paths(function)["acquired"]))
    (exchange,) = recording.exchanges
    with playing() as player:
        player.rewind(recording)
        request = urllib.request.Request(  # noqa: S310 - loopback
            player.url, b"{}", {"X-Amz-Target": exchange.key[1]}
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            assert json.load(answer) == json.loads(exchange.body)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(player.url, b"{}")  # noqa: S310 - loopback
        assert player.unknown == [("POST", "/")]
        assert player.calls == 2


def test_unpacked_files_have_the_zips_dates(built: Built, tmp_path: Path) -> None:
    repository, artifacts = built
    unpack(repository.root / artifacts["claim"].zip, tmp_path)
    with zipfile.ZipFile(repository.root / artifacts["claim"].zip) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    path = tmp_path / "claim.py"
    assert path.stat().st_mode & 0o222 == 0
    assert path.stat().st_mtime < 400_000_000
