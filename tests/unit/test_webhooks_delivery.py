"""jobplane_webhooks: the connection of an attempt, and its outcomes."""

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest import MonkeyPatch

from jobplane_webhooks import Outcome, Target, TargetRules, _delivery, deliver
from jobplane_webhooks._delivery import outcome_of, retry_after_seconds
from tests.unit.assemblies import LOOPBACK, public_resolver, receiving, reply


def post(url: str, seconds: float, rules: TargetRules = LOOPBACK, **more: Any) -> Outcome:
    secrets = more.pop("secrets", ("a-secret-of-the-test",))
    return deliver(
        url, b"{}", secrets, message_id="m", user_agent="test", rules=rules, seconds=seconds, **more
    )


ROOT, PARENT = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
SENT = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8"


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (f"Root={ROOT};Parent={PARENT};Sampled=1", f"{SENT}-01"),
        (f"Root={ROOT};Parent={PARENT};Sampled=0;Lineage=1:fc3b4ff1:0", f"{SENT}-00"),
        (f"Root={ROOT}", None),
        (f"Root=1-a-b;Parent={PARENT};Sampled=1", None),
        (f"Root={ROOT};Parent=x\r\nX-Evil: 1;Sampled=1", None),
        ("nonsense", None),
        (None, None),
    ],
)
def test_an_attempt_has_the_traceparent_of_x_ray(header: str | None, sent: str | None) -> None:
    with receiving() as receiver:
        assert post(receiver.url, 5.0, trace_header=header).result == "delivered"
    assert receiver.requests[0].headers.get("traceparent") == sent


def exchange(target: Any, addresses: list[str], seconds: float = 5.0) -> tuple[int, str | None]:
    result: tuple[int, str | None] = asyncio.run(
        _delivery.exchange(target, addresses, {"X-Test": "1"}, b"{}", seconds)
    )
    return result


def test_the_connection_uses_the_checked_address(monkeypatch: MonkeyPatch) -> None:
    """The name is not looked up again: the second answer might be a private address."""
    resolve, asked = public_resolver("93.184.216.34", "169.254.169.254")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    seen: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    transport = httpx.MockTransport(receive)
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=transport))
    sent = post("https://rebind.example:8443/a?b=1", 5.0, TargetRules())
    assert sent.result == "delivered"
    assert asked == ["rebind.example"]
    assert str(seen[0].url) == "https://93.184.216.34:8443/a?b=1"
    assert seen[0].headers["host"] == "rebind.example:8443"
    assert seen[0].extensions["sni_hostname"] == "rebind.example"


