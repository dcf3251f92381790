"""intake: an object under inbox/ becomes one request, or is refused with its reason."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from itertools import count
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobplane_keys import ValidationError, owner_key, upload_prefix
from tests.examples import examples
from tests.unit.stack import AWS, BUCKET, Context, Row, Stack, load

ANN = owner_key("tenant-1", "ann")
JSON = {
    "tenant": "tenant-1", "user": "ann", "project": "site", "thread": "t-1",
    "instruction": {"do": "it"},
}  # fmt: skip


class Intake:
    """The function, and the bucket that it reads."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        domains = "mail.example.com=tenant-1,other.example=tenant-2"
        self.module: ModuleType = stack.function("intake", MAIL_DOMAINS=domains)

    def call(self, key: str = "inbox/m") -> Row:
        detail = {"bucket": {"name": BUCKET}, "object": {"key": key}}
        result: Row = self.module.handler({"detail": detail}, Context())
        return result

    def drop(self, content: Any, key: str = "inbox/m") -> Row:
        """Put an object, and tell the function of it; its result."""
        if isinstance(content, EmailMessage):
            content = content.as_bytes()
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.stack.upload(key, body)
        return self.call(key)

    def requests(self) -> list[Row]:
        return [row for row in self.stack.items("requests") if "action" in row]

    def payload(self, request_id: str, owner: str = ANN) -> Row:
        row = self.stack.request(request_id, owner)
        if "payload_object" in row:
            return dict(json.loads(self.stack.object(row["payload_object"])))
        if "payload_item" in row:
            row = self.stack.get("requests", owner=owner, request_id=row["payload_item"])
        return dict(json.loads(row["payload"]))

    def refused(self) -> dict[str, str]:
        """The reason of each object under inbox-refused/."""
        s3 = self.stack.s3
        keys = self.stack.keys("inbox-refused/")
        return {key: s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]["reason"] for key in keys}


@pytest.fixture
def intake(stack: Stack) -> Intake:
    return Intake(stack)


def mail(message_id: str | None = "<m-1@example.org>", **headers: str) -> EmailMessage:
    found = EmailMessage()
    if message_id:
        found["Message-ID"] = message_id
    for name, value in ({"From": "Ann <ann@example.org>", "Subject": "Hello",
                         "To": "site+ann@mail.example.com"} | headers).items():  # fmt: skip
        if value:
            found[name.replace("_", "-")] = value
    found.set_content("Please do it.\n")
    return found


def test_a_json_message_becomes_a_request(intake: Intake) -> None:
    result = intake.drop(JSON)
    assert result["outcome"] == "queued"
    (row,) = intake.requests()
    assert (row["owner"], row["action"], row["status"]) == (ANN, "instruct", "PENDING")
    assert row["request_id"] == result["requestId"]
    assert intake.payload(row["request_id"]) == {
        "project": "site", "thread": "t-1", "instruction": {"do": "it"}, "attachments": [],
    }  # fmt: skip
    assert intake.stack.keys("inbox/") == ["inbox/m"]


def test_an_email_becomes_a_request_of_its_recipients_workspace(intake: Intake) -> None:
    result = intake.drop(mail())
    assert result["outcome"] == "queued"
    payload = intake.payload(result["requestId"])
    assert payload["project"] == "site"
    assert payload["instruction"] == {
        "from": "ann@example.org", "subject": "Hello", "text": "Please do it.",
    }  # fmt: skip


@pytest.mark.parametrize("content", [JSON, mail(), JSON | {"id": "given"}])
def test_a_message_twice_is_one_request(intake: Intake, content: Any) -> None:
    """Under one key, or under two."""
    first = intake.drop(content)
    assert intake.call() == first | {"outcome": "known"}
    assert intake.drop(content, "inbox/again") == first | {"outcome": "known"}
    assert len(intake.requests()) == 1


def test_the_id_of_a_json_message_tells_equal_ones_apart(intake: Intake) -> None:
    for day in ("day-1", "day-2"):
        assert intake.drop(JSON | {"id": day})["outcome"] == "queued"
    assert sorted(row["request_id"] for row in intake.requests()) == ["day-1", "day-2"]


