"""`jobplane bench drops`: the events of a job, whose socket is dropped at random."""

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from jobplane.bench._engine import own_stage
from jobplane.bench._report import Report, Table, progress, reported
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane_client import JobSocket, mint_token

BETWEEN_SECONDS = (0.5, 3.0)
SOCKET, PLAIN = "`JobSocket`", "a socket that subscribes again, and asks for no events"


@dataclass
class Line:
    """A relay to the stage, which can be down: it ends its connections, and accepts no others."""

    host: str
    port: int
    is_down: bool = False
    outages: list[float] = field(default_factory=list)
    _open: set[asyncio.WriteTransport] = field(default_factory=set)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if not self.is_down:
                self._open.add(writer.transport)
                answers, there = await asyncio.open_connection(self.host, self.port)
                await asyncio.gather(_pass_on(reader, there), _pass_on(answers, writer))
        self._open.discard(writer.transport)
        writer.transport.abort()

    async def drop(self, longest: float) -> None:
        """Be down for up to `longest` seconds, again and again, until cancelled."""
        while True:
            await asyncio.sleep(random.uniform(*BETWEEN_SECONDS))
            self.outages.append(random.uniform(0, longest))
            self.is_down = True
            for transport in self._open:
                transport.abort()
            await asyncio.sleep(self.outages[-1])
            self.is_down = False


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.transport.abort()


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[tuple[Line, str]]:
    """A relay to the host of a socket's URL, and the URL by which clients use it."""
    parts = urlsplit(url)
    line = Line(parts.hostname or "", parts.port or 80)
    async with await asyncio.start_server(line.relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield line, parts._replace(netloc=f"{parts.hostname}:{port}").geturl()


@click.command()
@click.option("--events", type=click.IntRange(10, 100_000), default=1000, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 60), default=20.0, show_default=True)
@click.option("--longest", type=click.FloatRange(0, 10), default=2.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--stage", default="drops", show_default=True, help="A stage of its own.")
@reported("drops")
def command(stage: str, rounds: int, **given: Any) -> Report:
    """How many events of a job arrive over a connection that is lost every few seconds.

    The job emits for `--seconds`; the connection is down for up to `--longest` seconds at a time.
    """
    heard: dict[str, list[Sequence[int]]] = {SOCKET: [], PLAIN: []}
    outages: list[float] = []
    with own_stage(stage) as own, progress("drops", rounds) as advance:
        for number in range(rounds):
            *found, times = asyncio.run(_round(own, given))
            for numbers, of_client in zip(found, heard.values(), strict=True):
                of_client.append(numbers)
            outages += times
            advance(f"round {number + 1}")
    return report(heard, outages, given)


async def _round(
    stage: Stage, given: Mapping[str, Any]
) -> tuple[list[int], list[int], list[float]]:
    """What the clients of one job have heard, and the seconds of each outage."""
    state = stage.read_state()
    assert state is not None
    token = mint_token(jwt_secret(stage), user=f"drops-{secrets.token_hex(4)}", tenant="drops")
    job, heard, heard_plainly = "job", list[int](), list[int]()
    payload = {"to": given["events"], "seconds": given["seconds"]}
    async with line_to(state.description["websocket_url"]) as (line, url):
        async with JobSocket(url, token) as socket, asyncio.TaskGroup() as group:
            others = [_listen(url, token, job, heard_plainly), line.drop(given["longest"])]
            tasks = [group.create_task(each) for each in others]
            await socket.run("count", payload, id=job, on_event=heard.append)
            for task in tasks:
                task.cancel()
    return heard, heard_plainly, line.outages


async def _listen(url: str, token: str, job: str, heard: list[int]) -> None:
    """Keep the events that are sent to a socket that connects and subscribes again."""
    ask = json.dumps({"id": "s", "action": "subscribe", "payload": {"request_id": job}})
    while True:
        with suppress(OSError, WebSocketException, TimeoutError):
            async with connect(f"{url}?{urlencode({'token': token})}", proxy=None) as connection:
                await connection.send(ask)
                async for text in connection:
                    message = json.loads(text)
                    heard += message.get("events", ())
                    if message["type"] == "error":  # the job is not stored yet
                        break
        await asyncio.sleep(0.1)


def report(
    heard: Mapping[str, Sequence[Sequence[int]]], outages: Sequence[float], given: Mapping[str, Any]
) -> Report:
    """What arrived; it is a fault if `JobSocket` has not passed on all, in order and once."""
    rows: list[tuple[Any, ...]] = []
    for name, rounds in heard.items():
        sent, arrived = given["events"] * len(rounds), sum(len(set(each)) for each in rounds)
        twice = sum(map(len, rounds)) - arrived
        is_ordered = all(list(each) == sorted(each) for each in rounds)
        share = f"{100 * arrived / sent:.1f} %"
        rows.append((name, sent, arrived, share, twice, "yes" if is_ordered else "no"))
    table = Table(
        f"{given['events']:,} events within {given['seconds']:g} s, over a lost connection",
        ("client", "emitted", "arrived", "share", "twice", "in order"),
        rows,
        [f"{len(heard[SOCKET])} rounds, with {len(outages)} outages of up to {given['longest']:g} "
         f"s, {sum(outages):.0f} s together. Both clients used the same connections."],
    )  # fmt: skip
    faults = [
        f"round {number}: {len(numbers)} events, not 1 to {given['events']} in order"
        for number, numbers in enumerate(heard[SOCKET], 1)
        if list(numbers) != list(range(1, given["events"] + 1))
    ]
    document = {"given": dict(given), "outages": outages, "clients": {r[0]: r[1:] for r in rows}}
    return Report(document, [table], faults=faults)
