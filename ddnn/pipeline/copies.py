"""The copies of layers that a node holds, as bytes: snapshots of its own and of others."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.pipeline.sources import Copy, Origin, Stamp

KEPT = 2  # of each layer: the newest one may still be incomplete elsewhere


class CopyStore:
    """Blobs by layer and stamp. Of each layer the newest `KEPT` are kept, and those pinned."""

    def __init__(self) -> None:
        self._blobs: dict[int, dict[Stamp, tuple[Origin, bytes]]] = {}
        self._pinned: dict[str, frozenset[Stamp]] = {}  # by purpose

    def add(self, layer: int, stamp: Stamp, origin: Origin, blob: bytes) -> None:
        held = self._blobs.setdefault(layer, {})
        held.setdefault(stamp, (origin, blob))
        self._prune(layer)

    def get(self, layer: int, stamp: Stamp) -> bytes | None:
        found = self._blobs.get(layer, {}).get(stamp)
        return None if found is None else found[1]

    def pin(self, purpose: str, stamps: Iterable[Stamp]) -> None:
        """Keep the copies of these stamps for a purpose, in the place of those that it kept before,
        however many newer ones there are."""
        self._pinned[purpose] = frozenset(stamps)
        for layer in self._blobs:
            self._prune(layer)

    def drop_after(self, version: int, term: int) -> None:
        """Drop the copies of earlier terms that are of later versions: that future is over."""
        for held in self._blobs.values():
            for stamp in [s for s in held if s.version > version and s.term < term]:
                del held[stamp]

    def keep_layers(self, layers: Iterable[int]) -> None:
        """Drop the copies of all other layers."""
        for layer in self._blobs.keys() - set(layers):
            del self._blobs[layer]

    def clear(self) -> None:
        self._blobs.clear()
        self._pinned.clear()

    def list_copies(self) -> list[Copy]:
        return [
            Copy(layer, stamp, origin)
            for layer, held in sorted(self._blobs.items())
            for stamp, (origin, _) in sorted(held.items())
        ]

    @property
    def size_bytes(self) -> int:
        return sum(len(blob) for held in self._blobs.values() for _, blob in held.values())

    def _prune(self, layer: int) -> None:
        held = self._blobs[layer]
        pinned = frozenset().union(*self._pinned.values())
        for stamp in sorted(held)[:-KEPT]:
            if stamp not in pinned:
                del held[stamp]
