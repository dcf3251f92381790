"""An artifact stays within its budget: megabytes, and modules that a cold start imports.

Budgets are in `tool.jobplane.budgets` of the root's pyproject.toml: `default`, and exceptions by
function. `megabytes` limits the zip, `modules` the number of modules that importing the handler
loads in a bare interpreter, `never` lists modules that must not be among them.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobplane.rules._tree import Finding, Findings, Tree, line_of
from jobplane.tree.repository import Function
from jobplane.tree.resolved import REGION, ResolvedStack

KEYS = frozenset({"megabytes", "modules", "never"})
# Prints the modules that importing the handler loads from the artifact and the standard library.
LOAD = """
import importlib, json, sys
sys.path = [sys.argv[1], *(part for part in sys.path if not part.endswith("site-packages"))]
before = set(sys.modules)
importlib.import_module(sys.argv[2])
sys.stdout.write("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""


def findings(tree: Tree) -> Findings:
    path = tree.repository.root / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))
    budgets: dict[str, dict[str, Any]] = project["tool"].get("jobplane", {}).get("budgets", {})
    yield from _unusable(tree, path, budgets)
    artifacts = tree.artifacts
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loads = pool.map(lambda function: loaded(tree, function), tree.functions)
        for function, (modules, failure) in zip(tree.functions, loads, strict=True):
            budget = budgets.get("default", {}) | budgets.get(function.name, {})
            line = line_of(path, function.name, line_of(path, "tool.jobplane.budgets"))
            where = (function.source, 1)
            if failure:
                yield Finding(*where, f"the artifact's handler can't be imported: {failure}")
                continue
            size = artifacts[function.name].size / 1e6
            if size > budget.get("megabytes", size):
                text = f"the zip has {size:.2f} MB of {budget['megabytes']} MB"
                yield Finding(path, line, f"{text}: ship less, or raise the budget")
            if len(modules) > budget.get("modules", len(modules)):
                text = f"{function.name} loads {len(modules)} modules of {budget['modules']}"
                yield Finding(path, line, f"{text}: import later, or raise the budget")
            tops = {module.partition(".")[0] for module in modules}
            for name in budget.get("never", ()):
                if name in tops or name in modules:
                    text = f"importing the handler loads {name}: import it where it is used"
                    yield Finding(*where, text)


def _unusable(tree: Tree, path: Path, budgets: dict[str, dict[str, Any]]) -> Findings:
    known = {function.name for function in tree.repository.functions()} | {"default"}
    start = line_of(path, "tool.jobplane.budgets")
    for name, budget in budgets.items():
        if name not in known:
            text = f"the budget for {name} belongs to no function: remove it"
            yield Finding(path, line_of(path, name, start), text)
        for key in sorted(set(budget) - KEYS):
            text = f"unknown key {key}: a budget may have {', '.join(sorted(KEYS))}"
            yield Finding(path, line_of(path, key, start), text)


def loaded(tree: Tree, function: Function) -> tuple[list[str], str]:
    """The modules that importing the handler loads, or the error."""
    artifact = tree.repository.root / tree.artifacts[function.name].zip
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(artifact) as archive:
            archive.extractall(folder)  # noqa: S202 - our own archive
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LOAD, folder, function.module],
            env=_environment(tree, function, folder),
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        return [], (done.stderr.strip().splitlines() or ["the process ended without a message"])[-1]
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules, ""


def _environment(tree: Tree, function: Function, folder: str) -> dict[str, str]:
    return ResolvedStack(tree.repository).environment(function) | {
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "LAMBDA_TASK_ROOT": folder,
        "PATH": os.defpath,
    }
