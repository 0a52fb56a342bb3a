"""Students run as processes that are killed and stopped; the answers are what they promise.

As long as each group has a live member, every answer is the undistributed network's. Without a
group the answer comes by its deadline all the same, and names the workers that it lacks.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.core.section import Arrays
from ddnn.exits.inference import infer
from ddnn.exits.manifest import Judgement
from ddnn.local_site.site import Site
from ddnn.runtime.bundle import load_bundle
from ddnn.students.detail import read_detail
from ddnn.students.portions import join_portions
from tests.conftest import make_once
from tests.e2e.watched_workers import (
    EVERYONE,
    FLOW_S,
    LAYER_TIMEOUT_S,
    TIMES,
    TOLERANCE,
    Workers,
)
from tests.sliced_students import ACCURACY, make_plan

pytestmark = pytest.mark.timed

GROUPS = (("worker1", "worker2"), ("worker3", "worker4"), ("worker5", "worker6"))


class Students(Workers):
    """The site, and what its answers must be without some portions."""

    def __init__(self, site: Site, images: np.ndarray) -> None:
        super().__init__(site, images)
        detail = read_detail(self.plan)
        loaded = load_bundle(site.config.bundle, LiteRtSection)
        manifest = loaded.manifest.with_thresholds({"local": 0.0})
        directory = site.config.plan
        students = [LiteRtSection(directory / p.file.file) for p in self.plan.pieces]
        tail = LiteRtSection(directory / self.plan.owned["tail"].file.file)

        def compute_without(sample: int, lost: Collection[int]) -> Judgement:
            def section(arrays: Arrays) -> dict[str, np.ndarray]:
                portions = {
                    k: student(arrays)["portion"]
                    for k, student in enumerate(students)
                    if k not in lost
                }
                fill = np.float32(detail.fill_values)
                return tail({"z": join_portions(portions, detail.filters, fill)})

            sections = {**loaded.sections, self.plan.group: section}
            return infer(manifest, sections, images[sample % len(images)])

        self.expected_without: Callable[[int, Collection[int]], Judgement] = compute_without

    def assert_lacking(self, samples: range, lost: Collection[int]) -> None:
        """Every answer is that of the network without these portions, and says so."""
        assert len(samples) >= 5
        for answer in self.answers(samples):
            expected = self.expected_without(answer.sample, lost)
            assert (answer.quality, answer.members) == ("degraded", EVERYONE), answer
            assert answer.missing == [name for k in sorted(lost) for name in GROUPS[k]]
            assert (answer.label, answer.exit) == (expected.label, expected.exit)
            np.testing.assert_allclose(
                answer.probabilities, expected.probabilities, rtol=0, atol=TOLERANCE
            )
            mask = str(sum(1 << k for k in lost))
            assert answer.expected_accuracy == ACCURACY[mask][answer.exit]


@pytest.fixture(scope="session")
def student_plan(scenes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first convolution of the edge as three students, each of two workers."""
    return make_once(
        tmp_path_factory, "students-3-2", lambda out: make_plan(scenes_bundle, out, GROUPS)
    )


@pytest.fixture
def students(
    open_site, scenes_bundle, scenes_frames, scenes_split, student_plan, monkeypatch, request
) -> Iterator[Students]:
    """A site whose samples all go to the edge. Parameter: further keys of the edge."""
    keys = {"DDNN_LAYER_TIMEOUT_S": str(LAYER_TIMEOUT_S), **getattr(request, "param", {})}
    for key, value in keys.items():
        monkeypatch.setenv(key, value)
    site = open_site(
        scenes_bundle,
        scenes_frames,
        scenes_split.labels,
        plan=student_plan,
        thresholds=("local=0",),
        **{**TIMES, "window_s": 0.7, "rate_hz": 10.0},  # fewer: workers start meanwhile
    )
    students = Students(site, scenes_split.images)
    time.sleep(1.5)  # the first samples: not yet by all cameras
    yield students
    students.close()


def test_one_of_each_group_is_enough_and_the_edge_replaces_a_lost_group(students: Students) -> None:
    one_of_each_group_vanishes(students)
    a_whole_group_vanishes(students)
    a_spare_joins_the_lost_group(students)


