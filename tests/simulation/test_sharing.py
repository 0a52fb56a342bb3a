"""An edge that shares its layer among workers, in virtual time: coded = uncoded, for every loss.

"Equal" means equal to a site without workers, whose edge computes everything: exit, label, members,
quality of every sample; probabilities within the certified error.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest

from ddnn.coding.constructions import (
    make_low_weight,
    make_mds,
    make_parity,
    make_replication,
    make_uncoded,
)
from ddnn.machines.placement import SETTLE_S
from ddnn.protocol.messages import Answer
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulation import Network
from tests.simulation.made import reference
from tests.simulation.scenario import PERIOD_S, TIMING
from tests.simulation.shared import EDGE, START_S, STEADY, TIMEOUT_S, Run, Site, assert_in_time

SAMPLES = 30
END_S = START_S + SAMPLES * PERIOD_S

CODES = {
    "none": lambda: make_uncoded(4),
    "replication": lambda: make_replication(6, 1),
    "parity": lambda: make_parity(6),
    "mds": lambda: make_mds(6, 2),
    "low weight": lambda: make_low_weight(6, 2),
}


@cache
def site(name: str = "mds") -> Site:
    return Site(CODES[name]())


@cache
def uncoded(name: str = "mds", samples: int = SAMPLES) -> dict[int, Answer]:
    """What a site without workers answers: the sections do not depend on the code."""
    store = site(name).without_workers(samples).simulation.store
    answers = {sample: answer for (_, sample), answer in store.items()}
    assert len(answers) == samples
    assert {answer.exit for answer in answers.values()} == {"local", "edge", "cloud"}
    return answers


def assert_equal(run: Run, expected: dict[int, Answer], samples=None) -> None:
    for sample in expected if samples is None else samples:
        answer, other = run.store[sample], expected[sample]
        for field in ("exit", "label", "members", "missing", "quality", "late", "truth"):
            assert getattr(answer, field) == getattr(other, field), (sample, field)
        np.testing.assert_allclose(
            answer.probabilities, other.probabilities, rtol=0, atol=run.site.error
        )


def escalated(expected: dict[int, Answer]) -> int:
    """How many samples needed the shared layer."""
    return sum(answer.exit != "local" for answer in expected.values())


# --------------------------------------------------------------------- coded = uncoded


@pytest.mark.parametrize("name", CODES)
def test_coded_equals_uncoded(name):
    run = site(name).run_of()
    run.scenario.run()
    assert_equal(run, uncoded(name))
    assert_in_time(run)
    sharing = run.sharing
    assert (sharing.combined, sharing.computed_here, sharing.given_up) == (
        escalated(uncoded(name)),
        0,
        0,
    )
    assert {worker.state for worker in sharing.workers.values()} == {"live"}
    assert sharing.live_pieces == sharing.pieces


def test_a_worker_may_have_several_shards():
    """Six shards on three workers of unequal power; the strongest may vanish."""
    site = Site(make_mds(6, 3), {"big": (0, 2, 5), "mid": (1, 4), "small": (3,)}, tolerate=1)
    run = site.run_of()
    run.at(START_S + 0.5, "crash", "big")
    run.scenario.run()
    assert_equal(run, uncoded())
    assert run.sharing.computed_here == 0


@pytest.mark.parametrize("how", ["crash", "stall"])
@pytest.mark.parametrize("gone", list(combinations(range(1, 7), 2)), ids=str)
def test_any_two_of_six_vanish(gone, how):
    """At one third of the samples: none is computed here, all are equal."""
    run = site().run_of()
    run.at(START_S + 10 * PERIOD_S + 0.0137, how, *(f"worker{i}" for i in gone))
    run.scenario.run()
    assert_equal(run, uncoded())
    assert_in_time(run)
    assert run.sharing.combined == escalated(uncoded())


@pytest.mark.parametrize("name", ["mds", "low weight"])
def test_crashes_at_every_event(name):
    """Each pair of crashes at another moment of the two workers' lives, start-up included."""
    samples = 8
    expected = uncoded(name, samples)
    events = 5 + 2 * escalated(expected)  # born, kept, connected, assigned, loaded; task, computed
    pairs = list(combinations(range(1, 7), 2))
    for moment in range(2 * (events + 1)):
        run = site(name).run_of(samples=samples)
        first, second = pairs[moment % len(pairs)]
        run.simulation.crash_after(f"home/worker{first}", moment // 2)
        run.simulation.crash_after(f"home/worker{second}", (moment * 7) % (events + 1))
        run.scenario.run(settle_s=3.0)
        assert_equal(run, expected)
        assert_in_time(run)
        assert run.sharing.combined == escalated(expected), moment


@pytest.mark.parametrize("seed", range(12))
def test_at_most_two_gone_at_any_moment(seed):
    """Crashes, restarts, stalls and resumptions at random; samples at random moments of them."""
    generator = np.random.default_rng(seed)
    run = site("mds" if seed % 2 else "low weight").run_of(seed=3)
    free_s = dict.fromkeys(run.site.workers, START_S - 0.2)
    for _ in range(2):  # in each lane at most one worker is gone at a time
        at_s = START_S + generator.random() * 0.3
        while at_s < END_S - 0.8:
            for_s = min(0.05 + generator.exponential(0.5), END_S - 0.5 - at_s)
            back_s = at_s + for_s + 0.6  # it has loaded, and is trusted again
            worker = next(w for w in generator.permutation(sorted(free_s)) if free_s[w] < at_s)
            free_s[worker] = back_s
            down, up = [("crash", "start"), ("stall", "resume")][generator.integers(2)]
            run.at(at_s, down, worker)
            run.at(at_s + for_s, up, worker)
            at_s = back_s + generator.random() * 0.2
    run.scenario.run()
    assert_equal(run, uncoded())
    assert_in_time(run)
    assert run.sharing.computed_here == 0
    assert run.sharing.live_pieces == 6  # all are back at the end


@pytest.mark.parametrize("seed", range(8))
def test_any_number_gone_at_any_moment(seed):
    """Also more than two: then the edge computes the layer, and the answers are equal still."""
    generator = np.random.default_rng(100 + seed)
    run = site().run_of()
    for worker in run.site.workers:
        at_s = START_S + generator.random()
        while at_s < END_S - 1.0:
            down, up = [("crash", "start"), ("stall", "resume")][generator.integers(2)]
            for_s = min(generator.exponential(0.8), END_S - 0.8 - at_s)
            run.at(at_s, down, worker)
            run.at(at_s + for_s, up, worker)
            at_s += for_s + generator.exponential(0.8)
    run.scenario.run()
    assert_equal(run, uncoded())
    assert_in_time(run)
    assert 0 < run.sharing.computed_here < escalated(uncoded())
    assert run.sharing.live_pieces == 6


# ---------------------------------------------------------------------------- latency


def latencies(run: Run, samples) -> np.ndarray:
    exits = ("edge", "cloud")
    return np.array([run.store[n].latency_s for n in samples if run.store[n].exit in exits])


@pytest.mark.parametrize("how", ["crash", "stall"])
def test_nobody_waits_for_the_dead(how):
    """Without jitter the latency with two of six gone is exactly the fault-free one, from the
    first sample on: before anybody can know that they are gone."""
    plain, faulty = site().run_of(network=STEADY), site().run_of(network=STEADY)
    faulty.at(START_S - 0.001, how, "worker2", "worker5")
    plain.scenario.run()
    faulty.scenario.run()
    before, after = latencies(plain, range(SAMPLES)), latencies(faulty, range(SAMPLES))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-9)
    assert faulty.sharing.computed_here == 0


