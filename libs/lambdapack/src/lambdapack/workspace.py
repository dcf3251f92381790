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
    def folder(self) -> str:
        """The folder of its pyproject.toml, relative to the workspace's root."""

    @property
    def module(self) -> str | None:
        """The handler's module, or the handler in Lambda's form: `orders.main.handler`.

        None: the modules that define a handler are looked for.
        """

    @property
    def statements(self) -> Sequence[Any] | None:
        """IAM statements, which decide what parts of the SDK ship; None: all of it ships."""

    @property
    def statements_in(self) -> str:
        """Where the statements are written, for messages."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """`sdk` and `missing-imports` of `settings_in`."""

    @property
    def settings_in(self) -> str:
        """The table of its pyproject.toml with the settings, for messages."""

    def shipped_files(self) -> dict[str, Path]:
        """Its files by name in the artifact, in a fixed order.

        Without those of its wheel, if the member is a package.
        """


class Workspace(Protocol):
    """A folder with a uv.lock, and the folders of build results."""

    @property
    def root(self) -> Path:
        """The folder with uv.lock."""

    @property
    def dist(self) -> Path:
        """The folder for artifacts."""

    @property
    def manifest(self) -> Path:
        """The file that records the built artifacts."""

    @property
    def scratch(self) -> Path:
        """The folder for caches between builds."""

    def functions(self) -> Sequence[Function]:
        """All functions; cached files and artifacts that none of them needs are deleted."""
