"""The part of the API that only a demo has: the pictures of its cameras, and its processes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from flask import Response
from PIL import Image
from werkzeug.exceptions import NotFound

from cloud_app.views import DemoAction, DemoSite, LiveSite
from cloud_app.web.messages import DemoState, NodeQuery, SampleQuery
from cloud_app.web.route import PNG, Route

MAX_PIXELS = 4_000_000
GAP_PIXELS = 2  # between two views


class DemoApi:
    """Shows and controls a demo. Every method may be called from any thread."""

    def __init__(self, live: LiveSite) -> None:
        self._live = live

    def routes(self) -> tuple[Route, ...]:
        v1 = "/api/v1"
        return (
            Route(
                "GET",
                f"{v1}/demo/views/{{sample}}.png",
                self.draw_demo_views,
                PNG,
                "What the cameras saw, side by side. In a demo only.",
                SampleQuery,
            ),
            Route(
                "POST",
                f"{v1}/demo/nodes/{{node}}/kill",
                self.kill_demo_node,
                DemoState,
                "Kill a process. In a demo only.",
                NodeQuery,
            ),
            Route(
                "POST",
                f"{v1}/demo/nodes/{{node}}/start",
                self.start_demo_node,
                DemoState,
                "Start it again. In a demo only.",
                NodeQuery,
            ),
        )

    def draw_demo_views(self, ask: SampleQuery) -> Response:
        return Response(
            draw_side_by_side(self._require_demo().read_views(ask.sample)), mimetype=PNG
        )

    def kill_demo_node(self, ask: NodeQuery) -> DemoState:
        return self._control("kill", ask.node)

    def start_demo_node(self, ask: NodeQuery) -> DemoState:
        return self._control("start", ask.node)

    def _control(self, action: DemoAction, node: str) -> DemoState:
        demo = self._require_demo()
        if node not in demo.read_processes():
            raise NotFound(f"the demo has no node {node}")
        demo.control(action, node)
        return DemoState(demo.read_processes())

    def _require_demo(self) -> DemoSite:
        demo = self._live.demo
        if demo is None:
            raise NotFound("only a demo has this: in production no image leaves its device")
        return demo


def draw_side_by_side(views: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Encode uint8 [devices, height, width, 3] as a PNG of all views in a row.

    The picture is scaled down to MAX_PIXELS where it is larger.
    """
    devices, height, width, _ = views.shape
    row = np.zeros((height, devices * (width + GAP_PIXELS) - GAP_PIXELS, 4), np.uint8)
    for i, view in enumerate(views):
        left = i * (width + GAP_PIXELS)
        row[:, left : left + width, :3] = view
        row[:, left : left + width, 3] = 255  # the gaps stay transparent
    image = Image.fromarray(row)
    if row.shape[0] * row.shape[1] > MAX_PIXELS:
        scale = math.sqrt(MAX_PIXELS / (row.shape[0] * row.shape[1]))
        image.thumbnail((max(1, int(row.shape[1] * scale)), max(1, int(row.shape[0] * scale))))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
