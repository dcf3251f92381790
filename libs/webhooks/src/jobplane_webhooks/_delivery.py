"""One attempt at a delivery, from the look-up of the host to the end of the answer."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Literal

from jobplane_webhooks._signing import signed_headers
from jobplane_webhooks._targets import (
    Target,
    TargetRefusedError,
    TargetRules,
    addresses_of,
    target_of,
)

if TYPE_CHECKING:
    import ssl

type Result = Literal["delivered", "retry", "failed", "disabled", "refused", "unsigned_refused"]

_ADDRESS_SECONDS = 4.0
_MAX_ANSWER_BYTES = 16 * 1024
_MAX_RETRY_AFTER = 21600.0
_RETRIED_CODES = frozenset({408, 425, 429})
_PUBLIC_HTTPS = TargetRules()
_TRACE_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_TRACE_PARENT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt; `error` is a word for clients, `cause` is only for the log.

    delivered          the receiver answered with 2xx
    retry              408, 425, 429, 5xx or no answer: try again, not before `retry_after` seconds
    failed             another 4xx, or a redirect: do not try again
    disabled           410: the receiver accepts no more webhooks
    refused            the URL is not allowed; nothing was sent
    unsigned_refused   there is no secret; nothing was sent
    """

    result: Result
    status_code: int | None = None
    error: str | None = None
    cause: str | None = None
    retry_after: float = 0.0


def deliver(
    url: str,
    body: bytes,
    secrets: Sequence[str],
    *,
    message_id: str,
    user_agent: str,
    seconds: float = 10.0,
    rules: TargetRules = _PUBLIC_HTTPS,
    allow_unsigned: bool = False,
    trace_header: str | None = None,
) -> Outcome:
    """Post a signed JSON body once, within `seconds`; return an Outcome for every failure, too.

    The body is signed with each of `secrets`, the current one first. Use the same `message_id` for
    all attempts, so that a receiver can recognise repetitions. The host is looked up once, all its
    addresses are checked, and the connection goes to one of them, without proxies and redirects.
    At most 16 KB of the answer are read. Blocks the thread; runs its own event loop.
    `trace_header` is X-Ray's header of the work that is reported, sent as W3C's `traceparent`.
    Raises ValueError for a secret that `signing_key` refuses.
    """
    import asyncio

    import httpx

    if not secrets and not allow_unsigned:
        return Outcome("unsigned_refused", error="unsigned_refused")
    deadline = time.monotonic() + seconds
    headers = {
        "Content-Type": "application/json",
        "User-Agent": user_agent,
        "Accept-Encoding": "identity",
        "Connection": "close",
        **signed_headers(secrets, message_id, int(time.time()), body),
        **trace_headers(trace_header or ""),
    }
    try:
        target = target_of(url, rules)
        addresses = addresses_of(target, seconds)
        left = max(0.1, deadline - time.monotonic())
        code, retry_after = asyncio.run(exchange(target, addresses, headers, body, left))
    except (TargetRefusedError, httpx.InvalidURL) as error:
        return Outcome("refused", error="refused", cause=str(error))
    except (TimeoutError, httpx.TimeoutException) as error:
        return Outcome("retry", error="timeout", cause=repr(error))
    except (OSError, UnicodeError, httpx.HTTPError) as error:
        return Outcome("retry", error="unreachable", cause=repr(error))
    return outcome_of(code, retry_after, time.time())


def trace_headers(trace_header: str) -> dict[str, str]:
    """X-Ray's header as W3C's header `traceparent`; {} if it is malformed.

    https://www.w3.org/TR/trace-context/#traceparent-header
    """
    parts = dict(part.partition("=")[::2] for part in trace_header.split(";"))
    root = _TRACE_ROOT.fullmatch(parts.get("Root", ""))
    parent = parts.get("Parent", "")
    if root is None or not _TRACE_PARENT.fullmatch(parent):
        return {}
    sampled = "01" if parts.get("Sampled") == "1" else "00"
    return {"traceparent": f"00-{root[1]}{root[2]}-{parent}-{sampled}"}


async def exchange(
    target: Target,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    seconds: float,
) -> tuple[int, str | None]:
    """POST to the first address that accepts a connection; return status code and Retry-After.

    The URL contains the address, so the host is not looked up again; the Host header, SNI and the
    check of the certificate use the name. `seconds` limit the whole exchange.
    """
    import asyncio

    import httpx

    last: Exception = httpx.ConnectError("no address")
    code: int | None = None
    retry_after: str | None = None
    timeout = httpx.Timeout(seconds, connect=min(seconds, _ADDRESS_SECONDS))
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(
                verify=trusted_authorities(),
                trust_env=False,
                follow_redirects=False,
                timeout=timeout,
            ) as client,
        ):
            for address in addresses:
                try:
                    async with client.stream(
                        "POST",
                        target.url_at(address),
                        content=body,
                        headers={**headers, "Host": target.authority},
                        extensions={"sni_hostname": target.host},
                    ) as response:
                        code = response.status_code
                        retry_after = response.headers.get("retry-after")
                        received = 0
                        async for chunk in response.aiter_raw():
                            received += len(chunk)
                            if received >= _MAX_ANSWER_BYTES:
                                break
                        return code, retry_after
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    last = error
            raise last
    except (TimeoutError, httpx.HTTPError):
        # The status code is enough: the body may be incomplete.
        if code is None:
            raise
        return code, retry_after


def outcome_of(status_code: int, retry_after: str | None, now: float) -> Outcome:
    """The outcome for a receiver's answer; `now` is in epoch seconds."""
    if 200 <= status_code < 300:
        return Outcome("delivered", status_code)
    if status_code == 410:
        return Outcome("disabled", status_code, "gone")
    if status_code in _RETRIED_CODES or status_code >= 500:
        seconds = retry_after_seconds(retry_after, now)
        return Outcome("retry", status_code, "unavailable", retry_after=seconds)
    return Outcome("failed", status_code, "redirect" if status_code < 400 else "rejected")


def retry_after_seconds(value: str | None, now: float) -> float:
    """Seconds of a Retry-After header, at most six hours; 0 if it is malformed."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), _MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, moment - now), _MAX_RETRY_AFTER)


@cache
def trusted_authorities() -> "ssl.SSLContext":
    """A TLS context with the certificate authorities that are trusted for receivers."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)
