"""Parts of the filter graph: the capacity-aware normalized cut, and Louvain communities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigh

from ddnn.errors import ConfigError
from ddnn.students.types import FloatArray, IntArray

RESTARTS = 16  # of the assignment to centres, for few filters
MAX_EXACT = 10  # filters; they have at most 42,525 partitions into as many parts
SMALL = 64  # filters: up to here all restarts and all exchanges are looked at
ROUNDS = 30  # of one assignment to centres
CHANGES = 4  # of each filter, at most, in one refinement
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

    Of up to MAX_EXACT filters all partitions are compared. More
    filters are placed by the smallest eigenvectors of the normalized Laplacian, given to centres
    with the wanted sizes (k-means, the nearest pairs first), and then moved and exchanged
    while that lowers the normalized cut. A part keeps 1 filter to its limit. Raises ConfigError for
    sizes that are not those of all filters, or exceed the limits.
    """
    check_sizes(graph, sizes, limits)
    parts = len(sizes)
    if parts == 1:
        return np.zeros(len(graph), dtype=np.int64)
    if len(graph) <= MAX_EXACT:
        return _cut_exactly(graph, limits)
    points = _embed(graph, parts)
    rng = np.random.default_rng(seed)
    found = [
        refine_parts(graph, _assign_to_centres(points, sizes, rng), limits)
        for _ in range(RESTARTS if len(graph) <= SMALL else 1)
    ]
    return min(found, key=lambda labels: normalized_cut(graph, labels))


def _cut_exactly(graph: FloatArray, limits: Sequence[int]) -> IntArray:
    """The part of each filter, [filters], with the least normalized cut of all partitions into as
    many parts as there are limits. The larger parts are those with the larger limits."""
    parts = len(limits)
    blocks = _list_partitions(len(graph), parts)
    members = np.eye(parts)[blocks]  # [partitions, filters, parts]
    sizes = members.sum(axis=1).astype(np.int64)
    fits = (np.sort(sizes, axis=1) <= np.sort(limits)).all(axis=1)
    members, sizes, blocks = members[fits], sizes[fits], blocks[fits]
    inside = np.einsum("pik,pik->pk", members, graph @ members)
    best = _ratios(graph.sum(axis=0) @ members, inside).sum(axis=1).argmin()
    part_of_block = np.empty(parts, np.int64)
    part_of_block[np.argsort(sizes[best], kind="stable")] = np.argsort(limits, kind="stable")
    return np.asarray(part_of_block[blocks[best]])


def _list_partitions(filters: int, parts: int) -> IntArray:
    """All partitions of the filters into exactly so many parts, [partitions, filters]: the part of
    each, where parts are numbered by their first filter."""
    rows = np.zeros((1, 1), np.int64)
    for filter_ in range(1, filters):
        begun = rows.max(axis=1) + 1
        rows = np.concatenate(
            [
                np.column_stack([rows[begun >= part], np.full((begun >= part).sum(), part)])
                for part in range(parts)
            ]
        )
        rows = rows[rows.max(axis=1) + filters - filter_ >= parts]  # enough are left to begin parts
    return rows


def check_sizes(graph: FloatArray, sizes: Sequence[int], limits: Sequence[int]) -> None:
    """ConfigError unless parts of these sizes, within these limits, hold all filters."""
    if min(sizes, default=0) < 1 or sum(sizes) != len(graph):
        raise ConfigError(
            f"sizes {list(sizes)} of parts of {len(graph)} filters; expected at least 1 of each, "
            "and all filters in total"
        )
    if len(limits) != len(sizes) or any(s > most for s, most in zip(sizes, limits, strict=True)):
        raise ConfigError(
            f"limits {list(limits)} of parts of sizes {list(sizes)}; expected one for each part, "
            "and at least its size"
        )


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
    """k-means of these sizes, [filters]: each centre has as many filters as its part."""
    centres = [points[rng.integers(len(points))]]
    while len(centres) < len(sizes):  # k-means++: far from the centres there are
        distance = _square_distances(points, np.array(centres)).min(axis=1) + LEAST_GAIN
        centres.append(points[rng.choice(len(points), p=distance / distance.sum())])
    centre = np.array(centres)
    labels = np.full(len(points), -1)
    for _ in range(ROUNDS):
        before, labels = labels, _fill_places(_square_distances(points, centre), sizes)
        if (labels == before).all():
            break
        centre = np.array([points[labels == k].mean(axis=0) for k in range(len(sizes))])
    return labels


