"""What functions see in process is what the Serverless Framework would give them."""

import json
import subprocess

import pytest

from jobplane.template import JWT_SECRET, Template
from jobplane.workspace import Workspace

DERIVE = """
const derive = require('./scripts/serverless/paging-secret.js');
const asked = [];
const resolveVariable = async (name) => (asked.push(name), process.argv[1]);
derive({ resolveVariable }).then((secret) => console.log(JSON.stringify({ asked, secret })));
"""


def derived(secret: str) -> str:
    """The paging secret that the framework makes of the secret that signs tokens."""
    done = subprocess.run(
        ["node", "-e", DERIVE, secret],
        cwd=Workspace.here().root,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["asked"] == ["param:jwtSecret"]
    return str(answer["secret"])


def test_pages_are_signed_with_the_same_secret() -> None:
    """Both derivations of the paging secret come to the same of one secret, and not to itself."""
    workspace = Workspace.here()
    (function,) = workspace.select(("state-manager",))
    secret = Template(workspace).environment(function)["PAGING_SECRET"]
    assert secret == derived(JWT_SECRET)
    assert JWT_SECRET not in secret


@pytest.mark.parametrize("other", ["", "another-0123456789abcdef0123456789abcdef", "schlüssel"])
def test_another_secret_is_another_key(other: str) -> None:
    """The derivation depends on what it is given, whatever characters that has."""
    assert derived(other) != derived(JWT_SECRET)
