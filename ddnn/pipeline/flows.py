"""What batches pass from node to node, in parts of bounded size: activations, gradients, labels."""

from __future__ import annotations

from typing import Literal

from ddnn.protocol.train_messages import PART_BYTES, TrainFlow

Way = Literal["forward", "backward", "labels"]
MAX_FLOW_BYTES = 1 << 32


def split_flow(sender: str, term: int, batch: int, way: Way, blob: bytes) -> list[TrainFlow]:
    """The messages that carry a blob."""
    return [
        TrainFlow(1, sender, way, term, batch, start, len(blob), blob[start : start + PART_BYTES])
        for start in range(0, max(len(blob), 1), PART_BYTES)
    ]


class Inbox:
    """Joins the parts of what arrives. Parts may come in any order and more than once."""

    def __init__(self) -> None:
        self._parts: dict[tuple[Way, int], dict[int, bytes]] = {}
        self._whole: dict[tuple[Way, int], bytes] = {}

    def take(self, flow: TrainFlow) -> None:
        key = (flow.way, flow.batch)
        if key in self._whole or flow.total > MAX_FLOW_BYTES:
            return
        parts = self._parts.setdefault(key, {})
        parts[flow.offset] = flow.data
        if sum(map(len, parts.values())) == flow.total:
            self._whole[key] = b"".join(parts[offset] for offset in sorted(parts))
            del self._parts[key]

    def get(self, way: Way, batch: int) -> bytes | None:
        return self._whole.get((way, batch))

    def forget(self, batch: int, *ways: Way) -> None:
        """Forget what has been used, of this and of earlier batches."""
        for store in (self._whole, self._parts):
            for key in [key for key in store if key[0] in ways and key[1] <= batch]:
                del store[key]


class SentFlows:
    """What was passed on and is not known to have arrived, so that it can be repeated."""

    def __init__(self, sender: str, term: int) -> None:
        self._sender, self._term = sender, term
        self._sent: dict[tuple[Way, int], tuple[str, bytes]] = {}

    def send(self, way: Way, batch: int, to: str, blob: bytes) -> list[tuple[str, TrainFlow]]:
        self._sent[way, batch] = (to, blob)
        return self._address(way, batch, to, blob)

    def resend(self) -> list[tuple[str, TrainFlow]]:
        posts: list[tuple[str, TrainFlow]] = []
        for (way, batch), (to, blob) in self._sent.items():
            posts += self._address(way, batch, to, blob)
        return posts

    def forget(self, backwards: int, depth: int) -> None:
        """Forget what has arrived once so many batches came back.

        A gradient that came shows that the outputs arrived; the node before is at most its depth
        of batches behind, since else it would not have sent this batch's inputs.
        """
        behind = backwards - (depth + 3)
        for way, batch in list(self._sent):
            if batch < (behind if way == "backward" else backwards):
                del self._sent[way, batch]

    def _address(self, way: Way, batch: int, to: str, blob: bytes) -> list[tuple[str, TrainFlow]]:
        return [(to, flow) for flow in split_flow(self._sender, self._term, batch, way, blob)]
