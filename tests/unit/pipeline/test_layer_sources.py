"""Where layers come from after failures, for all sets of failures of up to six workers."""

from __future__ import annotations

from itertools import combinations

import pytest

from ddnn.pipeline import restore_consistent, restore_fresh
from ddnn.pipeline.sources import INITIAL, Copy, Origin, Source, Stamp

CENTRAL = "central"
CHAIN_EVERY, GLOBAL_EVERY = 10, 40
NOW = 97  # the version of the central node's stage; the last stage is ahead


class Site:
    """A pipeline in its term: nodes in order, two layers each, and what each of them holds."""

    def __init__(self, order: list[str], term: int, version: int = NOW) -> None:
        self.order, self.term, self.version = order, term, version
        self.layers = 2 * len(order)

    def owner(self, layer: int) -> str:
        return self.order[layer // 2]

    def copies(self, node: str) -> list[Copy]:
        i, count = self.order.index(node), len(self.order)
        copies = [
            Copy(layer, Stamp(self.term, self.version + i), Origin.LIVE)
            for layer in (2 * i, 2 * i + 1)
        ]
        before = (i - 1) % count
        chain = self.version // CHAIN_EVERY * CHAIN_EVERY
        if count > 1:
            copies += [
                Copy(layer, Stamp(self.term, chain), Origin.CHAIN)
                for layer in (2 * before, 2 * before + 1)
            ]
        if node == CENTRAL:
            whole = self.version // GLOBAL_EVERY * GLOBAL_EVERY
            copies += [
                Copy(layer, Stamp(self.term, whole), Origin.GLOBAL)
                for layer in range(2, self.layers)
            ]
        return copies

    def find_by_paper(self, layer: int, failed: set[str]) -> tuple[str, Origin]:
        """The rule of the notes: live owner, else the next stage's replica, else global."""
        i, count = layer // 2, len(self.order)
        if self.order[i] not in failed:
            return self.order[i], Origin.LIVE
        following = self.order[(i + 1) % count]
        if following not in failed:
            return following, Origin.CHAIN
        return CENTRAL, Origin.GLOBAL


def failure_sets(workers: list[str]):
    for size in range(len(workers) + 1):
        yield from (set(failed) for failed in combinations(workers, size))


def origin_of(site: Site, source: Source, layer: int) -> Origin:
    held = [c for c in site.copies(source.node) if (c.layer, c.stamp) == (layer, source.stamp)]
    return min(copy.origin for copy in held)


def ranges_for(nodes: list[str], layers: int) -> dict[str, tuple[int, int]]:
    """Layers for these nodes, as evenly as possible."""
    ends = [round(layers * k / len(nodes)) for k in range(len(nodes) + 1)]
    return {node: (ends[k], ends[k + 1]) for k, node in enumerate(nodes)}


@pytest.mark.parametrize("workers", range(7))
def test_every_layer_has_a_source_whatever_fails_and_it_is_the_papers(workers: int) -> None:
    names = [f"worker{k}" for k in range(1, workers + 1)]
    site = Site([CENTRAL, *names], term=1)
    for failed in failure_sets(names):
        alive = [node for node in site.order if node not in failed]
        held = {node: site.copies(node) for node in alive}
        restoration = restore_fresh(held, ranges_for(alive, site.layers), NOW)
        for sources in restoration.sources.values():
            for layer, source in sources.items():
                node, origin = site.find_by_paper(layer, failed)
                assert (source.node, origin_of(site, source, layer)) == (node, origin)
                limit = {Origin.LIVE: 0, Origin.CHAIN: CHAIN_EVERY, Origin.GLOBAL: GLOBAL_EVERY}
                assert restoration.age(source) <= limit[origin]


def test_sources_after_the_nodes_were_renumbered() -> None:
    """Defects 2 and 4: after worker1 is lost, worker3 is at another position than before; it is
    still found by its id, for all further sets of failures."""
    names = ["worker3", "worker2", "worker4"]  # worker1 is gone, the others are in another order
    site = Site([CENTRAL, *names], term=2)
    for failed in failure_sets(names):
        alive = [node for node in site.order if node not in failed]
        held = {node: site.copies(node) for node in alive}
        # What the first term left behind: older, though of a higher version.
        held[CENTRAL] = [*held[CENTRAL], Copy(3, Stamp(1, NOW + 50), Origin.GLOBAL)]
        sources = restore_fresh(held, ranges_for(alive, site.layers), NOW).sources
        for of_node in sources.values():
            for layer, source in of_node.items():
                assert source.node == site.find_by_paper(layer, failed)[0]


def test_a_live_owner_is_preferred_to_the_copy_at_hand() -> None:
    """Defect 8: a node that has a chain copy fetches the fresher weights of the live owner.
    Defect 6: so does the central node, which has a global copy."""
    site = Site([CENTRAL, "worker1", "worker2"], term=1)
    held = {node: site.copies(node) for node in site.order}
    ranges = {CENTRAL: (0, 3), "worker1": (3, 4), "worker2": (4, 6)}
    sources = restore_fresh(held, ranges, NOW).sources
    assert sources[CENTRAL][2] == Source("worker1", Stamp(1, NOW + 1))
    sources = restore_fresh(held, {CENTRAL: (0, 2), "worker2": (2, 6)}, NOW).sources
    assert sources["worker2"][2] == Source("worker1", Stamp(1, NOW + 1))


def test_a_nodes_own_copy_is_preferred_to_an_equally_fresh_one() -> None:
    stamp = Stamp(1, 40)
    held = {
        CENTRAL: [Copy(3, stamp, Origin.GLOBAL)],
        "worker1": [Copy(3, stamp, Origin.CHAIN)],
        "worker2": [Copy(3, stamp, Origin.GLOBAL)],
    }
    for node in held:
        assert restore_fresh(held, {node: (3, 4)}, 40).sources[node][3] == Source(node, stamp)


def test_before_the_first_replication_lost_layers_begin_anew() -> None:
    """Defect 7: there is always something to go on with; the loss is as large as the training."""
    held = {CENTRAL: [Copy(0, Stamp(1, 7), Origin.LIVE)]}
    restoration = restore_fresh(held, {CENTRAL: (0, 2)}, 7)
    assert restoration.sources[CENTRAL] == {
        0: Source(CENTRAL, Stamp(1, 7)),
        1: Source(None, INITIAL),
    }
    assert restoration.age(restoration.sources[CENTRAL][1]) == 7


# ------------------------------------------------------------------ consistent


@pytest.mark.parametrize("workers", range(1, 7))
def test_a_consistent_restoration_is_of_one_snapshot_whatever_fails(workers: int) -> None:
    names = [f"worker{k}" for k in range(1, workers + 1)]
    site = Site([CENTRAL, *names], term=1)
    whole, partial = Stamp(1, 80), Stamp(1, 90)
    held = {}
    for i, node in enumerate(site.order):
        own, before = (2 * i, 2 * i + 1), 2 * ((i - 1) % len(site.order))
        held[node] = [
            *(Copy(layer, Stamp(1, NOW + i), Origin.LIVE) for layer in own),
            *(Copy(layer, stamp, Origin.LIVE) for layer in own for stamp in (whole, partial)),
            *(Copy(layer, partial, Origin.CHAIN) for layer in (before, before + 1)),
        ]
    held[CENTRAL] += [Copy(layer, whole, Origin.GLOBAL) for layer in range(site.layers)]
    for failed in failure_sets(names):
        alive = {node: held[node] for node in site.order if node not in failed}
        restoration = restore_consistent(alive, ranges_for(list(alive), site.layers), site.layers)
        # The newer snapshot has copies at its owners and at the next stages only.
        lost = any(site.find_by_paper(n, failed)[1] is Origin.GLOBAL for n in range(site.layers))
        expected = whole if lost else partial
        assert restoration.version == expected.version
        stamps = {s.stamp for node in restoration.sources.values() for s in node.values()}
        assert stamps == {expected}


def test_two_terms_are_never_mixed() -> None:
    held = {
        "a": [Copy(0, Stamp(1, 20), Origin.LIVE), Copy(0, Stamp(2, 10), Origin.LIVE)],
        "b": [Copy(1, Stamp(2, 20), Origin.LIVE), Copy(1, Stamp(2, 10), Origin.LIVE)],
    }
    restoration = restore_consistent(held, {"a": (0, 1), "b": (1, 2)}, 2)
    assert restoration.version == 10


def test_without_a_snapshot_training_begins_anew() -> None:
    held = {"a": [Copy(0, Stamp(1, 7), Origin.LIVE)]}
    restoration = restore_consistent(held, {"a": (0, 2)}, 2)
    assert restoration.version == 0
    assert set(restoration.sources["a"].values()) == {Source(None, INITIAL)}
