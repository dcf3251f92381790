"""The former name of `stack.py`, which reproductions outside of this tree import."""

from tests.unit.stack import *  # noqa: F403
