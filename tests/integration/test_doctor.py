"""`ddnn doctor` names each fault and its remedy, and ends with the exit code of the first one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.bundle import read_manifest, write_manifest
from ddnn.runtime.fleet import Fleet
from tests.integration.commands import run
from tests.integration.doctor_report import NETWORK, Doctor, Report
from tests.integration.site import Voice, start_node

# Packages that a base installation does not have: importing one raises ImportError.
SITECUSTOMIZE = """
import sys

MORE = "rich", "flask", "sqlalchemy", "tensorflow", "keras", "scipy"

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MORE:
            raise ImportError(name + " is not in the base")

sys.meta_path.insert(0, Blocked())
"""


# ---------------------------------------------------------------------- no fault


def test_a_site_without_faults(
    doctor: Doctor,
    ddnn: list[str],
    port: int,
    voice: Voice,
    fleet: Fleet,
    scenes_bundle: Path,
    tmp_path: Path,
) -> None:
    """Every hop with a real broker, edge and camera; a node that runs keeps its connection."""
    start_node(fleet, "edge", "edge", port, scenes_bundle, "--state", str(tmp_path / "edge"))
    status = str(Topic("home", Kind.STATUS, "edge"))
    voice.wait_until(lambda: voice.list_payloads(status))
    report = doctor(port=port)
    assert report.code == 0
    assert list(report.rows) == [
        "configuration",
        "security",
        *NETWORK,
        "bundle",
        "disk",
        "camera",
        "versions",
    ]
    for check, row in report.rows.items():
        # A test machine's clock need not be kept by NTP, nor its disk have a gigabyte free.
        allowed = ("ok", "warning") if check in ("clock", "disk") else ("ok",)
        assert row["outcome"] in allowed, row
    report.assert_words("mqtt", "MQTT 5", "anonymous")
    report.assert_words("round trip", "p50", "of 10 at QoS 1", "TCP connect", "online: edge")
    report.assert_words("clock", "within", "ms of the lead edge's")
    report.assert_words(
        "bundle", read_manifest(scenes_bundle)[1], "(cam1)", "the same as that of edge"
    )
    report.assert_words("camera", "32x32")
    assert not (tmp_path / "state").exists()  # a check makes no directory

    report = doctor("--node", "edge", "--state", str(tmp_path / "edge"), port=port)  # it runs
    assert report.code == 0, [row for row in report.rows.values() if row["exit_code"]]
    assert list(report.rows)[-2] == "program"
    report.assert_words("bundle", "(edge)")
    said = [decode(Kind.STATUS, payload) for payload in voice.list_payloads(status)]
    assert {message.state for message in said} == {"online"}  # it kept its connection
    assert len({message.session for message in said if isinstance(message, Status)}) == 1
    leftover = [topic for topic, _, retained in voice.heard if retained and "probe" in topic]
    assert leftover == []

    done = run([*ddnn, "doctor", "--broker-port", str(port), "--state", str(tmp_path)])
    assert done.returncode == 0
    assert "tcp            127.0.0.1:" in done.stdout
    assert done.stdout.count("remedy: ") >= 2  # no bundle and no app are named
    assert done.stdout.splitlines()[-1].endswith("skipped")


def test_it_needs_a_base_installation_only(doctor: Doctor, port: int, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(SITECUSTOMIZE)
    missing = run([sys.executable, "-c", "import rich"], PYTHONPATH=str(blocked))
    assert "is not in the base" in missing.stderr  # the import is blocked
    report = doctor("--node", "edge", port=port, PYTHONPATH=str(blocked))
    assert report.code == 0, report.rows
    assert report.outcome("program") == "ok"


def test_keys_come_from_file_and_environment(
    doctor: Doctor, port: int, scenes_bundle: Path, tmp_path: Path
) -> None:
    """The app's own keys too, as the app reads them."""
    file = tmp_path / "cam1.toml"
    file.write_text(f'node = "cam1"\nbundle = "{scenes_bundle}"\nsite = "shop"\nrate_hz = 1e9\n')
    flags = ("--config", str(file), "--node", "cam2")
    report = doctor(*flags, "--bundle", str(scenes_bundle), DDNN_BROKER_PORT=str(port))
    report.fails("configuration", 2, "rate_hz")
    file.write_text(file.read_text().replace("1e9", "5"))
    report = doctor(*flags, "--bundle", str(scenes_bundle), DDNN_BROKER_PORT=str(port))
    report.assert_words("configuration", "node cam2", "site shop", f"broker 127.0.0.1:{port}")
    assert report.code == 0, report.rows


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--sorce", "dataset:scenes"), "--sorce"),
        (("--rate-hz", "fast"), "rate_hz"),
        (("--broker-port", "0"), "broker_port"),
        (("--site", "Home!"), "Home!"),
        (("--source", ""), "--source"),
        (("--config", "/nowhere.toml"), "/nowhere.toml"),
        (("--broker-user", "x", "--broker-password-file", "/nowhere"), "/nowhere"),
        (("--node", "cam99"), "no app is known"),
        (("--bundle", "/nowhere"), "/nowhere"),
    ],
)
def test_wrong_keys(doctor: Doctor, flags: tuple[str, ...], words: str) -> None:
    report = doctor(*flags)
    report.fails("configuration", 2, words)
    assert {report.outcome(check) for check in (*NETWORK, "bundle", "disk")} == {"skipped"}
    assert report.outcome("versions") == "ok"


# ------------------------------------------------------------------------ bundle