@pytest.mark.parametrize(
    "headers",
    [
        {"References": "<m-1@example.org> <m-2@example.org>", "In_Reply_To": "<m-2@example.org>"},
        {"In_Reply_To": "<m-1@example.org>"},
    ],
)
def test_an_answer_is_of_the_thread_of_the_first_message(
    intake: Intake, headers: dict[str, str]
) -> None:
    first = intake.drop(mail())
    answer = intake.drop(mail("<m-3@example.org>", **headers), "inbox/answer")
    other = intake.drop(mail("<m-4@example.org>"), "inbox/other")
    threads = [intake.payload(each["requestId"])["thread"] for each in (first, answer, other)]
    assert threads[0] == threads[1] != threads[2]


def test_attachments_become_objects_that_the_payload_names(intake: Intake) -> None:
    sent = mail()
    for name in ("../../../etc/pass wd", "Übersicht.pdf", "a" * 300 + ".txt"):
        sent.add_attachment(name.encode(), maintype="application", subtype="pdf", filename=name)
    sent.add_attachment(mail("<inner@example.org>"))
    result = intake.drop(sent)
    payload = intake.payload(result["requestId"])
    keys = [each["key"] for each in payload["attachments"]]
    assert intake.stack.keys("attachments/") == sorted(keys)
    names = [key.rpartition("/")[2] for key in keys]
    assert names[:2] == ["1-etc-pass-wd", "2-bersicht.pdf"]
    assert len(names[2]) <= 62
    assert intake.stack.object(keys[1]) == "Übersicht.pdf".encode()
    assert b"<inner@example.org>" in intake.stack.object(keys[3])


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Please</p><p>do <b>it</b></p>", "Please\ndo it"),
        ("<style>p {}</style>Do<script>alert(1)</script> it", "Do it"),
        ("a &lt; b", "a < b"),
    ],
)
def test_an_email_of_html_alone_gives_its_text(intake: Intake, html: str, text: str) -> None:
    sent = mail()
    sent.set_content(html, subtype="html")
    result = intake.drop(sent)
    assert intake.payload(result["requestId"])["instruction"]["text"] == text


def test_an_attachment_of_a_json_message_is_an_upload_of_its_user(intake: Intake) -> None:
    key = f"{upload_prefix(ANN)}job/file"
    result = intake.drop(JSON | {"attachments": [{"key": key}]})
    assert intake.payload(result["requestId"])["attachments"] == [{"key": key}]


