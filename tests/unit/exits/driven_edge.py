"""An edge node that a test drives event by event in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddnn.exits.edge_node import EdgeNode
from ddnn.exits.manifest import Manifest
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.machine import (
    Compute,
    Computed,
    Connected,
    Effect,
    Event,
    KeepTime,
    Publish,
)
from ddnn.protocol.topics import Kind
from tests.unit.exits.exit_builders import (
    BUNDLE,
    DEVICE_FEATURES,
    EDGE_FEATURES,
    SITE,
    SURE,
    TIMING,
    at,
    make_bits,
    make_features,
    make_presence,
    make_scores,
)

ALL = 0b111


class DrivenEdge:
    """An edge node whose devices, edges and cloud are online from 0 s on."""

    def __init__(
        self,
        manifest: Manifest,
        node: str = "edge",
        *,
        cloud: bool = True,
        audit_share: float = 0.0,
    ) -> None:
        self.manifest = manifest
        self.machine = EdgeNode(SITE, node, BUNDLE, manifest, TIMING, audit_share=audit_share)
        self.handle(0, Connected())
        hierarchy = manifest.hierarchy
        present = [*hierarchy.devices, *(group.id for group in hierarchy.edges)]
        for name in (*present, *(["cloud"] if cloud else [])):
            self.handle(0, make_presence(name))

    def handle(self, time_s: float, *events: Event) -> list[Effect]:
        effects: list[Effect] = [
            e
            for event in events
            for e in self.machine.handle(event, at(time_s))
            if not isinstance(e, KeepTime)
        ]
        for e in effects:
            if isinstance(e, Publish):  # whatever is sent can be read
                assert decode(e.topic.kind, encode(e.message)) == e.message
        return effects

    def handle_scores(self, time_s: float, sample: int, *values: Any) -> list[Effect]:
        """Handle the scores of cam1, cam2, …; None: the device sends none."""
        return self.handle(
            time_s,
            *(
                make_scores(f"cam{i + 1}", sample, v, members=1 << i, time_s=time_s, wire_bytes=70)
                for i, v in enumerate(values)
                if v is not None
            ),
        )

    def handle_features(self, time_s: float, sample: int, *cams: int, shape=None) -> list[Effect]:
        parts = (make_bits(shape or DEVICE_FEATURES),)
        return self.handle(
            time_s,
            *(
                make_features(
                    f"cam{n}", sample, members=1 << n - 1, time_s=time_s, parts=parts, wire_bytes=60
                )
                for n in cams
            ),
        )

    def handle_verdict(self, time_s: float, sample: int, values: Any = SURE, **fields: Any):
        fields = {"members": ALL, "traffic": (6, 180), **fields}
        event = make_scores("edge", sample, values, kind=Kind.VERDICT, time_s=time_s, **fields)
        return self.handle(time_s, event)

    @property
    def counts(self) -> dict[str, int]:
        return self.machine.counts


def run_edge_section(driven: DrivenEdge, effects: list[Effect], time_s: float, scores: Any):
    (compute,) = [e for e in effects if isinstance(e, Compute)]
    out = {
        "scores": np.array(scores, np.float32),
        "features": np.full(EDGE_FEATURES, -1, np.float32),
    }
    return driven.handle(time_s, Computed(compute.job, out))