@pytest.fixture
def own_bundle(scenes_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_bundle, tmp_path / "own-bundle"))


def test_a_broken_bundle(doctor: Doctor, port: int, own_bundle: Path) -> None:
    name = read_manifest(own_bundle)[0].sections["cam1"].file
    section = own_bundle / name
    data = bytearray(section.read_bytes())
    data[len(data) // 2] ^= 1
    section.write_bytes(data)
    report = doctor("--bundle", str(own_bundle), port=port)
    report.fails("bundle", 2, "sha256", name, "copy the bundle again")
    assert report.outcome("camera") == "skipped"
    assert report.outcome("disk") in ("ok", "warning")


def test_a_bundle_that_differs_from_the_peers(
    doctor: Doctor, port: int, voice: Voice, own_bundle: Path, scenes_bundle: Path
) -> None:
    manifest, mine = read_manifest(own_bundle)
    theirs = write_manifest(own_bundle, msgspec.structs.replace(manifest, name="another"))
    assert mine != theirs
    voice.announce("cam2", "device", bundle=theirs)
    voice.announce("cam3", "device", "lost", bundle="long-gone")
    report = doctor(port=port)
    assert report.outcome("bundle") == "warning"
    report.assert_words("bundle", f"cam2 runs {theirs}", "copy one bundle")
    assert "cam3" not in report.rows["bundle"]["message"]
    voice.announce("edge", "edge", bundle=theirs)
    report = doctor(port=port)
    report.fails("bundle", 2, f"edge runs {theirs}", "never fused")
    report = doctor("--bundle", str(own_bundle), port=port)
    report.assert_words("bundle", "the same as that of cam2, edge")


def test_another_version_of_ddnn(doctor: Doctor, port: int, voice: Voice) -> None:
    voice.announce("edge", "edge", version="9.9.9")
    report = doctor(port=port)
    assert report.outcome("versions") == "warning"
    report.assert_words("versions", "edge has 9.9.9", "64-bit", "LiteRT")


# ------------------------------------------------------------- disk and the program


def test_a_state_directory_that_cannot_be_made(doctor: Doctor, port: int, tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.write_text("")
    report = doctor("--state", str(file / "state"), port=port)
    report.fails("disk", 2, str(file), "--state")
    assert report.outcome("camera") == "skipped"


def test_full_disks(ddnn: list[str], tmp_path: Path) -> None:
    """A limit that refuses every write; and, where namespaces are allowed, a file system of
    64 KiB: full, nearly full, and read-only with and without the directory."""

    def check(before: str, state: str, words: str, *, around: tuple[str, ...] = ()) -> None:
        doctor = " ".join([*ddnn, "doctor", "--json", "--state", f"{tmp_path}{state}"])
        report = Report(run([*around, "sh", "-c", f"{before}; {doctor}"]))
        assert report.outcome("disk") == "failed", report.rows
        report.assert_words("disk", words, "make room")
        assert report.rows["disk"]["exit_code"] == 2

    check("ulimit -f 0", "", "File too large")
    own = ("unshare", "-Urm")
    mount = f"mount -t tmpfs -o size=64k,{{}} none {tmp_path}"
    if run([*own, "sh", "-c", mount.format("rw")]).returncode == 0:
        fill = f"dd if=/dev/zero of={tmp_path}/filler bs=4k 2>/dev/null"
        check(f"{mount.format('rw')}; {fill}", "", "No space left on device", around=own)
        check(mount.format("rw"), "", "0.0 GiB free", around=own)
        check(mount.format("ro"), "", "Read-only file system", around=own)
        check(mount.format("ro"), "/state", "cannot be made in", around=own)


def test_a_camera_that_is_not_there(doctor: Doctor, port: int, voice: Voice) -> None:
    missing = ("--source", "video:/nowhere.avi")
    report = doctor(*missing, port=port)
    report.fails("camera", 2, "/nowhere.avi")
    voice.announce("cam1", "device")  # the node that runs may hold the camera
    report = doctor(*missing, port=port)
    assert (report.code, report.outcome("camera")) == (0, "warning")
    report.assert_words("camera", "/nowhere.avi", "cam1 is online", "stop the node")


def test_the_edge_program_checks_itself(
    scenes_bundle: Path, own_bundle: Path, tmp_path: Path
) -> None:
    """`python -m edge_app --check`: bundle, node, state directory."""

    def check(**flags: str) -> subprocess.CompletedProcess[str]:
        given = {"node": "edge", "bundle": str(scenes_bundle), "state": str(tmp_path), **flags}
        words = [word for key, value in given.items() for word in (f"--{key}", value)]
        return run([sys.executable, "-m", "edge_app", "--check", *words])

    done = check()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "edge_app: the configuration is valid",
    )
    (tmp_path / "file").write_text("")
    (own_bundle / "golden.npz").write_bytes(b"nothing")
    for flags, words in (
        ({"node": "cam1"}, "edge 'cam1' is not in the bundle"),
        ({"bundle": str(own_bundle)}, "golden.npz"),
        ({"state": str(tmp_path / "file" / "x")}, "state directory"),
        ({"home-assistant": "a b"}, "--home-assistant"),
    ):
        done = check(**flags)
        assert done.returncode == 2, done
        assert words in done.stderr
        assert "the configuration is valid" not in done.stdout


def test_help_names_the_exit_codes(ddnn: list[str]) -> None:
    done = run([*ddnn, "doctor", "--help"])
    assert "Ends with 0 where no check failed" in done.stdout
    assert "ddnn doctor --node cam1" in done.stdout
