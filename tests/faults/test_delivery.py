"""Streams and queues that repeat, reorder, split or drop deliveries; several faults at once."""

import random
from typing import Any
from unittest.mock import patch

import pytest

from jobplane.stage.mappings import Record
from tests.faults.cloud import Cloud
from tests.faults.inbox import MESSAGES
from tests.faults.injecting import Broken, Exchange, Storm, fail, take_part, throttle
from tests.faults.scenarios import (
    JOBS,
    AssemblyAskedForTwice,
    AssemblyOfTwoFiles,
    Batch,
    JobWithProgress,
    check_requests,
)
from tests.faults.workspaces import StuckFiles

type Batches = list[list[Record]]


def twice(batches: Batches) -> Batches:
    return [batch for batch in batches for _ in range(2)]


def late(batches: Batches) -> Batches:
    return batches + batches


def reversed_(batches: Batches) -> Batches:
    return [batch[::-1] for batch in batches[::-1]]


def shuffled(batches: Batches) -> Batches:
    """All records in single batches, some of them several times."""
    chance = random.Random(7)
    records = [
        [record] for batch in batches for record in batch for _ in range(chance.choice((1, 3)))
    ]
    return chance.sample(records, len(records))


ARRANGEMENTS = (twice, late, reversed_, shuffled)


def flow_out(cloud: Cloud) -> None:
    """Deliver until nothing can be received at this moment."""
    while cloud.flow():
        pass


@pytest.mark.parametrize(
    ("mapping", "arrange"),
    [
        *(("streams", arrange) for arrange in ARRANGEMENTS),
        ("queues", lambda found: found * 2),
        ("queues", lambda found: found[::-1]),
    ],
)
def test_a_request_runs_once_for_any_order(cloud: Cloud, mapping: str, arrange: Any) -> None:
    batch = Batch(cloud)
    with batch.prepared():
        read: Any = cloud.queues["jobs"] if mapping == "queues" else cloud.streams["requests"]
        read.arrange = arrange
        batch.run()
        assert {row["attempts"] for row in cloud.items("requests")} == {1}
        before = cloud.items("requests")
        cloud.streams["requests"].put(cloud.records("requests"))
        flow_out(cloud)
        assert cloud.items("requests") == before
        assert cloud.messages("jobs") == []


@pytest.mark.parametrize("arrange", ARRANGEMENTS)
def test_a_file_is_counted_once_for_any_order_of_records(cloud: Cloud, arrange: Any) -> None:
    files = StuckFiles(cloud)
    with files.prepared():
        cloud.streams["files"].arrange = arrange
        files.run()
        cloud.streams["files"].put(cloud.records("files"))
        cloud.flow()
        files.check()


def is_take_of(name: str) -> Any:
    """Picks writes of one request."""

    def picks(exchange: Exchange) -> bool:
        body: Any = exchange.request.body
        return exchange.operation == "UpdateItem" and f'"{name}"'.encode() in body

    return picks


def test_only_a_message_that_failed_is_received_again(cloud: Cloud) -> None:
    """The other messages of its batch are done."""
    batch = Batch(cloud)
    with batch.prepared():
        cloud.plan = Broken(throttle, is_take_of("two"))
        given: list[int] = []

        def process(event: Any) -> Any:
            given.append(len(event["Records"]))
            return batch.process(event)

        cloud.queues["jobs"].invoke = mend_after(cloud, 2, process)
        cloud.queues["jobs"].batch_size = 4
        batch.run()
        assert given == [4, 1, 1]
        assert {row["attempts"] for row in cloud.items("requests")} == {1}
        assert cloud.messages("requests-failed") == []


def test_messages_that_sqs_did_not_take_are_sent_again(cloud: Cloud) -> None:
    """What SQS did not take comes again with what stands behind it: each request runs once."""
    batch = Batch(cloud)
    with batch.prepared():
        cloud.plan = Broken(take_part, lambda exchange: exchange.operation == "SendMessageBatch")
        delivery = cloud.streams["requests"].delivery
        delivery.invoke = mend_after(cloud, 2, delivery.invoke)
        batch.play()
        assert delivery.invocations == 3
        batch.finish()
        assert {row["attempts"] for row in cloud.items("requests")} == {1}
        assert cloud.messages("requests-failed") == []


def mend_after(cloud: Cloud, invocations: int, invoke: Any) -> Any:
    """A function whose fault ends after some invocations."""
    left = [invocations]

    def counting(event: Any) -> Any:
        left[0] -= 1
        cloud.plan.over = left[0] < 0
        return invoke(event)

    return counting


def test_requests_run_although_their_records_were_given_up(cloud: Cloud) -> None:
    """A description of the records is at the destination."""
    batch = Batch(cloud)
    with batch.prepared():
        cloud.plan = Broken(fail, lambda exchange: exchange.operation == "SendMessageBatch")
        batch.play()
        statuses = {row["request_id"]: row["status"] for row in cloud.items("requests")}
        assert statuses == dict.fromkeys(Batch.NAMES, "PENDING")
        described = cloud.messages("requests-failed")
        assert [d["condition"] for d in described] == ["RetryAttemptsExhausted"]
        assert [len(d["records"]) for d in described] == [len(Batch.NAMES)]
        cloud.plan.over = True
        batch.finish()


