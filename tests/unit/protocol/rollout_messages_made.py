"""Messages of roll-outs, and a strategy for each kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ddnn.protocol.rollout_messages import (
    MAX_ARCHIVE_BYTES,
    MAX_PARTS,
    BundleOrder,
    BundlePart,
    BundleState,
)
from ddnn.protocol.topics import AnyMessage, Kind

Strategy = st.SearchStrategy[Any]
DIGEST = "0123456789abcdef" * 4


def make_strategies(counts: Strategy, texts: Strategy) -> dict[Kind, Strategy]:
    bundles, digits = st.text(max_size=16), "0123456789abcdef"
    ids = st.text(digits, min_size=8, max_size=8)
    return {
        Kind.BUNDLE_PART: st.builds(
            BundlePart,
            v=st.just(1),
            number=st.integers(0, MAX_PARTS - 1),
            bundle=bundles,
            data=st.binary(max_size=20),
        ),
        Kind.BUNDLE_ORDER: st.builds(
            BundleOrder,
            bundle=ids,
            sha256=st.text(digits, min_size=64, max_size=64),
            size_bytes=st.integers(0, MAX_ARCHIVE_BYTES),
            since=st.none() | counts,
            given_at_s=st.floats(-1e12, 1e12),
        ),
        Kind.BUNDLE_STATE: st.builds(
            BundleState,
            in_use=ids,
            ordered=bundles,
            phase=st.sampled_from(["fetching", "checking", "staged", "in use", "failed"]),
            parts=st.integers(0, MAX_PARTS),
            reason=texts,
        ),
    }


SAMPLES: dict[Kind, AnyMessage] = {
    Kind.BUNDLE_PART: BundlePart(1, 3, "ab12cd34", b"abc"),
    Kind.BUNDLE_ORDER: BundleOrder("ab12cd34", DIGEST, 100_000, 1 << 42, 1.75e9),
    Kind.BUNDLE_STATE: BundleState("ab12cd34", "cd34ef56", "failed", 3, "no space is left"),
}
