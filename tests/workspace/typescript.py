"""The TypeScript compiler on the published types."""

import subprocess
from pathlib import Path

from jobplane.stage.framework import install_framework
from jobplane.tree.repository import Repository

REPOSITORY = Repository.here()
TYPES = REPOSITORY.root / "contracts" / "typescript"
TSC = REPOSITORY.root / "node_modules" / ".bin" / "tsc"


def compile_types(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Compile a folder as its tsconfig.json says."""
    install_framework(REPOSITORY)
    return subprocess.run(
        [TSC, "--project", folder], capture_output=True, text=True, check=False, timeout=120
    )
