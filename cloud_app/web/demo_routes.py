"""The part of the API that only a demo has: its cameras' views, and its processes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from flask import Response
from PIL import Image
from werkzeug.exceptions import NotFound

from cloud_app.views import Act, Demo, LiveSite
from cloud_app.web.messages import DemoState, OfNode, OfSample
from cloud_app.web.route import PNG, Route

MOST_PIXELS = 4_000_000
GAP_PIXELS = 2  # between two views


class DemoApi:
    """Answers questions and commands about a demo; from any thread."""

    def __init__(self, live: LiveSite) -> None:
        self._live = live

    def routes(self) -> tuple[Route, ...]:
        v1 = "/api/v1"
        return (
            Route(
                "GET",
                f"{v1}/demo/views/{{sample}}.png",
                self.views,
                PNG,
                "What the cameras saw, side by side. In a demo only.",
                OfSample,
            ),
            Route(
                "POST",
                f"{v1}/demo/nodes/{{node}}/kill",
                self.kill,
                DemoState,
                "Kill a process. In a demo only.",
                OfNode,
            ),
            Route(
                "POST",
                f"{v1}/demo/nodes/{{node}}/start",
                self.start,
                DemoState,
                "Start it again. In a demo only.",
                OfNode,
            ),
        )

    def views(self, ask: OfSample) -> Response:
        return Response(side_by_side(self._demo().views(ask.sample)), mimetype=PNG)

    def kill(self, ask: OfNode) -> DemoState:
        return self._act("kill", ask.node)

    def start(self, ask: OfNode) -> DemoState:
        return self._act("start", ask.node)

    def _act(self, what: Act, node: str) -> DemoState:
        demo = self._demo()
        if node not in demo.nodes():
            raise NotFound(f"the demo has no node {node}")
        demo.act(what, node)
        return DemoState(demo.nodes())

    def _demo(self) -> Demo:
        demo = self._live.demo()
        if demo is None:
            raise NotFound("only a demo has this: in production no image leaves its device")
        return demo


def side_by_side(views: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """PNG of uint8 [devices, height, width, 3] in a row; too great ones are made smaller."""
    devices, height, width, _ = views.shape
    row = np.zeros((height, devices * (width + GAP_PIXELS) - GAP_PIXELS, 4), np.uint8)
    for i, view in enumerate(views):
        left = i * (width + GAP_PIXELS)
        row[:, left : left + width, :3] = view
        row[:, left : left + width, 3] = 255  # the gaps stay transparent
    image = Image.fromarray(row)
    if row.shape[0] * row.shape[1] > MOST_PIXELS:
        scale = math.sqrt(MOST_PIXELS / (row.shape[0] * row.shape[1]))
        image.thumbnail((max(1, int(row.shape[1] * scale)), max(1, int(row.shape[0] * scale))))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