def _fill_places(distances: FloatArray, sizes: Sequence[int]) -> IntArray:
    """The centre of each filter, by distances [filters, centres], the nearest pairs first."""
    labels, room = np.full(len(distances), -1), list(sizes)
    for pair in np.argsort(distances, axis=None, kind="stable").tolist():
        i, k = divmod(pair, len(room))
        if room[k] and labels[i] < 0:
            labels[i] = k
            room[k] -= 1
    return labels


def _square_distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.asarray(((points[:, None] - centres) ** 2).sum(axis=-1))


def refine_parts(graph: FloatArray, labels: IntArray, limits: Sequence[int]) -> IntArray:
    """Move or exchange filters, each time as lowers the normalized cut most, until nothing does.

    Of many filters, exchanges are looked at among those that gain most by a move alone.
    """
    labels, n, parts = labels.copy(), len(graph), len(limits)
    degree, own, rows = graph.sum(axis=0), graph.diagonal(), np.arange(n)
    ties = graph @ np.eye(parts)[labels]  # [filters, parts]: edges of each filter into each part
    for _ in range(CHANGES * n):
        members = np.eye(parts)[labels]
        volume, sizes = degree @ members, members.sum(axis=0)
        inside, home = np.einsum("ik,ik->k", members, ties), ties[rows, labels]
        ratios = _ratios(volume, inside)
        # A filter leaves its part for another, [filters, parts].
        left = _ratios(volume[labels] - degree, inside[labels] - 2 * home + own) - ratios[labels]
        joined = _ratios(volume + degree[:, None], inside + 2 * ties + own[:, None]) - ratios
        moves = np.where(members > 0, np.inf, left[:, None] + joined)
        some = np.argsort(moves.min(axis=1), kind="stable")[:SMALL]
        moves[(sizes[labels] == 1)[:, None] | (sizes >= limits)] = np.inf
        # One filter takes the place of another: what that does to the other's part, [some, some].
        at, its = labels[some], np.ix_(some, some)
        after = inside[at] + 2 * (ties[some][:, at] - home[some] - graph[its])
        after += own[some][:, None] + own[some]
        taken = _ratios(volume[at] - degree[some] + degree[some][:, None], after) - ratios[at]
        swaps = np.where(at[:, None] == at, np.inf, taken + taken.T)
        if min(moves.min(), swaps.min()) >= -LEAST_GAIN:
            break
        if moves.min() <= swaps.min():
            i, part = np.unravel_index(moves.argmin(), moves.shape)
            changes = [(i, part)]
        else:
            i, j = some[list(np.unravel_index(swaps.argmin(), swaps.shape))]
            changes = [(i, labels[j]), (j, labels[i])]
        for i, part in changes:
            ties[:, labels[i]] -= graph[:, i]
            ties[:, part] += graph[:, i]
            labels[i] = part
    return labels


def find_communities(graph: FloatArray, sizes: Sequence[int], seed: int = 0) -> IntArray:
    """The part of each filter, [filters], from Louvain communities, the largest first.

    A community goes whole into the fullest part that has room for it; where none has, it fills the
    emptiest parts. Unlike in NoNN no community is discarded and none merged for its size. Raises
    ConfigError where networkx is not installed, and for sizes that are not those of all filters.
    """
    check_sizes(graph, sizes, sizes)
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