def test_without_redundancy_the_time_out_shows():
    """The baseline: computed again after the failure was detected. Equal, but two samples wait."""
    plain, faulty = site("none").run_of(network=STEADY), site("none").run_of(network=STEADY)
    faulty.at(START_S - 0.001, "stall", "worker2")
    plain.scenario.run()
    faulty.scenario.run()
    assert_equal(faulty, uncoded("none"))
    more_s = latencies(faulty, range(SAMPLES)) - latencies(plain, range(SAMPLES))
    assert sorted(more_s > TIMEOUT_S / 2)[-3:] == [False, True, True]
    assert sorted(more_s)[-2] == pytest.approx(TIMEOUT_S, abs=0.01)
    assert faulty.sharing.computed_here == escalated(uncoded("none"))


def test_without_redundancy_a_death_is_not_waited_for_longer_than_the_broker_needs():
    plain, faulty = site("none").run_of(network=STEADY), site("none").run_of(network=STEADY)
    first = min(n for n, answer in uncoded("none").items() if answer.exit != "local")
    faulty.at(START_S + first * PERIOD_S + 0.012, "crash", "worker2")  # it has the task
    plain.scenario.run()
    faulty.scenario.run()
    will_s = STEADY.will_after_s
    more_s = faulty.store[first].latency_s - plain.store[first].latency_s
    assert will_s - 0.02 < more_s < will_s < TIMEOUT_S
    assert_equal(faulty, uncoded("none"))


