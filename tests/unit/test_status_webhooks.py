"""status: webhooks, from what may be reached to what becomes of a delivery."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import math
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from tests.unit.status_support import (
    ENVIRONMENT,
    ROOT,
    Context,
    Receiver,
    assembly,
    create_table,
    http,
    load,
    log_lines,
    message,
    metric_names,
    put,
    receiving,
    reply,
    sqs,
    stored,
    write_templates,
)

TRIGGER = {"assemblyId": "asm-1", "userId": "user-1", "triggerWebhook": True}
LOOPBACK = {"WEBHOOK_HOSTS": "127.0.0.1,localhost", "WEBHOOK_ALLOW_HTTP": "true"}
DONE: dict[str, Any] = {"batchItemFailures": []}
KEPT = {"batchItemFailures": [{"itemIdentifier": "message-1"}]}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        create_table()
        yield


@pytest.fixture
def status(aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The function with a template whose hook is in HOOK_URL, signed with `test-secret`."""
    index = write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="env:HOOK_SECRET")
    monkeypatch.setenv("HOOK_SECRET", "test-secret")
    module = load(monkeypatch, TEMPLATES_INDEX_PATH=index, **LOOPBACK)
    monkeypatch.setattr(module, "postponed", [], raising=False)
    monkeypatch.setattr(
        module, "postpone", lambda receipt, seconds: module.postponed.append(math.ceil(seconds))
    )
    return module


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function as deployed by default: no allow-list, https only."""
    return load(monkeypatch)


def hook(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("HOOK_URL", receiver.url)


def trigger(status: ModuleType, seconds: float = 30.0) -> tuple[int, Any, dict[str, str]]:
    answered = status.handler(TRIGGER, Context(seconds))
    return answered["statusCode"], json.loads(answered["body"]), answered["headers"]


def public_resolver(*addresses: str) -> Any:
    """A resolver that answers with the addresses in turn, the last one for ever."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> Any:
        address = addresses[min(len(asked), len(addresses) - 1)]
        asked.append(host)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    return resolve, asked


# Signatures


def test_plain_signature_vector(strict: ModuleType) -> None:
    """X-Transflow-Signature is the hex HMAC of the body under the secret's own bytes."""
    body = b'{"assembly_id":"abc123","ok":"ASSEMBLY_COMPLETED"}'
    assert strict.signed_headers(["test-secret"], "id", 1, body)["X-Transflow-Signature"] == (
        "sha256=6b3758173526e6e866836aa444d63399cdef475658b8ddf862243c391d731e34"
    )


def test_standard_signature_vector(strict: ModuleType) -> None:
    """webhook-signature is the published Standard Webhooks vector."""
    headers = strict.signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"


def test_plain_text_is_its_own_standard_key(strict: ModuleType) -> None:
    """A secret without prefix signs with its bytes, even when it looks like base64."""
    headers = strict.signed_headers(["abcd"], "m", 7, b"{}")
    expected = hmac.digest(b"abcd", b"m.7.{}", hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"


def test_rotation_signs_with_every_secret(strict: ModuleType) -> None:
    """While secrets rotate, each gives a v1 signature; the plain one is the first's."""
    both = strict.signed_headers(["new", "old"], "m", 7, b"{}")
    new = strict.signed_headers(["new"], "m", 7, b"{}")
    old = strict.signed_headers(["old"], "m", 7, b"{}")
    assert both["webhook-signature"].split() == [new["webhook-signature"], old["webhook-signature"]]
    assert both["X-Transflow-Signature"] == new["X-Transflow-Signature"]


def test_id_is_stable_and_has_no_dot(strict: ModuleType) -> None:
    """The id depends on assembly and execution alone, and can be part of the signed content."""
    assert strict.webhook_id("asm-1", 2) == strict.webhook_id("asm-1", 2)
    assert strict.webhook_id("asm-1", 2) != strict.webhook_id("asm-1", 3)
    assert "." not in strict.webhook_id("asm-1", 2)


# The body


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-0.0, "0"),
        (5.2, "5.2"),
        (-0.5, "-0.5"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (123456.789, "123456.789"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.25e22, "1.25e+22"),
        ("é\u2028\n", '"é\u2028\\n"'),
        ({"b": 1, "10": 2, "2": 3, "a": [True, None]}, '{"2":3,"10":2,"b":1,"a":[true,null]}'),
        ({"01": 1, "1": 2}, '{"1":2,"01":1}'),
    ],
)
def test_body_is_what_javascript_writes(strict: ModuleType, value: Any, text: str) -> None:
    """A receiver that parses and re-serialises gets the signed bytes."""
    assert strict.compact_json(value) == text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive(strict: ModuleType, number: float) -> None:
    """Every number is written so that it reads as itself."""
    assert float(strict.compact_number(number)) == number


