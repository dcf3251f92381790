"""Commands that are modules: a file is a command, and only the one asked for is imported."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import click


class ModuleGroup(click.Group):
    """A group whose commands are the modules of a package, each under its own name.

    A module holds its command as `command`; modules with a leading underscore are none.
    """

    def __init__(self, *args: Any, package: ModuleType, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (module.name for module in pkgutil.iter_modules(self.package.__path__))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = f"{self.package.__name__}.{cmd_name.replace('-', '_')}"
        command: click.Command = importlib.import_module(name).command
        return command
