"""Jobs of one user that run on a stage during a fault."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from jobplane_keys import PICK_UP_SECONDS
from tests.e2e.deployed import Deployed, Socket, assert_ended_once, unique, until

JOBS = 6
# A message that is lost with its worker shows again long after the sweeper has found its job.
PATIENCE = PICK_UP_SECONDS + 120


@asynccontextmanager
async def jobs(deployed: Deployed, seconds: float) -> AsyncIterator[tuple[str, list[Socket]]]:
    """A client for each job, each with its job begun."""
    user = unique("user")
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(deployed.socket(user)) for _ in range(JOBS)]
        for number, socket in enumerate(sockets):
            payload = {"seconds": seconds, "steps": 8}
            said = await socket.ask({"id": f"job-{number}", "action": "delay", "payload": payload})
            assert said["type"] == "acknowledgment", said
        yield user, sockets


async def ended(deployed: Deployed, user: str) -> list[dict[str, Any]]:
    """The rows of all jobs after their end; the schedule runs meanwhile."""

    def rows() -> list[dict[str, Any]] | None:
        found = [deployed.row(user, f"job-{number}") for number in range(JOBS)]
        if all("ended_at" in row for row in found):
            return found
        # As the schedule does: runs may overlap, and a failed one is followed by another.
        deployed.functions.invoke(
            FunctionName=deployed.info["functions"]["processor"],
            InvocationType="Event",
            Payload=b'{"sweep":"leases"}',
        )
        return None

    def not_ended() -> str:
        found = [deployed.row(user, f"job-{number}") for number in range(JOBS)]
        return f"the end of {[row for row in found if 'ended_at' not in row]}"

    everyone: list[dict[str, Any]] = await until(rows, not_ended, patience=PATIENCE, every=1)
    for row in everyone:
        assert row["status"] == "COMPLETED", row
        assert not row.keys() & {"lease_owner", "lease_until", "lease_shard"}
    return everyone


async def assert_heard(sockets: Iterable[tuple[int, Socket]]) -> None:
    """Each client has heard the one end of its job; a message may come again as it is."""
    for number, socket in sockets:
        await socket.end_of(f"job-{number}")
        assert_ended_once(socket.of(f"job-{number}"), are_copies_allowed=True)
