"""Parts of the filter graph: the capacity-aware normalized cut, and Louvain communities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment

from ddnn.errors import ConfigError
from ddnn.students.types import FloatArray, IntArray

RESTARTS = 16  # of the assignment to centres, for few filters
SMALL = 64  # filters: up to here every restart is refined
ROUNDS = 30  # of one assignment to centres
PAIRS = 1 << 27  # of filters looked at in one refinement
LEAST_GAIN = 1e-12  # in normalized cut: what counts as an improvement
RESOLUTION = 0.7  # of Louvain's modularity, as NoNN sets it


def normalized_cut(graph: FloatArray, labels: IntArray) -> float:
    """Ncut = sum_k cut(P_k, rest) / vol(P_k) of labels [filters]; a part without edges counts 0."""
    members = np.eye(labels.max() + 1)[labels]
    inside = np.einsum("ik,ik->k", members, graph @ members)
    return float(_ratios(graph.sum(axis=0) @ members, inside).sum())


def _ratios(volume: FloatArray, inside: FloatArray) -> FloatArray:
    """cut / volume of parts, from their volumes and the weights inside, both counted twice."""
    safe = np.where(volume > 0, volume, 1)
    return np.where(volume > 0, (volume - inside) / safe, 0)


def cut_filters(
    graph: FloatArray, sizes: Sequence[int], limits: Sequence[int], seed: int = 0
) -> IntArray:
    """The part of each filter, [filters], by normalized cut (Shi and Malik 2000) with sizes.

    Filters are placed by the smallest eigenvectors of the normalized Laplacian, given to centres
    with the wanted sizes (k-means, each round an optimal assignment), and then moved and exchanged
    while that lowers the normalized cut. A part keeps 1 filter to its limit.
    """
    parts = len(sizes)
    if parts == 1:
        return np.zeros(len(graph), dtype=np.int64)
    points = _embed(graph, parts)
    rng = np.random.default_rng(seed)
    found = [
        refine_parts(graph, _assign_to_centres(points, sizes, rng), limits)
        for _ in range(RESTARTS if len(graph) <= SMALL else 1)
    ]
    return min(found, key=lambda labels: normalized_cut(graph, labels))


def _embed(graph: FloatArray, parts: int) -> FloatArray:
    """Filters as points of length 1, [filters, parts]: eigenvectors of I - D^-1/2 W D^-1/2."""
    degree = graph.sum(axis=0)
    scale = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    laplacian = np.eye(len(graph)) - scale[:, None] * graph * scale
    _, vectors = eigh(laplacian, subset_by_index=(0, parts - 1))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))


def _assign_to_centres(
    points: FloatArray, sizes: Sequence[int], rng: np.random.Generator
) -> IntArray:
    """k-means of these sizes, [filters]: each centre has as many places as its part filters."""
    places = np.repeat(np.arange(len(sizes)), sizes)
    centres = [points[rng.integers(len(points))]]
    while len(centres) < len(sizes):  # k-means++: far from the centres there are
        distance = _square_distances(points, np.array(centres)).min(axis=1) + LEAST_GAIN
        centres.append(points[rng.choice(len(points), p=distance / distance.sum())])
    centre = np.array(centres)
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        _, columns = linear_sum_assignment(_square_distances(points, centre)[:, places])
        if (places[columns] == labels).all():
            break
        labels = places[columns]
        centre = np.array([points[labels == k].mean(axis=0) for k in range(len(sizes))])
    return labels


def _square_distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.asarray(((points[:, None] - centres) ** 2).sum(axis=-1))


def refine_parts(graph: FloatArray, labels: IntArray, limits: Sequence[int]) -> IntArray:
    """Move or exchange filters, each time as lowers the normalized cut most, until nothing does."""
    labels, parts, n = labels.copy(), len(limits), len(graph)
    limit, degree, own = np.array(limits), graph.sum(axis=0), graph.diagonal()
    rows = np.arange(n)
    for _ in range(max(1, PAIRS // n**2)):
        members = np.eye(parts)[labels]
        ties = graph @ members  # [filters, parts]: weight of each filter's edges into each part
        volume, sizes = degree @ members, members.sum(axis=0)
        inside = np.einsum("ik,ik->k", members, ties)
        ratios = _ratios(volume, inside)
        at_home = ties[rows, labels]
        # A filter leaves its part a for a part b, [filters, parts].
        left = _ratios(volume[labels] - degree, inside[labels] - 2 * at_home + own)
        joined = _ratios(volume + degree[:, None], inside + 2 * ties + own[:, None])
        moves = (left - ratios[labels])[:, None] + joined - ratios
        moves[(sizes[labels] == 1)[:, None] | (sizes >= limit) | (members > 0)] = np.inf
        # Filter i takes the place of filter j: what that does to j's part, [filters, filters].
        after = inside[labels] + 2 * (ties[:, labels] - at_home - graph) + own[:, None] + own
        taken = _ratios(volume[labels] - degree + degree[:, None], after) - ratios[labels]
        swaps = taken + taken.T
        swaps[labels[:, None] == labels] = np.inf
        move, swap = moves.min(), swaps.min()
        if min(move, swap) >= -LEAST_GAIN:
            break
        if move <= swap:
            i, part = np.unravel_index(moves.argmin(), moves.shape)
            labels[i] = part
        else:
            i, j = np.unravel_index(swaps.argmin(), swaps.shape)
            labels[i], labels[j] = labels[j], labels[i]
    return labels


def find_communities(graph: FloatArray, sizes: Sequence[int], seed: int = 0) -> IntArray:
    """The part of each filter, [filters], from Louvain communities, the largest first.

    A community goes whole into the fullest part that has room for it; where none has, it fills the
    emptiest parts. Unlike in NoNN no community is discarded and none merged for its size. Raises
    ConfigError where networkx is not installed.
    """
    try:
        import networkx
    except ImportError:
        raise ConfigError(
            "partition 'louvain' needs networkx: pip install 'ddnn[students]'"
        ) from None
    found = networkx.community.louvain_communities(
        networkx.from_numpy_array(graph), resolution=RESOLUTION, seed=seed
    )
    room = np.array(sizes)
    labels = np.zeros(len(graph), dtype=np.int64)
    for community in sorted(found, key=lambda one: (-len(one), min(one))):
        waiting = sorted(community)
        while waiting:
            enough = np.flatnonzero(room >= len(waiting))
            part = enough[room[enough].argmin()] if len(enough) else room.argmax()
            placed, waiting = waiting[: room[part]], waiting[room[part] :]
            labels[placed] = part
            room[part] -= len(placed)
    return labels
