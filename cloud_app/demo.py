"""A DemoSite on this machine: pictures from files, and processes controlled over HTTP."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from cloud_app.views import DemoAction
from ddnn.errors import ConfigError, DdnnError, LinkError
from ddnn.runtime.frame_order import FrameOrder

TIMEOUT_S = 2.0
MAX_REPLY_BYTES = 1 << 16
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: a local URL


class _Refusal(msgspec.Struct):
    error: str


class LocalDemoSite:
    """See cloud_app.views.DemoSite; `control` is the URL that the demo gave, with its token."""

    def __init__(self, frames: Path, control: str) -> None:
        try:
            self._images = np.load(frames / "images.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"--demo-frames {frames}: {error}") from None
        self._order = FrameOrder(frames, len(self._images))
        self._control = control

    def read_views(self, sample: int) -> NDArray[np.uint8]:
        return np.asarray(self._images[self._order.find_frame(sample)], np.uint8)

    def read_processes(self) -> dict[str, bool]:
        return self._request("GET", "nodes")

    def control(self, action: DemoAction, node: str) -> None:
        self._request("POST", f"{action}/{node}")

    def _request(self, method: str, path: str) -> dict[str, bool]:
        request = urllib.request.Request(f"{self._control}/{path}", method=method)  # noqa: S310
        try:
            with _OPENER.open(request, timeout=TIMEOUT_S) as reply:
                return msgspec.json.decode(reply.read(MAX_REPLY_BYTES), type=dict[str, bool])
        except urllib.error.HTTPError as refused:
            try:
                reason = msgspec.json.decode(refused.read(MAX_REPLY_BYTES), type=_Refusal).error
            except msgspec.MsgspecError:
                reason = f"the demo answers with status {refused.code}"
            raise DdnnError(reason) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise LinkError(f"the demo does not answer: {error}; has it ended?") from None