def test_a_straggler_threshold_waits_for_all_that_are_live():
    """Hadidi et al.: with a threshold the slow ones are waited for, so long and no longer."""
    threshold_s = 0.03
    run = site().run_of(network=STEADY, threshold_s=threshold_s)
    fast = site().run_of(network=STEADY)
    run.at(START_S - 0.001, "stall", "worker2", "worker5")
    for each in (run, fast):
        each.scenario.run()
    more_s = latencies(run, range(SAMPLES)) - latencies(fast, range(SAMPLES))
    work_s = 0.002 + 4 * STEADY.latency_s  # the answers are there after it
    np.testing.assert_allclose(more_s[:1], threshold_s - work_s, atol=1e-9)
    np.testing.assert_allclose(more_s[4:], 0.0, atol=1e-9)  # nobody counts on them any more
    assert_equal(run, uncoded())


# ----------------------------------------------------------------- more than s are gone


@pytest.mark.parametrize("how", [("crash", "start"), ("stall", "resume")], ids="-".join)
def test_more_than_s_gone_the_edge_computes_itself(how):
    run = site().run_of()
    gone = ("worker1", "worker3", "worker4")
    run.at(START_S + 1.0, how[0], *gone)
    run.at(START_S + 2.0, how[1], *gone)
    run.scenario.run()
    assert_equal(run, uncoded())
    assert_in_time(run)
    sharing = run.sharing
    assert sharing.combined + sharing.computed_here == escalated(uncoded())
    lost = sum(answer.exit != "local" for n, answer in uncoded().items() if 10 <= n < 20)
    assert lost - 1 <= sharing.computed_here <= lost + 2  # and when they are back, they are used
    assert sharing.enough
    assert sharing.live_pieces == 6


def test_an_edge_that_cannot_compute_the_layer_falls_back():
    """To the local exit, marked; in time; and only while too many are gone."""
    run = site().run_of(compute_here=False)
    gone = ("worker1", "worker3", "worker4")
    run.at(START_S + 1.0, "crash", *gone)
    run.at(START_S + 2.0, "start", *gone)
    run.scenario.run()
    assert_in_time(run)
    assert_equal(run, uncoded(), [*range(10), *range(22, SAMPLES)])
    fallen = [n for n in range(10, 20) if uncoded()[n].exit != "local"]
    assert fallen
    for n in fallen:
        assert (run.store[n].exit, run.store[n].quality) == ("local", "degraded")
        local = next(verdict for verdict in uncoded()[n].exit_trace if verdict[0] == "local")
        assert run.store[n].label == local[1]
    assert run.sharing.computed_here == 0
    assert len(fallen) <= run.sharing.given_up <= len(fallen) + 2


def test_stalled_workers_that_recover_are_used_again():
    """Nobody is lost for the broker: they are asked now and then, until they answer."""
    run = site().run_of()
    run.at(START_S + 0.5, "stall", *run.site.workers)
    run.at(START_S + 1.2, "resume", *run.site.workers)
    run.scenario.run()
    assert_equal(run, uncoded())
    late = [n for n in range(25, SAMPLES) if uncoded()[n].exit != "local"]
    assert late
    assert run.sharing.enough
    decoded = run.sharing.combined
    early = sum(uncoded()[n].exit != "local" for n in range(5))
    assert decoded > early + len(late) - 1


def test_workers_that_are_always_too_late_are_not_waited_for():
    """Slower than the time-out: after two samples the edge computes at once."""
    run = site().run_of(network=STEADY)
    for name in ("worker1", "worker2", "worker3"):
        run.simulation.node(f"home/{name}").costs = Costs(any_section_s=3 * TIMEOUT_S)
    run.scenario.run()
    assert_equal(run, uncoded())
    waited = latencies(run, range(SAMPLES)) > TIMEOUT_S
    assert waited.sum() <= 2
    assert {run.sharing.workers[f"worker{i}"].state for i in (1, 2, 3)} == {"stalled"}


# ------------------------------------------------------------- spares, and coming back


