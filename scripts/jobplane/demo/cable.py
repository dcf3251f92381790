"""A network cable that can be pulled: a TCP forwarder on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class Cable:
    """Forwards bytes between its clients and the far end, until it is cut."""

    def __init__(self, far_url: str) -> None:
        self.connections = 0
        self.url = ""
        """The far end's URL by way of this cable; known while it is plugged in."""
        self._far = urlsplit(far_url)
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def plugged_in(self) -> AsyncIterator[None]:
        """Carry connections within the block."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = urlunsplit(self._far._replace(netloc=f"127.0.0.1:{port}"))
        try:
            yield
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Break every connection at once, with no goodbye; the next one is carried again."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(
                self._far.hostname, self._far.port
            )
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        both = {writer, far_writer}
        self._writers |= both
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._writers -= both


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    sink.close()
