"""Workspaces of other projects, which `lambdapack build` makes artifacts of without a network."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lambdapack
from lambdapack import Builder, Project, Settings, Statements
from tests.workspace.small_workspace import Small
from tests.workspace.unpacked import bare

SOURCES = Path(lambdapack.__file__).parents[1]
ROOT = """\
[project]
name = "{name}"
version = "0"
requires-python = ">=3.12"
dependencies = {dependencies}

[tool.uv]
{indexes}

[tool.uv.sources]
{sources}

{settings}
"""
MEMBER = """\
[project]
name = "{name}"
version = "1.5"
requires-python = ">=3.12"
dependencies = {dependencies}

{settings}
"""
UV_BUILD = '[build-system]\nrequires = ["uv_build>=0.9,<0.14"]\nbuild-backend = "uv_build"\n'
HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
SETUPTOOLS = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'

# A build backend that needs nothing; its wheel has the tag that it is made with.
BACKEND = """
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(pathlib.Path(folder, "{name}-1.0-{tag}.whl"), "w") as archive:
        archive.write("{name}.py")
        info = "{name}-1.0.dist-info"
        archive.write("PKG-INFO", f"{{info}}/METADATA")
        archive.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nTag: {tag}\\n")
        archive.writestr(f"{{info}}/RECORD", "")
    return "{name}-1.0-{tag}.whl"
"""
IN_TREE = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


class Foreign(Small):
    """A workspace with a root project and members in any folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.dependencies: list[str] = []
        self.members: list[str] = []

    def member(
        self, folder: str, *dependencies: str, files: Mapping[str, str], settings: str = UV_BUILD
    ) -> None:
        """Add a member; its name is that of its folder."""
        self.members.append(folder)
        self.add(folder, *dependencies, files=files, settings=settings)
        self.sources[Path(folder).name] = "{ workspace = true }"

    def add(
        self, folder: str, *dependencies: str, files: Mapping[str, str], settings: str = UV_BUILD
    ) -> None:
        """Write a project that is not a member."""
        text = MEMBER.format(
            name=Path(folder).name, dependencies=list(dependencies), settings=settings
        )
        self.write({f"{folder}/pyproject.toml": text})
        self.write({f"{folder}/{path}": text for path, text in files.items()})

    def write(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text, encoding="utf-8", newline="")

    def sdist(self, name: str, source: str, *, tag: str) -> Path:
        """A distribution of one module without a wheel; one that is built of it has the tag."""
        head = f"{name}-1.0"
        texts = {
            "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n",
            "pyproject.toml": f'[project]\nname = "{name}"\nversion = "1.0"\n{IN_TREE}',
            "backend.py": BACKEND.format(name=name, tag=tag),
            f"{name}.py": source,
        }
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, head).mkdir()
            for path, text in texts.items():
                Path(folder, head, path).write_text(text, encoding="utf-8")
            made = shutil.make_archive(str(self.root / "wheels" / head), "gztar", folder, head)
        return Path(made)

    def lock(self) -> None:
        sources = "\n".join(f"{name} = {source}" for name, source in self.sources.items())
        members = f"[tool.uv.workspace]\nmembers = {self.members}\n" if self.members else ""
        text = ROOT.format(
            name="top", dependencies=self.dependencies, sources=sources, indexes=self.indexes,
            settings=f"{members}\n{self.settings}",
        )  # fmt: skip
        (self.root / "pyproject.toml").write_text(text, encoding="utf-8")
        self.update_lock()

    def zip_of(
        self,
        name: str,
        *,
        thin: bool = True,
        arch: str = "x86_64",
        allowed: Statements | None = None,
    ) -> Path:
        """The artifact of a member."""
        project = Project.at(self.root)
        member = replace(project.select(name), allowed=allowed)
        (built,) = Builder(project.choosing(member), Settings(arch, thin=thin)).build([member])
        return self.root / built.zip

    def command(
        self, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run `lambdapack`, as an installed command does."""
        return subprocess.run(
            [sys.executable, "-m", "lambdapack", *arguments],
            cwd=cwd or self.root,
            env=os.environ | {"PYTHONPATH": str(SOURCES)} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def result(archive: Path, module: str, handler: str = "handler") -> Any:
    """What a handler returns, with only its artifact and the standard library."""
    folder = archive.with_suffix("")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    script = f"import {module}\nprint(json.dumps({module}.{handler}(None, None)))"
    return json.loads(bare(script, folder, {}))


def names(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())
