"""`ddnn rollout` while a site runs: nobody is restarted, no sample is lost or a mixture; a bundle
whose answers are worse than promised is taken back.

Both bundles are real; in the second every sample of the local exit goes up. Nodes are killed while
it is prepared and after it is in use.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.exits.inference import infer
from ddnn.runtime.bundle import load_bundle, read_manifest, write_manifest
from ddnn.runtime.library import IN_USE
from tests.e2e.site_checks import is_recovered, wait_for_answers, wait_until

pytestmark = pytest.mark.timed

RATE_HZ = 20.0
DEADLINE_S = 1.5
COMMAND_S = 60.0
STORED_S = 60.0


@pytest.fixture
def next_bundle(scenes_bundle: Path, tmp_path: Path) -> Path:
    """The same sections with other thresholds: another bundle."""
    path = tmp_path / "next"
    shutil.copytree(scenes_bundle, path)
    manifest = read_manifest(path)[0]
    thresholds = {**manifest.thresholds, "local": 0.0}
    write_manifest(path, msgspec.structs.replace(manifest, thresholds=thresholds))
    return path


def roll_out(ddnn: list[str], site, bundle: Path, *flags: str) -> dict:
    command = [*ddnn, "rollout", str(bundle), "--site", "demo", "--json", *flags]
    command += ["--broker-host", "127.0.0.1", "--broker-port", str(site.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "exit_code": done.returncode}


def read_bundles(site) -> dict[str, str]:
    """The bundle of each node as the page shows it."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(site.page + "api/v1/state", timeout=5.0) as response:
        state = json.load(response)
    return {node["id"]: node["bundle"] for node in state["nodes"]}


@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_a_site_changes_its_bundle_while_samples_flow(
    ddnn: list[str],
    open_site,
    scenes_bundle: Path,
    scenes_frames: Path,
    scenes_split,
    next_bundle: Path,
    broker: str,
) -> None:
    site = open_site(
        scenes_bundle,
        scenes_frames,
        scenes_split.labels,
        broker,
        rate_hz=RATE_HZ,
        deadline_s=DEADLINE_S,
        window_s=0.3,
    )
    loaded = [load_bundle(path, LiteRtSection) for path in (scenes_bundle, next_bundle)]
    by_id = {bundle.id: bundle for bundle in loaded}
    old, new = by_id
    wait_until(lambda: is_recovered(site), STORED_S, "start")
    pids = {node: site.fleet.find_pid(node) for node in site.fleet.nodes}
    first = site.tick()

    report = roll_out(ddnn, site, next_bundle)
    assert (report["state"], report["exit_code"], report["before"]) == ("done", 0, old), report
    since = report["first_sample"]
    wait_until(lambda: site.tick() > since + 3 * RATE_HZ, STORED_S, "the first sample")
    assert {n: site.fleet.find_pid(n) for n in site.fleet.nodes} == pids
    bundles = read_bundles(site)
    assert bundles == dict.fromkeys(bundles, new)
    assert {"edge", "cloud", "cam1", "cam6"} < set(bundles)

    for node in ("cam2", "edge"):  # after a restart they use it at once
        site.fleet.send_signal(node, signal.SIGKILL)
        site.fleet.start(node)
    wait_until(lambda: is_recovered(site), STORED_S, "recovery")
    (noted,) = site.state.rglob(f"cam2.bundles/{IN_USE}")
    assert json.loads(noted.read_text())["bundle"] == new
    wanted = range(first, site.tick() - int(DEADLINE_S * RATE_HZ))
    assert wait_for_answers(site, wanted, STORED_S) == []
    seen = {old: 0, new: 0}
    for record in site.list_stored(wanted):
        answer = record.answer
        if answer.quality != "full":
            continue
        assert answer.bundle == (old if answer.sample < since else new), answer
        seen[answer.bundle] += 1
        bundle = by_id[answer.bundle]
        images = scenes_split.images[site.frame(answer.sample)]
        expected = infer(bundle.manifest, bundle.sections, images)
        assert answer.exit == expected.exit
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-6)
    assert min(seen.values()) > RATE_HZ / 2, seen

    back = roll_out(ddnn, site, scenes_bundle)
    assert (back["state"], back["before"]) == ("done", new), back


def test_a_site_stays_with_or_returns_to_the_bundle_before(
    ddnn: list[str], open_site, scenes_bundle, scenes_frames, scenes_split, next_bundle: Path
) -> None:
    site = open_site(
        scenes_bundle, scenes_frames, scenes_split.labels, rate_hz=10.0, deadline_s=DEADLINE_S
    )
    wait_until(lambda: is_recovered(site), STORED_S, "start")
    manifest = read_manifest(next_bundle)[0]
    renamed = tuple(reversed(manifest.classes))
    write_manifest(next_bundle, msgspec.structs.replace(manifest, classes=renamed))
    report = roll_out(ddnn, site, next_bundle)
    assert (report["state"], report["first_sample"], report["exit_code"]) == ("failed", None, 2)
    assert "it knows other classes" in report["reason"]
    time.sleep(1.0)
    wait_until(lambda: is_recovered(site), STORED_S, "all stay")
    newest = site.list_stored(range(site.tick() - 20, site.tick()))
    assert {record.answer.bundle for record in newest} == {read_manifest(scenes_bundle)[1]}

    manifest = read_manifest(scenes_bundle)[0]
    promised = {mask: dict.fromkeys(row, 1.0) for mask, row in manifest.accuracy.items()}
    write_manifest(next_bundle, msgspec.structs.replace(manifest, accuracy=promised))
    report = roll_out(ddnn, site, next_bundle, "--watch-minutes", "1")
    assert (report["state"], report["exit_code"]) == ("done", 2), report
    watched, returned = report["watched"], report["returned"]
    assert watched["state"] == "failed", report
    assert f"{watched['correct']} of {watched['known']} answers" in watched["reason"]
    assert (returned["state"], returned["bundle"]) == ("done", report["before"]), report
    since = returned["first_sample"]
    wait_until(lambda: site.tick() > since + 30, STORED_S, "the bundle before")
    newest = site.list_stored(range(since, since + 20))
    assert {record.answer.bundle for record in newest} == {report["before"]}
