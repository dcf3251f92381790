"""`jobplane bench`: speed, size and cost as ratios, measured in one run."""

import click

from jobplane import bench
from jobplane.terminal.groups import ModuleGroup


@click.group(
    cls=ModuleGroup,
    package=bench,
    epilog="""\b
Examples:
  jobplane bench cold status
  jobplane bench size
""",
)
def command() -> None:
    """Measure speed, size and cost against alternatives.

    All measurements run on this machine. Alternatives take turns (A B A B), because machines are
    noisy; medians are shown with minimum and maximum. Compare the ratios, not the times.
    """
