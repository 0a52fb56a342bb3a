"""One picture per device, put together from chunks that may be lost, repeated or out of order."""

from __future__ import annotations

from dataclasses import dataclass, field

from ddnn.protocol.record_messages import CHUNK_BYTES, RecordChunk


@dataclass(slots=True)
class PictureAssembly:
    """The chunks of one picture, of which each but the last has CHUNK_BYTES."""

    burst: int
    sample: int
    total: int
    chunks: dict[int, bytes] = field(default_factory=dict)  # by offset

    @classmethod
    def of(cls, chunk: RecordChunk) -> PictureAssembly:
        return cls(chunk.burst, chunk.sample, chunk.total)

    def fits(self, chunk: RecordChunk) -> bool:
        """Whether the chunk is a part of this picture."""
        return (self.burst, self.sample, self.total) == (chunk.burst, chunk.sample, chunk.total)

    def add(self, chunk: RecordChunk) -> bool:
        """Add a chunk; False where its place or length is not possible."""
        expected = min(CHUNK_BYTES, self.total - chunk.offset)
        if chunk.offset % CHUNK_BYTES or len(chunk.data) != expected or expected <= 0:
            return False
        self.chunks.setdefault(chunk.offset, chunk.data)
        return True

    @property
    def received(self) -> int:
        """Bytes from the beginning without a gap."""
        offset = 0
        while offset in self.chunks:
            offset += len(self.chunks[offset])
        return offset

    def join(self) -> bytes:
        """The whole picture."""
        return b"".join(self.chunks[offset] for offset in sorted(self.chunks))