def test_a_request_runs_although_its_message_was_given_up(cloud: Cloud) -> None:
    """The message is in the failure queue after ten receives."""
    batch = Batch(cloud)
    with batch.prepared():
        cloud.plan = Broken(fail, is_take_of("two"))
        batch.play()
        for _ in range(12):
            cloud.clock.sleep(60)
            flow_out(cloud)
        statuses = {row["request_id"]: row["status"] for row in cloud.items("requests")}
        assert statuses == dict.fromkeys(Batch.NAMES, "COMPLETED") | {"two": "PENDING"}
        given_up = {"owner": batch.client.owner, "request_id": "two"}
        assert cloud.messages("requests-failed") == [given_up]
        cloud.plan.over = True
        batch.finish()


@pytest.mark.parametrize("body", ["garbage", "{}", '{"owner": "acme#scott"}'])
def test_a_message_that_can_not_be_parsed_is_set_aside_once(cloud: Cloud, body: str) -> None:
    """It does not come again."""
    job = JobWithProgress(cloud)
    with job.prepared():
        cloud.sqs.send_message(QueueUrl=cloud.aws.queues["jobs"], MessageBody=body)
        job.run()
        [kept] = cloud.messages("requests-failed")
        assert kept["record"]["body"] == body
        assert cloud.messages("jobs") == []


@pytest.mark.parametrize("service", ["sqs", "dynamodb"])
def test_requests_run_after_an_hour_without_a_service(cloud: Cloud, service: str) -> None:
    """Workers and sweeper fail meanwhile, or messages are sent late."""
    job = JobWithProgress(cloud)
    with job.prepared():
        job.client.connect()
        job.client.ask("delay", {"seconds": 0, "steps": 2}, id="job")
        cloud.plan = Broken(fail, lambda exchange: exchange.service == service)
        until = cloud.clock.now + 3600
        while cloud.clock.now < until:
            cloud.flow()
            cloud.clock.now += 600
            cloud.invoke_later("processor", {"sweep": "leases"})
        cloud.plan.over = True
        job.rest()
        check_requests(cloud, job="COMPLETED")


def test_no_change_of_a_file_is_lost_in_an_outage(cloud: Cloud) -> None:
    """The stream is retried without a limit."""
    files = StuckFiles(cloud)
    with files.prepared():
        counting = cloud.streams["files"].delivery
        cloud.plan = Broken(throttle, lambda exchange: exchange.operation == "TransactWriteItems")
        counting.invoke = mend_after(cloud, 40, counting.invoke)
        files.play()
        assert counting.invocations > 40
        files.finish()


def test_a_webhook_message_received_twice_at_once_is_delivered_once(cloud: Cloud) -> None:
    assembly = AssemblyOfTwoFiles(cloud)
    with assembly.prepared():
        cloud.queues["webhooks"].arrange = lambda records: records * 2
        assembly.run()


def test_a_webhook_that_is_never_accepted_ends_in_the_dead_letter_queue(cloud: Cloud) -> None:
    """The document says failed."""
    assembly = AssemblyOfTwoFiles(cloud)
    with assembly.prepared():
        delivery = cloud.module("deliver-webhook")
        attempts = []

        def refuse(*_: Any, message_id: str, **__: Any) -> Any:
            attempts.append(message_id)
            return delivery.Outcome("retry", 503)

        with patch.object(delivery, "deliver", refuse):
            assembly.play()
            assembly.rest()
        [document] = cloud.items("assemblies")
        assert document["webhook"]["status"] == "failed"
        assert len(attempts) == delivery.MAX_RECEIVES == document["webhook"]["attempts"]
        letters = cloud.messages("webhooks-dlq")
        assert [letter["assembly_id"] for letter in letters] == [document["assembly_id"]]


STORMY = ("job", "cancelled", "lost-listener", "batch", "twins", "intake")


@pytest.mark.parametrize("scenario", STORMY)
def test_every_request_ends_once_in_a_storm(cloud: Cloud, scenario: str, tries_all: bool) -> None:
    for seed in range(60 if tries_all else 3):
        cloud.empty()
        played = (JOBS | MESSAGES)[scenario](cloud)
        storm = Storm(seed)
        try:
            with played.prepared():
                cloud.plan = storm
                played.play()
                played.rest()
                names = [row["request_id"] for row in cloud.items("requests")]
                check_requests(cloud, **dict.fromkeys(names, "COMPLETED|FAILED|CANCELLED"))
                if isinstance(played, AssemblyAskedForTwice):
                    [document] = cloud.items("assemblies")
                    assert "lease_until" not in document
        except AssertionError as broken:
            broken.add_note(f"{scenario}, storm {seed}: {storm.hit}")
            raise
