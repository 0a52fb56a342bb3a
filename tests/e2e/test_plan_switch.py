"""`ddnn plan` is run again while a site runs: edge and workers change to the new plan for real.

No process is restarted, no sample is lost, late or a mixture of both plans, although workers are
killed before, while and after the plans change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.exits.manifest import Judgement
from ddnn.protocol.messages import Answer
from ddnn.runtime.bundle import load_bundle, read_manifest
from ddnn.runtime.plans import read_plan
from tests.e2e.watched_workers import (
    FLOW_S,
    LAYER_TIMEOUT_S,
    TIMES,
    Workers,
    is_equal,
    list_judgements,
)

pytestmark = pytest.mark.timed

PLAN_S = 120.0  # planning imports TensorFlow, on a machine that runs a site


def test_a_site_changes_its_plan_while_samples_flow(
    ddnn: list[str],
    open_site,
    scenes_bundle: Path,
    scenes_frames: Path,
    scenes_split,
    scenes_plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DDNN_LAYER_TIMEOUT_S", str(LAYER_TIMEOUT_S))
    own = tmp_path / "plan"
    shutil.copytree(scenes_plan, own)
    site = open_site(
        scenes_bundle,
        scenes_frames,
        scenes_split.labels,
        plan=own,
        thresholds=("local=0",),
        **TIMES,
    )
    workers = Workers(site, scenes_split.images)
    loaded = load_bundle(scenes_bundle, LiteRtSection)

    def expect(answer: Answer) -> list[Judgement]:
        """What the undistributed network says at the answer's exit, with its members."""
        images = scenes_split.images[answer.sample % len(scenes_split.images)]
        return list_judgements(
            loaded.manifest, loaded.sections, images, answer.members, answer.exit
        )

    time.sleep(1.5)  # the first samples: not yet by all cameras
    pids = {node: site.fleet.find_pid(node) for node in site.fleet.nodes}
    before = workers.offload()
    bundle = read_manifest(scenes_bundle)[1]
    assert (before.plan, before.pieces) == (read_plan(own, bundle).id, 6)
    first = site.tick()
    command = [*ddnn, "plan", "--bundle", str(scenes_bundle), "--out", str(own), "--workers", "5"]
    with (tmp_path / "plan.log").open("wb") as log:
        planning = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=lambda: os.nice(10))
    workers.kill("worker2")
    until_s = time.monotonic() + PLAN_S
    while planning.poll() is None:
        assert time.monotonic() < until_s, "ddnn plan did not end"
        time.sleep(0.1)
    assert planning.returncode == 0, (tmp_path / "plan.log").read_text()
    workers.kill("worker3")  # while the plans change
    new = read_plan(own, bundle)
    assert new.id != before.plan
    workers.wait_until(lambda: workers.offload().plan == new.id, "the new plan is in use")
    workers.start("worker2", "worker3")
    workers.wait_until_whole()
    workers.kill("worker1")  # one of five may vanish
    workers.samples(2 * FLOW_S)
    after = workers.offload()
    assert (after.plan, after.pieces, after.given_up) == (new.id, 5, 0)
    samples = range(first, site.tick())
    answers = workers.answers(samples)
    for answer in answers:
        expected = expect(answer)
        assert any(is_equal(answer, judgement) for judgement in expected), (answer, expected)
    # Planning takes a core: some samples may be answered by a shallower exit meanwhile.
    assert sum(answer.quality == "full" for answer in answers) > len(answers) / 2
    assert after.combined > 0  # by the new plan
    for node in ("edge", "worker4", "worker5", "worker6"):
        assert site.fleet.find_pid(node) == pids[node], f"{node} was restarted"
    assert f"plan {new.id} is in use" in workers.log("edge")
    workers.close()
