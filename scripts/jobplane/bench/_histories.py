"""The histories of a load: what its functions wrote, and what its clients saw of it."""

import time
from collections.abc import Iterator
from pathlib import Path

from jobplane.bench._phases import Outcome
from jobplane.histories.checker import check
from jobplane.histories.operations import (
    CLAIMS,
    DONE,
    LANES,
    REQUESTS,
    Operation,
    calls_in,
    operations_of,
)
from jobplane_keys import owner_key, request_key
from jobplane_keys.lanes import tenant_lane


def check_histories(folder: Path, tenant: str, outcome: Outcome) -> None:
    """Add a fault for each history that the specifications can't explain."""
    histories = operations_of(calls_in(folder))
    for operation in _seen(tenant, outcome):
        histories.setdefault(operation.subject, []).append(operation)
    prefixes = (f"{REQUESTS} {tenant}#", f"{CLAIMS} {tenant}#", f"{LANES} {tenant_lane(tenant)}#")
    mine = {name: history for name, history in histories.items() if name.startswith(prefixes)}
    outcome.history = check(mine)
    outcome.faults += map(str, outcome.history.unexplained)


def _seen(tenant: str, outcome: Outcome) -> Iterator[Operation]:
    """The acknowledgment and the end of each job, as its client got them."""
    wall = time.time() - time.monotonic()
    for entry in (entry for of in outcome.entries.values() for entry in of if entry.is_job):
        owner = owner_key(tenant, entry.user)
        subject, sent = f"{REQUESTS} {request_key(owner, entry.id)}", entry.sent + wall
        end = {"status": entry.status, "seq": entry.seq}
        for moment, given in ((entry.acknowledged, {}), (entry.ended, end)):
            if moment is not None:
                who = f"client {entry.user}"
                yield Operation(subject, "See", who, sent, moment + wall, DONE, given)
