"""`ddnn collect` over TLS with real devices, one of which is killed while it records."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ddnn.data.recordings import read_description
from ddnn.protocol.topics import Kind, parse, topic_filter
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.pictures import read_picture
from ddnn.runtime.transport import Arrived
from tests.integration.commands import run
from tests.integration.secure_site import Member, SecureSite

PICTURES, SAMPLES, EVERY_S = 8, 30, 0.2
IN_TIME_S = 60.0


def write_source(directory: Path) -> str:
    """Pictures whose brightness is their number. Return the URI of a camera that shows them."""
    from PIL import Image

    directory.mkdir()
    for number in range(PICTURES):
        picture = Image.new("RGB", (80, 60), (30 * number,) * 3)
        picture.paste((255, 255, 255), (5 * number, 10, 5 * number + 10, 30))
        picture.save(directory / f"{number}.png")
    return f"directory:{directory}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SecureSite]:
    site = SecureSite(tmp_path)
    for node, role in (("cam1", "device"), ("cam2", "device"), ("laptop", "collector")):
        site.add(node, role)
    site.start()
    yield site
    site.close()


@pytest.fixture
def start_camera(fleet: Fleet, site: SecureSite, tmp_path: Path):
    def start(node: str) -> None:
        command = [
            sys.executable,
            "-m",
            "device_app",
            "--site-file",
            str(tmp_path / f"{node}.site"),
        ]
        source = tmp_path / f"source-{node}"
        uri = f"directory:{source}" if source.exists() else write_source(source)
        flags = ["--source", uri, "--state", str(tmp_path / "state"), "--rate-hz", "5"]
        fleet.start(node, [*command, *flags, "--allow-recording", "on"])

    return start


def wait_until_online(file: Path, nodes: set[str]) -> None:
    """Wait until the broker knows that these nodes are online."""
    member = Member(file).connect(topic_filter(Kind.STATUS, "home"))

    def list_online() -> set[str]:
        arrived = [event for event in member.events if isinstance(event, Arrived)]
        return {parse(e.topic).node for e in arrived if b'"online"' in e.payload}

    member.wait_until(lambda: nodes <= list_online())
    member.close()


@pytest.mark.timeout(150)
def test_cameras_that_are_killed_and_come_back_leave_whole_pictures_of_common_ticks(
    start_camera, fleet: Fleet, tmp_path: Path, ddnn: list[str]
) -> None:
    """Its orders are signed, and the broker's access lists let pictures pass to it alone."""
    out = tmp_path / "photos"
    for node in ("cam1", "cam2"):
        start_camera(node)
    wait_until_online(tmp_path / "laptop.site", {"cam1", "cam2"})
    flags = ["--out", str(out), "--label", "person", "--samples", str(SAMPLES), "--json"]
    more = [
        "--every-s",
        str(EVERY_S),
        "--distinct",
        "-1",
        "--site-file",
        str(tmp_path / "laptop.site"),
    ]
    collecting = subprocess.Popen(
        [*ddnn, "collect", *flags, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        until_s = time.monotonic() + IN_TIME_S
        while len(list(out.glob("cam2/person/*.jpg"))) < 4 and time.monotonic() < until_s:
            assert collecting.poll() is None, collecting.communicate()
            time.sleep(0.05)
        fleet.send_signal("cam2", signal.SIGKILL)
        while fleet.is_alive("cam2"):
            time.sleep(0.02)
        start_camera("cam2")
        printed, said = collecting.communicate(timeout=IN_TIME_S)
    finally:
        collecting.kill()
    report = json.loads(printed)
    assert (collecting.returncode, report["failure"]) == (0, ""), said
    samples = {
        node: {file.stem: file for file in (out / node / "person").iterdir()}
        for node in ("cam1", "cam2")
    }
    assert report["pictures"] == {node: len(files) for node, files in samples.items()}
    found = read_description(out)
    burst = found.sessions[0].bursts[0]
    assert (found.classes, burst.pictures) == (["person"], report["pictures"])
    assert 4 <= len(samples["cam2"]) <= SAMPLES
    assert SAMPLES / 2 < len(samples["cam1"]) <= SAMPLES  # a busy machine misses ticks
    for files in samples.values():
        for name, file in files.items():
            tick = int(name.rpartition("-")[2])
            assert burst.from_s <= tick * EVERY_S < burst.until_s
            shown = tick % PICTURES  # the tick names the picture
            picture = read_picture(file)
            assert picture.shape == (60, 80, 3)
            assert round(float(np.median(picture)) / 30) == shown
    assert "RECORDING" in (tmp_path / "logs" / "cam1.log").read_text()


def test_without_a_device_that_allows_it_nothing_is_recorded(
    port: int, tmp_path: Path, ddnn: list[str]
) -> None:
    found = run([*ddnn, "collect", "--out", str(tmp_path / "p"), "--broker-port", str(port)])
    assert found.returncode == 8
    assert "--allow-recording on" in found.stderr
    assert not list((tmp_path / "p").rglob("*.jpg"))
