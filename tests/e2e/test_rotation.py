"""Rotation of the secret that signs tokens, by the steps of docs/operating.md."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from jobplane.stage.signing import jwt_secret, secret_name
from jobplane_client import mint_token
from jobplane_parameters import RENEWAL_SECONDS
from tests.e2e.deployed import PATIENCE, Deployed, unique, until
from tests.e2e.documented import ROOT, Terminal, blocks

pytestmark = pytest.mark.e2e

VERIFYING = ("connect", "status")
# After so long no worker accepts a removed secret, if unknown tokens come.
KNOWN_SECONDS = RENEWAL_SECONDS + 15


class Operator:
    """Changes the stage's secret by the commands of docs/operating.md."""

    def __init__(self, deployed: Deployed, terminal: Terminal) -> None:
        document = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
        part = document.partition("secret that signs tokens**")[2].partition("A secret that was")
        (block,) = blocks(part[0])
        both, alone = [line for line in block.splitlines() if "put-parameter" in line]
        self._first = block.replace(f"{alone}\n", 'echo "$new"\n')
        self._last = block.replace(f"{both}\n", "").replace("new=$(openssl rand -hex 32)\n", "")
        self._terminal = terminal
        self._deployed = deployed
        self.old = jwt_secret(deployed.stage)
        self.new = ""

    def add(self) -> None:
        """Prepend a new secret: NEW OLD."""
        self.new = self._terminal.run(self._first).splitlines()[-1]
        assert self.value() == f"{self.new} {self.old}"

    def drop(self) -> None:
        """NEW."""
        self._terminal.run(self._last, new=self.new)
        assert self.value() == self.new

    def value(self) -> str:
        """The parameter's value."""
        name = secret_name(self._deployed.stage)
        found = self._deployed.ssm.get_parameter(Name=name, WithDecryption=True)
        return str(found["Parameter"]["Value"])


@contextmanager
def operating(deployed: Deployed, programs: Path) -> Iterator[Operator]:
    """An operator; afterwards the secret and the workers are restored."""
    operator = Operator(deployed, Terminal.on(deployed.stage, programs))
    try:
        yield operator
    finally:
        deployed.set_parameter(secret_name(deployed.stage), operator.old)
        for function in VERIFYING:
            replace_workers(deployed, function)


def replace_workers(deployed: Deployed, function: str) -> None:
    """Replace a function's workers by a change that is reverted."""
    lambdas, name = deployed.functions, deployed.stage.names.of(function)
    known = deployed.configuration(function)["Environment"]["Variables"]
    for variables in ({**known, "STARTED": unique("")}, known):
        environment = {"Variables": variables}
        lambdas.update_function_configuration(FunctionName=name, Environment=environment)
        lambdas.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})


def deployments(deployed: Deployed) -> list[tuple[str, str]]:
    """Attributes that change with a deployment of the functions that verify tokens."""
    found = map(deployed.configuration, VERIFYING)
    return [(each["LastModified"], each["CodeSha256"]) for each in found]


def token(secret: str) -> str:
    return mint_token(secret, user=unique("user"), tenant="acme")


async def is_accepted(deployed: Deployed, presented: str) -> bool:
    """Whether a token opens a socket and is accepted by the HTTP API."""
    try:
        async with deployed.socket("", token=presented) as socket:
            assert (await socket.ask({"action": "health"}))["type"] == "response"
        opens = True
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
        opens = False
    headers = {"Authorization": f"Bearer {presented}"}
    async with httpx.AsyncClient(base_url=deployed.http_url, trust_env=False) as http:
        answer = await http.get(f"/status/{unique('asm')}", headers=headers)
    assert answer.status_code in (401, 404), answer.text
    return opens and answer.status_code == 404


async def becomes(deployed: Deployed, presented: str, accepted: bool) -> None:
    """Wait until a token is always accepted, or always refused. Forged ones come meanwhile."""
    in_a_row = 0
    async with asyncio.timeout(KNOWN_SECONDS):
        while in_a_row < 3:
            await is_accepted(deployed, token("a-forged-secret-0123456789abcdef"))
            is_now = await is_accepted(deployed, presented)
            in_a_row = in_a_row + 1 if is_now is accepted else 0
            await asyncio.sleep(0.5)


async def test_a_rotation_needs_no_deployment(deployed: Deployed, tmp_path: Path) -> None:
    """NEW OLD accepts both; NEW refuses the old one, whose sockets stay open."""
    before = deployments(deployed)
    with operating(deployed, tmp_path) as operator:
        old = token(operator.old)
        async with deployed.socket("", token=old) as open_before:
            operator.add()
            new = token(operator.new)
            await becomes(deployed, new, accepted=True)
            assert await is_accepted(deployed, old)

            operator.drop()
            await becomes(deployed, old, accepted=False)
            assert await is_accepted(deployed, new)
            assert (await open_before.ask({"action": "health"}))["type"] == "response"
        assert deployments(deployed) == before
    assert await is_accepted(deployed, old)
    assert not await is_accepted(deployed, new)


async def test_the_documented_commands_close_every_socket_after_a_theft(
    deployed: Deployed, tmp_path: Path
) -> None:
    """Silent ones as well, with all their rows."""
    document = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    theft = document.partition("A secret that was stolen")[2].partition("that signs webhooks")[0]
    async with deployed.socket(unique("user")) as silent, deployed.socket(unique("user")) as other:
        Terminal.on(deployed.stage, tmp_path).run(*blocks(theft))
        for socket in (silent, other):
            await asyncio.wait_for(socket.connection.wait_closed(), PATIENCE)
    await until(lambda: deployed.count("connections") == 0, "no rows of connections")