# Where a webhook may go


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "https:///path",
        "https://",
        "",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com:80/",
        "https://example.com:22/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:4a3/",
        "https://example..com/",
        "https://example.com../",
        "https://.example.com/",
        "https://-a.example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://{'a.' * 127}example.com/",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com\t/",
        "https://exam%70le.com/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1.0x/",
        "https://127.0.0.01/",
        "https://999.1.1.1/",
        "https://1.2.3.4.5/",
        "https://１２７.0.0.1/",
        "https://①②⑦.⓪.⓪.①/",
        "https://[fe80::1%25eth0]/",
        "https://[::1%lo]/",
        "https://[v1.example]/",
        "https://[::1/",
        "https://[1.2.3.4]/",
        "https://[:::]/",
    ],
)
def test_malformed_targets_are_refused(strict: ModuleType, url: str) -> None:
    """URLs with another scheme, user information, other ports or odd hosts lead nowhere."""
    with pytest.raises(strict.TargetRefusedError):
        strict.target_of(url)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3",  # noqa: S104  refused, not bound to
        "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1",
        "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1",
        "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "fc00::1", "fd00:ec2::254", "fe80::1",
        "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(
    strict: ModuleType, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Neither as a literal nor from the resolver is a special address ever connected to."""
    assert not strict.is_public(ipaddress.ip_address(address))
    resolve, _ = public_resolver(address)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    bracketed = f"[{address}]" if ":" in address else address
    for host in (bracketed, "innocent.example.com"):
        with pytest.raises(strict.TargetRefusedError):
            strict.addresses_of(strict.target_of(f"https://{host}/"), 1.0)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1"])
def test_public_addresses(strict: ModuleType, address: str) -> None:
    """Ordinary addresses of the Internet are public."""
    assert strict.is_public(ipaddress.ip_address(address))


def test_one_private_address_spoils_all(
    strict: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a public and a private address is refused."""
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(strict.TargetRefusedError, match=r"10\.0\.0\.1"):
        strict.addresses_of(strict.target_of("https://example.com/"), 1.0)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com", "example.com", 443),
        ("HTTPS://EXAMPLE.com.:8443/a?b=c", "example.com", 8443),
        ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("https://8.8.8.8/", "8.8.8.8", 443),
        ("https://[2606:2800:0220:1:0:0:0:1]/", "2606:2800:220:1::1", 443),
    ],
)
def test_hosts_have_one_spelling(strict: ModuleType, url: str, host: str, port: int) -> None:
    """Case, a final dot, national letters and long forms come down to one spelling."""
    target = strict.target_of(url)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://hooks.example.com/", True),
        ("https://a.partner.example/", True),
        ("https://a.b.partner.example/", True),
        ("https://partner.example/", False),
        ("https://evilpartner.example/", False),
        ("https://example.com/", False),
        ("https://hooks.example.com.evil.example/", False),
        ("https://8.8.8.8/", False),
    ],
)
def test_allow_list(monkeypatch: pytest.MonkeyPatch, url: str, allowed: bool) -> None:
    """With WEBHOOK_HOSTS only the hosts named, or under a named suffix, are reached."""
    module = load(monkeypatch, WEBHOOK_HOSTS="hooks.example.com, *.partner.example")
    if allowed:
        assert module.target_of(url)
    else:
        with pytest.raises(module.TargetRefusedError):
            module.target_of(url)


