"""What the user's shell holds, kept from the AWS clients of a verb."""

import os
from collections.abc import MutableMapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.session import Session


def spare_proxies(environment: MutableMapping[str, str]) -> None:
    """Let whatever reads the environment talk to loopback directly: no proxy could reach it."""
    for name in ("NO_PROXY", "no_proxy"):
        known = environment.get(name, "").split(",")
        spared = [host for host in ("127.0.0.1", "localhost") if host not in known]
        environment[name] = ",".join(filter(None, [*known, *spared]))


@cache
def session_without_account() -> "Session":
    """A botocore session that reads neither AWS variables nor the user's AWS files.

    A profile that does not exist, or a file that can't be parsed, would stop any other session.
    """
    from botocore.session import Session

    settings = {
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in Session.SESSION_VARIABLES.items()
    }
    for name in ("config_file", "credentials_file"):
        settings[name] = (None, None, os.devnull, None)
    return Session(session_vars=settings)
