"""A TCP proxy on loopback that can cut its connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class Proxy:
    def __init__(self, server_url: str) -> None:
        self.connections = 0
        self.url = ""
        """The server's URL through this proxy; set while it listens."""
        self._server = urlsplit(server_url)
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Accept connections within the block."""
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = urlunsplit(self._server._replace(netloc=f"127.0.0.1:{port}"))
        try:
            yield
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Abort every connection; later ones are accepted again."""
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(
                self._server.hostname, self._server.port
            )
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        both = {writer, server_writer}
        self._writers |= both
        await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))
        self._writers -= both


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    sink.close()
