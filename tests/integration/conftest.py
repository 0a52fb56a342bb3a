"""What tests of commands share: a broker, a client that speaks there, processes, a camera."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddnn.runtime.fleet import Fleet
from tests.integration.commands import run
from tests.integration.doctor_report import Doctor, Report
from tests.integration.rtsp_camera import SERVER, SYSTEM_PYTHON, RtspCamera
from tests.integration.site import Voice, mosquitto, write_picture
from tests.integration.video_file import need_opencv
from tests.parts import need


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with mosquitto(tmp_path, "allow_anonymous true") as number:
        yield number


@pytest.fixture
def voice(port: int) -> Iterator[Voice]:
    voice = Voice(port)
    yield voice
    voice.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "logs")
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a directory with one picture."""
    return write_picture(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def doctor(ddnn: list[str], scenes_bundle: Path, picture: str, tmp_path: Path) -> Doctor:
    """doctor(*flags, port=…): the report on cam1, or on the node that the flags name."""

    def examine(*flags: str, port: int | None = None, **variables: str) -> Report:
        usual = {
            "--node": "cam1",
            "--bundle": str(scenes_bundle),
            "--state": str(tmp_path / "state"),
        }
        if port is not None:
            usual["--broker-port"] = str(port)
        if not {"edge", "cloud"}.intersection(flags):
            usual["--source"] = picture
        given = [*flags, *(w for f, v in usual.items() if f not in flags for w in (f, v))]
        return Report(run([*ddnn, "doctor", *given, "--json"], **variables))

    return examine


@pytest.fixture
def rtsp() -> Iterator[RtspCamera]:
    """A network camera that is not started yet."""
    need_opencv()
    found = Path(SYSTEM_PYTHON).exists() and (
        subprocess.run([SYSTEM_PYTHON, str(SERVER)], timeout=60, check=False).returncode == 0
    )
    need(
        found,
        "no RTSP server; apt install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-"
        "base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly",
    )
    camera = RtspCamera()
    yield camera
    camera.kill()