FOREIGN = f"{upload_prefix(owner_key('tenant-2', 'ann'))}job/file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not JSON"),
        (b'{"a": NaN}', "is not JSON"),
        (JSON | {"tenant": None}, "tenant: "),
        (JSON | {"user": "a#b"}, "user: "),
        (JSON | {"thread": "x" * 129}, "thread: "),
        (JSON | {"more": 1}, "more: unknown; known are attachments, id, "),
        ({k: v for k, v in JSON.items() if k != "instruction"}, "instruction: "),
        (JSON | {"id": "a b"}, "id: expected 1 to 128 of"),
        (JSON | {"attachments": {}}, "attachments: a list"),
        (JSON | {"attachments": [{"key": FOREIGN}]}, "attachments.0.key: a key below uploads/"),
        (JSON | {"attachments": ["inbox/m"]}, "attachments.0.key: "),
        (JSON | {"attachments": [{"key": f"{upload_prefix(ANN)}{n}"} for n in range(101)]},
         "attachments: at most 100"),
        (b"", "It has no recipient"),
        (b"\xff\xfe nothing", "It has no recipient"),
        (mail(To=""), "It has no recipient of this stage's domains (mail.example.com, other.ex"),
        (mail(To="site+ann@example.net"), "It has no recipient"),
        (mail(To="site@mail.example.com"), "The recipient is not project+user@domain"),
        (mail(To='"a b+c"@mail.example.com'), "The recipient is not project+user@domain"),
        (mail(Cc="site+bob@mail.example.com"), "It has several recipients"),
        (mail(Cc="site+ann@other.example"), "It has several recipients"),
        (mail(X_SES_Spam_Verdict="FAIL"), "X-SES-Spam-Verdict is FAIL"),
        (mail(X_SES_Virus_Verdict="FAIL"), "X-SES-Virus-Verdict is FAIL"),
        (mail(Authentication_Results="amazonses.com; spf=pass; dkim=pass; dmarc=fail"), "SPF, DK"),
        (mail(Authentication_Results="amazonses.com; spf=fail x=y; dkim=none"), "SPF, DKIM"),
        (mail(Auto_Submitted="auto-replied"), "It is an automatic reply"),
    ],
)  # fmt: skip
def test_a_bad_message_is_moved_with_its_reason(intake: Intake, content: Any, reason: str) -> None:
    result = intake.drop(content)
    assert result["outcome"] == "refused"
    assert reason in result["reason"]
    assert intake.refused() == {"inbox-refused/m": result["reason"]}
    assert intake.stack.keys("inbox/") == []
    assert intake.requests() == []
    assert intake.call() == {"outcome": "gone"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authentication_Results": "amazonses.com; spf=fail; dkim=pass; dmarc=pass"},
        {"Authentication_Results": "amazonses.com; spf=pass; dkim=none"},
        {"X_SES_Spam_Verdict": "GRAY", "X_SES_Virus_Verdict": "DISABLED"},
        {"To": "Site <site+ann@MAIL.example.com>, someone@example.net"},
        {"To": "", "Cc": "team: site+ann@mail.example.com, x@example.net;"},
        {"Auto_Submitted": "auto-generated"},
    ],
)
def test_a_forwarded_or_copied_email_is_accepted(intake: Intake, headers: dict[str, str]) -> None:
    assert intake.drop(mail(**headers))["outcome"] == "queued"


def test_a_senders_own_verdict_below_that_of_the_server_does_not_count(intake: Intake) -> None:
    verdicts = "X-SES-Spam-Verdict: FAIL\r\n", "X-SES-Spam-Verdict: PASS\r\n"
    body = "".join(verdicts).encode() + mail().as_bytes()
    assert intake.drop(body)["reason"] == "X-SES-Spam-Verdict is FAIL"


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_OBJECT_BYTES", 10, "It has more than 10 bytes"),
        ("MAX_TEXT_LENGTH", 5, "The text has more than 5 characters"),
        ("MAX_ATTACHMENTS", 1, "The e-mail has more than 1 attachments"),
        ("MAX_PARTS", 2, "The e-mail has more than 2 parts"),
    ],
)
def test_what_is_too_large_is_refused(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, reason: str
) -> None:
    monkeypatch.setattr(intake.module, limit, value)
    sent = mail()
    for name in ("a", "b"):
        sent.add_attachment(b"x", maintype="image", subtype="png", filename=name)
    assert intake.drop(sent)["reason"] == reason
    assert intake.stack.keys("attachments/") == []


def test_nested_parts_are_refused_or_read(intake: Intake) -> None:
    """The parser recurses into parts: a message of ten thousand levels ends in a reason."""
    level = b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n"
    body = mail().as_bytes().partition(b"\n\n")[0] + b"\n"
    body = body.replace(b'Content-Type: text/plain; charset="utf-8"\n', b"")
    body += b"".join(level % (n, n) for n in range(10_000))
    assert intake.drop(body)["outcome"] in {"queued", "refused"}


@pytest.mark.parametrize(
    "event",
    [
        None, [], {}, {"detail": None}, {"detail": {}}, {"detail": {"bucket": {"name": BUCKET}}},
        {"detail": {"bucket": {"name": BUCKET}, "object": {"key": "uploads/m"}}},
        {"detail": {"bucket": {"name": BUCKET}, "object": {"key": 7}}},
    ],
)  # fmt: skip
def test_an_event_of_another_object_is_refused(intake: Intake, event: Any) -> None:
    with pytest.raises(ValidationError):
        intake.module.handler(event, Context())


class KilledError(BaseException):
    """The worker ends here."""


