"""A proxy in front of a server of this machine; what it does with the bytes is its subclass's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod

CHUNK_BYTES = 65536


class Proxy(ABC):
    """Forwards connections of this machine to a port, in a thread of its own."""

    buffer_bytes = 2**16  # of a connection: what a sender may be ahead

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @abstractmethod
    async def forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Pass on what a client sends, until it ends. back: to the client."""

    async def return_bytes(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what the server sends, until it ends."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=self.buffer_bytes)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            far, on = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:  # the server is away
            back.close()
            return
        ways = [
            asyncio.ensure_future(self.forward(near, on, back)),
            asyncio.ensure_future(self.return_bytes(far, back)),
        ]
        with contextlib.suppress(asyncio.CancelledError):  # the proxy is closed
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for writer in (on, back):
            writer.close()
