"""The activation-hub graph against its formula, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.students import build_filter_graph


def weigh_by_formula(activations: np.ndarray, top: int) -> np.ndarray:
    images, filters = activations.shape
    graph = np.zeros((filters, filters))
    for x in range(images):
        a = [max(0.0, float(value)) for value in activations[x]]
        if max(a) == 0:
            continue
        a = [value / max(a) for value in a]
        hubs = sorted(range(filters), key=lambda c: -a[c])[:top]
        for i in hubs:
            for j in hubs:
                graph[i, j] += a[i] * a[j] * abs(a[i] - a[j])
    return graph


@pytest.mark.parametrize("top", [2, 5, 50])
def test_the_formula(top: int) -> None:
    activations = np.random.default_rng(0).normal(0.3, 1, (20, 12))
    graph = build_filter_graph(activations, top)
    np.testing.assert_allclose(graph, weigh_by_formula(activations, top))
    assert (graph == graph.T).all()
    assert (graph.diagonal() == 0).all()


def test_an_image_counts_the_same_however_bright() -> None:
    activations = np.random.default_rng(0).random((5, 8))
    scaled = activations * np.array([[1], [10], [0.1], [5], [100]])
    np.testing.assert_allclose(build_filter_graph(activations), build_filter_graph(scaled))


def test_a_dark_image_counts_nothing() -> None:
    activations = np.array([[0.0, -1.0, 0.0], [1.0, 0.5, 0.0]])
    expected = np.zeros((3, 3))
    expected[0, 1] = expected[1, 0] = 1 * 0.5 * 0.5
    np.testing.assert_array_equal(build_filter_graph(activations), expected)


@pytest.mark.parametrize(
    "activations", [np.ones(3), np.ones((2, 4, 4, 3)), np.ones((0, 3)), [[1.0, np.nan]]]
)
def test_other_activations_are_refused(activations: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="activations"):
        build_filter_graph(activations)


def test_a_pair_needs_two_filters() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        build_filter_graph(np.ones((2, 3)), top=1)
