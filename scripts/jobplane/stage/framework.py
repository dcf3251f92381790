"""The Serverless Framework: installed once, run against a stage."""

import hashlib
import re
from collections.abc import Iterable

from jobplane.stage.stages import Stage, default_region
from jobplane.terminal.console import note
from jobplane.tree.repository import Function, Repository, read_yaml
from lambdapack.environments import plain_environment
from lambdapack.locks import exclusive
from lambdapack.tools import INSTALL_HINTS, MissingToolError, run_quietly

NODE = (20, 19)
INSTALLED = "node_modules/.package-lock.json"
FRAMEWORK = "node_modules/.bin/osls"
PARAMETER = re.compile(r"\$\{param:\s*([^},\s]+)")


def install_framework(repository: Repository) -> None:
    """Run `npm ci` if node_modules is missing or older than the lock."""
    if _is_installed(repository):
        return
    _require_node(repository)
    with exclusive(repository, "npm-ci"):
        if _is_installed(repository):
            return
        note("installing the Serverless Framework (npm ci); this takes a minute the first time")
        run_quietly(
            ["npm", "ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=repository.root,
            what="npm ci",
        )
        (repository.root / INSTALLED).touch()


def _is_installed(repository: Repository) -> bool:
    lock, installed = repository.root / "package-lock.json", repository.root / INSTALLED
    # Without the development dependencies the framework would not be installed.
    return (
        (repository.root / FRAMEWORK).exists()
        and installed.is_file()
        and installed.stat().st_mtime >= lock.stat().st_mtime
    )


def _require_node(repository: Repository) -> None:
    version = run_quietly(["node", "--version"], cwd=repository.root, what="node --version").strip()
    if tuple(int(part) for part in version.lstrip("v").split(".")[:2]) < NODE:
        raise MissingToolError(f"{INSTALL_HINTS['node']} (this one is {version})")


def osls(stage: Stage, *arguments: str, **variables: str) -> str:
    """Run the framework against the stage and return its output.

    Only one runs at a time, because it writes to `.serverless` as well as to its own folder.
    """
    binary = stage.repository.root / FRAMEWORK
    with exclusive(stage.repository, "osls"):
        return run_quietly(
            [binary, *arguments, "--stage", stage.name],
            cwd=stage.repository.root,
            what=f"osls {arguments[0]}",
            env=framework_environment(stage) | variables,
        )


def framework_environment(stage: Stage) -> dict[str, str]:
    """The environment variables; for a local stage without AWS account settings and proxies.

    The framework sends all its calls to the emulator, and does not support NO_PROXY.
    """
    built = {"JOBPLANE_BUILT": "1"}
    if not stage.is_local:
        return plain_environment(aws=True, AWS_REGION=default_region(stage.repository), **built)
    kept = {
        key: value
        for key, value in plain_environment().items()
        if not key.upper().endswith("_PROXY")
    }
    return kept | stage.environment() | built | {"SLS_AWS_MONITORING_FREQUENCY": "100"}


def config_digest(repository: Repository, functions: Iterable[Function]) -> str:
    paths = [
        repository.root / "serverless.yml",
        repository.root / "package-lock.json",
        *sorted((repository.root / "scripts" / "serverless").glob("*.js")),
        *sorted((repository.root / "resources").glob("*.yml")),
        *(function.config_path for function in functions),
    ]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(repository.root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def parameters(repository: Repository) -> list[str]:
    """The names that `--param` accepts: declared by a stage, or used in the configuration.

    As in osls, a stage may be given a parameter that only another stage declares.
    """
    service = repository.root / "serverless.yml"
    asking = [
        service,
        *(repository.root / "resources").glob("*.yml"),
        *(function.config_path for function in repository.functions()),
    ]
    asked = {name for path in asking for name in PARAMETER.findall(path.read_text("utf-8"))}
    return sorted(asked.union(*filter(None, read_yaml(service)["custom"]["stages"].values())))
