"""The same functions, packaged by other tools: one folder and one zip a function.

- `floor`: boto3 alone, whole, with valid bytecode; its handler makes one plain client and the
  function's first call.
- `plugin`: serverless-python-requirements, given the requirements that uv exports. The workspace's
  libs are copied into each function's folder: with its `vendor` option, functions of equal
  requirements get each other's libs from its cache.
- `recipe`: the zip recipe of uv's guide for AWS Lambda. `--no-deps` is ours: without it libs that
  libs depend on arrive as links into the workspace, and the functions do not start.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobplane.bench._recording import Recording
from jobplane.terminal.console import note
from jobplane.tree.repository import Function, Repository
from lambdapack.artifacts import RUNTIME_SDK, Artifact, Settings
from lambdapack.environments import (
    plain_environment,
    uv_command,
    uv_environment,
    uv_locking_environment,
)
from lambdapack.requirements import PYTHON, closures, export, lib_sources, parse_export
from lambdapack.thinning import bytecode
from lambdapack.tools import run_quietly

PLUGIN = "serverless-python-requirements"
PLUGIN_VERSION = "6.1.2"
# The platforms in uv's guide, by architecture.
RECIPE_PLATFORMS = {"x86_64": "x86_64-manylinux2014", "arm64": "aarch64-manylinux2014"}


@dataclass(frozen=True)
class Contender:
    """The folder with each function's unpacked artifact."""

    name: str
    folders: dict[str, Path]
    zips: dict[str, Path]


