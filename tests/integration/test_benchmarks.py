"""The benchmarks of a running site: they measure real parts, and notice what does not hold."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cloud.many_sites import measure_sites
from benchmarks.cloud.page import measure_page
from benchmarks.coding import straggler_processes, stragglers
from benchmarks.coding.latency import measure_latency
from benchmarks.harness.report import format_rows
from benchmarks.harness.synthetic_answers import draw_answers
from benchmarks.harness.worker_figures import Samples, Verdict
from benchmarks.harness.worker_site import LAYER_TIMEOUT_S, Phase
from benchmarks.harness.worker_site import RATE_HZ as LATENCY_RATE_HZ
from benchmarks.hierarchy import measure_bare_exchange
from benchmarks.site_cpu import ROLES, find_role, measure_site_cpu
from benchmarks.soak.faults import draw_faults, draw_spared
from benchmarks.soak.growth import BOUNDS, Life, judge_growth, measure_growth
from benchmarks.soak.run import run_soak
from benchmarks.soak.samples import find_owed, judge_samples
from cloud_app.store import Store
from ddnn.data import load
from ddnn.local_site.site import SiteConfig, StoredAnswer
from ddnn.runtime.bundle import read_manifest
from tests.conftest import ROOT
from tests.parts import need, need_mosquitto

NODES = ["broker", "cloud", "edge", *(f"cam{i}" for i in range(1, 7))]
RATE_HZ, DEADLINE_S = 10.0, 1.5


@pytest.fixture(scope="module")
def config(scenes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    split = load("scenes", samples=(50, 50, 50)).test
    frames = tmp_path_factory.mktemp("benchmark") / "frames"
    frames.mkdir()
    np.save(frames / "images.npy", split.images)
    np.save(frames / "view_labels.npy", split.view_labels)
    return SiteConfig(read_manifest(scenes_bundle)[0], scenes_bundle, frames, split.labels)


# ------------------------------------------------------------- what is owed


def test_a_sample_is_owed_if_one_device_lives_from_its_capture_to_its_deadline():
    wanted = range(100, 200)  # 10.0 s to 19.9 s
    seen, stayed = find_owed([(12.0, 15.0), (11.0, 13.0)], wanted, RATE_HZ, DEADLINE_S)
    assert [s for s, yes in zip(wanted, seen, strict=True) if yes] == list(range(110, 150))
    expected = [*range(110, 116), *range(120, 136)]
    assert [s for s, yes in zip(wanted, stayed, strict=True) if yes] == expected


def make_records(samples: range, took_s: float = 0.1) -> list[StoredAnswer]:
    made = draw_answers(np.random.default_rng(0), ["demo"], 1, 1.0, 1.0)
    (_, answer), records = next(made), []
    for sample in samples:
        at_s = sample / RATE_HZ
        own = {"sample": sample, "captured_at_s": at_s, "label": 1}
        records.append(
            StoredAnswer(
                type(answer)(**{**_fields(answer), **own}), first_answered_at_s=at_s + took_s
            )
        )
    return records


def _fields(answer) -> dict:
    return {name: getattr(answer, name) for name in answer.__struct_fields__}


UP, WANTED = [(0.0, 1000.0)], range(100, 200)


def judge(records: list[StoredAnswer], up=UP) -> dict:
    return judge_samples(records, up, WANTED, RATE_HZ, DEADLINE_S)


def test_nothing_is_wrong_where_every_sample_is_stored_in_time():
    found = judge(make_records(WANTED))
    assert (found["samples"], found["owed"]) == (100, 100)
    assert [found["unanswered"], found["late"], found["repeated"]] == [[], {}, []]


def test_one_missing_late_or_repeated_answer_is_found():
    assert judge(make_records(range(101, 200)))["unanswered"] == [100]
    late = make_records(range(100, 199)) + make_records(range(199, 200), took_s=DEADLINE_S + 0.01)
    assert list(judge(late)["late"]) == [199]
    assert judge(make_records(WANTED) + make_records(range(150, 151)))["repeated"] == [150]


def test_an_answer_without_a_label_is_none():
    records = make_records(WANTED)
    empty = type(records[0].answer)(**{**_fields(records[7].answer), "label": -1})
    records[7] = StoredAnswer(empty, records[7].first_answered_at_s)
    assert judge(records)["unanswered"] == [107]


def test_what_nobody_saw_or_all_took_along_is_excused_and_counted():
    found = judge([], up=[(10.0, 12.0)])
    assert found["unanswered"] == list(range(100, 106))  # the device lived to their deadlines
    assert (found["lost_with_all_that_saw_it"], found["unseen"]) == (14, 80)


# ------------------------------------------------------------------- growth


def make_life(mb_per_s: float = 0.0, handles_per_s: float = 0.0, seconds: int = 120) -> Life:
    made = Life(process=None, started_s=0.0)  # type: ignore[arg-type]
    made.rows = [
        (float(s), 50 + mb_per_s * s, round(10 + handles_per_s * s), 2, 0.0)
        for s in range(seconds + 1)
    ]
    return made


def test_a_leak_is_found_and_a_steady_life_is_not():
    assert judge_growth({"edge": [make_life()]}, set(), long_lives=True)[1] == []
    _, wrong = judge_growth(
        {"edge": [make_life(), make_life(mb_per_s=0.1)]}, set(), long_lives=True
    )
    assert len(wrong) == 1
    assert "memory_mb" in wrong[0]
    _, wrong = judge_growth({"edge": [make_life(handles_per_s=0.1)]}, set(), long_lives=True)
    assert "handles" in wrong[0]


def test_a_life_too_short_to_judge_does_not_pass_as_judged():
    assert measure_growth(make_life(seconds=30).rows) is None
    figures, wrong = judge_growth({"edge": [make_life(seconds=30)]}, set(), long_lives=True)
    assert figures["edge"]["growth"] is None
    assert "no life" in wrong[0]


def test_a_queue_that_is_never_reported_is_within_no_bound():
    silent = make_life()
    silent.rows = [(*row[:4], float("nan")) for row in silent.rows]
    assert "queue" in judge_growth({"edge": [silent]}, set(), long_lives=True)[1][0]
    assert BOUNDS.queue > 0


# ------------------------------------------------------------------- faults


def test_the_faults_are_those_of_the_seed_and_hit_every_node():
    def draw_first(seed: int) -> list:
        made = draw_faults(np.random.default_rng(seed), NODES, NODES[3:], 3.0)
        return [next(made) for _ in range(300)]

    assert draw_first(1) == draw_first(1) != draw_first(2)
    assert {node for fault in draw_first(1) for node, _ in fault.kills} == set(NODES)
    assert {node for fault in draw_first(1) for node, _ in fault.stops} == set(NODES)
    assert any(len(fault.kills) + len(fault.stops) == 6 for fault in draw_first(1))
    assert 2.7 < np.mean([fault.after_s for fault in draw_first(1)]) < 3.3


def test_every_node_is_spared_once():
    epochs = draw_spared(np.random.default_rng(0), NODES)
    assert sorted(node for epoch in epochs for node in epoch) == sorted(NODES)


# ------------------------------------------------------------------ reports


def test_processes_of_a_site_have_roles():
    python = ["/usr/bin/python3", "-m"]
    roles = [
        find_role([*python, "cloud_app", "--serve", "page"]),
        find_role([*python, "cloud_app", "--serve", "node"]),
        find_role([*python, "device_app", "--node", "cam1"]),
        find_role(["/usr/sbin/mosquitto", "-c", "x"]),
        find_role([*python, "ddnn.cli", "demo"]),
        find_role([]),
    ]
    assert roles == ["dashboard", "cloud", "device", "broker", None, None]


# ---------------------------------------------------------------- real runs


@pytest.mark.timeout(240)
@pytest.mark.timed
def test_a_short_soak_kills_real_processes_and_every_sample_is_answered(config: SiteConfig):
    need_mosquitto()
    result = run_soak(config, 12.0, 1, gap_s=1.0)
    assert result["holds"], result["failures"]
    assert sum(result["kills"].values()) >= 5
    assert result["owed"] > 50
    assert set(result["nodes"]) >= set(NODES)
    assert all(of["peak"]["handles"] > 0 for of in result["nodes"].values())
    assert not result["growth_judged"]  # 12 s cannot tell
    json.dumps(result, allow_nan=False)


def make_verdict(captured_s: float, took_s: float, right: bool = True) -> Verdict:
    return Verdict(captured_s + took_s, by_edge=True, full=True, right=right, error=0.0)


def test_samples_under_way_when_workers_vanish_count_as_hit():
    rate_hz = LATENCY_RATE_HZ
    answers_ = {n: make_verdict(n / rate_hz, 0.03) for n in range(100, 200)}
    answers_[150] = make_verdict(150 / rate_hz, LAYER_TIMEOUT_S + 0.01)
    answers_[170] = make_verdict(170 / rate_hz, 0.03, right=False)
    del answers_[180]
    hit = Samples()
    hit.add(Phase("none", "stopped", 100, 200, signalled_s=150.5 / rate_hz), answers_)
    assert hit.in_flight == 2  # 149, captured 30 ms before the signal, and 150
    assert len(hit.took_s) == 200 - 149 - 1
    assert (hit.lost, hit.late, hit.mislabelled, hit.waited) == (1, 0, 1, 1)
    assert max(hit.before_s) == pytest.approx(LAYER_TIMEOUT_S + 0.01)
    assert max(hit.after_s) == pytest.approx(0.03)
    assert len(hit.before_s) + len(hit.after_s) == len(hit.took_s)


def test_expected_delays_are_those_of_order_statistics():
    drawn = np.sort(
        np.random.default_rng(0).exponential(straggler_processes.MEAN_S, (100_000, 6)), axis=1
    )
    for k in (1, 4, 6):
        of_k = straggler_processes.FIXED_S + drawn[:, k - 1]
        assert stragglers.expected_mean_s(k, 6) == pytest.approx(of_k.mean(), rel=0.01)
        p99_s = stragglers.expected_quantile_s(k, 6, 0.99)
        assert p99_s == pytest.approx(np.percentile(of_k, 99), rel=0.02)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDNN_HOME", str(tmp_path / "home"))


def test_bare_clients_answer_every_sample():
    need_mosquitto()
    for tier in ("local", "cloud"):
        took_s = measure_bare_exchange(tier, {"answer": 700}, 2, 1.0)
        assert len(took_s) > 10, tier
        assert 0 < np.median(took_s) < 0.5


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("own_home")
def test_processor_time_is_measured_for_every_role(config: SiteConfig):
    need_mosquitto()
    found = measure_site_cpu(ROOT, rate_hz=20.0, seconds=2.0, bundle=config.bundle)
    assert set(found["cpu_ms_per_sample"]) == set(ROLES)
    # The broker's time may be below the clock's resolution.
    assert all(0 <= ms < 100 for ms in found["cpu_ms_per_sample"].values()), found
    assert found["cpu_ms_per_sample"]["edge"] > 0
    assert found["cpu_span"]["samples"] >= 40
    assert "cpu_ms_per_sample" in "\n".join(format_rows(found))


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("own_home")
@pytest.mark.timed
def test_workers_are_killed_and_stopped_and_no_answer_changes(config: SiteConfig):
    need_mosquitto()
    found = measure_latency(0, lambda *_: None, quick=True, config=config)
    assert found["answers_hold"], json.dumps(found)
    for system in ("coded", "none", "alone"):
        amiss = [found[system][what] for what in ("lost", "late", "degraded", "mislabelled")]
        assert amiss == [0, 0, 0, 0], system
        assert found[system]["free"]["samples"] >= 10
    for condition in ("killed", "stopped"):
        assert found["coded"][condition]["samples"] >= 10
        # Most wait for nobody; a few do where a busy machine stands still for as long.
        assert found["coded"][condition]["p50_ms"] < 1e3 * LAYER_TIMEOUT_S
    # Without redundancy the edge waits in vain for those who are silent.
    assert found["none"]["stopped"]["waited_for_timeout"] > 0
    assert 0 < found["coded"]["max_probability_error"] < 1e-4  # decoded, not computed at the edge
    assert found["bare"]["to_all"]["p50_ms"] >= found["bare"]["to_enough"]["p50_ms"] > 0
    json.dumps(found, allow_nan=False)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("own_home")
@pytest.mark.timed
def test_the_first_k_of_n_answers_are_there_before_all_are(config: SiteConfig):
    need_mosquitto()
    found = stragglers.measure_stragglers(0, lambda *_: None, quick=True, config=config)
    assert [(row["n"], row["k"]) for row in found["rows"]] == [(3, 2), (5, 3)]
    for row in found["rows"]:
        assert (row["lost"], row["wrong"]) == (0, 0)
        assert row["max_error"] < 1e-3
        assert row["tasks"] >= 5
        for mode in ("first_k", "all_n", "uncoded"):
            # No sooner than the injected delays allow, and no second later.
            assert 0 < row[mode]["own_p50_ms"] < 1000
        assert row["ratio_to_all_n"]["mean"] < 1
    json.dumps(found, allow_nan=False)


@pytest.mark.timeout(240)
@pytest.mark.timed
def test_edges_are_counted_against_one_cloud_and_a_bare_exchange(config: SiteConfig):
    need_mosquitto()
    found = measure_sites(config, 2, 3, 1.5, [2.0, 3.0], exits=["cloud"])["cloud"]
    # On a busy machine a sample may wait so long that it is not answered in full.
    sustained = [step for step in found["steps"] if step["sustained"]]
    assert sustained, found["steps"]
    for step in sustained:
        assert step["stored"] == step["full"] == step["samples"] > 0
        assert step["cores"]["cloud"] > 0
    assert found["sustained_samples_per_s"] == max(step["samples_per_s"] for step in sustained)
    assert any(step["sustained"] for step in found["bare_steps"]), found["bare_steps"]
    assert found["ratio_p99"] > 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_ingest_stores_and_confirms_every_answer(kind: str):
    from tests.postgres import need_postgres

    if kind == "postgresql":
        need_postgres()
    began_s = time.time()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.cloud",
            "--only",
            "ingest",
            "--databases",
            kind,
            "--answers",
            "2000",
            "--seconds",
            "1",
            "--json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    report = json.loads(done.stdout)
    found = report["ingest"][kind]
    assert done.returncode == (0 if found["holds"] else 1), done.stderr
    assert found["stored"] == found["given"] == 6000
    assert found["refused"] == 0
    assert found["bare_inserts_per_s"] > 0
    assert report["date"] >= time.strftime("%Y-%m-%d", time.localtime(began_s))
    assert report["command"].startswith("python -m benchmarks.cloud --only ingest")


@pytest.mark.timeout(240)
def test_the_page_is_timed_in_a_real_browser_over_what_is_stored(
    config: SiteConfig, tmp_path: Path
):
    need_mosquitto()
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    need(shutil.which("chromium") or shutil.which("chromium-browser"), "chromium is not installed")
    few, many = (f"sqlite:///{tmp_path / name}.db" for name in ("few", "many"))
    databases = [few, many]
    found = measure_page(databases.pop, config.bundle, 2000, 5, 0, lambda _: None)
    assert found["answers"] == 2000
    assert found["load"]["console_errors"] == []
    assert 0 < found["load"]["median_s"] < 10
    assert set(found["replies"]) == set(found["ratio"]) - {"load"}
    assert all(reply["bytes"] > 300 for reply in found["replies"].values())
    store = Store(many)
    assert store.summarize().answered == 2000
    assert sum(sum(b.exits.values()) for b in store.read_series(0, time.time(), 864_000)) == 2000
    store.close()
