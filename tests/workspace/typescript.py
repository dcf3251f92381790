"""The TypeScript compiler on the published types."""

import subprocess
from pathlib import Path

from jobplane.stage.framework import install_framework
from jobplane.tree.workspace import Workspace

WORKSPACE = Workspace.here()
TYPES = WORKSPACE.root / "contracts" / "typescript"
TSC = WORKSPACE.root / "node_modules" / ".bin" / "tsc"


def compile_types(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Compile a folder as its tsconfig.json says."""
    install_framework(WORKSPACE)
    return subprocess.run(
        [TSC, "--project", folder], capture_output=True, text=True, check=False, timeout=120
    )
