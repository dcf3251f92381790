"""The base of this package's errors."""

import click


class BuildError(click.ClickException):
    """No artifact can be built; the message says why, and what to do."""
