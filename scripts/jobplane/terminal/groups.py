"""A command group whose commands are modules; only the called one is imported."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import click


class ModuleGroup(click.Group):
    """A group whose commands are the modules of a package, each under its own name.

    A module exports its command as `command`; modules with a leading underscore are skipped.
    `tour` groups the commands under headings in the help; the others come last.
    """

    def __init__(
        self,
        *args: Any,
        package: ModuleType,
        tour: Mapping[str, tuple[str, ...]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.package = package
        self.tour = tour or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (module.name for module in pkgutil.iter_modules(self.package.__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = f"{self.package.__name__}.{cmd_name.replace('-', '_')}"
        command: click.Command = importlib.import_module(name).command
        return command

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield from self.tour.items()
        placed = {name for names in self.tour.values() for name in names}
        if rest := tuple(name for name in self.list_commands(ctx) if name not in placed):
            yield "Commands", rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, names in self.sections(ctx):
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [
                (name.ljust(width), each.get_short_help_str(200)) for name, each in found if each
            ]
            with formatter.section(title):
                formatter.write_dl(rows)
