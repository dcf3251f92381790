"""What a build asks of a uv workspace and of the functions in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Function(Protocol):
    """A member of the workspace that becomes one artifact."""

    @property
    def name(self) -> str:
        """Of the artifact: `dist/NAME.zip`."""

    @property
    def member(self) -> str:
        """Its distribution in uv.lock."""

    @property
    def module(self) -> str:
        """The module that holds the handler."""

    @property
    def source(self) -> Path:
        """That module's file."""

    @property
    def config(self) -> Mapping[str, Any]:
        """`iamRoleStatements`, which decide what of the SDK ships."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """`sdk` and `missing-imports` of its project's `tool.jobplane`."""

    def shipped_files(self) -> dict[str, Path]:
        """The module and every data file by its name in the artifact, in a fixed order."""


class Workspace(Protocol):
    """A folder with a uv.lock, and what is made from it."""

    @property
    def root(self) -> Path:
        """The folder."""

    @property
    def dist(self) -> Path:
        """Where artifacts and their manifest go."""

    @property
    def scratch(self) -> Path:
        """Where installed distributions are kept between builds."""

    def functions(self) -> Sequence[Function]:
        """Every function: what none of them needs any more is dropped."""
