"""Where the state of each layer comes from when the pipeline is arranged again (FTPipeHD, 2.7).

Every node reports which copies it holds. A copy is known by its layer and its stamp; nodes are
known by their ids, so that nothing depends on positions in an old or new list. The freshest copy of
each layer is used; of equally fresh ones the node's own, then the live owner's, then that of the
next stage (chain), then the central node's (global). Since live copies are the freshest and chain
copies fresher than global ones, this is the order of the paper where all of them exist.

Initial weights follow from the seed: every node holds them, with the stamp INITIAL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

Restore = Literal["fresh", "consistent"]


class Stamp(NamedTuple):
    """When a copy was made: the term of the pipeline, and the optimizer steps behind the weights.

    A copy of a later term is fresher, whatever its version: every term begins with the freshest
    copies of the terms before.
    """

    term: int
    version: int


INITIAL = Stamp(0, 0)


class Origin(IntEnum):
    """How a node came to a copy; of equally fresh ones the first is preferred."""

    LIVE = 0  # the weights of its own stage
    CHAIN = 1  # copied from the stage before
    GLOBAL = 2  # copied by the central node


class Copy(NamedTuple):
    """A copy of a layer that a node holds."""

    layer: int
    stamp: Stamp
    origin: Origin


class Source(NamedTuple):
    """The node to fetch a layer from, and which copy. node None: the initial weights."""

    node: str | None
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Restoration:
    """The sources of each node's layers, and the version at which training goes on."""

    version: int
    sources: Mapping[str, Mapping[int, Source]]

    def list_holders(self) -> set[str]:
        """The nodes that hold a copy with which a layer begins."""
        return {s.node for by_layer in self.sources.values() for s in by_layer.values() if s.node}

    def age(self, layer_source: Source) -> int:
        """How many optimizer steps a source lacks."""
        return max(0, self.version - layer_source.stamp.version)


Inventories = Mapping[str, Iterable[Copy]]


def restore_fresh(
    inventories: Inventories, ranges: Mapping[str, tuple[int, int]], version: int
) -> Restoration:
    """Each layer from its freshest copy among the nodes of `inventories`; `version` goes on."""
    by_layer = _sort_by_layer(inventories)
    return Restoration(version, _choose(by_layer, ranges))


def restore_consistent(
    inventories: Inventories, ranges: Mapping[str, tuple[int, int]], layers: int
) -> Restoration:
    """All layers from one snapshot, the latest of which every layer has a copy.

    A snapshot is the copies of one stamp. Training goes on at its version.
    """
    by_layer = _sort_by_layer(inventories)
    stamps = [{copy.stamp for _, copy in by_layer.get(layer, ())} for layer in range(layers)]
    whole = set.intersection(*stamps) if stamps else set()
    latest = max(whole | {INITIAL}, key=lambda stamp: (stamp.version, stamp.term))
    chosen = {
        layer: [(node, copy) for node, copy in held if copy.stamp == latest]
        for layer, held in by_layer.items()
    }
    return Restoration(latest.version, _choose(chosen, ranges))


Held = Mapping[int, Sequence[tuple[str, Copy]]]


def _sort_by_layer(inventories: Inventories) -> Held:
    by_layer: dict[int, list[tuple[str, Copy]]] = {}
    for node in sorted(inventories):
        for copy in inventories[node]:
            by_layer.setdefault(copy.layer, []).append((node, copy))
    return by_layer


def _choose(by_layer: Held, ranges: Mapping[str, tuple[int, int]]) -> dict[str, dict[int, Source]]:
    return {
        node: {layer: _find(by_layer.get(layer, ()), node) for layer in range(start, stop)}
        for node, (start, stop) in ranges.items()
    }


def _find(held: Sequence[tuple[str, Copy]], wanted_by: str) -> Source:
    """The freshest of the copies of one layer for a node."""
    best = max(
        held,
        key=lambda one: (one[1].stamp, one[0] == wanted_by, -one[1].origin),
        default=None,
    )
    if best is None or best[1].stamp <= INITIAL:
        return Source(None, INITIAL)
    return Source(best[0], best[1].stamp)
