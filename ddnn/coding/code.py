"""A linear code over n workers: encode k blocks, decode from the answers of any set of rank k.

Worker i computes with sum_p generator[i, p] * block_p, and since the computation is linear, its
answer is the same sum of the blocks' products (Hadidi et al., EDGE 2023: one parity worker per
layer; Das et al., IoT-J 2024: low-weight codes that keep sparse matrices sparse). Every operation
that is not linear (activation, max-pooling, saturation) must come after decoding.

`ddnn.coding.constructions` makes codes, `ddnn.coding.certification` finds out what they tolerate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import index
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ddnn.coding import encoding
from ddnn.coding.coefficients import Factors, compute_kron_rows
from ddnn.coding.decoding import DecodingPlan, make_decoding_plan
from ddnn.coding.field import ExactRank
from ddnn.coding.supports import Supports
from ddnn.errors import ConfigError, InconsistentAnswersError, NotDecodableError

MAX_WORKERS = 4096
MIN_TOLERANCE = 1e-5  # float64 answers may have been rounded to float32 on their way
CACHE_NUMBERS = 2**24  # in the cached decoding plans of one code

Answers = Mapping[int, Any]


class Code:
    """A code of n workers, designed so that any s of them may fail; `certify` verifies it.

    generator: float64 [n, k], read-only. factors: for the products A^T B, ([n, k_a], [n, k_b]);
    generator row i is kron(a_i, b_i), and unknown p * k_b + q is A_p^T B_q.
    """

    def __init__(
        self, generator: Any, s: int, name: str = "custom", factors: Factors | None = None
    ) -> None:
        self.generator: NDArray[np.float64] = _copy_read_only(generator)
        if self.generator.ndim != 2 or not np.isfinite(self.generator).all():
            raise ConfigError(
                f"generator of shape {list(self.generator.shape)}: expected a matrix "
                "[workers, blocks] of finite numbers"
            )
        n, k = self.generator.shape
        check_size(n, k, s)
        self.name, self.k, self.s = name, k, s
        self.factors = None if factors is None else tuple(map(_copy_read_only, factors))
        if self.factors and not np.array_equal(compute_kron_rows(self.factors), self.generator):
            raise ConfigError("generator row i must be the Kronecker product of the factors' rows")
        self._exact = ExactRank(self.generator)
        # Both caches are bounded: the same set answers again while its workers stay the same.
        size = max(8, min(1024, CACHE_NUMBERS // (n * k)))
        self._plan = lru_cache(size)(self._make_plan)
        self._has_full_rank = lru_cache(16 * size)(self._compute_full_rank)

    def __repr__(self) -> str:
        return f"Code({self.name}, n={self.n}, k={self.k}, s={self.s}, weights={self.weights})"

    @property
    def n(self) -> int:
        """The number of workers."""
        return len(self.generator)

    @property
    def supports(self) -> Supports:
        """The blocks (unknowns) that each worker combines."""
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in self.generator)

    @property
    def weights(self) -> tuple[int, ...]:
        """The largest number of blocks that a worker combines, per factor."""
        parts = self.factors or (self.generator,)
        return tuple(int((part != 0).sum(axis=1).max()) for part in parts)

    def encode(self, blocks: Iterable[Any], others: Iterable[Any] | None = None) -> list[Any]:
        """The input of each of the n workers: an array, or CSR where the blocks are sparse.

        For a product code: k_a blocks of A (one per block column) and, as `others`, k_b of B; the
        result is n pairs. Blocks may differ along one axis: shorter ones are padded with zeros to
        the largest. A worker that gets one block uncoded gets its values bit for bit. The inputs of
        two workers share no memory, neither with each other nor with the blocks.

        Raises ConfigError where the blocks do not fit the code or each other.
        """
        if self.factors is None:
            if others is not None:
                raise ConfigError(f"{self.name} codes one matrix; see make_low_weight_product")
            return encoding.encode(self.generator, blocks)
        if others is None:
            raise ConfigError(f"{self.name} codes two matrices: encode(blocks_a, blocks_b)")
        left, right = self.factors
        return list(zip(encoding.encode(left, blocks), encoding.encode(right, others), strict=True))

    def is_decodable(self, workers: Iterable[int]) -> bool:
        """Whether the answers of these workers determine all blocks: exact rank, cached."""
        present = frozenset(map(self._check_worker, workers))
        return len(present) >= self.k and bool(self._has_full_rank(present))

    def find_decodable(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which sets of workers determine all blocks, by exact rank: bool [sets].

        present: bool [sets, n], the workers in each set.
        """
        return self._exact.find_full_rank(present)

    def decode(self, answers: Answers, tolerance: float | None = None) -> list[NDArray[Any]]:
        """The k blocks' products from the answers of any decodable set of workers.

        answers: worker -> array, all of one shape. The products of sparse answers are dense, those
        of uneven blocks are padded with zeros to the largest. The result does not depend on the
        order of the answers.

        Where more workers answered than are needed, the surplus is checked: no parity check may
        exceed `tolerance` times the largest answer (default: the square root of the precision, at
        least 1e-5, as float64 may contain what was computed in float32). Products that cancel to
        about 0 in all answers can raise a false alarm. One surplus answer is one check: it detects
        an error in proportion to the coefficient of the faulty worker in it, so a small coefficient
        may hide a wrong answer.

        Raises NotDecodableError below rank k, or where the condition number leaves no correct
        digit (8e6 for float32, 4e15 for float64); InconsistentAnswersError for answers that are not
        finite, differ in shape or contradict each other, with the faulty workers in `.workers`
        where they can be identified (of contradicting answers: if one is wrong, and there are two
        more than are needed); ConfigError for workers that are not of this code.
        """
        if not isinstance(answers, Mapping):
            raise ConfigError(f"answers are a mapping worker -> array, got {type(answers)}")
        answers = {self._check_worker(worker): answer for worker, answer in answers.items()}
        workers = tuple(sorted(answers))
        plan = self._plan(workers)
        stacked = _stack_answers(workers, answers)
        flat = stacked.reshape(len(workers), stacked[0].size)
        info = np.finfo(flat.dtype)
        precision = float(info.eps)
        if plan.condition * precision >= 1:
            raise NotDecodableError(
                f"the system of workers {_format_workers(workers)} has condition number "
                f"{plan.condition:.1e}: no digit of {flat.dtype} would be right"
            )
        solved, checks = plan.apply(flat)
        if len(checks):
            limit = max(precision**0.5, MIN_TOLERANCE) if tolerance is None else tolerance
            allowed = limit * np.abs(flat).max(initial=0) + float(info.tiny)  # denormals are coarse
            if not np.abs(checks).max(initial=0) <= allowed:
                raise _make_contradiction_error(workers, plan.find_faulty_rows(flat, limit))
        if not np.isfinite(solved).all():
            raise NotDecodableError(f"answers too large for {flat.dtype}: decoding overflows")
        rows = iter(solved)
        return [
            stacked[source] if source >= 0 else next(rows).reshape(stacked.shape[1:])
            for source in plan.sources
        ]

    def _check_worker(self, worker: Any) -> int:
        try:
            number = index(worker)
        except TypeError:
            number = -1
        if not 0 <= number < self.n:
            raise ConfigError(f"worker {worker!r} is not one of 0 … {self.n - 1}")
        return number

    def _compute_full_rank(self, workers: frozenset[int]) -> bool:
        present = np.zeros((1, self.n), bool)
        present[0, list(workers)] = True
        return bool(self.find_decodable(present)[0])

    def _make_plan(self, workers: tuple[int, ...]) -> DecodingPlan:
        if not self.is_decodable(workers):
            raise NotDecodableError(
                f"workers {_format_workers(workers)} answered ({len(workers)} of {self.n}): "
                f"{self.name} needs {self.k} that are independent"
            )
        return make_decoding_plan(self.generator[list(workers)])


