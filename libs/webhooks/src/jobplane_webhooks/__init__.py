"""Signed webhooks, sent only to allowed addresses.

deliver                                      makes one attempt and returns an Outcome
TargetRules, target_of, TargetRefusedError   which URLs are allowed
signed_headers, signing_key, standard_digest signatures, for senders and receivers
compact_json                                 JSON as JavaScript would write it

Importing the package loads no other module; each name loads its module at first use. httpx is
loaded by the first attempt, or by a host name that is not ASCII.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobplane_webhooks._body import compact_json
    from jobplane_webhooks._delivery import Outcome, deliver
    from jobplane_webhooks._signing import (
        bare_secret,
        signed_headers,
        signing_key,
        standard_digest,
    )
    from jobplane_webhooks._targets import Target, TargetRefusedError, TargetRules, target_of

_HOMES = {
    "Outcome": "_delivery",
    "Target": "_targets",
    "TargetRefusedError": "_targets",
    "TargetRules": "_targets",
    "compact_json": "_body",
    "deliver": "_delivery",
    "bare_secret": "_signing",
    "signed_headers": "_signing",
    "signing_key": "_signing",
    "standard_digest": "_signing",
    "target_of": "_targets",
}

__all__ = [
    "Outcome",
    "Target",
    "TargetRefusedError",
    "TargetRules",
    "bare_secret",
    "compact_json",
    "deliver",
    "signed_headers",
    "signing_key",
    "standard_digest",
    "target_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
