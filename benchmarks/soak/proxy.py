"""A proxy in front of the broker, whose way to the broker can be made thin."""

from __future__ import annotations

import asyncio
import contextlib

from benchmarks.harness.proxy import Proxy

CHUNK_BYTES = 2048


class ThinLink(Proxy):
    """Forwards connections of this machine to a port; `bytes_per_s` limits what goes there."""

    buffer_bytes = 16 << 10  # of the connection: what a sender may be ahead of the link

    def __init__(self, to_port: int) -> None:
        self.bytes_per_s: float | None = None  # None: without limit
        super().__init__(to_port)

    async def forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