def check_size(n: int, k: int, s: int) -> None:
    """Raise ConfigError where no code of n workers for k blocks can tolerate s losses."""
    if not (1 <= k <= n <= MAX_WORKERS and isinstance(s, SupportsIndex) and 0 <= s <= n - k):
        raise ConfigError(
            f"{n} workers for {k} blocks with {s} losses: 1 <= blocks, 0 <= losses, "
            f"blocks + losses <= workers <= {MAX_WORKERS} is needed"
        )


def _copy_read_only(values: Any) -> NDArray[np.float64]:
    try:
        given = np.asarray(values)
        if given.dtype.kind == "c":
            raise TypeError
        array = np.array(given, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{values!r}: expected a matrix of real numbers") from None
    array.flags.writeable = False
    return array


def _format_workers(workers: Sequence[int]) -> str:
    shown = ", ".join(str(worker) for worker in workers[:20])
    return f"{shown}, …" if len(workers) > 20 else shown or "(none)"


def _stack_answers(workers: tuple[int, ...], answers: Answers) -> NDArray[Any]:
    """One new array [answers, ...] of finite numbers; it shares no memory with the answers."""
    arrays = [np.asarray(_to_dense(answers[worker])) for worker in workers]
    shape, dtype = arrays[0].shape, arrays[0].dtype
    if any(array.shape != shape for array in arrays):
        raise _make_shape_error(workers, [array.shape for array in arrays])
    if dtype.char not in "fd" or any(array.dtype != dtype for array in arrays):
        dtype = encoding.choose_dtype([array.dtype for array in arrays])
    stacked = np.empty((len(arrays), *shape), dtype)
    for row, array in enumerate(arrays):
        stacked[row] = array
    if not np.isfinite(stacked).all():
        bad = tuple(
            w for w, row in zip(workers, stacked, strict=True) if not np.isfinite(row).all()
        )
        raise InconsistentAnswersError(
            f"answers of workers {_format_workers(bad)} are not finite", bad
        )
    return stacked


def _to_dense(answer: Any) -> Any:
    return answer.toarray() if sparse.issparse(answer) else answer


def _make_contradiction_error(
    workers: tuple[int, ...], faulty_rows: Sequence[int]
) -> InconsistentAnswersError:
    faulty = tuple(workers[row] for row in faulty_rows)
    cause = f"worker {faulty[0]} is faulty" if faulty else "the faulty worker is not identifiable"
    return InconsistentAnswersError(
        f"the answers of workers {_format_workers(workers)} contradict each other: {cause}", faulty
    )


def _make_shape_error(
    workers: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> InconsistentAnswersError:
    """Workers whose answers differ from the shape of the majority are faulty."""
    common = max(set(shapes), key=shapes.count)
    has_majority = 2 * shapes.count(common) > len(shapes)
    odd = tuple(w for w, shape in zip(workers, shapes, strict=True) if shape != common)
    return InconsistentAnswersError(
        f"answers differ in shape: {sorted(set(shapes))}", odd if has_majority else ()
    )
