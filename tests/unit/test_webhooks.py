"""jobplane_webhooks: signatures, bodies and allowed targets."""

import base64
import hashlib
import hmac
import ipaddress
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch

import jobplane_webhooks
from jobplane_webhooks import TargetRefusedError, TargetRules, signed_headers, target_of
from jobplane_webhooks._targets import addresses_of, is_public
from tests.unit.assemblies import LOOPBACK, public_resolver


def listed(hosts: str) -> TargetRules:
    return TargetRules.from_environment({"WEBHOOK_HOSTS": hosts})


def test_X_Transflow_Signature_is_the_hex_hmac_of_the_body() -> None:
    body = b'{"assembly_id":"abc123","ok":"ASSEMBLY_COMPLETED"}'
    assert signed_headers(["test-secret"], "id", 1, body)["X-Transflow-Signature"] == (
        "sha256=6b3758173526e6e866836aa444d63399cdef475658b8ddf862243c391d731e34"
    )


def test_webhook_signature_gives_the_example_of_standard_webhooks() -> None:
    secret, id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    headers = signed_headers([secret], id, 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (id, "1614265330")


def test_a_secret_without_the_prefix_is_text() -> None:
    """Even one that looks like base64."""
    headers = signed_headers(["abcdefgh"], "m", 7, b"{}")
    expected = hmac.digest(b"abcdefgh", b"m.7.{}", hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"


def test_each_of_several_secrets_gives_a_signature() -> None:
    names = (["new text", "old text"], ["new text"], ["old text"])
    both, new, old = (signed_headers(secrets, "m", 7, b"{}") for secrets in names)
    assert both["webhook-signature"].split() == [new["webhook-signature"], old["webhook-signature"]]
    assert both["X-Transflow-Signature"] == new["X-Transflow-Signature"]


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "v1",
        "short",
        "whsec_",
        "whsec_!!!",
        "whsec_ä",
        "whsec_abc",
        "whsec_" + "QUJD" * 7,
        "v1,whsec_" + "QUJD" * 7,
        "whsk_" + "QUJD" * 8,
        "whpk_" + "QUJD" * 8,
    ],
)
def test_an_empty_short_or_malformed_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        jobplane_webhooks.signing_key(secret)
    with pytest.raises(ValueError, match="secret"):
        signed_headers([secret], "m", 7, b"{}")


def test_a_secret_signs_as_its_provider_shows_it() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert signed_headers([f"v1,{secret}"], "m", 7, b"{}") == signed_headers(
        [secret], "m", 7, b"{}"
    )


