"""Webhook targets that lead to private addresses, by their disguise, are never contacted."""

import socket
from typing import Any

import pytest

from jobplane_webhooks import Outcome, TargetRules, _delivery, deliver

METADATA = "169.254.169.254"
DISGUISES: dict[str, str] = {
    "loopback": "https://127.0.0.1/", "loopback by name": "https://localhost/",
    "loopback by a name below it": "https://a.localhost/",
    "loopback, another of its addresses": "https://127.8.8.8/",
    "loopback, a part left out": "https://127.1/", "loopback in decimal": "https://2130706433/",
    "loopback in octal": "https://0177.0.0.1/",
    "loopback in one octal number": "https://017700000001/",
    "loopback in hex": "https://0x7f000001/",
    "loopback in hex parts": "https://0x7f.0x0.0x0.0x1/",
    "loopback in mixed parts": "https://0x7f.0.0.01/",
    "loopback beyond 32 bits": "https://4294967296127/",
    "loopback with zeros before": "https://127.0.0.001/",
    "loopback in full-width digits": "https://１２７.０.０.１/",
    "loopback in circled digits": "https://①②⑦.⓪.⓪.①/",
    "loopback with ideographic dots": "https://127。0。0。1/",
    "loopback with a final dot": "https://127.0.0.1./", "nowhere": "https://0.0.0.0/",
    "nowhere in one digit": "https://0/", "metadata": f"https://{METADATA}/latest/meta-data/",
    "metadata in decimal": "https://2852039166/", "metadata in hex": "https://0xA9FEA9FE/",
    "metadata in octal": "https://0251.0376.0251.0376/",
    "metadata of containers": "https://169.254.170.2/v2/credentials",
    "metadata over IPv6": "https://[fd00:ec2::254]/", "private, class A": "https://10.0.0.1/",
    "private, class B": "https://172.16.0.1/", "private, class C": "https://192.168.0.1/",
    "carrier's own": "https://100.64.0.1/", "broadcast": "https://255.255.255.255/",
    "multicast": "https://224.0.0.1/", "IPv6 loopback": "https://[::1]/",
    "IPv6 loopback, spelled out": "https://[0:0:0:0:0:0:0:1]/", "IPv6 nowhere": "https://[::]/",
    "IPv6 link": "https://[fe80::1]/", "IPv6 link with a zone": "https://[fe80::1%25eth0]/",
    "IPv6 unique local": "https://[fc00::1]/", "IPv6 site": "https://[fec0::1]/",
    "mapped loopback": "https://[::ffff:127.0.0.1]/",
    "mapped loopback in hex": "https://[::ffff:7f00:1]/",
    "mapped metadata": f"https://[::ffff:{METADATA}]/",
    "compatible loopback": "https://[::127.0.0.1]/",
    "translated loopback": "https://[::ffff:0:127.0.0.1]/",
    "NAT64 metadata": "https://[64:ff9b::a9fe:a9fe]/",
    "NAT64 metadata, dotted": f"https://[64:ff9b::{METADATA}]/",
    "NAT64 of one's own": "https://[64:ff9b:1::a9fe:a9fe]/",
    "6to4 loopback": "https://[2002:7f00:1::]/", "6to4 metadata": "https://[2002:a9fe:a9fe::]/",
    "Teredo": "https://[2001::1]/",
    "user information before it": "https://example.com@127.0.0.1/",
    "user information with a password": "https://example.com:443@127.0.0.1/",
    "user information, encoded": "https://example.com%40127.0.0.1/",
    "a backslash before it": "https://127.0.0.1\\@example.com/",
    "a fragment before it": "https://127.0.0.1#@example.com/",
    "a tab in it": "https://127.0.\t0.1/",
    "a line end in it": "https://127.0.0.1\r\nHost: example.com/",
    "an encoded dot in it": "https://127%2e0%2e0%2e1/",
    "a null byte in it": "https://127.0.0.1\0.example.com/",
    "the port of SSH": "https://example.com:22/",
    "the port of a database": "https://example.com:6379/",
    "the port of http": "https://example.com:80/",
    "a port beyond all": "https://example.com:65979/",
    "a negative port": "https://example.com:-443/", "plain http": "http://example.com/",
    "a file": "file:///etc/passwd", "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "no scheme": "//127.0.0.1/", "data": "data:text/plain,x",
    "a name that leads inside": "https://inside.example.com/",
    "a name that leads inside, too": "https://both.example.com/",
    "a name that leads to metadata over IPv6": "https://inside6.example.com/",
    "a name with an address in it": "https://127.0.0.1.nip.example/",
}  # fmt: skip
NAMES = {
    "example.com": ["93.184.216.34"], "inside.example.com": ["10.0.0.1"],
    "both.example.com": ["93.184.216.34", METADATA],
    "inside6.example.com": ["::ffff:169.254.169.254"], "127.0.0.1.nip.example": ["127.0.0.1"],
    "localhost": ["127.0.0.1", "::1"], "a.localhost": ["127.0.0.1"],
}  # fmt: skip


def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
    """Resolve as libc does, with every old spelling of an address."""
    found = NAMES.get(host)
    if found is None:
        try:
            found = [socket.inet_ntoa(socket.inet_aton(host))]
        except OSError:
            found = [host]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.fixture
def contacted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The addresses of all attempts."""
    made: list[list[str]] = []

    async def exchange(target: Any, addresses: list[str], *_: Any) -> tuple[int, None]:
        made.append(addresses)
        return 200, None

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(_delivery, "exchange", exchange)
    return made


def send(url: str, **rules: Any) -> Outcome:
    return deliver(
        url, b"{}", ["s" * 32], message_id="msg_1", user_agent="tests", rules=TargetRules(**rules)
    )


@pytest.mark.parametrize(
    "rules", [{}, {"allow_http": True, "hosts": frozenset({"hooks.example.org"})}]
)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_private_target_is_refused_and_not_contacted(
    contacted: list[list[str]], disguise: str, rules: dict[str, Any]
) -> None:
    """Nor with an allow-list and http."""
    assert send(DISGUISES[disguise], **rules).result == "refused"
    assert contacted == []


def test_a_public_receiver_is_reached_at_the_checked_address(contacted: list[list[str]]) -> None:
    assert send("https://example.com/hook").result == "delivered"
    assert contacted == [["93.184.216.34"]]


def test_each_attempt_makes_one_look_up(
    contacted: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that turns private after the first attempt is refused at the second."""
    answers = iter([["93.184.216.34"], [METADATA]])
    asked: list[str] = []

    def flipping(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers)[0], port))]

    monkeypatch.setattr(socket, "getaddrinfo", flipping)
    assert send("https://rebind.example/").result == "delivered"
    assert (asked, contacted) == (["rebind.example"], [["93.184.216.34"]])
    assert send("https://rebind.example/").result == "refused"
    assert contacted == [["93.184.216.34"]]