def one_of_each_group_vanishes(students: Students) -> None:
    before = students.offload()
    assert (before.enough, before.spare_workers, before.pieces) == (True, 1, 3)
    first = students.site.tick()
    for number, mended, names in (
        (signal.SIGKILL, None, ("worker1", "worker3", "worker5")),
        (signal.SIGSTOP, signal.SIGCONT, ("worker2", "worker4", "worker6")),
        (signal.SIGKILL, None, ("worker2", "worker3", "worker6")),
        (signal.SIGSTOP, signal.SIGCONT, ("worker1", "worker4", "worker5")),
    ):
        students.signal(number, *names)  # while samples flow
        time.sleep(FLOW_S)
        for name in names:
            # One by one: the start of a process takes a core, which the cameras need too.
            if mended is None:
                students.start(name)
            else:
                students.signal(mended, name)
            students.wait_until(
                lambda name=name: students.offload().workers[name].state == "live",
                f"{name} is live",
            )
    samples = range(first, students.site.tick())
    answers = students.assert_equal(samples)
    after = students.offload()
    assert (after.computed_here, after.given_up) == (before.computed_here, 0)
    assert after.combined_partly == before.combined_partly
    assert after.combined >= before.combined + answers
    assert sum(worker.used for worker in after.workers.values()) > 0
    assert sum(worker.late for worker in after.workers.values()) > 0


def a_whole_group_vanishes(students: Students) -> None:
    """The edge computes the section itself: nothing is lost."""
    first = students.site.tick()
    before = students.offload()
    students.kill("worker5", "worker6")
    time.sleep(2 * FLOW_S)
    lacking = students.offload()
    assert not lacking.enough
    assert lacking.computed_here > before.computed_here
    students.assert_equal(range(first, students.site.tick()))


def a_spare_joins_the_lost_group(students: Students) -> None:
    students.kill("worker1")
    students.lend("spare", students.site.config.plan)
    students.wait_until(lambda: students.offload().enough, "enough")
    spare = students.offload().workers["spare"]
    assert (spare.pieces, spare.planned) == ([2], False)
    before = students.offload()
    students.assert_equal(students.samples())
    after = students.offload()
    assert after.computed_here == before.computed_here
    assert after.sources[2] == "spare"
    students.kill("spare")


@pytest.mark.parametrize("students", [{"DDNN_LAYER_HERE": "off"}], indirect=True)
def test_an_edge_too_small_for_the_section_answers_with_the_portions_that_come(
    students: Students,
) -> None:
    students.assert_equal(students.samples())
    students.kill("worker5", "worker6")
    time.sleep(FLOW_S)
    students.assert_lacking(students.samples(), {2})
    state = students.offload()
    assert (state.enough, state.given_up, state.computed_here) == (False, 0, 0)
    assert (state.sources[2], state.accuracy) == ("", ACCURACY["4"])
    students.signal(signal.SIGSTOP, "worker1", "worker2")
    time.sleep(2 * FLOW_S)
    students.assert_lacking(students.samples(), {0, 2})
    students.signal(signal.SIGCONT, "worker1")
    students.start("worker6")
    students.wait_until(lambda: students.offload().enough, "enough")
    students.assert_equal(students.samples())
    assert students.offload().given_up == 0


@pytest.mark.parametrize(
    "students", [{"DDNN_LAYER_HERE": "off", "DDNN_REPLAN_AFTER_S": "2"}], indirect=True
)
def test_a_group_that_left_for_good_gets_members_of_the_others(students: Students) -> None:
    """While everything runs: its two workers never come back, and no process is restarted."""
    plan = students.plan.id
    students.assert_equal(students.samples())
    pids = {name: students.site.fleet.find_pid(name) for name in ("edge", "worker1", "worker3")}
    students.kill("worker5", "worker6")
    time.sleep(FLOW_S)
    students.assert_lacking(students.samples(), {2})
    students.wait_until(lambda: students.offload().plan == f"{plan}-1", "the revision is in use")
    students.wait_until(lambda: students.offload().live_pieces == 3, "all students are held")
    students.assert_equal(students.samples())
    workers = students.offload().workers.values()
    held = [worker.pieces[0] for worker in workers if worker.planned]
    assert sorted(map(held.count, range(3))) == [1, 1, 2], "one worker has moved"
    assert pids == {name: students.site.fleet.find_pid(name) for name in pids}
    assert f"plan {plan}-1 is in use" in students.log("edge")
