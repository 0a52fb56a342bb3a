"""`ddnn rollout` over TLS, with rights per node: only a signed order of a deployer is obeyed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ddnn.adapters.command import read_config
from ddnn.adapters.joined import open_guard
from ddnn.cli.observer import ObserverSettings
from ddnn.protocol.codec import decode_arrived, encode
from ddnn.protocol.commands import FORGED, REPLAYED, UNSIGNED
from ddnn.protocol.messages import Stats
from ddnn.protocol.rollout_messages import BundleOrder, BundleState
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import read_manifest, write_manifest
from ddnn.runtime.guard import Guard
from ddnn.runtime.library import find_bundle_path
from tests.integration.commands import run
from tests.integration.secure_site import Member, SecureSite

pytestmark = pytest.mark.timed

ORDER = Topic("home", Kind.BUNDLE_ORDER)
NODES = ("edge", "cam1")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SecureSite]:
    site = SecureSite(tmp_path)
    for node, role in (
        ("cam1", "device"),
        ("edge", "edge"),
        ("laptop", "deployer"),
        ("page", "dashboard"),
    ):
        site.add(node, role)
    site.start()
    yield site
    site.close()


def open_own_guard(file: Path, state: Path) -> Guard:
    keys = {"site_file": str(file), "state": str(state)}
    guard = open_guard(read_config(ObserverSettings, keys, {}))
    assert guard is not None
    return guard


def find_newest(member: Member, node: str, kind: type) -> Any:
    """The newest message of a kind that a node published."""
    for event in reversed(member.events):
        topic = getattr(event, "topic", "")
        if f"/node/{node}/" in topic and "/probe/" not in topic and "/cmd/" not in topic:
            message = decode_arrived(topic, event.payload)[1]
            if isinstance(message, kind):
                return message
    return None


def test_only_a_signed_order_of_a_deployer_changes_the_bundle(
    site: SecureSite, ddnn: list[str], scenes_bundle: Path, tmp_path: Path
) -> None:
    old = read_manifest(scenes_bundle)[1]
    next_path = tmp_path / "next"
    shutil.copytree(scenes_bundle, next_path)
    manifest = read_manifest(next_path)[0]
    new = write_manifest(next_path, msgspec.structs.replace(manifest, name="next"))
    frames = tmp_path / "frames"
    frames.mkdir()
    np.save(frames / "images.npy", np.zeros((4, 6, *manifest.image_shape), np.uint8))
    np.save(frames / "view_labels.npy", np.full((4, 6), -1, np.int32))
    laptop = Member(tmp_path / "laptop.site").connect("ddnn/v1/home/node/+/bundle")
    page = Member(tmp_path / "page.site").connect("ddnn/v1/home/node/+/stats")
    for node, app, *more in (
        ("edge", "edge_app"),
        ("cam1", "device_app", "--source", f"frames:{frames}", "--rate-hz", "5"),
    ):
        flags = ["--bundle", str(scenes_bundle), "--state", str(tmp_path / "state")]
        flags += ["--site-file", str(tmp_path / f"{node}.site"), "--stats-every-s", "0.3"]
        command = [sys.executable, "-m", app, *flags, *more]
        site.fleet.start(node, command, {"OMP_NUM_THREADS": "1"})

    def is_refused(count: str) -> bool:
        found = [find_newest(page, node, Stats) for node in NODES]
        return all(stats is not None and stats.counts.get(count) for stats in found)

    def read_state(node: str) -> BundleState:
        state = find_newest(laptop, node, BundleState)
        assert isinstance(state, BundleState)
        return state

    try:
        for node in NODES:
            laptop.wait_until(lambda node=node: find_newest(laptop, node, BundleState))
        order = encode(BundleOrder(new, "0" * 64, 100, 0, 0.0))
        guard = open_own_guard(tmp_path / "laptop.site", tmp_path / "laptop")
        replayed = guard.seal(ORDER, encode(BundleOrder(old, "0" * 64, 0)))
        laptop.transport.publish(str(ORDER), order, 1, True)
        page.wait_until(lambda: is_refused(UNSIGNED))
        altered = msgspec.json.decode(guard.seal(ORDER, order))
        altered["command"]["since"] = 7
        laptop.transport.publish(str(ORDER), msgspec.json.encode(altered), 1, True)
        page.wait_until(lambda: is_refused(FORGED))
        page.transport.publish(str(ORDER), guard.seal(ORDER, order), 1, True)  # has no right
        page.sync()
        assert {read_state(node).ordered for node in NODES} == {""}

        command = [*ddnn, "rollout", str(next_path), "--site-file", str(tmp_path / "laptop.site")]
        done = run([*command, "--json"], DDNN_STATE=str(tmp_path / "laptop"))
        report = json.loads(done.stdout)
        assert (report["state"], report["before"]) == ("done", old), done
        assert set(report["away"]) == {"cloud", *(f"cam{i}" for i in range(2, 7))}
        for node in NODES:
            laptop.wait_until(lambda node=node: read_state(node).in_use == new)
            assert (
                read_manifest(find_bundle_path(tmp_path / "state", node, scenes_bundle))[1] == new
            )
        laptop.transport.publish(str(ORDER), replayed, 1, True)
        page.wait_until(lambda: is_refused(REPLAYED))
        assert {read_state(node).in_use for node in NODES} == {new}
    finally:
        laptop.close()
        page.close()
