"""The normalized cut against all partitions, and the communities."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.students import cut_filters, find_communities, normalized_cut
from tests.unit.students.site_made import make_graph


def cut_by_definition(graph: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for part in set(labels.tolist()):
        inside = labels == part
        volume = graph[inside].sum()
        total += graph[inside][:, ~inside].sum() / volume if volume else 0
    return total


def least_cut(graph: np.ndarray, limits: list[int]) -> float:
    """The least normalized cut of all partitions with parts of 1 filter to their limit."""
    best = np.inf
    for one in product(range(len(limits)), repeat=len(graph)):
        sizes = np.bincount(one, minlength=len(limits))
        if (sizes >= 1).all() and (sizes <= limits).all():
            best = min(best, cut_by_definition(graph, np.array(one)))
    return best


def make_blocks(rng: np.random.Generator, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """A graph of strong blocks in random order, and the block of each filter."""
    blocks = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    graph = np.where(blocks[:, None] == blocks, 1.0, 0.01) * (0.5 + make_graph(rng, len(blocks)))
    return graph * (1 - np.eye(len(blocks))), blocks


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(((first[:, None] == first) == (second[:, None] == second)).all())


def test_the_value_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    graph, labels = make_graph(rng, 12) + np.diag(rng.random(12)), rng.permutation([0, 1, 2] * 4)
    assert normalized_cut(graph, labels) == pytest.approx(cut_by_definition(graph, labels))
    assert normalized_cut(np.zeros((3, 3)), np.array([0, 1, 1])) == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_cut_is_the_least_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    filters, parts = [(8, 2), (10, 2), (8, 3), (7, 4)][seed % 4]
    graph = make_graph(rng, filters)
    sizes = [1] * parts
    for part in rng.integers(0, parts, filters - parts):
        sizes[part] += 1
    limits = [size + int(rng.integers(0, 3)) for size in sizes]
    labels = cut_filters(graph, sizes, limits, seed)
    assert normalized_cut(graph, labels) == pytest.approx(least_cut(graph, limits), rel=1e-9)


@pytest.mark.parametrize("find", ["ncut", "louvain"])
def test_blocks_are_found(find: str) -> None:
    for sizes in ([8, 8], [5, 10, 7], [16, 16, 16, 16]):
        graph, blocks = make_blocks(np.random.default_rng(len(sizes)), sizes)
        labels = (
            cut_filters(graph, sizes, sizes) if find == "ncut" else find_communities(graph, sizes)
        )
        assert same_partition(labels, blocks)
        assert np.bincount(labels).tolist() == sizes


@pytest.mark.parametrize("find", ["ncut", "louvain"])
@pytest.mark.parametrize("kind", ["random", "empty", "isolated"])
def test_sizes_are_kept(find: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    graph = make_graph(rng, 30) * {"random": 1, "empty": 0, "isolated": np.arange(30) > 5}[kind]
    graph = np.minimum(graph, graph.T)
    sizes = [1, 4, 10, 15]
    labels = cut_filters(graph, sizes, sizes) if find == "ncut" else find_communities(graph, sizes)
    assert np.bincount(labels, minlength=4).tolist() == sizes


def test_one_part_and_parts_of_one_filter() -> None:
    graph = make_graph(np.random.default_rng(0), 5)
    assert cut_filters(graph, [5], [5]).tolist() == [0] * 5
    assert sorted(cut_filters(graph, [1] * 5, [1] * 5).tolist()) == list(range(5))


def test_without_networkx_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ConfigError, match=r"ddnn\[students\]"):
        find_communities(np.ones((2, 2)), [1, 1])


@pytest.mark.parametrize("sizes", [[], [2, 2], [0, 6], [3, 4], [1] * 7])
def test_sizes_that_are_not_of_all_filters_are_refused(sizes: list[int]) -> None:
    graph = np.ones((6, 6))
    with pytest.raises(ConfigError, match="of parts of 6 filters"):
        find_communities(graph, sizes)
    with pytest.raises(ConfigError, match="of parts of 6 filters"):
        cut_filters(graph, sizes, sizes)


@pytest.mark.parametrize("limits", [[3], [3, 2], [3, 3, 3]])
def test_limits_below_the_sizes_are_refused(limits: list[int]) -> None:
    with pytest.raises(ConfigError, match="limits"):
        cut_filters(np.ones((6, 6)), [3, 3], limits)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_of_few_filters_no_partition_has_a_smaller_cut(parts: int) -> None:
    rng = np.random.default_rng(parts)
    for _ in range(12):
        filters = int(rng.integers(parts + 1, 9 if parts < 4 else 8))
        graph = make_graph(rng, filters)
        sizes = [filters // parts + (part < filters % parts) for part in range(parts)]
        limits = (np.array(sizes) + rng.integers(0, 3, parts)).tolist()
        labels = cut_filters(graph, sizes, limits)
        assert (np.bincount(labels, minlength=parts) <= limits).all()
        best = min(
            normalized_cut(graph, np.array(one))
            for one in product(range(parts), repeat=filters)
            if all(0 < one.count(part) <= most for part, most in enumerate(limits))
        )
        assert normalized_cut(graph, labels) == pytest.approx(best, abs=1e-12)
