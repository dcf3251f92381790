"""Protocols of a uv workspace and its functions, as a build uses them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Function(Protocol):
    """A member of the workspace that becomes one artifact."""

    @property
    def name(self) -> str:
        """The artifact's name: `dist/NAME.zip`."""

    @property
    def member(self) -> str:
        """The name of its distribution in uv.lock."""

    @property
    def module(self) -> str:
        """The name of the handler's module."""

    @property
    def source(self) -> Path:
        """The file of the handler's module."""

    @property
    def config(self) -> Mapping[str, Any]:
        """`iamRoleStatements`, which decide what parts of the SDK ship."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """`sdk` and `missing-imports` of its project's `tool.jobplane`."""

    def shipped_files(self) -> dict[str, Path]:
        """The module and every data file by its name in the artifact, in a fixed order."""


class Workspace(Protocol):
    """A folder with a uv.lock, and the folders of build results."""

    @property
    def root(self) -> Path:
        """The folder with uv.lock."""

    @property
    def dist(self) -> Path:
        """The folder for artifacts and their manifest."""

    @property
    def scratch(self) -> Path:
        """The folder for caches between builds."""

    def functions(self) -> Sequence[Function]:
        """All functions; cached files that no function needs are deleted."""
