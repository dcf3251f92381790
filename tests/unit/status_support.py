"""The former name of `assemblies.py`, which reproductions outside of this tree import."""

from tests.unit.assemblies import *  # noqa: F403
