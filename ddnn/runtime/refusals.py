"""What the broker refuses a node: counted, and logged once for each topic, with the remedy."""

from __future__ import annotations

import logging
from collections import Counter

from ddnn.runtime.transport import Refused

log = logging.getLogger(__name__)

MAX_LOGGED = 1000  # kinds and topics
REMEDIES = {
    True: "raise max_packet_size and message_size_limit at the broker",
    False: "its access list must allow it: `ddnn doctor` with this node's options tries all topics",
}  # by whether the packet was too large


class RefusalLog:
    """Adds the refusals to `counts`."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._logged: set[tuple[str, str]] = set()  # kinds and topics

    def note(self, refused: Refused) -> None:
        kind = "too_large" if refused.too_large else f"{refused.action}_refused"
        self._counts[kind] += 1
        if len(self._logged) < MAX_LOGGED and (kind, refused.topic) not in self._logged:
            self._logged.add((kind, refused.topic))
            remedy = REMEDIES[refused.too_large]
            what = f"{refused.action} {refused.topic}: {refused.reason}"
            log.error("the broker refuses this node to %s; %s", what, remedy)
