"""The former names of `stack.py` and of what it has, which reproductions outside of this tree
import.
"""

from tests.unit.stack import *  # noqa: F403
from tests.unit.stack import message as record  # noqa: F401
