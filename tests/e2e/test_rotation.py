"""A change of the secret that signs tokens, in the two steps of docs/operating.md."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from e2e.documented import ROOT, Terminal, blocks
from e2e.support import PATIENCE, Deployed, unique, until
from jobplane.tokens import mint

pytestmark = pytest.mark.e2e

VERIFYING = ("connect", "status")
NEW = "the-secret-that-signs-from-now-on-0123456789abcdef"


@contextmanager
def signed_with(deployed: Deployed, secret: str, previous: str) -> Iterator[None]:
    """The functions that verify tokens, deployed with other secrets meanwhile."""
    lambdas, before = deployed.functions, {}
    for function in VERIFYING:
        name = deployed.stage.names.of(function)
        variables = lambdas.get_function_configuration(FunctionName=name)["Environment"]
        before[name] = variables["Variables"]
    try:
        for name, variables in before.items():
            changed = {**variables, "JWT_SECRET": secret, "JWT_SECRET_PREVIOUS": previous}
            configure(deployed, name, changed)
        yield
    finally:
        for name, variables in before.items():
            configure(deployed, name, variables)


def configure(deployed: Deployed, name: str, variables: dict[str, str]) -> None:
    lambdas = deployed.functions
    lambdas.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    lambdas.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})


def token(secret: str) -> str:
    return mint(secret, user=unique("user"), tenant="acme")


async def is_accepted(deployed: Deployed, presented: str) -> bool:
    """Whether a token opens a socket and is believed by the HTTP API; both agree."""
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
    assert (answer.status_code == 404) is opens
    return opens


async def test_both_secrets_are_good_while_tokens_of_the_old_one_live(deployed: Deployed) -> None:
    """With the old secret as the previous one, tokens of either open sockets and are believed."""
    old = deployed.stage.jwt_secret()
    with signed_with(deployed, NEW, previous=old):
        assert await is_accepted(deployed, token(old))
        assert await is_accepted(deployed, token(NEW))


async def test_the_old_secret_is_worth_nothing_in_the_end(deployed: Deployed) -> None:
    """Without a previous secret tokens of the old one are refused; what they opened goes on."""
    old = deployed.stage.jwt_secret()
    async with AsyncExitStack() as open_before:
        socket = await open_before.enter_async_context(deployed.socket("", token=token(old)))
        with signed_with(deployed, NEW, previous=""):
            assert not await is_accepted(deployed, token(old))
            assert await is_accepted(deployed, token(NEW))
            assert (await socket.ask({"action": "health"}))["type"] == "response"
    assert await is_accepted(deployed, token(old))


async def test_every_socket_is_closed_after_a_theft(deployed: Deployed, tmp_path: Path) -> None:
    """By the documented commands, of those that send nothing as well; nothing is left of them."""
    document = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    theft = document.partition("A secret that was stolen")[2].partition("What signs webhooks")[0]
    async with deployed.socket(unique("user")) as silent, deployed.socket(unique("user")) as other:
        Terminal.on(deployed.stage, tmp_path).run(*blocks(theft))
        for socket in (silent, other):
            await asyncio.wait_for(socket.connection.wait_closed(), PATIENCE)
    await until(lambda: deployed.count("connections") == 0, "no rows of connections")
