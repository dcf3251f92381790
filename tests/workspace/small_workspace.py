"""A small workspace of functions, libs and wheels, which is built without a network."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from jobplane.tree.repository import Repository
from lambdapack.artifacts import Artifact, Builder, Settings
from lambdapack.environments import uv_command, uv_environment

ROOT = """\
[project]
name = "small"
version = "0"
requires-python = "==3.13.*"

[tool.uv]
package = false
{indexes}
{settings}

[tool.uv.workspace]
members = ["functions/*", "libs/*"]

[tool.uv.sources]
{sources}
"""
FUNCTION = """\
[project]
name = "jobplane-{name}"
version = "0"
requires-python = ">=3.13"
dependencies = {dependencies}

[tool.uv]
package = false

{settings}
"""
LIB = """\
[project]
name = "{name}"
version = "1.0"
requires-python = ">=3.12"

[build-system]
requires = ["uv_build>=0.9,<0.14"]
build-backend = "uv_build"

{settings}
"""
HANDLER = "{imports}\n\n\ndef handler(event, context):\n    return {result}\n"


class Small:
    """Creates the files; `lock` and `build` call uv and the builder."""

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root)
        self.root = root
        self.sources: dict[str, str] = {}
        self.settings = ""
        self.indexes = 'no-index = true\nfind-links = ["wheels"]'
        (root / "wheels").mkdir(parents=True)

    def function(
        self,
        name: str,
        *dependencies: str,
        imports: str = "import json",
        result: str = "None",
        settings: str = "",
        actions: tuple[str, ...] = (),
    ) -> Path:
        folder = self.root / "functions" / name
        folder.mkdir(parents=True)
        statements = "iamRoleStatements: []\n"
        if actions:
            statements = (
                "iamRoleStatements:\n  - Effect: Allow\n    Resource: '*'\n"
                f"    Action: [{', '.join(map(repr, actions))}]\n"
            )
        (folder / "function.yml").write_text(f"description: {name}\n{statements}")
        (folder / "pyproject.toml").write_text(
            FUNCTION.format(name=name, dependencies=list(dependencies), settings=settings)
        )
        source = folder / f"{name.replace('-', '_')}.py"
        source.write_text(HANDLER.format(imports=imports, result=result))
        return folder

    def lib(self, name: str, files: Mapping[str, str], *, settings: str = "", at: str = "") -> Path:
        folder = self.root / (at or f"libs/{name}")
        self.sources[name] = f'{{ path = "{at}" }}' if at else "{ workspace = true }"
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(LIB.format(name=name, settings=settings))
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return folder

    def wheel(
        self,
        name: str,
        files: Mapping[str, str | bytes],
        *,
        version: str = "1.0",
        tag: str = "py3-none-any",
        entry_points: str = "",
        requires: tuple[str, ...] = (),
    ) -> None:
        info = f"{name}-{version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        metadata += [f"Requires-Dist: {each}" for each in requires]
        every = {
            **files,
            f"{info}/METADATA": "\n".join(metadata) + "\n\nA long description.\n",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            **({f"{info}/entry_points.txt": entry_points} if entry_points else {}),
        }
        target = self.root / "wheels" / f"{name}-{version}-{tag}.whl"
        rows = []
        with zipfile.ZipFile(target, "w") as archive:
            for path, text in every.items():
                data = text if isinstance(text, bytes) else text.encode()
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                rows.append(f"{path},sha256={digest.decode()},{len(data)}\n")
                archive.writestr(path, data)
            archive.writestr(f"{info}/RECORD", "".join([*rows, f"{info}/RECORD,,\n"]))

    def lock(self) -> None:
        sources = "\n".join(f"{name} = {source}" for name, source in self.sources.items())
        (self.root / "pyproject.toml").write_text(
            ROOT.format(sources=sources, indexes=self.indexes, settings=self.settings)
        )
        self.update_lock()

    def update_lock(self) -> None:
        done = subprocess.run(
            [uv_command(), "lock", "--quiet", "--python", sys.executable],
            cwd=self.root, env=uv_environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def build(self, *names: str, arch: str = "x86_64") -> dict[str, Artifact]:
        builder = Builder(self.repository, Settings(arch))
        return {each.name: each for each in builder.build(self.repository.select(names))}

    def names(self, name: str) -> set[str]:
        with zipfile.ZipFile(self.repository.dist / f"{name}.zip") as archive:
            return set(archive.namelist())

    def read(self, name: str, path: str) -> bytes:
        with zipfile.ZipFile(self.repository.dist / f"{name}.zip") as archive:
            return archive.read(path)
