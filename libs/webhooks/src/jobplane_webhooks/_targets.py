"""Where webhooks may be sent: the allowed URLs, and the allowed addresses of their hosts."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast
from urllib.parse import urlsplit

type Scheme = Literal["https", "http"]

_PORTS: dict[Scheme, frozenset[int]] = {
    "https": frozenset({443, 8443}),
    "http": frozenset({80, 8080}),
}
_DEFAULT_PORTS: dict[Scheme, int] = {"https": 443, "http": 80}
_HOST_NAME = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Not in it are ranges that `is_global` accepts but that may contain private addresses:
# ::ffff:0:0/96, 64:ff9b::/96, fec0::/10.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# For Python before 3.12.4, 6to4 (which contains an IPv4 address) and most of 192.0.0.0/24 are
# global.
_SPECIAL = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv4Network("192.0.0.0/24"))


class TargetRefusedError(ValueError):
    """The URL, or an address of its host, is not allowed for webhooks."""


@dataclass(frozen=True, slots=True)
class TargetRules:
    """What is allowed besides https to public addresses.

    If `hosts` is not empty, only these hosts are allowed: exact names and addresses, or
    `*.suffix`. A loopback host that is listed exactly is allowed, at any port; no other host with
    an address that is not public is. `allow_http` is for such a local receiver.
    """

    allow_http: bool = False
    hosts: frozenset[str] = frozenset()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Rules from WEBHOOK_ALLOW_HTTP (`true`) and WEBHOOK_HOSTS (by commas or spaces)."""
        entries = re.split(r"[\s,]+", environment.get("WEBHOOK_HOSTS", ""))
        return cls(
            allow_http=environment.get("WEBHOOK_ALLOW_HTTP", "").lower() == "true",
            hosts=frozenset(entry.lower().rstrip(".").strip("[]") for entry in entries if entry),
        )

    def lists(self, host: str) -> bool:
        """Whether `hosts` contains the host, exactly or by a `*.suffix`."""
        return host in self.hosts or any(
            entry.startswith("*.") and host.endswith(entry[1:]) for entry in self.hosts
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL; `host` in ASCII, `path` with its query."""

    scheme: Scheme
    host: str
    port: int
    path: str
    loopback: bool

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return _bracketed(self.host)
        return f"{_bracketed(self.host)}:{self.port}"

    def url_at(self, address: str) -> str:
        """The URL with an address instead of the host, so that the host is not looked up again."""
        return f"{self.scheme}://{_bracketed(address)}:{self.port}{self.path}"


def target_of(url: str, rules: TargetRules) -> Target:
    """Check a URL and return its parts. Raises TargetRefusedError if it is not allowed.

    Does not look the host up: `deliver` checks its addresses when it connects.
    """
    if not url.isprintable() or " " in url or "\\" in url:
        raise TargetRefusedError("the URL contains a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetRefusedError(f"not a URL: {error}") from error
    if parts.scheme != "https" and not (parts.scheme == "http" and rules.allow_http):
        raise TargetRefusedError(f"scheme {parts.scheme!r} is not allowed")
    scheme = cast(Scheme, parts.scheme)
    if "@" in parts.netloc:
        raise TargetRefusedError("the URL contains a user name or password")
    if "[" in parts.netloc and ":" not in (parts.hostname or ""):
        raise TargetRefusedError("the text in brackets is not an IPv6 address")
    host = _ascii_host(parts.hostname or "")
    if rules.hosts and not rules.lists(host):
        raise TargetRefusedError(f"host {host!r} is not in the list of hosts")
    loopback = host in rules.hosts and _is_loopback_name(host)
    port = _DEFAULT_PORTS[scheme] if port is None else port
    if not loopback and port not in _PORTS[scheme]:
        raise TargetRefusedError(f"port {port} is not allowed")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme, host, port, path, loopback)


def addresses_of(target: Target, seconds: float) -> list[str]:
    """Look the host up and return all its addresses.

    Raises TargetRefusedError if one of them is not allowed. This is the only look-up of an
    attempt: the connection goes to an address that was checked here.
    """
    from concurrent.futures import ThreadPoolExecutor

    # getaddrinfo has no timeout: when it takes too long, its thread is left running.
    pool = ThreadPoolExecutor(1)
    try:
        found = pool.submit(
            socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM
        ).result(seconds)
    finally:
        pool.shutdown(wait=False)
    texts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for text in texts:
        address = ipaddress.ip_address(text)
        if not (address.is_loopback if target.loopback else is_public(address)):
            raise TargetRefusedError(f"{target.host} has an address that is not public: {text}")
    return texts


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the address is public, and does not contain another address."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _GLOBAL_UNICAST or address.scope_id
    ):
        return False
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or any(address in network for network in _SPECIAL)
    )


def _ascii_host(host: str) -> str:
    """The normal form of a host: a lower-case name in ASCII, or an address in its usual form.

    Raises TargetRefusedError for other texts.
    """
    host = host.lower().removesuffix(".")
    if not host.isascii():
        host = _idna_host(host)
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise TargetRefusedError(f"not an IPv6 address: {host!r}") from error
        if address.scope_id:
            raise TargetRefusedError("an address with a zone is never public")
        return str(address)
    if not _HOST_NAME.fullmatch(host):
        raise TargetRefusedError(f"not a host name: {host!r}")
    # Resolvers accept 127.1, 2130706433 and 0x7f.1 as addresses; here only the usual form is one.
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise TargetRefusedError(f"not an IPv4 address: {host!r}") from error
    return host


def _idna_host(host: str) -> str:
    """The ASCII form of an international name. Raises TargetRefusedError."""
    import httpx

    try:
        return httpx.URL(scheme="https", host=host).raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise TargetRefusedError(f"not a host name: {host!r}") from error


def _is_loopback_name(host: str) -> bool:
    """Whether the host is the local computer, by name or by address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _bracketed(host: str) -> str:
    """An IPv6 address in brackets; any other host unchanged."""
    return f"[{host}]" if ":" in host else host