def test_a_spare_takes_over_and_gives_back():
    """After two deaths a spare makes a third one bearable; who comes back has its own again."""
    run = site().run_of()
    run.simulation.at(START_S + 0.5, lambda: run.add("spare1"))
    run.at(START_S + 0.8, "crash", "worker1", "worker4")
    seen = {}
    run.simulation.at(START_S + 1.4, lambda: seen.update(without=run.sharing))
    run.at(START_S + 1.5, "crash", "worker6")  # a third one
    run.at(START_S + 2.0, "start", "worker1", "worker4", "worker6")
    run.scenario.run()
    assert_equal(run, uncoded())
    assert_in_time(run)
    assert run.sharing.computed_here == 0
    assert seen["without"].workers["spare1"].pieces == [0]  # of worker1
    assert seen["without"].workers["spare1"].state == "live"
    assert seen["without"].live_pieces == 5
    assert run.sharing.workers["spare1"].pieces == []  # its stay is over
    assert {w: list(p) for w, p in run.site.workers.items()} == {
        name: run.sharing.workers[name].pieces for name in run.site.workers
    }
    assert run.machine("spare1").gauges["pieces_held"] == 0
    assert run.sharing.live_pieces == 6


def test_a_spare_stands_in_for_one_that_hangs():
    """Its connection is alive, so that no Will tells: it does not answer, which is enough."""
    run = site().run_of(network=Network(stall_will_after_s=1e9))
    run.add("spare1")
    run.at(START_S + 0.1, "stall", "worker3")
    run.scenario.run()
    assert_equal(run, uncoded())
    assert run.sharing.workers["worker3"].state == "stalled"
    assert run.sharing.workers["spare1"].pieces == [2]
    assert run.sharing.live_pieces == 6


def test_spares_alone_will_do():
    """No planned worker ever comes."""
    run = site().run_of()
    for name in run.site.workers:
        run.simulation.crash(f"home/{name}")
    for i in range(4):
        run.add(f"spare{i}")
    run.scenario.run()
    assert_equal(run, uncoded())
    assert run.sharing.computed_here == 0
    assert run.sharing.live_pieces == 4


# ------------------------------------------------------- the edge, the broker, the network


@pytest.mark.parametrize("what", ["edge crashes", "broker dies"])
def test_after_an_outage_the_workers_go_on(what):
    """They keep their pieces: nothing is loaded again, spares included."""
    run = site().run_of()
    run.add("spare1")
    run.simulation.crash("home/worker5")
    down_s, up_s = START_S + 1.0, START_S + 1.3
    if what == "edge crashes":
        run.simulation.at(down_s, lambda: run.simulation.crash(f"home/{EDGE}"))
        run.simulation.at(up_s, lambda: run.simulation.start(f"home/{EDGE}"))
    else:
        run.simulation.at(down_s, lambda: run.simulation.broker(False))
        run.simulation.at(up_s, lambda: run.simulation.broker(True))
    run.scenario.run(settle_s=15.0)
    assert run.store.keys() == uncoded().keys()
    assert_equal(run, uncoded(), [*range(9), *range(15, SAMPLES)])
    assert run.sharing.live_pieces == 6
    loaded = run.simulation.journal.loaded
    planned = [entry for entry in loaded if entry[0] > down_s and entry[1] != "home/spare1"]
    assert planned == []
    after = sum(uncoded()[n].exit != "local" for n in range(14, SAMPLES))
    assert run.sharing.combined >= after > 0
    assert run.sharing.computed_here <= 1 + SETTLE_S / PERIOD_S


@pytest.mark.parametrize("seed", range(6))
def test_lossy_network(seed):
    """Loss, duplicates, reordering and random crashes: each sample answered in time, and what is
    answered at an exit is what the network says with those members."""
    network = Network(latency_s=0.003, jitter_s=0.004, loss=0.02, duplication=0.05, reordering=0.1)
    generator = np.random.default_rng(seed)
    run = site().run_of(samples=60, network=network, seed=seed)
    for _ in range(6):
        worker, at_s = f"worker{generator.integers(1, 7)}", START_S + generator.random() * 5
        run.at(at_s, "crash", worker)
        run.at(at_s + generator.random(), "start", worker)
    run.scenario.run(settle_s=30.0)
    manifest, sections = run.site.manifest, run.site.sections
    assert run.store.keys() == set(range(60))
    equal = 0
    for n, images in enumerate(run.scenario.images):
        answer = run.store[n]
        if answer.exit == "device":
            continue
        expected = reference(manifest, sections, images, manifest.hierarchy.mask(answer.members))
        if answer.exit == expected.exit:
            equal += 1
            assert answer.label == expected.label
            np.testing.assert_allclose(
                answer.probabilities, expected.probabilities, rtol=0, atol=run.site.error
            )
    assert equal > 40
    assert run.sharing.combined > 5
    first_s = {}
    for at_s, _, answer in run.simulation.answers:
        first_s.setdefault(answer.sample, at_s - (START_S + answer.sample * PERIOD_S))
    assert max(first_s.values()) <= TIMING.deadline_s


