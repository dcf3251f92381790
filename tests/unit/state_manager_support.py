"""The former name of `manager.py`, which reproductions outside of this tree import."""

from tests.unit.manager import *  # noqa: F403
