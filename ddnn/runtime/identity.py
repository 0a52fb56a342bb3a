"""The identity under which a node announces itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddnn.protocol.messages import RoleName, Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.packets import Packet, pack


@dataclass(frozen=True, slots=True)
class Identity:
    """Site, id and role of a node, and what it runs."""

    site: str
    node: str
    role: RoleName
    bundle: str
    version: str
    instance: int = 0  # of the process; 0: it does not defend its name

    def make_status(self, state: Literal["online", "stopped", "lost"], session: int) -> Packet:
        """Make the retained status of this node in one session."""
        status = Status(self.role, session, state, self.bundle, self.version, self.instance)
        return pack(Topic(self.site, Kind.STATUS, self.node), status)
