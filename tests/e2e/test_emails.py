"""E-mails and messages in the bucket of the local stage become jobs of the job flow."""

import asyncio
import json
from email.message import EmailMessage
from hashlib import sha256
from typing import Any

import pytest

from jobplane_client import Job
from tests.e2e.deployed import Deployed, unique, until
from tests.e2e.test_instruct import Instructed

pytestmark = pytest.mark.e2e


class Mailbox(Instructed):
    """A user's workspace, and the folder that messages to it arrive in."""

    @property
    def bucket(self) -> str:
        return str(self.deployed.info["buckets"]["files"])

    def drop(self, body: bytes) -> str:
        """Put an object under `inbox/`; its name."""
        name = unique("object")
        self.deployed.s3.put_object(Bucket=self.bucket, Key=f"inbox/{name}", Body=body)
        return name

    def mail(self, text: str, answers: str | None = None, **files: bytes) -> tuple[str, str]:
        """Drop an e-mail; its Message-ID, and the id of the job that it becomes."""
        sent = EmailMessage()
        sent["Message-ID"] = message_id = f"<{unique('mail')}@example.org>"
        sent["From"], sent["To"] = "ann@example.org", f"amelia+{self.user}@mail.example.com"
        if answers:
            sent["References"] = answers
        sent["Subject"] = "A page"
        sent.set_content(text)
        for name, body in files.items():
            sent.add_attachment(body, maintype="image", subtype="png", filename=f"{name}.png")
        self.drop(sent.as_bytes())
        return message_id, f"mail-{sha256(message_id.encode()).hexdigest()[:32]}"

    def is_there(self, job: str) -> bool:
        return bool(self.deployed.row(self.user, job))

    def names(self, prefix: str) -> list[str]:
        found = self.deployed.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", ())]


@pytest.fixture
def mailbox(deployed: Deployed) -> Mailbox:
    return Mailbox(deployed)


async def test_an_email_becomes_a_job_whose_progress_its_user_sees(mailbox: Mailbox) -> None:
    received: list[Any] = []

    def work(job: Job) -> str:
        received.append((job.instruction["text"], [a["key"] for a in job.attachments]))
        for part in range(1, 5):
            job.report(part * 25, f"part {part}")
            job.wait(0.3)
        return "done"

    async with mailbox.deployed.socket(mailbox.user) as socket:
        _, job = mailbox.mail("Please.", plan=b"\x89PNG")
        await until(lambda: mailbox.is_there(job), "the job of the e-mail")
        await socket.ask({"action": "subscribe", "payload": {"request_id": job}})
        async with mailbox.worker(work):
            end = await socket.end_of(job)
        assert end["result"] == {"outcome": "Completed", "result": "done"}
        heard = [m["percentage"] for m in socket.of(job) if m["type"] == "progress"]
        assert heard == sorted(heard)
        assert heard[-1] == 100
        ((text, keys),) = received
        assert text == "Please."
        assert [key.rpartition("/")[2] for key in keys] == ["1-plan.png"]
        stored = mailbox.deployed.s3.get_object(Bucket=mailbox.bucket, Key=keys[0])["Body"].read()
        assert stored == b"\x89PNG"


async def test_an_answer_joins_and_another_conversation_interrupts(mailbox: Mailbox) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(job: Job) -> Any:
        loop.call_soon_threadsafe(begun.set)
        if job.instruction["text"] == "long":
            job.wait(60)
            job.check()
        return job.instruction["text"]

    async with mailbox.deployed.socket(mailbox.user) as socket, mailbox.worker(work):

        async def end_of(job: str) -> Any:
            await until(lambda: mailbox.is_there(job), job)
            await socket.ask({"action": "subscribe", "payload": {"request_id": job}})
            await until(lambda: "ended_at" in mailbox.deployed.row(mailbox.user, job), job)
            answer = await socket.ask({"action": "status", "payload": {"request_id": job}})
            return answer["data"]

        first_mail, first = mailbox.mail("long")
        await asyncio.wait_for(begun.wait(), 60)
        await mailbox.until_status(first, "PROCESSING")
        _, answer = mailbox.mail("and this", answers=first_mail)
        joined = await end_of(answer)
        assert joined["result"] == {"outcome": "Joined", "request_id": first}
        _, other = mailbox.mail("short")
        assert (await end_of(first))["error"]["code"] == "INTERRUPTED"
        assert (await end_of(other))["result"] == {"outcome": "Completed", "result": "short"}


async def test_a_message_twice_is_one_job_and_a_bad_one_is_refused(mailbox: Mailbox) -> None:
    job = unique("job")
    message = {"tenant": "acme", "user": mailbox.user, "project": "amelia", "thread": "t-1",
               "instruction": {"page": 7}, "id": job}  # fmt: skip
    runs: list[Any] = []

    async with mailbox.worker(lambda work: runs.append(work.instruction)):
        for _ in range(2):
            mailbox.drop(json.dumps(message).encode())
        bad = mailbox.drop(json.dumps(message | {"thread": 7}).encode())
        await mailbox.until_status(job, "COMPLETED")
        refused = f"inbox-refused/{bad}"
        await until(lambda: mailbox.names(refused), "the refused object")
        # It is copied first.
        await until(lambda: not mailbox.names(f"inbox/{bad}"), "the end of the object")
    head = mailbox.deployed.s3.head_object(Bucket=mailbox.bucket, Key=refused)
    assert head["Metadata"]["reason"].startswith("thread: ")
    assert runs == [{"page": 7}]
