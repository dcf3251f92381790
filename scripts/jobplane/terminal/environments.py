"""Keep the AWS and proxy settings of the user's shell away from clients of a local stage."""

import os
from collections.abc import MutableMapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.session import Session


def spare_proxies(environment: MutableMapping[str, str]) -> None:
    """Add loopback to NO_PROXY: a proxy can't reach this machine's loopback."""
    for name in ("NO_PROXY", "no_proxy"):
        known = environment.get(name, "").split(",")
        spared = [host for host in ("127.0.0.1", "localhost") if host not in known]
        environment[name] = ",".join(filter(None, [*known, *spared]))


@cache
def session_without_account() -> "Session":
    """A botocore session that reads neither AWS variables nor the user's AWS files.

    Any other session fails if AWS_PROFILE names a missing profile, or a file can't be parsed.
    """
    from botocore.session import Session

    settings = {
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in Session.SESSION_VARIABLES.items()
    }
    for name in ("config_file", "credentials_file"):
        settings[name] = (None, None, os.devnull, None)
    return Session(session_vars=settings)
