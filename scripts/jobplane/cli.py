"""Entry point of `jobplane`: the verbs are the modules of `jobplane.verbs`."""

import errno
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO, cast

import click

from jobplane import verbs
from jobplane.terminal.console import Unread, show_notes_of
from jobplane.terminal.environments import spare_proxies
from jobplane.terminal.groups import ModuleGroup

# The order of the verbs in `jobplane --help`.
TOUR = {
    "Work on a stage": (
        "up", "info", "invoke", "console", "jobs", "interruptions", "logs", "token", "demo", "down",
    ),
    "Change the functions": (
        "new", "new-project", "delete", "list", "templates", "affected", "build", "deploy",
    ),
    "Prove it": ("check", "schema", "docs", "grants", "policy", "fuzz", "explore", "bench"),
    "Make data": ("event", "seed-files"),
}  # fmt: skip

WRITABLE = (
    "The command writes below .jobplane/, dist/ and .serverless/: make the project's folder "
    "writable, or copy it to a place that is"
)
ROOM = "Free space on that disk, then repeat the command"
REFUSED_BY_SYSTEM = {
    errno.EACCES: WRITABLE,
    errno.EPERM: WRITABLE,
    errno.EROFS: WRITABLE,
    errno.EDQUOT: ROOM,
    errno.ENOSPC: ROOM,
}

# What to do about an error of botocore; by its name, since botocore is slow to import.
REMEDIES = {
    "ProfileNotFound": ": set AWS_PROFILE to one of those that `aws configure list-profiles` "
    "prints, or unset it",
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
@click.version_option(package_name="jobplane", message="%(prog)s %(version)s")
def jobplane() -> None:
    """Build, run, invoke and deploy the functions of this repository.

    Exit code 0: done; 1: it failed, or a check found something; 2: wrong usage;
    130: interrupted. `jobplane VERB --help` has examples.
    """
    show_notes_of("lambdapack")


def _open_streams() -> None:
    """Replace a closed stdout or stderr, and write characters they can't encode as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or Path(os.devnull).open("w", encoding="utf-8")
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)
    sys.stderr = cast("TextIO", Unread(sys.stderr))


def _close_stdout() -> None:
    """Discard buffered output: flushing it when Python ends would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(error: OSError) -> str:
    """The operating system's error, and the remedy."""
    what = f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}"
    return f"{what}. {REFUSED_BY_SYSTEM[error.errno or 0]}"


def main() -> None:
    """Run the command; report expected errors as one sentence, without a traceback."""
    _open_streams()
    spare_proxies(os.environ)
    try:
        jobplane(prog_name="jobplane", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has ended, as `head` does; click exits with 1 as well.
        _close_stdout()
        sys.exit(1)
    except OSError as error:
        if error.errno not in REFUSED_BY_SYSTEM:
            raise
        _close_stdout()
        click.echo(f"Error: {_explained(error)}", err=True)
        sys.exit(1)
    except Exception as error:
        # The message of AWS says what is wrong: credentials, a permission, a missing stack.
        if not type(error).__module__.startswith("botocore."):
            raise
        click.echo(f"Error: {error}{REMEDIES.get(type(error).__name__, '')}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
