"""Breaks a local stage in the ways that an operator has to find.

Run as `python -m tests.e2e.broken_stage`, by the browser tests of the console:

`break STAGE PORT` plants a lost worker, a full lane, a webhook receiver that does not answer at
`PORT`, and a stuck claim, and switches the schedules off that would correct them; it prints their
names as JSON. `restore STAGE` undoes what outlives the stage's jobs. `jobs STAGE NUMBER TENANT`
stores so many jobs of a tenant that are not due, and starts four that work. `kill STAGE FUNCTION`
ends the processes that run a function. `agree STAGE TENANT` prints what the audit and the rows say.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

from jobplane.console import api, bulk
from jobplane.console.backend import Backend
from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository
from jobplane_keys import (
    RequestStatus,
    from_item,
    in_flight_shard,
    iso_time,
    owner_key,
    request_key,
    tenant_shard,
    to_item,
)
from jobplane_keys.lanes import tenant_lane, waiting_order
from tests.e2e.deployed import Deployed, Message, unique, until

LANE_SLOTS = 2
LANE_JOBS = 5
OLD_SECONDS = 600
LONG = {"seconds": 60, "steps": 600}
LONGER = {**LONG, "fail_at": 600, "transient": True}
"""It runs for a minute in each of its attempts."""
SWEPT = ("processor", "sweep-claims", "dispatch")


def switch_schedules(there: Deployed, *, on: bool) -> None:
    """Let the sweeps run every minute, or not."""
    events = there.stage.client("events")
    for rule in events.list_rules()["Rules"]:
        targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        names = [there.info["functions"][name] for name in SWEPT]
        if any(target["Arn"].rpartition(":")[2] in names for target in targets):
            (events.enable_rule if on else events.disable_rule)(Name=rule["Name"])


async def lost_worker(there: Deployed) -> Message:
    """A job whose worker was killed, and whose message was lost."""
    user, tenant, job = unique("user"), unique("lost"), unique("job")
    async with there.socket(user, tenant) as socket:
        answer = await socket.ask({"id": job, "action": "delay", "payload": LONG})
        assert answer["type"] == "acknowledgment", answer
        await until(
            lambda: there.row(user, job, tenant).get("status") == RequestStatus.PROCESSING,
            "a worker to run the job",
        )
        there.kill_workers("processor")
    there.sqs.purge_queue(QueueUrl=there.info["queues"]["jobs"])
    return {"tenant": tenant, "user": user, "id": job}


def full_lane(there: Deployed) -> Message:
    """A lane with jobs that do not end, and others that wait for them since ten minutes."""
    tenant = unique("crowded")
    owner, moment = owner_key(tenant, "user"), iso_time(time.time() - OLD_SECONDS)
    for number in range(LANE_JOBS):
        name = f"job-{number}"
        payload = LONG if number < LANE_SLOTS else {"seconds": 0}
        there.put("requests", {
            **row_of(owner, tenant, name, moment), "payload": json.dumps(payload),
            "lane": tenant_lane(tenant), "lane_limit": LANE_SLOTS,
            "waiting_order": waiting_order("normal", moment),
        })  # fmt: skip
    return {"tenant": tenant, "slots": LANE_SLOTS, "waiting": LANE_JOBS - LANE_SLOTS}


def row_of(owner: str, tenant: str, name: str, moment: str) -> Message:
    """A row as router stores it."""
    now = int(time.time())
    return {
        "owner": owner, "request_id": name, "tenant_id": tenant_shard(tenant, name, 1),
        "action": "delay", "connection_id": "unknown", "status": "PENDING", "attempts": 0,
        "max_attempts": 4, "metadata": {}, "cancel_requested": False, "on_disconnect": "detach",
        "subscriber_count": 0, "created_at": moment, "updated_at": moment, "ttl": now + 3600,
        "lease_shard": in_flight_shard(request_key(owner, name)), "lease_until": now + 300,
    }  # fmt: skip


async def dead_receiver(there: Deployed, port: int) -> Message:
    """An assembly whose webhook could not be delivered."""
    there.set_webhook(f"http://127.0.0.1:{port}/hooks")
    assembly = await there.complete(unique("user"))
    await until(
        lambda: there.assembly(assembly).get("webhook", {}).get("status") == "retrying",
        "the first attempt to fail",
    )
    return {"assembly": assembly, "host": f"127.0.0.1:{port}"}


def stuck_claim(there: Deployed) -> Message:
    """A claim that is over after three seconds, and whose holder has not released it."""
    workspace = {"projectId": unique("project"), "userId": "scott"}
    message = {"threadId": "thread", "messageId": "message", "ttlSeconds": 3}
    claimed = there.invoke("claim", {"operation": "acquire", **workspace, **message})
    assert claimed["claimed"], claimed
    return {"workspace": "#".join(workspace.values())}


def clear(there: Deployed, table: str, key: str) -> None:
    """Delete the rows of an earlier run on the same stage."""
    for page in there.dynamodb.get_paginator("scan").paginate(
        TableName=there.info["tables"][table]
    ):
        for item in page["Items"]:
            there.delete(table, **{key: from_item(item)[key]})


async def broken(there: Deployed, port: int) -> Message:
    clear(there, "active-jobs", "projectUserId")
    clear(there, "assemblies", "assembly_id")
    # The receiver first: the worker that is killed runs its assembly.
    receiver = await dead_receiver(there, port)
    switch_schedules(there, on=False)
    job = await lost_worker(there)
    claim = stuck_claim(there)
    await until(
        lambda: there.row(job["user"], job["id"], job["tenant"])["lease_until"] < time.time(),
        "the lease of the lost worker to end",
    )
    # Last, as its jobs end after a minute.
    lane = full_lane(there)
    return {"job": job, "lane": lane, "receiver": receiver, "claim": claim}


async def many(there: Deployed, number: int, tenant: str) -> Message:
    """Jobs of one tenant: most are not due; workers run some, which a plan has first."""
    owner, moment = owner_key(tenant, "user"), iso_time(time.time())
    due = int(time.time()) + 3600
    rows = [
        {"PutRequest": {"Item": to_item({
            **row_of(owner, tenant, f"job-{n:05}", moment), "payload": json.dumps(LONG),
            "status": "SCHEDULED", "run_at": iso_time(due), "lease_until": due,
        })}}
        for n in range(number - 4)
    ]  # fmt: skip
    table = there.info["tables"]["requests"]
    for start in range(0, len(rows), 25):
        there.dynamodb.batch_write_item(RequestItems={table: rows[start : start + 25]})
    async with there.socket("user", tenant) as socket:
        for n in range(4):
            job = {"id": f"at-work-{n}", "action": "delay", "payload": LONGER}
            answer = await socket.ask(job)
            assert answer["type"] == "acknowledgment", answer
        await until(
            lambda: there.row("user", "at-work-0", tenant)["status"] == RequestStatus.PROCESSING,
            "workers to run jobs",
        )
    return {"tenant": tenant, "number": number}


def agree(there: Deployed, tenant: str) -> Message:
    """What the newest operation's audit, and the rows of a tenant's jobs, say by outcome.

    `repeated` counts the jobs that the audit has more than once.
    """
    backend = Backend(there.stage)
    newest = bulk.operations(backend, None).operations[0]
    asked, jobs = api.BulkJobsQuery(id=newest.id), list[api.BulkJob]()
    while True:
        page = bulk.bulk_jobs(backend, asked)
        jobs += page.jobs
        if page.next is None:
            break
        asked = asked.model_copy(update={"next": page.next})
    owner = {":owner": owner_key(tenant, "user")}
    query = there.dynamodb.get_paginator("query").paginate(
        TableName=there.info["tables"]["requests"],
        KeyConditionExpression="#owner = :owner",
        ExpressionAttributeNames={"#owner": "owner"},
        ExpressionAttributeValues=to_item(owner),
        ConsistentRead=True,
    )
    rows = [from_item(item) for part in query for item in part["Items"]]
    return {
        "audit": Counter(job.outcome for job in jobs),
        "rows": Counter(row["status"] for row in rows),
        "repeated": len(jobs) - len({job.job.id for job in jobs}),
    }


def main(what: str, stage: str, *words: str) -> Any:
    there = Deployed(Stage(Repository.here(), stage))
    match what, words:
        case "break", [port]:
            return asyncio.run(broken(there, int(port)))
        case "restore", []:
            switch_schedules(there, on=True)
            there.kill_workers("deliver-webhook")
            return {}
        case "jobs", [number, tenant]:
            return asyncio.run(many(there, int(number), tenant))
        case "agree", [tenant]:
            return agree(there, tenant)
        case "kill", [function]:
            there.kill_workers(function)
            return {}
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