@contextmanager
def killed(intake: Intake, moment: str, number: int) -> Iterator[None]:
    """End the worker before or after its call of this number, counted from 1."""
    made = count(1)

    def end(**_: Any) -> None:
        if next(made) == number:
            raise KilledError

    clients = (intake.module.s3, intake.module.dynamodb)
    for client in clients:
        client.meta.events.register_last(moment, end)
    try:
        yield
    finally:
        for client in clients:
            client.meta.events.unregister(moment, end)


def large() -> EmailMessage:
    """An e-mail with an attachment, whose payload is an object."""
    sent = mail()
    sent.set_content("word " * 3000)
    sent.add_attachment(b"x", maintype="image", subtype="png", filename="x.png")
    return sent


@pytest.mark.parametrize("moment", ["before-call", "after-call"])
@pytest.mark.parametrize(
    ("content", "operations", "outcome"),
    [
        (large(), ["GetObject", "PutObject", "PutObject", "PutItem"], "queued"),
        (JSON, ["GetObject", "PutItem"], "queued"),
        (b"{", ["GetObject", "CopyObject", "DeleteObject"], "refused"),
    ],
)
def test_killed_at_any_call_a_message_ends_in_one_way(
    intake: Intake, content: Any, operations: list[str], outcome: str, moment: str
) -> None:
    """Lambda invokes it again: one job, or one refusal, and nothing is lost."""
    for number in range(1, len(operations) + 1):
        with killed(intake, moment, number), pytest.raises(KilledError):
            intake.drop(content)
        calls = intake.stack.calls(intake.module.s3, intake.module.dynamodb)
        is_over = moment == "after-call" and number == len(operations)
        known = "known" if outcome == "queued" else "gone"
        assert intake.call()["outcome"] == (known if is_over else outcome)
        if not is_over:
            assert [name for name, _ in calls] == operations
        assert len(intake.requests()) == (outcome == "queued")
        assert intake.stack.keys("inbox") == [
            "inbox/m" if outcome == "queued" else "inbox-refused/m"
        ]
        for row in intake.requests():
            intake.stack.dynamodb.delete_item(
                TableName=intake.module.REQUESTS,
                Key={name: {"S": row[name]} for name in ("owner", "request_id")},
            )


def unstored(module: ModuleType) -> Callable[[bytes], Any]:
    """What an object's content means, or why it is refused."""

    def read(body: bytes) -> Any:
        try:
            return module.instruction_of(body)
        except module.RefusedMessageError as error:
            return str(error)

    return read


HEADERS = st.sampled_from(
    ["To", "Cc", "From", "Subject", "Message-ID", "References", "Content-Type", "In-Reply-To",
     "Content-Transfer-Encoding", "Content-Disposition", "Authentication-Results", "MIME-Version"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["site+ann@mail.example.com", "multipart/mixed; boundary=b", "message/rfc822", "text/html",
     "text/plain; charset=nonsense", "base64", "=?utf-8?b?w7w=?=", "=?x?q?y?=", "<a@b> <c@d>",
     "group: a@b, c@d;", "attachment; filename*=utf-8''%C3%BC", "<", "@", "multipart/alternative"]
) | st.text(max_size=30)  # fmt: skip


@given(
    lines=st.lists(st.tuples(HEADERS, VALUES), max_size=8),
    body=st.binary(max_size=60) | st.just(b"--b\r\n\r\nx\r\n--b--") | st.just(b"=C3=BC\r\n"),
)
@settings(max_examples=examples(400), deadline=None)
def test_any_email_is_read_or_refused_and_always_in_the_same_way(
    reading: Callable[[bytes], Any], lines: list[tuple[str, str]], body: bytes
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in lines).encode(errors="replace")
    content = head + b"\r\n" + body
    found = reading(content)
    assert found == reading(content)
    if not isinstance(found, str):
        assert json.dumps(found.payload)
        assert all(key.startswith("attachments/") for key in found.files)


@pytest.fixture(scope="module")
def reading() -> Iterator[Callable[[bytes], Any]]:
    with patch.dict("os.environ", AWS):
        yield unstored(load("intake", MAIL_DOMAINS="mail.example.com=tenant-1"))
