"""Build artifacts of AWS Lambda functions from a uv workspace, with only what they need.

    project = Project.at(Path.cwd())
    member = project.select("orders")
    [artifact] = Builder(project.choosing(member), Settings("arm64")).build([member])

What is imported from here is loaded when it is first used, because some parts of the package run
with the standard library only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambdapack.artifacts import Artifact, Builder, Settings
    from lambdapack.errors import BuildError
    from lambdapack.project import Member, Project
    from lambdapack.statements import Statements

__all__ = ["Artifact", "BuildError", "Builder", "Member", "Project", "Settings", "Statements"]

_MODULES = {
    "Artifact": "artifacts",
    "BuildError": "errors",
    "Builder": "artifacts",
    "Member": "project",
    "Project": "project",
    "Settings": "artifacts",
    "Statements": "statements",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lambdapack.{_MODULES[name]}"), name)