def test_a_rebound_name_still_reaches_the_checked_address(monkeypatch: MonkeyPatch) -> None:
    resolve, asked = public_resolver("127.0.0.1", "10.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with receiving() as receiver:
        sent = post(f"http://localhost:{receiver.port}/", 5.0)
    assert sent.result == "delivered"
    assert asked == ["localhost"]
    assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for a name, and a client's context that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=signed.public_bytes(serialization.Encoding.DER))
    return server, client


@pytest.mark.parametrize(("name", "result"), [("localhost", "delivered"), ("other", "retry")])
def test_the_certificate_is_checked_for_the_name_not_the_address(
    monkeypatch: MonkeyPatch, tmp_path: Path, name: str, result: str
) -> None:
    server, client = certificate(tmp_path, name)
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, sni, _context: asked.append(sni)
    monkeypatch.setattr(_delivery, "trusted_authorities", lambda: client)
    with receiving(tls=server) as receiver:
        sent = post(f"https://localhost:{receiver.port}/", 5.0)
    assert sent.result == result
    assert asked[0] == "localhost"


def test_an_untrusted_certificate_gets_no_body(monkeypatch: MonkeyPatch, tmp_path: Path) -> None:
    server, _ = certificate(tmp_path, "localhost")
    with receiving(tls=server) as receiver:
        sent = post(f"https://localhost:{receiver.port}/", 5.0)
    assert (sent.result, receiver.requests) == ("retry", [])


def test_SSL_CERT_FILE_is_ignored(monkeypatch: MonkeyPatch, tmp_path: Path) -> None:
    certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    trusted = _delivery.trusted_authorities.__wrapped__().get_ca_certs()
    assert len(trusted) > 50


def test_the_name_look_up_counts_for_the_attempts_timeout(monkeypatch: MonkeyPatch) -> None:
    moments = iter([100.0, 107.0])
    left: list[float] = []

    async def answer(*arguments: Any) -> tuple[int, None]:
        left.append(arguments[-1])
        return 200, None

    monkeypatch.setattr(_delivery.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(_delivery, "addresses_of", lambda target, seconds: ["93.184.216.34"])
    monkeypatch.setattr(_delivery, "exchange", answer)
    monkeypatch.setattr(asyncio, "run", run_at_once)
    assert post("https://example.com/", 10.0, TargetRules()).result == "delivered"
    assert left == [3.0]


def run_at_once(coroutine: Any) -> Any:
    """The result of a coroutine that never waits, without an event loop."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def test_after_a_connection_timeout_the_next_address_is_tried(monkeypatch: MonkeyPatch) -> None:
    """No body was sent."""
    asked: list[str] = []

    def receive(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host == "192.0.2.1":
            raise httpx.ConnectTimeout("no answer")
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    transport = httpx.MockTransport(receive)
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=transport))
    target = Target("https", "example.com", 443, "/", False)
    assert exchange(target, ["192.0.2.1", "192.0.2.2"])[0] == 200
    assert asked == ["192.0.2.1", "192.0.2.2"]


def test_after_a_refused_connection_the_next_address_is_tried() -> None:
    with receiving() as receiver:
        target = Target("http", "localhost", receiver.port, "/", True)
        assert exchange(target, ["127.0.0.2", "127.0.0.1"])[0] == 200


def test_proxy_settings_of_the_environment_are_ignored(monkeypatch: MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with receiving() as receiver:
        target = Target("http", "127.0.0.1", receiver.port, "/", True)
        assert exchange(target, ["127.0.0.1"])[0] == 200


def test_a_redirect_is_a_final_failure_and_not_followed() -> None:
    with receiving() as inside, receiving(reply(307, location=inside.url)) as receiver:
        sent = post(receiver.url, 5.0)
    assert (sent.result, sent.status_code, sent.error) == ("failed", 307, "redirect")
    assert inside.requests == []


@pytest.mark.parametrize(
    ("where", "size", "seconds", "result", "error"),
    [
        ("headers", 1, 0.6, "retry", "timeout"),
        ("body", 1, 0.6, "delivered", None),
        ("headers", 65536, 20.0, "retry", "unreachable"),
        ("body", 65536, 20.0, "delivered", None),
    ],
)
def test_an_endless_answer_is_cut_after_the_timeout_or_16_kb(
    where: str, size: int, seconds: float, result: str, error: str | None
) -> None:
    """A status that came in time counts."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        if where == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            handler.send_response(200)
            handler.end_headers()
        while not handler.server.released.wait(0.02 if size == 1 else 0):  # type: ignore[attr-defined]
            handler.wfile.write(b"a" * size)
            handler.wfile.flush()

    with receiving(behave) as receiver:
        started = time.monotonic()
        sent = post(receiver.url, seconds)
        assert time.monotonic() - started < 10
    assert (sent.result, sent.error) == (result, error)


def test_a_receiver_that_does_not_answer_is_tried_again() -> None:
    with receiving(lambda handler: handler.server.released.wait(20)) as receiver:  # type: ignore[attr-defined]
        sent = post(receiver.url, 0.3)
    assert (sent.result, sent.error) == ("retry", "timeout")


def test_a_refused_connection_is_tried_again() -> None:
    with receiving() as receiver:
        url = receiver.url
    sent = post(url, 2.0)
    assert (sent.result, sent.error) == ("retry", "unreachable")


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (200, "delivered"), (204, "delivered"), (299, "delivered"),
        (300, "failed"), (301, "failed"), (304, "failed"), (308, "failed"),
        (400, "failed"), (401, "failed"), (404, "failed"), (422, "failed"), (499, "failed"),
        (408, "retry"), (425, "retry"), (429, "retry"),
        (500, "retry"), (502, "retry"), (503, "retry"), (599, "retry"),
        (410, "disabled"),
    ],
)  # fmt: skip
def test_each_status_has_its_outcome(code: int, result: str) -> None:
    """2xx is delivered, 410 ends all, 408, 425, 429 and 5xx are tried again, others are final."""
    assert outcome_of(code, None, 0.0).result == result


def test_retry_after_is_seconds_or_a_date_within_bounds() -> None:
    now = 1_800_000_000.0
    later = format_datetime(datetime.fromtimestamp(now + 90, UTC), usegmt=True)
    cases = {"120": 120.0, later: 90.0, "99999999": 21600.0, "-5": 0.0, "soon": 0.0, "": 0.0}
    cases |= {"Thu, 01 Jan 1970 00:00:00 GMT": 0.0, "Fri, 31 Dec 9999 23:59:59 GMT": 21600.0}
    assert {text: retry_after_seconds(text, now) for text in cases} == cases


@pytest.mark.parametrize(("allowed", "result"), [(False, "unsigned_refused"), (True, "delivered")])
def test_without_a_secret_nothing_is_sent_by_default(allowed: bool, result: str) -> None:
    with receiving() as receiver:
        sent = post(receiver.url, 5.0, secrets=(), allow_unsigned=allowed)
    assert sent.result == result
    assert len(receiver.requests) == allowed
