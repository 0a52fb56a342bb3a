"""`python -m device_app --check` names what is wrong with a camera or its device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.test_device import write_pictures
from tests.integration.video_file import need_opencv

pytestmark = pytest.mark.timed


def check(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "device_app", "--node", "cam1", "--check", *flags],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_reports_what_is_wrong(scenes_bundle: Path, tmp_path: Path) -> None:
    need_opencv()
    state = ["--state", str(tmp_path / "state")]
    bundle = ["--bundle", str(scenes_bundle), *state]
    write_pictures(tmp_path / "pictures", np.zeros((2, 32, 32, 3), np.uint8))
    good = check(*bundle, "--source", f"directory:{tmp_path}/pictures", "--roi", "0,0,0.5,1")
    assert good.returncode == 0, good.stderr
    assert "the configuration is valid" in good.stdout
    assert "a frame of 32x32 pixels" in good.stdout
    assert re.search(r"section of 32x32 pixels: .* ms, so that at most \d+ samples/s", good.stdout)
    hush = "rtsp://me:hush@127.0.0.1:9/live"
    (tmp_path / "uri").write_text(hush)
    (tmp_path / "wrong").write_text("hush")
    for flags, code, words in [
        (["--source", "webcam"], 2, "--source 'webcam'"),
        ([], 2, "either --source or --source-file"),
        (["--source", "video:x", "--roi", "0,0,2,1"], 2, "--roi"),
        (["--source", "video:x", "--motion", "2"], 2, "motion"),
        (["--source", "video:x", "--node", "cam9"], 2, "'cam9' is no device of the bundle"),
        (["--source", "video:x", "--bundle", "/nowhere"], 2, "not a bundle"),
        (["--source", f"video:{tmp_path}/none.mp4"], 2, "no such file"),
        (["--source", "v4l2:///dev/null"], 8, "no camera that gives pictures"),
        (["--source", "picamera://0"], 2, "apt install python3-picamera2"),
        (["--source", hush], 2, "--source-file"),
        (["--source-file", str(tmp_path / "uri")], 8, "rtsp://me:***@127.0.0.1:9/live"),
        (["--source-file", str(tmp_path / "wrong")], 2, "its first line is no source"),
        (["--source-file", str(tmp_path / "none")], 2, "none"),
    ]:
        bad = check(*bundle, *flags)
        assert bad.returncode == code, (flags, bad.stderr)
        assert words in bad.stderr, flags
        assert "hush" not in bad.stderr + bad.stdout
        assert "configuration is valid" not in bad.stdout
        assert bad.stderr.count("error: ") == 1, bad.stderr
        assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("flag", [["--check"], []])
def test_a_32_bit_system_is_refused_in_one_line(flag: list[str], tmp_path: Path) -> None:
    """Where LiteRT cannot even be installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import platform, sys\n"
        "platform.machine = lambda: 'armv7l'\n"
        "sys.modules['ai_edge_litert'] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "device_app", "--node", "cam1", "--bundle", "x", *flag],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: this is a 32-bit system (armv7l")
    assert "64-bit edition of Raspberry Pi OS" in done.stderr
    assert done.stderr.count("\n") == 1
