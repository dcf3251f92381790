"""Workers that contend for workspaces during a load, so that its histories have claims, too."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobplane.stage.stages import Stage

CONTENDERS = 4
WORKSPACES = 2
ROUNDS = 25
CLAIMS = CONTENDERS * ROUNDS


def contend(stage: Stage, function: str, tenant: str, advance: Callable[[str], None]) -> None:
    """Acquire, renew and release the tenant's workspaces from several threads."""
    client = stage.client("lambda")

    def call(number: int, **event: Any) -> Any:
        event["projectUserId"] = f"{tenant}#user-{number % WORKSPACES}"
        done = client.invoke(FunctionName=function, Payload=json.dumps(event).encode())
        return json.loads(done["Payload"].read())

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            ids = {"threadId": f"thread-{number}", "messageId": f"message-{number}-{turn}"}
            claim = call(number, operation="acquire", ttlSeconds=60, **ids)
            if claim.get("claimed"):
                holding = {name: claim[name] for name in ("claimId", "fence")}
                call(number, operation="renew", ttlSeconds=90, **holding)
                call(number, operation="release", **holding)
            advance(ids["messageId"])

    with ThreadPoolExecutor(CONTENDERS) as pool:
        list(pool.map(work, range(CONTENDERS)))
