"""Entry point of `jobplane`: the verbs are the modules of `jobplane.verbs`."""

import os
import sys
from typing import TextIO, cast

import click

from jobplane import verbs
from jobplane.console import Unread, spare_proxies
from jobplane.groups import ModuleGroup

# How the help leads through the verbs.
TOUR = {
    "Work on a stage": ("up", "info", "invoke", "logs", "token", "demo", "down"),
    "Change the functions": ("new", "list", "affected", "build", "deploy"),
    "Prove it": ("check", "schema", "docs", "grants", "fuzz", "bench"),
    "Make data": ("event", "seed-files"),
}


@click.group(
    cls=ModuleGroup,
    package=verbs,
    tour=TOUR,
    epilog="""\b
Examples:
  jobplane demo                  # all of it, once
  jobplane up && jobplane info   # a stage to work on
  jobplane invoke status --all   # every event of a function
""",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def jobplane() -> None:
    """Build, run, invoke and deploy the functions of this workspace.

    Exit code 0: done; 1: it failed, or a check found something; 2: called wrongly;
    130: interrupted. `jobplane VERB --help` has examples.
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
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
