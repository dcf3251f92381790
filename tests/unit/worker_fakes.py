"""The former name of `worker_services.py`, which reproductions outside of this tree import."""

import sys

from tests.unit import worker_services

sys.modules[__name__] = worker_services
