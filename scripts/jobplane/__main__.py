"""Entry point of `jobplane`: finds the verbs by file name and imports only the one asked for."""

import importlib
import os
import sys
from pathlib import Path
from typing import TextIO, cast

import click

from jobplane.console import Unread, spare_proxies

VERBS = Path(__file__).parent / "verbs"


class VerbGroup(click.Group):
    """A group whose commands are the modules of `jobplane.verbs`, imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (path.stem for path in VERBS.glob("*.py") if not path.stem.startswith("_"))
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"jobplane.verbs.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
def jobplane() -> None:
    """Build, run, invoke and deploy the functions of this workspace.

    Exit code 0: done; 1: the thing failed; 2: called wrongly.
    """


def main() -> None:
    """Run the command; an interrupt ends it with 130 and no traceback."""
    sys.stderr = cast("TextIO", Unread(sys.stderr))
    spare_proxies(os.environ)
    try:
        jobplane(prog_name="jobplane", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        # AWS says what is wrong: credentials, a permission, a stack that is not there.
        if not type(error).__module__.startswith("botocore."):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
