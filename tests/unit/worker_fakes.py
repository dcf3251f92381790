"""The former name of `worker_services.py`, which reproductions outside of this tree import."""

from tests.unit.worker_services import *  # noqa: F403
