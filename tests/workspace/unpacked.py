"""Artifacts as on Lambda: unpacked, read-only, with the standard library only."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from jobplane.tree.repository import Repository
from jobplane.tree.resolved import ResolvedStack
from lambdapack.artifacts import Artifact

FUNCTIONS = [function.name for function in Repository.here().functions()]
STDLIB_AND_ARTIFACT = """
import sys, json
sys.path = [sys.argv[1], *(p for p in sys.path if not p.endswith("site-packages"))]
"""


def names(repository: Repository, artifact: Artifact) -> list[str]:
    with zipfile.ZipFile(repository.root / artifact.zip) as archive:
        return archive.namelist()


def unpack(repository: Repository, artifact: Artifact, target: Path) -> Path:
    with zipfile.ZipFile(repository.root / artifact.zip) as archive:
        archive.extractall(target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return target


def bare(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a script with only the artifact and the standard library."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STDLIB_AND_ARTIFACT + script, str(folder)],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(repository: Repository, name: str, folder: Path) -> dict[str, str]:
    """The function's variables on the in-process stage, and Lambda's own."""
    function = next(f for f in repository.functions() if f.name == name)
    return ResolvedStack(repository).environment(function) | {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "LAMBDA_TASK_ROOT": str(folder),
        "PATH": os.defpath,
    }
