"""The libs as built distributions in environments outside of the workspace."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from lambdapack.environments import plain_environment, uv_command

ROOT = Path(__file__).parents[2]
# The builder is not one that services carry, and packages of actions and robots are not published.
LIBS = sorted(
    path.name.removeprefix("jobplane_")
    for path in ROOT.glob("libs/*/src/jobplane_*")
    if "Private :: Do Not Upload" not in (path.parents[1] / "pyproject.toml").read_text()
)
EXTRAS = ("client[aws]", "robots[image]", "telemetry[xray]", "tokens[asymmetric]")


def source(lib: str) -> Path:
    """The folder of a lib."""
    return ROOT / "libs" / lib


@cache
def project(lib: str) -> dict[str, Any]:
    """The `project` table of a lib's pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((source(lib) / "pyproject.toml").read_text())["project"]
    return table


def direct(lib: str) -> dict[str, Requirement]:
    """A lib's declared dependencies without extras, by distribution."""
    found = [Requirement(text) for text in project(lib)["dependencies"]]
    return {requirement.name: requirement for requirement in found}


def closure(lib: str) -> set[str]:
    """A lib and the libs that it depends on."""
    siblings = [name.removeprefix("jobplane-") for name in direct(lib) if name.startswith("jobpl")]
    return {lib}.union(*map(closure, siblings))


def examples(lib: str) -> list[str]:
    """The Python blocks of a lib's README."""
    text = (source(lib) / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def uv(*arguments: str | Path, cwd: Path) -> str:
    """Run uv outside of any project; its standard output."""
    done = subprocess.run(
        [uv_command(), *map(str, arguments)],
        cwd=cwd,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"uv {' '.join(map(str, arguments))}: {done.stderr}"
    return done.stdout


def build(shelf: Path) -> None:
    """Build an sdist of each lib, and a wheel from that sdist."""
    for lib in LIBS:
        uv("build", "--quiet", source(lib), "--out-dir", shelf, cwd=shelf)


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder to run programs in."""

    folder: Path

    @classmethod
    def create(
        cls, folder: Path, shelf: Path, *requirements: str, constraints: Path | None = None
    ) -> "Environment":
        """Install these distributions of ours with their dependencies."""
        folder.mkdir(parents=True)
        new = cls(folder)
        uv("venv", "--quiet", folder / "venv", cwd=folder)
        limits = ("--constraints", constraints) if constraints else ()
        ours = [f"jobplane-{name}" for name in requirements]
        uv("pip", "install", "--python", new.python, "--find-links", shelf, *limits, *ours,
           cwd=folder)  # fmt: skip
        return new

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def installed(self) -> set[str]:
        """The names of all installed distributions."""
        text = uv("pip", "list", "--python", self.python, "--format", "json", cwd=self.folder)
        return {entry["name"] for entry in json.loads(text)}

    def run(self, code: str, **environment: str) -> str:
        """Run a program, with warnings as errors; its standard output."""
        with self.started(code, **environment) as program:
            output, errors = program.communicate(timeout=120)
        assert program.returncode == 0, errors
        assert "Warning" not in errors
        assert "Traceback" not in errors
        return output

    def check(self, checker: str, *arguments: str | Path) -> None:
        """Run a type checker of the workspace in this environment's folder."""
        done = subprocess.run(
            [sys.executable, "-m", checker, *arguments],
            cwd=self.folder,
            env=os.environ | {"MYPY_CACHE_DIR": ".mypy_cache"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def started(self, code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A running program, with warnings as errors; it ends with the block."""
        path = self.folder / "program.py"
        path.write_text(code)
        with subprocess.Popen(
            [self.python, "-I", "-W", "error", path],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            try:
                yield program
            finally:
                program.kill()


def lowest(lib: str, shelf: Path, target: Path) -> Path:
    """Constraints on the lowest version of each dependency of a lib."""
    projects = [source(name) / "pyproject.toml" for name in sorted(closure(lib))]
    uv("pip", "compile", "--quiet", "--no-sources", "--resolution", "lowest-direct",
       "--find-links", shelf, "--all-extras", "--output-file", target, *projects,
       cwd=shelf)  # fmt: skip
    return target