def test_without_secrets_headers_have_only_id_and_timestamp() -> None:
    assert signed_headers([], "m", 7, b"{}") == {"webhook-id": "m", "webhook-timestamp": "7"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"),
        (-0.0, "0"),
        (2.0**53, "9007199254740992"),
        (2.0**60, "1152921504606847000"),
        (-123456789012345680000.0, "-123456789012345680000"),
        (2**53 - 1, "9007199254740991"),
        (2**60 + 1, "1152921504606846977"),
        (float("inf"), "null"),
        (float("nan"), "null"),
        ((1, "\ud800é", {"\udfff": True}), '[1,"\\ud800é",{"\\udfff":true}]'),
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
def test_the_body_equals_that_of_JSON_stringify(value: Any, text: str) -> None:
    """A receiver that parses and serialises again gets the signed bytes."""
    assert jobplane_webhooks.compact_json(value) == text


@settings(deadline=None)
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_written_so_that_it_reads_equal(number: float) -> None:
    assert float(jobplane_webhooks.compact_json(number)) == number


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "//example.com/",
        "https:///path", "https://", "", "https://user@example.com/",
        "https://user:pass@example.com/", "https://example.com@127.0.0.1/",
        "https://example.com:80/", "https://example.com:22/", "https://example.com:0/",
        "https://example.com:99999/", "https://example.com:4a3/", "https://example..com/",
        "https://example.com../", "https://.example.com/", "https://-a.example.com/",
        f"https://{'a' * 64}.example.com/", f"https://{'a.' * 127}example.com/",
        "https://exa mple.com/", "https://example.com/a b", "https://example.com\\@127.0.0.1/",
        "https://example.com/\r\nX-Evil: 1", "https://example.com\t/", "https://exam%70le.com/",
        "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://017700000001/",
        "https://0177.0.0.1/", "https://127.1/", "https://127.0.0.1.0x/", "https://127.0.0.01/",
        "https://999.1.1.1/", "https://1.2.3.4.5/", "https://１２７.0.0.1/", "https://①②⑦.⓪.⓪.①/",
        "https://[fe80::1%25eth0]/", "https://[::1%lo]/", "https://[v1.example]/", "https://[::1/",
        "https://[1.2.3.4]/", "https://[:::]/",
    ],
)  # fmt: skip
def test_malformed_targets_are_refused(url: str) -> None:
    """Other schemes, user information, other ports, malformed hosts."""
    with pytest.raises(TargetRefusedError):
        target_of(url, TargetRules())


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
def test_special_addresses_are_refused(monkeypatch: MonkeyPatch, address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    resolve, _ = public_resolver(address)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    bracketed = f"[{address}]" if ":" in address else address
    for host in (bracketed, "innocent.example.com"):
        with pytest.raises(TargetRefusedError):
            addresses_of(target_of(f"https://{host}/", TargetRules()), 1.0)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_a_name_with_one_private_address_is_refused(monkeypatch: MonkeyPatch) -> None:
    known = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    answers = [(*known, (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(TargetRefusedError, match=r"10\.0\.0\.1"):
        addresses_of(target_of("https://example.com/", TargetRules()), 1.0)


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
def test_hosts_are_normalised(url: str, host: str, port: int) -> None:
    target = target_of(url, TargetRules())
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
def test_WEBHOOK_HOSTS_allows_only_listed_hosts_and_suffixes(url: str, allowed: bool) -> None:
    rules = listed("hooks.example.com, *.partner.example")
    if allowed:
        assert target_of(url, rules)
    else:
        with pytest.raises(TargetRefusedError):
            target_of(url, rules)


@pytest.mark.parametrize(
    ("url", "rules", "address"),
    [
        ("https://hooks.example.com/", listed("hooks.example.com"), "127.0.0.1"),
        ("http://localhost:5000/", LOOPBACK, "10.0.0.1"),
        ("https://a.localhost/", listed("*.localhost"), "127.0.0.1"),
    ],
    ids=["loopback", "a loopback name in a private network", "a suffix of loopback names"],
)
def test_a_listed_host_with_a_private_address_is_refused(
    monkeypatch: MonkeyPatch, url: str, rules: TargetRules, address: str
) -> None:
    resolve, _ = public_resolver(address)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(TargetRefusedError):
        addresses_of(target_of(url, rules), 1.0)


def test_a_listed_loopback_name_may_have_any_port() -> None:
    """For receivers of a local stage."""
    target = target_of("http://localhost:5000/hook", LOOPBACK)
    assert target.loopback
    assert addresses_of(target, 1.0)


def test_http_needs_WEBHOOK_ALLOW_HTTP() -> None:
    with pytest.raises(TargetRefusedError):
        target_of("http://127.0.0.1:5000/", listed("127.0.0.1"))


def test_a_resolver_that_hangs_costs_only_the_attempts_time(monkeypatch: MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(20))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        addresses_of(target_of("https://example.com/", TargetRules()), 0.2)
    assert time.monotonic() - started < 5
    released.set()


def test_only_a_delivery_loads_httpx() -> None:
    script = """
import sys
from jobplane_webhooks import signed_headers, signing_key, standard_digest
assert "jobplane_webhooks._targets" not in sys.modules
from jobplane_webhooks import *
heavy = {"asyncio", "concurrent.futures.thread", "httpx"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_announced_name_exists() -> None:
    assert all(getattr(jobplane_webhooks, name) for name in jobplane_webhooks.__all__)
    assert sorted(jobplane_webhooks.__all__) == dir(jobplane_webhooks)
    with pytest.raises(AttributeError, match="nothing"):
        jobplane_webhooks.nothing  # noqa: B018