class Contenders:
    """Builds contenders below `.jobplane/_bench`, again only after a change."""

    def __init__(self, repository: Repository, functions: Iterable[Function]) -> None:
        self.repository = repository
        self.functions = list(functions)
        self.root = repository.scratch / "_bench"
        self.arch = Settings.local().arch
        self.closures = closures(repository, self.functions, self.arch)

    def artifact(self, artifacts: Iterable[Artifact]) -> Contender:
        zips = {artifact.name: self.repository.root / artifact.zip for artifact in artifacts}
        return self._unpacked("artifact", zips)

    def floor(self, recordings: Iterable[Recording]) -> Path:
        """boto3, and a module `floor_<function>` for each recording."""
        text = export(self.repository, "jobplane")
        locked = parse_export(text, self.arch, of="jobplane").locked
        sdk = {name: line for name, line in locked.items() if name in RUNTIME_SDK}
        folder = self.root / "floor"
        key = _digest([sdk, bytecode.__file__])
        if not _is_made(folder, key):
            note("installing boto3 for the floor")
            listing = _fresh(self.root / "floor.txt.d") / "requirements.txt"
            listing.write_text("\n".join(sdk.values()) + "\n")
            self._uv_install(_fresh(folder), listing, "--no-compile-bytecode")
            bytecode.compile_trees(folder)
            _made(folder, key)
        for recording in recordings:
            # The function reads its secrets first.
            first = next(e for e in recording.exchanges if e.operation != "GetParameter")
            path = folder / f"floor_{recording.function.module}.py"
            path.write_text(
                "import boto3\n"
                "from botocore import xform_name\n"
                "from botocore.exceptions import ClientError\n\n"
                f"client = boto3.client({first.service!r})\n"
                f"PARAMETERS = {first.parameters!r}\n\n\n"
                "def handler(event, context):\n"
                "    try:\n"
                f"        return getattr(client, xform_name({first.operation!r}))(**PARAMETERS)\n"
                "    except ClientError as error:\n"
                "        return error.response\n"
            )
        return folder

    def plugin(self) -> Contender:
        """serverless-python-requirements under osls, with its caches, as in daily use."""
        key = _digest([PLUGIN_VERSION, *(self._inputs(f) for f in self.functions)])
        service = self.root / "plugin" / "service"
        zips = {
            f.name: service / ".serverless" / f"{f.module}-jobplane-bench-dev-{f.name}.zip"
            for f in self.functions
        }
        if not _is_made(service, key):
            note(f"packaging {len(self.functions)} functions with {PLUGIN}; this takes minutes")
            self.prepare_plugin()
            self.run_plugin()
            _made(service, key)
        return self._unpacked("plugin", zips)

    def forget_plugin(self) -> None:
        """Delete what the plugin has installed and packaged, but not pip's downloads."""
        for path in (self.root / "plugin" / "cache").glob("*_slspyc"):
            shutil.rmtree(path)
        shutil.rmtree(self.root / "plugin" / "service" / ".serverless", ignore_errors=True)

    def prepare_plugin(self, changed: Function | None = None) -> None:
        """Write a service as in the plugin's manual, or only copy the source of `changed` again."""
        if changed is not None:
            _copy_shipped(changed, self.root / "plugin" / "service" / changed.module)
            return
        root = self.root / "plugin"
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "node_modules" / PLUGIN).is_dir():
            document = {"private": True, "dependencies": {PLUGIN: PLUGIN_VERSION}}
            (root / "package.json").write_text(json.dumps(document))
            run_quietly(
                ["npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps"],
                cwd=root,
                what=f"npm install of {PLUGIN}",
            )
        if not (root / "python" / "bin" / "pip").exists():
            run_quietly(
                [uv_command(), *"venv --quiet --clear --seed --python".split(), PYTHON, "python"],
                cwd=root,
                what="a Python with pip for the plugin",
                env=uv_environment(),
            )
        service = _fresh(root / "service")
        for function in self.functions:
            closure = self.closures[function.name]
            folder = service / function.module
            _copy_shipped(function, folder)
            (folder / "requirements.txt").write_text("\n".join(closure.locked.values()) + "\n")
            for lib in closure.libs.values():
                source = self.repository.root / lib / "src"
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder, ignore=ignore, dirs_exist_ok=True)
        (service / "serverless.yml").write_text(yaml.safe_dump(self._service(), sort_keys=False))

    def run_plugin(self, function: Function | None = None) -> None:
        service = self.root / "plugin" / "service"
        osls = self.repository.root / "node_modules" / ".bin" / "osls"
        document: dict[str, Any] = self._service()
        if function is not None:
            document["functions"] = {function.name: document["functions"][function.name]}
        (service / "serverless.yml").write_text(yaml.safe_dump(document, sort_keys=False))
        run_quietly(
            [osls, "package"], cwd=service, what=f"osls package with {PLUGIN}",
            env=plain_environment(),
        )  # fmt: skip

    def recipe(self) -> Contender:
        key = _digest([RECIPE_PLATFORMS, *(self._inputs(f) for f in self.functions)])
        root = self.root / "recipe"
        zips = {function.name: root / f"{function.name}.zip" for function in self.functions}
        if not _is_made(root, key):
            note(f"packaging {len(self.functions)} functions by uv's recipe")
            _fresh(root)
            for function in self.functions:
                self.run_recipe(function, root)
            _made(root, key)
        return self._unpacked("recipe", zips)

    def run_recipe(self, function: Function, root: Path) -> None:
        work = _fresh(root / function.name)
        listing = work / "requirements.txt"
        run_quietly(
            [
                uv_command(), "export", "--package", function.member, "--frozen", "--no-dev",
                "--no-editable", "-o", listing,
            ],
            cwd=self.repository.root,
            what=f"uv export of {function.member}",
            env=uv_locking_environment(),
        )  # fmt: skip
        packages = work / "packages"
        self._uv_install(packages, listing, "--no-installer-metadata", "--no-compile-bytecode")
        _copy_shipped(function, packages)
        with zipfile.ZipFile(root / f"{function.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(packages.rglob("*")):
                archive.write(path, path.relative_to(packages))
        shutil.rmtree(work)

    def _uv_install(self, target: Path, listing: Path, *options: str) -> None:
        run_quietly(
            [
                uv_command(), "pip", "install", "--quiet", "--no-deps", *options,
                "--python-platform", RECIPE_PLATFORMS[self.arch], "--python", PYTHON,
                "--target", target, "-r", listing,
            ],
            cwd=self.repository.root,
            what="uv pip install",
            env=uv_environment(),
        )  # fmt: skip

    def _service(self) -> dict[str, Any]:
        root = self.root / "plugin"
        return {
            "service": "jobplane-bench",
            "provider": {"name": "aws", "runtime": f"python{PYTHON}"},
            "plugins": [PLUGIN],
            "package": {"individually": True},
            "custom": {
                "pythonRequirements": {
                    "pythonBin": str(root / "python" / "bin" / "python"),
                    "dockerizePip": False,
                    "cacheLocation": str(root / "cache"),
                }
            },
            "functions": {
                function.name: {"handler": function.handler, "module": function.module}
                for function in self.functions
            },
        }

    def _inputs(self, function: Function) -> list[Any]:
        closure = self.closures[function.name]
        libs = closure.libs.values()
        sources = [path for lib in libs for path in lib_sources(self.repository, lib)]
        files = [*sources, *function.shipped_files().values()]
        return [
            function.name, closure.locked,
            [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        ]  # fmt: skip

    def _unpacked(self, name: str, zips: dict[str, Path]) -> Contender:
        folders = {}
        for function, archive in zips.items():
            folders[function] = self.root / "unpacked" / name / function
            key = hashlib.sha256(archive.read_bytes()).hexdigest()
            if not _is_made(folders[function], key):
                unpack(archive, _fresh(folders[function]))
                _made(folders[function], key)
        return Contender(name, folders, zips)


def unpack(archive: Path, folder: Path) -> None:
    """Unzip as Lambda does: read-only, with the dates of the zip, as bytecode needs."""
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            path = Path(opened.extract(entry, folder))
            if path.is_file():
                date = time.mktime((*entry.date_time, 0, 0, -1))
                os.utime(path, (date, date))
                path.chmod(0o555 if path.suffix == ".so" else 0o444)


def _copy_shipped(function: Function, folder: Path) -> None:
    for name, path in function.shipped_files().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _is_made(folder: Path, key: str) -> bool:
    stamp = folder.with_name(f"{folder.name}.made")
    return folder.is_dir() and stamp.is_file() and stamp.read_text() == key


def _made(folder: Path, key: str) -> None:
    folder.with_name(f"{folder.name}.made").write_text(key)


def _digest(parts: Any) -> str:
    text = json.dumps([parts, sys.version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
