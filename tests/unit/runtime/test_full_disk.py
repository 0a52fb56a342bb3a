"""Directories that are written whole or not at all, on disks that are really full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddnn.errors import ConfigError
from ddnn.runtime.new_directory import require_writable, write_directory

SIZE = 512 << 10

WRITE = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from ddnn.errors import ConfigError
from ddnn.runtime.new_directory import require_space, write_directory

way, out, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(1).integers(0, 256, 4 << 20, np.uint8)

def write(fresh):
    if way == "probe":
        require_space(fresh, 2 << 20)
    elif way == "bytes":
        (fresh / "cam1.tflite").write_bytes(noise.tobytes())
    elif way == "archive":
        np.savez_compressed(fresh / "golden.npz", noise=noise)
    elif way == "many":
        for number in range(100):
            (fresh / f"{number}.bin").write_bytes(noise[:10_000].tobytes())
    elif way == "library":
        raise OSError("unable to write (errno = 28, error message = 'No space left on device')")

try:
    with write_directory(out) as fresh:
        (fresh / "manifest.json").write_text("{}")
        write(fresh)
except ConfigError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def check(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 2, done.stderr
    assert "make room" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["probe", "bytes", "archive", "library"])
def test_a_limit_of_file_sizes_leaves_nothing_behind(way: str, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = [sys.executable, "-c", WRITE, way, str(out), str(SIZE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    check(done, out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["probe", "bytes", "archive", "many"])
def test_a_full_disk_leaves_nothing_behind(way: str, tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o size={SIZE} tmpfs {tmp_path} || exit 77; "
        f'"$0" "$@"; code=$?; ls -A {tmp_path}; exit $code'
    )
    command = [sys.executable, "-c", WRITE, way, str(tmp_path / "bundle"), "0"]
    if os.geteuid() != 0:
        pytest.skip("only root mounts a disk")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    check(done, tmp_path / "bundle")
    assert done.stdout.count("\n") == 1, done.stdout  # `ls` lists nothing


def test_two_processes_do_not_write_one_directory(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with write_directory(out) as fresh:
        (fresh / "a").write_text("first")
        with pytest.raises(ConfigError, match="another process is writing"), write_directory(out):
            pass
    assert (out / "a").read_text() == "first"


def test_a_report_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    require_writable(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    for file in (tmp_path / "nowhere" / "report.html", tmp_path):
        with pytest.raises(ConfigError, match="cannot be written"):
            require_writable(file)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_directory_is_followed(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "disk" / "bundle"
    target.parent.mkdir()
    if there:
        target.mkdir()
    (tmp_path / "bundle").symlink_to(target)
    with write_directory(tmp_path / "bundle") as fresh:
        (fresh / "a").touch()
    assert (target / "a").exists()
    assert (tmp_path / "bundle").is_symlink()


def test_what_could_not_become_the_directory_is_refused_at_once(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    for out, words in ((strange, "not UTF-8"), (Path("/proc"), "mount point")):
        with pytest.raises(ConfigError, match=words), write_directory(out):
            pass