def test_same_seed_same_run():
    def once():
        run = site().run_of(network=Network(loss=0.02, duplication=0.05, reordering=0.1))
        run.at(START_S + 0.7, "crash", "worker2")
        run.scenario.run()
        return run.simulation.answers, run.simulation.journal.handled, run.sharing

    assert once() == once()


# -------------------------------------------------------------------------- the faulty


def lying(site: Site, factor: float = 1.5):
    def lie(section):
        return lambda arrays: {"z": section(arrays)["z"] * np.float32(factor)}

    return {name: lie(section) for name, section in site.shards.items()}


def test_a_liar_is_found_and_left_out_until_it_starts_anew():
    run = site().run_of()
    liar = run.simulation.node("home/worker2")
    truth, liar.sections = liar.sections, lying(run.site)
    seen = {}
    run.simulation.at(START_S + 1.5, lambda: seen.update(found=run.sharing))

    def start_again():
        run.simulation.crash("home/worker2")
        liar.sections = truth
        run.simulation.start("home/worker2")

    run.simulation.at(START_S + 2.0, start_again)
    run.scenario.run()
    assert seen["found"].workers["worker2"].state == "faulty"
    assert [w.state for w in seen["found"].workers.values()].count("live") == 5
    assert run.machine(EDGE).counts["workers_faulty"] == 1
    found = min(n for n in range(SAMPLES) if uncoded()[n].exit != "local") + 2
    assert_equal(run, uncoded(), range(found, SAMPLES))
    assert run.sharing.workers["worker2"].state == "live"
    assert run.sharing.live_pieces == 6


def test_a_liar_that_one_parity_cannot_name_is_not_believed():
    """A contradiction is seen and nobody can be blamed: the edge computes itself, for as long as
    the answers contradict each other."""
    run = site("parity").run_of()
    run.simulation.node("home/worker2").sections = lying(run.site)
    run.scenario.run()
    deep = [n for n in range(SAMPLES) if uncoded("parity")[n].exit != "local"]
    assert_equal(run, uncoded("parity"), range(deep[1], SAMPLES))
    assert run.sharing.computed_here >= len(deep) - 2
    assert_in_time(run)


def test_a_bit_that_flipped_once_costs_little():
    """After a while without a contradiction the answers are believed again."""
    site = Site(CODES["parity"]())
    run = site.run_of(samples=160)
    node = run.simulation.node("home/worker2")
    truth, node.sections = node.sections, lying(site)

    def mend():
        node.sections = truth

    run.simulation.at(START_S + 0.6, mend)
    run.scenario.run()
    assert run.sharing.computed_here < 8
    assert run.sharing.combined > 40
    assert_in_time(run)


def test_a_worker_whose_section_fails_is_as_good_as_dead():
    run = site().run_of(network=STEADY)
    plain = site().run_of(network=STEADY)
    broken = {
        name: lambda arrays: {"z": np.full(10, np.nan, np.float32)} for name in run.site.shards
    }
    run.simulation.node("home/worker3").sections = broken
    for each in (run, plain):
        each.scenario.run()
    assert_equal(run, uncoded())
    np.testing.assert_allclose(
        latencies(run, range(SAMPLES)), latencies(plain, range(SAMPLES)), atol=1e-9
    )
    assert run.sharing.workers["worker3"].state == "stalled"


# --------------------------------------------------------------------------- the scale


@pytest.mark.parametrize(("make", "s"), [(make_mds, 8), (make_low_weight, 4)])
def test_a_thousand_workers(make, s):
    """Any s of them gone, in two ways: equal answers, and nobody waits."""
    n, samples = 1000, 8
    big = Site(make(n, s, trials=1), units=2 * n)
    run, plain = (big.run_of(samples=samples, network=STEADY) for _ in range(2))
    gone = np.random.default_rng(1).choice(n, s, replace=False) + 1
    run.at(START_S - 0.01, "crash", *(f"worker{i}" for i in gone[: s // 2]))
    run.at(START_S - 0.01, "stall", *(f"worker{i}" for i in gone[s // 2 :]))
    for each in (run, plain):
        each.scenario.run(settle_s=2.0)
    whole = big.without_workers(samples).simulation.store
    expected = {sample: answer for (_, sample), answer in whole.items()}
    assert_equal(run, expected)
    assert run.sharing.combined == escalated(expected) > 4
    np.testing.assert_allclose(
        latencies(run, range(samples)), latencies(plain, range(samples)), rtol=0, atol=1e-9
    )
