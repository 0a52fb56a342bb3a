"""Linear codes over n workers: encode k blocks, decode from any set of rank k, certify.

Worker i computes with sum_p generator[i, p] * block_p, and since the computation is linear, its
answer is the same sum of the blocks' products (Hadidi et al., EDGE 2023: one parity worker per
layer; Das et al., IoT-J 2024: low-weight codes that keep sparse matrices sparse). Nothing that is
not linear (activation, max-pooling, saturation) may come before decoding.

`Code.parity`, `Code.mds`, `Code.low_weight` and `Code.low_weight_product` are for use;
`Code.uncoded`, `Code.replication`, `Code.polynomial` and `Code.dense_gaussian` for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, inf
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ddnn.coding import encoding, patterns, supports
from ddnn.coding.coefficients import (
    Factors,
    Family,
    draw,
    draw_windows,
    kron_rows,
    search,
)
from ddnn.coding.conditioning import DENSE_LIMIT, conditions, unit_blocks
from ddnn.coding.decoding import Plan, make_plan
from ddnn.coding.field import ExactRank
from ddnn.errors import (
    ConfigError,
    InconsistentAnswersError,
    InfeasiblePlanError,
    NotDecodableError,
)

MAX_WORKERS = 4096
TRIALS = 20
LARGE_TRIALS = 100, 60_000  # low weight beyond 128 blocks: at most; and times the workers
MIXED = 32  # workers with several blocks, beyond which conditions of large codes are slow
LEAST_TOLERANCE = 1e-5  # float64 answers may have been rounded to float32 on their way
CACHE_NUMBERS = 2**24  # held by the cached plans of one code

Answers = Mapping[int, Any]


@dataclass(frozen=True)
class Certificate:
    """What was found out about a code."""

    decodable: bool  # from every set tried with s workers gone; exact rank
    worst_condition: float  # inf where a set fails, or is singular in floating point
    worst_set: tuple[int, ...]  # the stragglers that give it
    exhaustive: bool  # all sets were tried
    checked: int
    failing: int
    seed: int | None  # of the sample
    conditions_checked: int  # of the sets `checked`, those whose condition was computed


class Code:
    """A code of n workers of which any s may vanish, where `certify` says so.

    generator: float64 [n, k], read-only. factors: for the products A^T B, ([n, k_a], [n, k_b]);
    generator row i is kron(a_i, b_i), and unknown p * k_b + q is A_p^T B_q.
    """

    def __init__(
        self, generator: Any, s: int, name: str = "custom", factors: Factors | None = None
    ) -> None:
        self.generator: NDArray[np.float64] = _frozen(generator)
        if self.generator.ndim != 2 or not np.isfinite(self.generator).all():
            raise ConfigError("a generator is a finite matrix [workers, blocks]")
        n, k = self.generator.shape
        _check_size(n, k, s)
        self.name, self.k, self.s = name, k, s
        self.factors = None if factors is None else tuple(_frozen(factor) for factor in factors)
        if self.factors and not np.array_equal(kron_rows(self.factors), self.generator):
            raise ConfigError("generator row i must be the Kronecker product of the factors' rows")
        self._exact = ExactRank(self.generator)
        # Both caches are bounded: a set is met again as long as its workers stay the same.
        size = max(8, min(1024, CACHE_NUMBERS // (n * k)))
        self._plan = lru_cache(size)(self._make_plan)
        self._has_rank = lru_cache(16 * size)(self._find_rank)

    def __repr__(self) -> str:
        return f"Code({self.name}, n={self.n}, k={self.k}, s={self.s}, weights={self.weights})"

    @property
    def n(self) -> int:
        """All workers."""
        return len(self.generator)

    @property
    def supports(self) -> supports.Supports:
        """The blocks (unknowns) that each worker combines."""
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in self.generator)

    @property
    def weights(self) -> tuple[int, ...]:
        """The most blocks that a worker combines, per factor."""
        parts = self.factors or (self.generator,)
        return tuple(int((part != 0).sum(axis=1).max()) for part in parts)

    # -- making one

    @classmethod
    def uncoded(cls, n: int) -> Code:
        """Each worker has a block; all must answer."""
        _check_size(n, n, 0)
        return cls(np.eye(n), 0, "uncoded")

    @classmethod
    def parity(cls, n: int) -> Code:
        """n - 1 blocks and their sum (Hadidi et al., EDGE 2023)."""
        _check_size(n, n - 1, 1)
        return cls(np.vstack([np.eye(n - 1), np.ones(n - 1)]), 1, "parity")

    @classmethod
    def replication(cls, n: int, s: int) -> Code:
        """n // (s + 1) blocks, each on s + 1 workers or more."""
        k = n // (s + 1) if s >= 0 else 0
        _check_size(n, k, s)
        return cls(np.eye(k)[np.arange(n) % k], s, "replication")

    @classmethod
    def mds(cls, n: int, s: int, seed: int = 0, trials: int = TRIALS) -> Code:
        """n - s bare blocks and s parities that together recover every loss of s workers.

        The overlapping parities of Hadidi et al., EDGE 2023, Fig. 15 recover 8 of 10 double
        losses; searched coefficients over all blocks recover 10 of 10.
        """
        k = n - s
        _check_size(n, k, s)
        held = [(block,) for block in range(k)] + [tuple(range(k))] * s
        return cls.from_supports(held, k, s, seed, trials, "mds")

    @classmethod
    def low_weight(cls, n: int, s: int, seed: int = 0, trials: int | None = None) -> Code:
        """The least weight for A^T x (Das et al., IoT-J 2024): ceil((n - s)(s + 1) / n).

        The search alternates between one polynomial for all windows and independent coefficients;
        the latter are kept where a certificate refuses the former. trials: at least one of each
        kind; by default 20, and beyond 128 blocks up to 100, where the search gains most.

        Float32 answers need a condition number below 8e6 (see `decode`). With s near 10 and
        hundreds of workers it may be above: let `certify` tell, and take more trials or float64.
        """
        k, name = n - s, "low_weight"
        _check_size(n, k, s)
        if trials is None:
            most, numbers = LARGE_TRIALS
            trials = max(TRIALS, min(most, numbers // n)) if k > DENSE_LIMIT else TRIALS
        trials = 2 if trials == 1 else trials
        held = supports.low_weight(n, s)

        def drawn(trial: int, rng: np.random.Generator) -> Factors:
            return (draw(held, k, "bounded", rng) if trial % 2 else draw_windows(held, k, rng),)

        code = cls(search(drawn, s, seed, trials)[0], s, name)
        refused = code.failing_sets()[1].size
        return cls.from_supports(held, k, s, seed, trials, name) if refused else code

    @classmethod
    def low_weight_product(
        cls, k_a: int, k_b: int, s: int, seed: int = 0, trials: int = TRIALS
    ) -> Code:
        """The smallest weights (w_a, w_b) for A^T B that a certificate confirms.

        In the spirit of Das et al., IoT-J 2024; bounds and placement derived here. Where the
        lower bound on w_a * w_b is not attainable, the next product is tried.
        """
        if k_a < 1 or k_b < 1:
            raise ConfigError(f"{k_a} x {k_b} blocks: at least one of each is needed")
        _check_size(k_a * k_b + s, k_a * k_b, s)
        for weights in supports.product_weights(k_a, k_b, s):
            for place in (supports.product_tiles, supports.product_greedy):
                held = place(k_a, k_b, s, weights)
                if supports.coverage(*held, k_a, k_b).min() <= s:
                    continue
                once = cls.from_product_supports(*held, k_a, k_b, s, seed, trials=1)
                if once.failing_sets()[1].size:
                    continue
                name = "low_weight_product"
                return cls.from_product_supports(*held, k_a, k_b, s, seed, trials, name)
        raise InfeasiblePlanError(f"no product code for {k_a} x {k_b} blocks tolerates {s} losses")

    @classmethod
    def polynomial(cls, n: int, s: int) -> Code:
        """Monomials at equispaced nodes -1 + 2 (i + 1) / n: badly conditioned."""
        _check_size(n, n - s, s)
        nodes = -1 + 2 * np.arange(1, n + 1) / n
        return cls(np.vander(nodes, n - s, increasing=True), s, "polynomial")

    @classmethod
    def dense_gaussian(cls, n: int, s: int, seed: int = 0, trials: int = TRIALS) -> Code:
        """N(0, 1) coefficients over all blocks for every worker."""
        _check_size(n, n - s, s)
        held = [tuple(range(n - s))] * n
        return cls.from_supports(held, n - s, s, seed, trials, "dense_gaussian", "normal")

    @classmethod
    def from_supports(
        cls,
        held: Sequence[Sequence[int]],
        k: int,
        s: int,
        seed: int = 0,
        trials: int = TRIALS,
        name: str = "custom",
        family: Family = "bounded",
    ) -> Code:
        """The best of `trials` draws on given supports, whether or not it tolerates s."""
        _check_size(len(held), k, s)
        _check_supports(held, k)

        def drawn(_: int, rng: np.random.Generator) -> Factors:
            return (draw(held, k, family, rng),)

        return cls(search(drawn, s, seed, trials)[0], s, name)

    @classmethod
    def from_product_supports(
        cls,
        held_a: Sequence[Sequence[int]],
        held_b: Sequence[Sequence[int]],
        k_a: int,
        k_b: int,
        s: int,
        seed: int = 0,
        trials: int = TRIALS,
        name: str = "custom",
    ) -> Code:
        """As `from_supports`, for the products A^T B."""
        _check_size(len(held_a), k_a * k_b, s)
        _check_supports(held_a, k_a)
        _check_supports(held_b, k_b)
        if len(held_a) != len(held_b):
            raise ConfigError(f"supports of {len(held_a)} and {len(held_b)} workers do not match")

        def drawn(_: int, rng: np.random.Generator) -> Factors:
            return draw(held_a, k_a, "bounded", rng), draw(held_b, k_b, "bounded", rng)

        factors = search(drawn, s, seed, trials)
        return cls(kron_rows(factors), s, name, factors)

    # -- using it

    def encode(self, blocks: Iterable[Any], others: Iterable[Any] | None = None) -> list[Any]:
        """What each of the n workers gets: an array, or CSR where the blocks are sparse.

        For a product code: k_a blocks of A (one per block column), `others` k_b of B, and n pairs
        come out. Blocks may differ along one axis: short ones are padded with zeros to the
        largest. A worker that has one block bare gets its values bit for bit. What a worker gets
        shares no memory with another's, nor with the blocks.
        """
        if self.factors is None:
            if others is not None:
                raise ConfigError(f"{self.name} codes one matrix; see Code.low_weight_product")
            return encoding.encode(self.generator, blocks)
        if others is None:
            raise ConfigError(f"{self.name} codes two matrices: encode(blocks_a, blocks_b)")
        left, right = self.factors
        return list(zip(encoding.encode(left, blocks), encoding.encode(right, others), strict=True))

    def decodable(self, workers: Iterable[int]) -> bool:
        """Whether the answers of these workers determine all blocks: exact rank, cached."""
        known = frozenset(map(self._worker, workers))
        return len(known) >= self.k and bool(self._has_rank(known))

    def decode(self, answers: Answers, tolerance: float | None = None) -> list[NDArray[Any]]:
        """The k blocks' products from the answers of any decodable set of workers.

        answers: worker -> array, all of one shape. Sparse ones come back dense, uneven blocks
        padded with zeros to the largest. The result does not depend on the order of the answers.

        Where more answered than are needed, the surplus is checked: nothing may be off by more
        than `tolerance` times the largest answer (default: the square root of the precision, but
        not below 1e-5, as float64 may hold what was computed in float32). Products that cancel to
        about 0 in all answers can raise a false alarm. One surplus answer is one check: it sees an
        error only as far as that worker takes part in it, so a small share may hide a wrong answer.

        Raises NotDecodableError below rank k, or where the condition number leaves no correct
        digit (8e6 for float32, 4e15 for float64); InconsistentAnswersError, with `.workers` at
        fault where that can be told, for answers that are not finite, differ in shape or contradict
        each other (which of them is wrong can be told if one is, and two more answered than are
        needed); ConfigError for workers that are not of this code.
        """
        if not isinstance(answers, Mapping):
            raise ConfigError(f"answers are a mapping worker -> array, got {type(answers)}")
        answers = {self._worker(worker): answer for worker, answer in answers.items()}
        workers = tuple(sorted(answers))
        plan = self._plan(workers)
        stacked = _stacked(workers, answers)
        flat = stacked.reshape(len(workers), stacked[0].size)
        info = np.finfo(flat.dtype)
        precision = float(info.eps)
        if plan.condition * precision >= 1:
            raise NotDecodableError(
                f"the system of workers {_listed(workers)} has condition number "
                f"{plan.condition:.1e}: no digit of {flat.dtype} would be right"
            )
        solved, checks = plan.apply(flat)
        if len(checks):
            limit = max(precision**0.5, LEAST_TOLERANCE) if tolerance is None else tolerance
            allowed = limit * np.abs(flat).max(initial=0) + float(info.tiny)  # denormals are coarse
            if not np.abs(checks).max(initial=0) <= allowed:
                self._disagree(workers, plan, flat, limit)
        if not np.isfinite(solved).all():
            raise NotDecodableError(f"answers too large for {flat.dtype}: decoding overflows")
        rows = iter(solved)
        return [
            stacked[source] if source >= 0 else next(rows).reshape(stacked.shape[1:])
            for source in plan.sources
        ]

    def certify(
        self, exhaustive_limit: int = 20_000, samples: int = 2_000, seed: int = 0
    ) -> Certificate:
        """Try every set of s stragglers, or `samples` random and as many adversarial ones.

        Whether a set decodes is exact rank. `decode` still refuses a set whose condition number
        leaves no correct digit: 8e6 and more for float32, 4e15 for float64.

        Condition numbers are of the 2-norm; for codes that are not systematic (more than 128
        workers combine blocks) beyond 128 blocks an estimate of the 1-norm. Beyond 128 blocks,
        where more than 32 workers combine blocks, conditions are slow: of the sets tried,
        `samples` / 4 are taken, evenly spread; the certificate says how many.
        """
        gone, failing = self.failing_sets(exhaustive_limit, samples, seed)
        complete = comb(self.n, self.s) <= exhaustive_limit
        if failing.size:
            worst, at, measured = inf, int(failing[0]), 0
        else:
            picked = self._measured(len(gone), samples)
            values = np.concatenate(list(conditions(self.generator, gone[picked])))
            at, worst, measured = int(picked[values.argmax()]), float(values.max()), len(picked)
        return Certificate(
            decodable=not failing.size,
            worst_condition=worst,
            worst_set=tuple(gone[at].tolist()),
            exhaustive=complete,
            checked=len(gone),
            failing=len(failing),
            seed=None if complete else seed,
            conditions_checked=measured,
        )

    def failing_sets(
        self, exhaustive_limit: int = 20_000, samples: int = 2_000, seed: int = 0
    ) -> tuple[patterns.Patterns, NDArray[np.intp]]:
        """The straggler sets tried, [sets, s], and which of them fail, by exact rank."""
        if comb(self.n, self.s) <= exhaustive_limit:
            gone = patterns.exhaustive(self.n, self.s)
        else:
            if samples < 1:
                raise ConfigError(f"samples={samples}: at least one is needed")
            rng = np.random.default_rng(seed)
            gone = patterns.sampled(self.generator != 0, self.s, samples, rng)
        return gone, np.flatnonzero(~self._exact.decodable(patterns.survivors(self.n, gone)))

    # -- inside

    def _measured(self, sets: int, samples: int) -> NDArray[np.intp]:
        """Which of the sets a certificate takes the condition of."""
        slow = self.k > DENSE_LIMIT and (unit_blocks(self.generator) < 0).sum() > MIXED
        count = min(sets, max(1, samples // 4)) if slow else sets
        return np.linspace(0, sets - 1, count).astype(np.intp)

    def _worker(self, worker: Any) -> int:
        try:
            number = index(worker)
        except TypeError:
            number = -1
        if not 0 <= number < self.n:
            raise ConfigError(f"worker {worker!r} is not one of 0 … {self.n - 1}")
        return number

    def _find_rank(self, workers: frozenset[int]) -> bool:
        alive = np.zeros((1, self.n), bool)
        alive[0, list(workers)] = True
        return bool(self._exact.decodable(alive)[0])

    def _make_plan(self, workers: tuple[int, ...]) -> Plan:
        if not self.decodable(workers):
            raise NotDecodableError(
                f"workers {_listed(workers)} answered ({len(workers)} of {self.n}): "
                f"{self.name} needs {self.k} that are independent"
            )
        return make_plan(self.generator[list(workers)])

    def _disagree(
        self, workers: tuple[int, ...], plan: Plan, flat: NDArray[Any], limit: float
    ) -> None:
        at_fault = tuple(workers[row] for row in plan.suspects(flat, limit))
        named = f"worker {at_fault[0]} is at fault" if at_fault else "whose is wrong is not clear"
        raise InconsistentAnswersError(
            f"the answers of workers {_listed(workers)} contradict each other: {named}", at_fault
        )


def _check_size(n: int, k: int, s: int) -> None:
    if not (1 <= k <= n <= MAX_WORKERS and 0 <= s <= n - k):
        raise ConfigError(
            f"{n} workers for {k} blocks with {s} losses: 1 <= blocks, 0 <= losses, "
            f"blocks + losses <= workers <= {MAX_WORKERS} is needed"
        )


def _check_supports(held: Sequence[Sequence[int]], k: int) -> None:
    for worker, support in enumerate(held):
        if any(not 0 <= block < k for block in support):
            raise ConfigError(f"worker {worker} holds {tuple(support)}, blocks are 0 … {k - 1}")


def _frozen(values: Any) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    array.flags.writeable = False
    return array


def _listed(workers: Sequence[int]) -> str:
    shown = ", ".join(str(worker) for worker in workers[:20])
    return f"{shown}, …" if len(workers) > 20 else shown or "(none)"


def _stacked(workers: tuple[int, ...], answers: Answers) -> NDArray[Any]:
    """One array [answers, ...] of finite numbers: never the caller's memory."""
    arrays = [np.asarray(_dense(answers[worker])) for worker in workers]
    shape, dtype = arrays[0].shape, arrays[0].dtype
    if any(array.shape != shape for array in arrays):
        _differ(workers, [array.shape for array in arrays])
    if dtype.char not in "fd" or any(array.dtype != dtype for array in arrays):
        dtype = encoding.working_dtype([array.dtype for array in arrays])
    stacked = np.empty((len(arrays), *shape), dtype)
    for row, array in enumerate(arrays):
        stacked[row] = array
    if not np.isfinite(stacked).all():
        bad = tuple(
            w for w, row in zip(workers, stacked, strict=True) if not np.isfinite(row).all()
        )
        raise InconsistentAnswersError(f"answers of workers {_listed(bad)} are not finite", bad)
    return stacked


def _dense(answer: Any) -> Any:
    return answer.toarray() if sparse.issparse(answer) else answer


def _differ(workers: tuple[int, ...], shapes: list[tuple[int, ...]]) -> None:
    """Those whose shape most others do not share are at fault."""
    common = max(set(shapes), key=shapes.count)
    clear = 2 * shapes.count(common) > len(shapes)
    odd = tuple(w for w, shape in zip(workers, shapes, strict=True) if shape != common)
    raise InconsistentAnswersError(
        f"answers differ in shape: {sorted(set(shapes))}", odd if clear else ()
    )
