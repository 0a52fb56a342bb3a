"""The schedule of one forward, one backward: what it promises, and that it never stalls."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import ConfigError
from ddnn.pipeline import schedule
from ddnn.pipeline.schedule import choose_operation

SIZES = pytest.mark.parametrize(("stages", "batches"), [*product((1, 2, 3, 5), (0, 1, 2, 4, 9))])


def test_the_schedule_of_three_stages_is_the_papers() -> None:
    f, b = "forward", "backward"
    assert schedule(3, 4) == [
        [(f, 0), (f, 1), (f, 2), (b, 0), (f, 3), (b, 1), (b, 2), (b, 3)],
        [(f, 0), (f, 1), (b, 0), (f, 2), (b, 1), (f, 3), (b, 2), (b, 3)],
        [(f, 0), (b, 0), (f, 1), (b, 1), (f, 2), (b, 2), (f, 3), (b, 3)],
    ]


@SIZES
def test_every_batch_passes_every_stage_forward_and_backward_once(stages, batches) -> None:
    for steps in schedule(stages, batches):
        assert sorted(steps) == sorted(product(("forward", "backward"), range(batches)))


@SIZES
def test_at_most_n_minus_i_batches_are_in_flight(stages, batches) -> None:
    for stage, steps in enumerate(schedule(stages, batches)):
        flight, most = 0, 0
        for operation, _ in steps:
            flight += 1 if operation == "forward" else -1
            most = max(most, flight)
        assert most == min(stages - stage, batches)


@given(st.integers(1, 6), st.integers(0, 12), st.data())
def test_no_deadlock_whatever_the_order_in_which_stages_come_to_work(stages, batches, data) -> None:
    """Any stage whose next step has its input may work; there is always one until all is done."""
    left = [list(steps) for steps in schedule(stages, batches)]
    done: set[tuple[int, str, int]] = set()

    def is_possible(stage: int) -> bool:
        if not left[stage]:
            return False
        operation, batch = left[stage][0]
        if operation == "forward":
            return stage == 0 or (stage - 1, "forward", batch) in done
        return stage == stages - 1 or (stage + 1, "backward", batch) in done

    while any(left):
        possible = [stage for stage in range(stages) if is_possible(stage)]
        assert possible
        stage = data.draw(st.sampled_from(possible))
        done.add((stage, *left[stage].pop(0)))


def test_the_steady_period_is_the_slowest_stage() -> None:
    """Stage times forward + backward, without links: one batch per period of the slowest."""
    times = [(1.0, 2.0), (2.0, 3.0), (1.0, 1.0)]
    steps = schedule(3, 60)
    ended: dict[tuple[int, str, int], float] = {}
    free = [0.0] * 3
    left = [list(one) for one in steps]
    while any(left):
        for stage in range(3):
            if not left[stage]:
                continue
            operation, batch = left[stage][0]
            before = stage - 1 if operation == "forward" else stage + 1
            ready = ended.get((before, operation, batch), 0.0) if before in (0, 1, 2) else 0.0
            if before in (0, 1, 2) and (before, operation, batch) not in ended:
                continue
            seconds = times[stage][operation == "backward"]
            free[stage] = max(free[stage], ready) + seconds
            ended[stage, operation, batch] = free[stage]
            left[stage].pop(0)
    assert ended[0, "backward", 50] - ended[0, "backward", 40] == pytest.approx(10 * 5.0)


def test_no_batch_is_in_flight_between_rounds() -> None:
    assert choose_operation(4, 2, 3, 4) == "backward"
    assert choose_operation(4, 4, 3, 4) is None
    assert choose_operation(4, 4, 3, 8) == "forward"


@pytest.mark.parametrize("sizes", [(0, 1), (1, -1)])
def test_impossible_sizes_are_refused(sizes) -> None:
    with pytest.raises(ConfigError, match="give at least"):
        schedule(*sizes)
