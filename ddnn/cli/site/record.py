"""The record of a site: its brokers, its nodes and their certificates, as `site.json` keeps it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.protocol.access import Role
from ddnn.protocol.commands import Time
from ddnn.protocol.messages import Id
from ddnn.runtime.site_identity import Broker, Key, Roles, Text, Trusted


class NodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node: its roles, and the serial numbers (hexadecimal) of its certificates, newest last."""

    node: Id
    roles: Roles
    serials: tuple[Text, ...]
    issued_s: Time
    expires_s: Time
    revoked: bool = False


class BridgeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The connection to the cloud's broker; its certificate is in the broker's directory.

    keys: that the cloud's site trusts; for thresholds this site trusts them, too.
    """

    node: Id
    broker: Broker
    expires_s: Time
    keys: tuple[Key, ...]


class SiteRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is not a key or a certificate."""

    format: int
    site: Id
    brokers: Annotated[tuple[Broker, ...], msgspec.Meta(min_length=1)]
    installed_at: Text  # where the broker's directory lies on the broker's machine
    home_assistant: Text  # discovery prefix
    broker_expires_s: Time
    revocations: int = 0  # lists that were made
    revoked: tuple[Text, ...] = ()  # serial numbers, hexadecimal
    nodes: tuple[NodeRecord, ...] = ()
    bridge: BridgeRecord | None = None

    def find(self, node: str) -> NodeRecord | None:
        """The node's record; None where it was never added."""
        return next((record for record in self.nodes if record.node == node), None)

    def with_node(self, node: NodeRecord) -> SiteRecord:
        """The record with this node, in place of an earlier one of its name."""
        others = (record for record in self.nodes if record.node != node.node)
        nodes = tuple(sorted([*others, node], key=lambda record: record.node))
        return msgspec.structs.replace(self, nodes=nodes)

    def list_nodes_by_role(self) -> dict[Role, list[str]]:
        """The nodes that are not revoked, by role."""
        found: dict[Role, list[str]] = {}
        for record in self.nodes:
            for role in record.roles if not record.revoked else ():
                found.setdefault(role, []).append(record.node)
        return found

    def list_trusted(self, own: str) -> tuple[Trusted, ...]:
        """The keys that nodes of this site trust: the site's own, the cloud's for thresholds."""
        bridged = self.bridge.keys if self.bridge is not None else ()
        return (Trusted(own), *(Trusted(key, ("dashboard",)) for key in bridged))