def test_listed_name_is_not_a_way_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listed host that resolves to loopback is refused: only loopback names may."""
    module = load(monkeypatch, WEBHOOK_HOSTS="hooks.example.com")
    resolve, _ = public_resolver("127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(module.TargetRefusedError):
        module.addresses_of(module.target_of("https://hooks.example.com/"), 1.0)


def test_listed_loopback_may_have_any_port(status: ModuleType) -> None:
    """The local stage reaches a receiver on loopback, at any port."""
    target = status.target_of("http://localhost:5000/hook")
    assert target.loopback
    assert status.addresses_of(target, 1.0)


def test_listed_loopback_may_not_lead_elsewhere(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loopback name that resolves to the private network is refused."""
    resolve, _ = public_resolver("10.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(status.TargetRefusedError):
        status.addresses_of(status.target_of("http://localhost:5000/"), 1.0)


def test_http_needs_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without WEBHOOK_ALLOW_HTTP even a listed loopback host is https only."""
    module = load(monkeypatch, WEBHOOK_HOSTS="127.0.0.1")
    with pytest.raises(module.TargetRefusedError):
        module.target_of("http://127.0.0.1:5000/")


def test_resolver_that_hangs_is_left_behind(
    strict: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that never answers costs the attempt's time and no more."""
    from threading import Event

    released = Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        strict.addresses_of(strict.target_of("https://example.com/"), 0.2)
    assert time.monotonic() - started < 5
    released.set()


# The connection


def exchange(
    status: ModuleType, target: Any, addresses: list[str], seconds: float = 5.0
) -> tuple[int, str | None]:
    result: tuple[int, str | None] = asyncio.run(
        status.exchange(target, addresses, {"X-Test": "1"}, b"{}", seconds)
    )
    return result


def test_connection_goes_to_the_checked_address(
    strict: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that turns private after the check is of no use: there is no second look-up."""
    resolve, asked = public_resolver("93.184.216.34", "169.254.169.254")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    seen: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    real = httpx.AsyncClient
    monkeypatch.setattr(
        httpx,
        "AsyncClient",
        lambda **given: real(transport=httpx.MockTransport(receive), **given),
    )
    sent = strict.post(
        strict.Hook("tpl", "https://rebind.example:8443/a?b=1", ("s",), False), "m", b"{}", 5.0
    )
    assert sent.result == "delivered"
    assert asked == ["rebind.example"]
    assert str(seen[0].url) == "https://93.184.216.34:8443/a?b=1"
    assert seen[0].headers["host"] == "rebind.example:8443"
    assert seen[0].extensions["sni_hostname"] == "rebind.example"


def test_rebinding_meets_the_receiver_that_was_checked(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real socket, too, the first answer of the resolver is the one that counts."""
    resolve, asked = public_resolver("127.0.0.1", "10.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with receiving() as receiver:
        url = f"http://localhost:{receiver.port}/"
        sent = status.post(status.Hook("tpl", url, ("s",), False), "m", b"{}", 5.0)
    assert sent.result == "delivered"
    assert asked == ["localhost"]
    assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for a name, and a client's that trusts it."""
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
def test_certificate_is_checked_for_the_name(
    status: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    result: str,
) -> None:
    """SNI and the certificate's check use the name, although the address is connected to."""
    server, client = certificate(tmp_path, name)
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, sni, _context: asked.append(sni)
    monkeypatch.setattr(status, "trusted_authorities", lambda: client)
    with receiving(tls=server) as receiver:
        url = f"https://localhost:{receiver.port}/"
        sent = status.post(status.Hook("tpl", url, ("s",), False), "m", b"{}", 5.0)
    assert sent.result == result
    assert asked[0] == "localhost"


def test_untrusted_certificate_is_refused(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A certificate that no known authority signed ends the connection before anything is sent."""
    server, _ = certificate(tmp_path, "localhost")
    with receiving(tls=server) as receiver:
        url = f"https://localhost:{receiver.port}/"
        sent = status.post(status.Hook("tpl", url, ("s",), False), "m", b"{}", 5.0)
    assert (sent.result, receiver.requests) == ("retry", [])


def test_next_address_is_tried(status: ModuleType) -> None:
    """An address that takes no connection is followed by the next."""
    with receiving() as receiver:
        target = status.Target("http", "localhost", receiver.port, "/", True)
        assert exchange(status, target, ["127.0.0.2", "127.0.0.1"])[0] == 200


def test_proxies_are_not_used(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy settings of the environment have no say."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiving() as receiver:
        target = status.Target("http", "127.0.0.1", receiver.port, "/", True)
        assert exchange(status, target, ["127.0.0.1"])[0] == 200


def test_redirects_are_not_followed(status: ModuleType) -> None:
    """A redirect is a final failure; where it points is never asked."""
    with receiving() as inside, receiving(reply(307, location=inside.url)) as receiver:
        sent = status.post(status.Hook("tpl", receiver.url, ("s",), False), "m", b"{}", 5.0)
    assert (sent.result, sent.status_code, sent.error) == ("failed", 307, "redirect")
    assert inside.requests == []


def drip(where: str) -> Any:
    """A receiver that sends a byte at a time until it is released."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        server_released = handler.server.released  # type: ignore[attr-defined]
        if where == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            handler.send_response(200)
            handler.end_headers()
        while not server_released.wait(0.02):
            handler.wfile.write(b"a")
            handler.wfile.flush()

    return behave


@pytest.mark.parametrize(("where", "result"), [("headers", "retry"), ("body", "delivered")])
def test_slow_drip_is_cut(status: ModuleType, where: str, result: str) -> None:
    """The time bounds the whole attempt; a status that came in time is what counts."""
    with receiving(drip(where)) as receiver:
        started = time.monotonic()
        sent = status.post(status.Hook("tpl", receiver.url, ("s",), False), "m", b"{}", 0.6)
        assert time.monotonic() - started < 4
    assert sent.result == result


def test_silence_is_a_timeout(status: ModuleType) -> None:
    """A receiver that takes the request and says nothing is tried again."""
    with receiving(lambda handler: handler.server.released.wait(20)) as receiver:  # type: ignore[attr-defined]
        sent = status.post(status.Hook("tpl", receiver.url, ("s",), False), "m", b"{}", 0.3)
    assert (sent.result, sent.error) == ("retry", "timeout")


def test_endless_body_is_not_read(status: ModuleType) -> None:
    """No more than 16 KB of an answer are waited for."""
    written = []

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.released.is_set():  # type: ignore[attr-defined]
            written.append(handler.wfile.write(b"a" * 65536))

    with receiving(flood) as receiver:
        started = time.monotonic()
        sent = status.post(status.Hook("tpl", receiver.url, ("s",), False), "m", b"{}", 20.0)
        assert time.monotonic() - started < 10
    assert sent.result == "delivered"


def test_endless_headers_are_refused(status: ModuleType) -> None:
    """Headers without end are cut by size, and tried again."""

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Big: ")
        while not handler.server.released.is_set():  # type: ignore[attr-defined]
            handler.wfile.write(b"a" * 65536)

    with receiving(flood) as receiver:
        sent = status.post(status.Hook("tpl", receiver.url, ("s",), False), "m", b"{}", 20.0)
    assert (sent.result, sent.error) == ("retry", "unreachable")


def test_nobody_listens(status: ModuleType) -> None:
    """A refused connection is tried again."""
    with receiving() as receiver:
        url = receiver.url
    sent = status.post(status.Hook("tpl", url, ("s",), False), "m", b"{}", 2.0)
    assert (sent.result, sent.error) == ("retry", "unreachable")


# What an answer means


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
def test_classes_of_answers(strict: ModuleType, code: int, result: str) -> None:
    """2xx is done, 410 the end of it, 408, 425, 429 and 5xx come again, the rest is final."""
    assert strict.outcome_of(code, None, 0.0).result == result


def test_retry_after_forms(strict: ModuleType) -> None:
    """Retry-After is seconds or a date, bounded; anything else is as good as none."""
    now = 1_800_000_000.0
    later = format_datetime(datetime.fromtimestamp(now + 90, UTC), usegmt=True)
    cases = {"120": 120.0, later: 90.0, "99999999": 21600.0, "-5": 0.0, "soon": 0.0, "": 0.0}
    for text, seconds in cases.items():
        assert strict.retry_after_seconds(text, now) == seconds
    assert strict.retry_after_seconds("Thu, 01 Jan 1970 00:00:00 GMT", now) == 0.0


@pytest.mark.parametrize(
    ("receives", "planned"),
    [(1, 5), (2, 30), (3, 120), (4, 600), (5, 3600), (6, 21600), (9, 21600)],
)
def test_retry_schedule(strict: ModuleType, receives: int, planned: int) -> None:
    """The n-th receive is followed by the n-th delay, spread by a tenth either way."""
    assert strict.retry_delay(receives, 0.5) == planned
    assert strict.retry_delay(receives, 0.0) == pytest.approx(planned * 0.9)
    assert strict.retry_delay(receives, 1.0) == pytest.approx(planned * 1.1)


def test_schedule_fits_the_queue(strict: ModuleType) -> None:
    """The queue hands a message out as often as there are attempts."""
    queues = yaml.safe_load((ROOT / "resources/queues.yml").read_text())["Resources"]
    policy = queues["WebhooksQueue"]["Properties"]["RedrivePolicy"]
    assert policy["maxReceiveCount"] == strict.MAX_RECEIVES


# On demand


def test_delivery_on_demand(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public document is posted, signed, and the answer says that it arrived."""
    put(assembly(results={"2": [{"id": "result_1", "size": 1.0}], "a": []}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        code, body, headers = trigger(status)
    (request,) = receiver.requests
    assert code == 200
    assert headers["Cache-Control"] == "no-store"
    assert body["webhook"] | {"last_attempt_at": ""} == {
        "status": "delivered",
        "attempts": 1,
        "last_response_code": 200,
        "last_attempt_at": "",
        "delivered": True,
        "status_code": 200,
    }
    assert request.method == "POST"
    assert request.path == "/hooks?tenant=1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == status.USER_AGENT
    expected = hmac.digest(b"test-secret", request.body, hashlib.sha256).hex()
    assert request.headers["x-transflow-signature"] == f"sha256={expected}"
    content = f"msg_asm-1_1.{request.headers['webhook-timestamp']}.".encode() + request.body
    signature = base64.b64encode(hmac.digest(b"test-secret", content, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{signature}"
    assert request.headers["webhook-id"] == "msg_asm-1_1"
    document = json.loads(request.body)
    assert document["assembly_id"] == "asm-1"
    assert set(document) <= set(status.PUBLIC_ASSEMBLY_FIELDS)
    assert stored("asm-1")["webhook"]["status"] == "delivered"


def test_trigger_over_http(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """triggerWebhook=true in the query delivers, and a tag does not stand in its way."""
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        event = http(
            "GET", "/status/asm-1", {"triggerWebhook": "true"}, headers={"if-none-match": "*"}
        )
        answered = status.handler(event, Context())
    assert answered["statusCode"] == 200
    assert json.loads(answered["body"])["webhook"]["delivered"] is True


def test_running_assembly_is_409(status: ModuleType) -> None:
    """There is nothing to notify of before the end."""
    put(assembly(ok=None))
    code, body, headers = trigger(status)
    assert code == 409
    assert body["assembly_id"] == "asm-1"
    assert headers["Retry-After"] == "2"


def test_second_trigger_is_429(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One delivery on demand per assembly in thirty seconds."""
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        trigger(status)
        code, _, headers = trigger(status)
    assert code == 429
    assert 1 <= int(headers["Retry-After"]) <= 30
    assert len(receiver.requests) == 1


def test_trigger_after_the_cooldown(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the thirty seconds are over, a delivered webhook may be sent again."""
    put(assembly(webhook_cooldown_until=time.time() - 1, webhook={"status": "delivered"}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert trigger(status)[0] == 200
    assert len(receiver.requests) == 1


def test_foreign_trigger_is_403(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the owner can have a webhook sent."""
    put(assembly(user={"userId": "user-2"}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert trigger(status)[0] == 403
    assert receiver.requests == []


def test_failed_attempts_are_repeated_in_time(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On demand, a receiver that stumbles is tried again, with the same id."""
    put(assembly())
    pauses: list[float] = []
    monkeypatch.setattr(status.time, "sleep", pauses.append)
    with receiving(reply(503), reply(429, retry_after="2"), reply(204)) as receiver:
        hook(monkeypatch, receiver)
        _, body, _ = trigger(status)
    assert body["webhook"]["delivered"] is True
    assert body["webhook"]["attempts"] == 3
    assert pauses == [0.0, 1.0, 2.0]
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert stored("asm-1")["webhook"]["attempts"] == 3


def test_attempts_fit_the_remaining_time(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little time left there is one attempt, and the answer still comes."""
    put(assembly())
    with receiving(reply(503)) as receiver:
        hook(monkeypatch, receiver)
        code, body, _ = trigger(status, seconds=4.5)
    assert code == 200
    assert body["webhook"]["attempts"] == 1
    assert body["webhook"] | {"delivered": False, "status_code": 503} == body["webhook"]


def test_no_time_no_attempt(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without time for an attempt none is made."""
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        _, body, _ = trigger(status, seconds=3.2)
    assert body["webhook"]["error"] == "no_time"
    assert receiver.requests == []


def test_gone_disables(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a 410 nothing is sent for this assembly any more."""
    put(assembly())
    with receiving(reply(410)) as receiver:
        hook(monkeypatch, receiver)
        _, first, _ = trigger(status)
        _, second, _ = trigger(status)
        assert status.handler(message(), Context()) == DONE
    assert first["webhook"]["status"] == "disabled"
    assert second["webhook"]["error"] == "disabled"
    assert len(receiver.requests) == 1


def test_missing_secret_is_not_sent(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret nothing leaves, and the document says why."""
    put(assembly())
    monkeypatch.delenv("HOOK_SECRET")
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        _, body, _ = trigger(status)
    assert body["webhook"]["error"] == "unsigned_refused"
    assert receiver.requests == []
    assert stored("asm-1")["webhook"]["status"] == "unsigned_refused"


@pytest.mark.parametrize("secret", ["whsec_!!!", "literal", "whsec_"])
def test_unusable_secret_is_not_sent(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> None:
    """A secret that is no base64 after its prefix, or no reference, counts as none."""
    if secret == "literal":
        write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="literal")
    else:
        monkeypatch.setenv("HOOK_SECRET", secret)
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert trigger(status)[1]["webhook"]["error"] == "unsigned_refused"
    assert receiver.requests == []


def test_unsigned_where_the_template_says_so(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """allow_unsigned sends without signatures, still with id and timestamp."""
    write_templates(tmp_path, webhook_url="env:HOOK_URL", allow_unsigned=True)
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert trigger(status)[1]["webhook"]["delivered"] is True
    headers = receiver.requests[0].headers
    assert headers["webhook-id"] == "msg_asm-1_1"
    assert not {"webhook-signature", "x-transflow-signature"} & set(headers)


@pytest.mark.parametrize("template_id", ["other", None])
def test_no_webhook_configured(status: ModuleType, template_id: str | None) -> None:
    """An assembly whose template has no webhook is answered, and says so."""
    put(assembly(template_id=template_id))
    code, body, _ = trigger(status)
    assert code == 200
    assert body["webhook"] == {"delivered": False, "attempts": 0, "error": "not_configured"}


def test_missing_url_parameter_is_not_configured(status: ModuleType) -> None:
    """A reference to a URL that is not there is no webhook."""
    put(assembly())
    assert trigger(status)[1]["webhook"]["error"] == "not_configured"


def test_missing_index_leaves_the_look_up_alone(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a template index the document is still answered."""
    monkeypatch.setattr(status, "TEMPLATES_INDEX", tmp_path / "absent.json")
    put(assembly())
    code, body, _ = trigger(status)
    assert code == 200
    assert body["webhook"]["error"] == "configuration_unavailable"


def test_forbidden_target_is_refused(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that leads inside is refused, and the answer tells no address."""
    monkeypatch.setenv("HOOK_URL", "https://169.254.169.254/latest/meta-data")
    put(assembly())
    _, body, _ = trigger(status)
    assert body["webhook"]["error"] == "refused"
    assert "169.254" not in json.dumps(body)
    assert stored("asm-1")["webhook"]["status"] == "refused"


# References


def test_secrets_come_from_ssm_with_rotation(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ssm:/… with {stage} is read decrypted, once a minute; it may hold several secrets."""
    write_templates(tmp_path, webhook_url="env:HOOK_URL", webhook_secret="ssm:/j/{stage}/secret")
    boto3.client("ssm").put_parameter(
        Name="/j/test/secret", Value="whsec_bmV3, old", Type="SecureString"
    )
    monkeypatch.setenv("HOOK_URL", "https://example.com/")
    first = status.hook_of("tpl")
    boto3.client("ssm").delete_parameter(Name="/j/test/secret")
    assert first.secrets == ("whsec_bmV3", "old")
    assert status.hook_of("tpl") == first
    later = time.monotonic() + 61
    monkeypatch.setattr(status.time, "monotonic", lambda: later)
    assert status.hook_of("tpl").secrets == ()


def test_url_may_be_a_parameter(status: ModuleType, tmp_path: Path) -> None:
    """The URL may be referenced too."""
    write_templates(tmp_path, webhook_url="ssm:/j/{stage}/url")
    boto3.client("ssm").put_parameter(
        Name="/j/test/url", Value="https://hooks.example.com/x", Type="String"
    )
    assert status.hook_of("tpl").url == "https://hooks.example.com/x"


# From the queue


def test_delivery_from_the_queue(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One receive is one attempt; a 2xx ends it, and the item says so."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(), Context()) == DONE
    assert len(receiver.requests) == 1
    item = stored("asm-1")
    assert item["webhook"]["status"] == "delivered"
    assert item["webhook"]["attempts"] == 1
    assert item["webhook"]["last_response_code"] == 200
    assert "webhook_claim_until" not in item
    assert item["rev"] == 4
    out = capsys.readouterr().out
    (line,) = [line for line in log_lines(out) if line.get("message") == "webhook_delivery"]
    assert line["host"] == "127.0.0.1"
    assert (line["attempt"], line["status_code"], line["result"]) == (1, 200, "delivered")
    assert {"WebhookAttempts", "WebhookDelivered"} <= set(metric_names(out))
    assert "test-secret" not in out
    assert "tenant=1" not in out


def test_repeated_message_is_not_delivered_twice(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that comes again after its delivery is dropped."""
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(), Context()) == DONE
        assert status.handler(message(), Context()) == DONE
    assert len(receiver.requests) == 1


def test_replayed_assembly_is_delivered_again(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new execution has a webhook of its own, with another id."""
    put(assembly())
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        status.handler(message(), Context())
        put(stored("asm-1") | {"execution": 2})
        status.handler(message(execution=2), Context())
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert ids == ["msg_asm-1_1", "msg_asm-1_2"]
    assert stored("asm-1")["webhook"]["attempts"] == 1


def test_superseded_message_is_dropped(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of an execution that a replay has replaced is done with."""
    put(assembly(execution=2))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(execution=1), Context()) == DONE
    assert receiver.requests == []


def test_message_in_another_receive_waits(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one receive delivers, a duplicate waits instead of delivering too."""
    put(assembly(webhook_claim_until=time.time() + 10))
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(), Context()) == KEPT
    assert receiver.requests == []
    assert status.postponed == [20]


def test_failure_is_postponed(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 5xx keeps the message, hidden until the next attempt."""
    put(assembly())
    with receiving(reply(503)) as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(receives=2), Context()) == KEPT
    assert len(receiver.requests) == 1
    assert 27 <= status.postponed[0] <= 33
    assert stored("asm-1")["webhook"]["status"] == "retrying"
    assert stored("asm-1")["webhook"]["last_response_code"] == 503


def test_attempts_add_up(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries count on, and share one id with fresh timestamps and signatures."""
    put(assembly())
    with receiving(reply(500), reply(200)) as receiver:
        hook(monkeypatch, receiver)
        status.handler(message(), Context())
        status.handler(message(receives=2), Context())
    first, second = (request.headers["webhook-id"] for request in receiver.requests)
    assert first == second
    assert stored("asm-1")["webhook"]["attempts"] == 2
    assert stored("asm-1")["webhook"]["status"] == "delivered"


def test_retry_after_is_honoured(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that asks for more time gets it, up to six hours."""
    put(assembly())
    with receiving(reply(429, retry_after="1000"), reply(503, retry_after="999999")) as receiver:
        hook(monkeypatch, receiver)
        status.handler(message(), Context())
        status.handler(message(), Context())
    assert status.postponed == [1000, 21600]


@pytest.mark.parametrize(("code", "word"), [(404, "failed"), (302, "failed"), (410, "disabled")])
def test_final_answers_end_it(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, code: int, word: str
) -> None:
    """Other 4xx, redirects and 410 are final: the message is done with."""
    put(assembly())
    with receiving(reply(code, location="/x")) as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(), Context()) == DONE
    assert len(receiver.requests) == 1
    assert stored("asm-1")["webhook"]["status"] == word


def test_exhausted_goes_to_the_dead_letter_queue(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seventh failure is the last: `failed`, and the queue moves the message away at once."""
    put(assembly())
    with receiving(reply(500)) as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(message(receives=7), Context()) == KEPT
    assert len(receiver.requests) == 1
    assert status.postponed == [0]
    assert stored("asm-1")["webhook"]["status"] == "failed"
    assert "WebhookFailed" in metric_names(capsys.readouterr().out)


def test_unsigned_message_is_refused(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a secret a queued webhook is recorded as refused, not tried for hours."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    monkeypatch.delenv("HOOK_SECRET")
    monkeypatch.setenv("HOOK_URL", "http://127.0.0.1:9/")
    assert status.handler(message(), Context()) == DONE
    assert stored("asm-1")["webhook"]["status"] == "unsigned_refused"


def test_message_without_receiver_is_done(status: ModuleType) -> None:
    """A webhook that nobody configured is not left pending."""
    put(assembly(webhook={"status": "pending", "attempts": 0}))
    assert status.handler(message(), Context()) == DONE
    assert "webhook" not in stored("asm-1")


@pytest.mark.parametrize("item", [None, assembly(ttl=5)])
def test_message_of_a_gone_assembly_is_done(
    status: ModuleType, item: dict[str, Any] | None
) -> None:
    """There is nothing to tell about an assembly that is gone."""
    if item:
        put(item)
    assert status.handler(message(), Context()) == DONE


def test_message_ahead_of_its_assembly_waits(status: ModuleType) -> None:
    """A message that comes before the end is tried again."""
    put(assembly(ok=None))
    assert status.handler(message(), Context()) == KEPT
    assert status.postponed


def test_unread_configuration_is_tried_again(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A configuration that can't be read is a failed attempt, up to the last."""
    monkeypatch.setattr(status, "TEMPLATES_INDEX", tmp_path / "absent.json")
    put(assembly())
    assert status.handler(message(), Context()) == KEPT
    assert stored("asm-1")["webhook"]["status"] == "retrying"
    assert status.handler(message(receives=7), Context()) == KEPT
    assert stored("asm-1")["webhook"]["status"] == "failed"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"assembly_id":5}',
        '{"assembly_id":"a/b"}',
        '{"assembly_id":"asm-1","execution":"1"}',
        "[" * 100_000,
    ],
)
def test_unreadable_message_goes_to_the_dead_letter_queue(status: ModuleType, body: str) -> None:
    """A message that makes no sense is kept, without delay, until the queue moves it away."""
    put(assembly())
    assert status.handler(sqs(body), Context()) == KEPT
    assert status.postponed == [0]


@pytest.mark.parametrize(
    "record",
    [
        {"eventSource": "aws:sqs"},
        {"eventSource": "aws:sqs", "messageId": "message-1", "body": None, "attributes": 5},
        {"eventSource": "aws:sqs", "messageId": "message-1", "body": {"assembly_id": "asm-1"}},
    ],
)
def test_malformed_records_are_kept(status: ModuleType, record: dict[str, Any]) -> None:
    """A record of another shape fails alone and raises nothing."""
    failures = status.handler({"Records": [record]}, Context())["batchItemFailures"]
    assert failures == [{"itemIdentifier": record.get("messageId", "")}]


def test_one_bad_message_does_not_fail_the_batch(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the message at fault is kept."""
    put(assembly())
    good = json.dumps({"assembly_id": "asm-1", "execution": 1, "template_id": "tpl"})
    with receiving() as receiver:
        hook(monkeypatch, receiver)
        answered = status.handler(sqs("{", good), Context())
    assert answered == KEPT
    assert len(receiver.requests) == 1


def test_slow_receivers_do_not_add_up(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages of a batch are delivered side by side."""
    from threading import Barrier

    together = Barrier(5, timeout=10)

    def wait(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        reply(200)(handler)

    bodies = []
    for number in range(5):
        put(assembly(f"asm-{number}"))
        bodies.append(json.dumps({"assembly_id": f"asm-{number}", "execution": 1}))
    with receiving(wait) as receiver:
        hook(monkeypatch, receiver)
        assert status.handler(sqs(*bodies), Context()) == DONE
    assert len(receiver.requests) == 5


def test_failed_read_keeps_the_message(status: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the table fails, the message comes again by the schedule."""

    def fail(**_: Any) -> Any:
        raise RuntimeError("no table")

    monkeypatch.setattr(status.dynamodb, "get_item", fail)
    assert status.handler(message(), Context()) == KEPT
    assert 4 <= status.postponed[0] <= 6


def test_postponing_is_a_visibility_change(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A postponed message stays in its queue, hidden."""
    sqs_client = boto3.client("sqs")
    url = sqs_client.create_queue(QueueName="webhooks")["QueueUrl"]
    module = load(monkeypatch, WEBHOOKS_QUEUE_URL=url)
    sqs_client.send_message(QueueUrl=url, MessageBody="x")
    (received,) = sqs_client.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"]
    module.postpone(received["ReceiptHandle"], 4.2)
    assert "Messages" not in sqs_client.receive_message(QueueUrl=url)


def test_failed_postponing_is_only_logged(
    aws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the visibility can't be changed, the queue's own timeout brings the message back."""
    module = load(monkeypatch)
    module.postpone("no-such-receipt", 5)
    assert "message not postponed" in capsys.readouterr().out


def test_replay_is_not_overwritten(status: ModuleType) -> None:
    """The outcome of an earlier execution leaves the newer one's state alone."""
    put(assembly(execution=2, webhook={"status": "pending", "attempts": 0}))
    status.record_webhook(assembly(execution=1), "failed", 7, 500)
    assert stored("asm-1")["webhook"] == {"status": "pending", "attempts": 0}


def test_failure_on_demand_leaves_the_queue_its_plan(
    status: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed delivery on demand does not mark what the queue still retries."""
    put(assembly(webhook={"status": "retrying", "attempts": 1}, webhook_execution=1))
    with receiving(reply(404)) as receiver:
        hook(monkeypatch, receiver)
        assert trigger(status)[1]["webhook"]["delivered"] is False
    assert stored("asm-1")["webhook"]["status"] == "retrying"
    assert stored("asm-1")["webhook"]["attempts"] == 2
