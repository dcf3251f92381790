"""`jobplane bench`: what is fast, small and cheap here, as ratios taken in one run."""

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
    """Measure against what others would do.

    All of it on this machine and in one run. Machines are noisy: what is compared is run in turns
    (A B A B), medians are shown with minimum and maximum, and the ratios are what counts.
    """
