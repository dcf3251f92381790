"""A hundred common libraries in artifacts, against an installation of the same lock.

    uv run python -m tests.workspace.hundred [LIBRARY]...

No set of tests runs it: it downloads a gigabyte and takes half an hour. Each library is locked,
installed and built in a workspace of its own, and used by a handler in a process of its own. What
is found is kept in .jobplane/_hundred.jsonl, and not tried again with the same probe: name a
library to try it again, or delete the file. When all are known, the table of
libs/lambdapack/docs/libraries.md is written.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import lambdapack
from jobplane.tree.repository import Repository
from lambdapack.environments import plain_environment
from lambdapack.requirements import PYTHON

DOCUMENT = Path(lambdapack.__file__).parents[2] / "docs" / "libraries.md"
PROBES = Path(__file__).with_name("hundred.txt")
PROJECT = """\
[project]
name = "probe"
version = "1"
requires-python = "=={python}.*"
dependencies = ["{library}"]
[build-system]
requires = ["uv_build>=0.9,<0.14"]
build-backend = "uv_build"
"""
# As in a Lambda function: the standard library and one folder.
START = """
import json, sys
sys.path = [sys.argv[1], *(path for path in sys.path if not path.endswith("site-packages"))]
import probe
print("RESULT", json.dumps(probe.handler({}, None), default=repr))
"""
HEAD = "| library | version | zip, MB | result |\n|---|---|--:|---|\n"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->\n"
AT_ONCE = 2
SECONDS = 1800


class Failure(Exception):
    """A step of a probe failed; the message has its last line."""


class Outcome(NamedTuple):
    """The result for a library."""

    library: str
    version: str
    size: int
    expected: str
    """What the handler answers where the lock is installed, or how it fails."""
    got: str
    """The same of the artifact."""
    key: str

    @property
    def is_equal(self) -> bool:
        return self.expected == self.got and self.expected.startswith("RESULT")

    @property
    def row(self) -> str:
        result = "equal" if self.is_equal else f"**{self.got}**, and installed: {self.expected}"
        size = f"{self.size / 1e6:.2f}" if self.size else "–"
        return f"| {self.library} | {self.version} | {size} | {result.replace('|', '¦')} |\n"


def probes() -> dict[str, str]:
    """By requirement, the body of a handler that uses it."""
    found: dict[str, str] = {}
    for line in PROBES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            library, _, code = line.partition(" | ")
            *statements, value = code.split("; ")
            found[library] = "\n".join([*statements, f"return {value}"])
    return found


def _ran(folder: Path, *command: str | Path) -> str:
    caches = {"LAMBDAPACK_CACHE_DIR": str(folder.with_name("cache"))}
    done = subprocess.run(
        command, cwd=folder, env=plain_environment() | caches,
        capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command[:4]))}: {_last(done.stderr)}")
    return done.stdout


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1][-500:]


def _answer(folder: Path) -> str:
    """What the handler answers, or the last line of its error."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", START, str(folder)],
        env={"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "PATH": os.defpath},
        cwd="/", capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return found[-1] if found else _last(done.stderr)


def _probed(folder: Path, library: str, code: str) -> Iterator[tuple[str, Any]]:
    """Facts of a library, as they become known."""
    source = folder / "src" / "probe"
    source.mkdir(parents=True)
    text = PROJECT.format(library=library, python=PYTHON)
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    handler = f"def handler(event, context):\n{indent(code, '    ')}\n"
    (source / "__init__.py").write_text(handler, encoding="utf-8")
    _ran(folder, "uv", "lock", "--quiet")
    export = ("--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--no-header", "--quiet")
    pins = _ran(folder, "uv", "export", *export)
    name = library.partition("[")[0].partition("==")[0].lower()
    pinned = [line.partition(" ")[0].partition("==") for line in pins.lower().splitlines()]
    yield "version", next((version for each, _, version in pinned if each == name), "?")
    (folder / "pins.txt").write_text(pins, encoding="utf-8")
    target = ("--target", "installed", "--only-binary", ":all:", "--python", sys.executable)
    _ran(folder, "uv", "pip", "install", "--quiet", "--no-deps", "-r", "pins.txt", *target)
    shutil.copytree(source, folder / "installed" / "probe")
    yield "expected", _answer(folder / "installed")
    build = ("-m", "lambdapack", "build", "probe", "--arch", "x86_64", "--json")
    built = json.loads(_ran(folder, sys.executable, *build))["probe"]
    yield "size", built["size"]
    with zipfile.ZipFile(built["zip"]) as archive:
        archive.extractall(folder / "task")
    yield "got", _answer(folder / "task")


def outcome(library: str, code: str, key: str) -> Outcome:
    """Try one library; whatever fails is its result."""
    found: dict[str, Any] = {"version": "?", "size": 0, "expected": "not installed", "got": ""}
    with tempfile.TemporaryDirectory() as folder:
        try:
            found |= _probed(Path(folder, "work"), library, code)
        except subprocess.TimeoutExpired:
            found["got"] = f"not ended within {SECONDS} s"
        except (Failure, OSError, ValueError) as error:
            found["got"] = f"{type(error).__name__}: {error}".replace("\n", " ")
    return Outcome(library=library, key=key, **found)


def write(outcomes: list[Outcome]) -> None:
    """Write the table into the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = HEAD + "".join(each.row for each in outcomes)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main(named: list[str]) -> int:
    kept = Repository.here().scratch / "_hundred.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    known = {found.library: found for found in (Outcome(**json.loads(line)) for line in lines)}
    every = {library: (code, f"{PYTHON} {code}") for library, code in probes().items()}
    wanted = named or [
        library for library, (_, key) in every.items()
        if library not in known or known[library].key != key
    ]  # fmt: skip
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool, kept.open("a", encoding="utf-8") as log:
        tried = [pool.submit(outcome, library, *every[library]) for library in wanted]
        for future in as_completed(tried):
            each = future.result()
            known[each.library] = each
            log.write(f"{json.dumps(each._asdict())}\n")
            sys.stdout.write(f"{time.monotonic() - began:5.0f} s {each.row}")
            log.flush()
            sys.stdout.flush()
    outcomes = [known[library] for library in every if library in known]
    equal = sum(each.is_equal for each in outcomes)
    sys.stdout.write(f"{equal} of {len(outcomes)} equal\n")
    if len(outcomes) == len(every):
        write(outcomes)
    return int(equal < len(every))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
