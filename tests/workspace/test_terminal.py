"""Output on a terminal of any width."""

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from jobplane.tree.repository import Repository

HERE = Repository.here()
NOTES = """
import time
from jobplane.terminal.console import note
from jobplane.terminal.progress import counting, waiting
with waiting("deploying", lambda: "CREATE_COMPLETE"):
    time.sleep(1.2)
    note("waiting for [another] command")
with counting("writing", 2) as done:
    done("first")
    note("a line")
"""


def shown(*command: str, **environment: str) -> str:
    """The output of a program on its own terminal."""
    read: list[bytes] = []

    def keep(descriptor: int) -> bytes:
        read.append(os.read(descriptor, 65536))
        return read[-1]

    before = dict(os.environ)
    os.environ.update({"TERM": "xterm", "COLUMNS": "40"} | environment)
    try:
        status = pty.spawn([str(part) for part in command], keep)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert os.waitstatus_to_exitcode(status) == 0, read
    return b"".join(read).decode()


def test_a_note_is_printed_above_the_spinner() -> None:
    written = shown(sys.executable, "-c", NOTES)
    for said in ("waiting for [another] command", "a line"):
        assert re.search(rf"\x1b\[2K{re.escape(said)}\r?\n", written), written


@pytest.mark.parametrize("columns", ["20", "60", "130"])
def test_list_shows_whole_names_in_a_narrow_terminal(columns: str) -> None:
    written = shown(str(Path(sys.executable).with_name("jobplane")), "list", COLUMNS=columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    for function in HERE.functions():
        assert re.search(rf"^ ?{function.name} ", plain, re.MULTILINE), plain
    assert "…" not in plain
