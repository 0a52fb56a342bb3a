"""A stand-in for the module picamera2, which needs a Raspberry Pi."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

FRAME_S = 1 / 60


class Request:
    def __init__(self, camera: Picamera2) -> None:
        self.camera = camera
        camera.held += 1
        assert camera.held <= 4, "the camera has no buffers left"

    def get_metadata(self) -> dict[str, Any]:
        return dict(self.camera.metadata)

    def make_array(self, name: str) -> np.ndarray:
        assert name == "main"
        if self.camera.fails:
            raise RuntimeError("buffer lost")
        width, height = self.camera.config["main"]["size"]
        pixels = np.zeros((height, width, 3), np.uint8)
        # libcamera names the order of bits, which is the reverse of the array's
        pixels[..., {"BGR888": 0, "RGB888": 2}[self.camera.config["main"]["format"]]] = 200
        return pixels

    def release(self) -> None:
        self.camera.held -= 1


class Picamera2:
    opened: ClassVar[list[Picamera2]] = []
    cameras: ClassVar[list[dict[str, int]]] = [{"Num": 0}]
    start_fails = False

    @classmethod
    def global_camera_info(cls) -> list[dict[str, int]]:
        return cls.cameras

    def __init__(self, number: int) -> None:
        self.number, self.state, self.held, self.fails = number, "open", 0, False
        self.metadata: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.opened.append(self)

    def create_video_configuration(self, **keys: Any) -> dict[str, Any]:
        return keys

    def configure(self, config: dict[str, Any]) -> None:
        assert self.state == "open"
        self.config = config

    def start(self) -> None:
        if self.start_fails:
            raise RuntimeError("Camera in use")
        self.state = "started"

    def capture_request(self) -> Request:
        assert self.state == "started"
        time.sleep(FRAME_S)
        return Request(self)

    def stop(self) -> None:
        self.state = "stopped"

    def close(self) -> None:
        self.state = "closed"


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    module.__spec__ = type("Spec", (), {"name": "picamera2"})()  # read by find_spec
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(Picamera2, "opened", [])
