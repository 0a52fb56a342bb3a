"""The nodes and exits of a hierarchy: any of the paper's six configurations (DDNN Fig. 2).

    (a) cloud only              device ···raw···> cloud
    (b) device + cloud          device -> [local exit] -> cloud
    (c) devices + cloud         n devices -> [local exit] -> cloud
    (d) device + edge + cloud   (b) with an edge section and its exit
    (e) devices + edge + cloud  (c) with an edge section and its exit
    (f) devices + edges + cloud (e) with several edges, each fusing its own devices

Every configuration has at least one edge *node*, the gateway: it gathers, decides and answers.
Only (d), (e) and (f) have an edge *section*; in the others the gateway sends features on unchanged.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ddnn.core.ids import require_id
from ddnn.errors import ConfigError
from ddnn.exits.aggregate import SCHEMES, Scheme

Configuration = Literal["a", "b", "c", "d", "e", "f"]
CONFIGURATIONS: tuple[Configuration, ...] = ("a", "b", "c", "d", "e", "f")
Exit = Literal["device", "local", "edge", "cloud"]
EXITS: tuple[Exit, ...] = ("device", "local", "edge", "cloud")  # from shallow to deep
CLOUD = "cloud"
MAX_DEVICES = 62  # members travel as a bit mask in a signed 64-bit integer


class EdgeGroup(msgspec.Struct, frozen=True):
    """An edge node and the devices whose features it fuses."""

    id: str
    devices: tuple[str, ...]


class Hierarchy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The devices, edges and exits, and the schemes by which tiers aggregate.

    `exit_scheme` aggregates class scores (of the devices at the local exit; of the edges at the
    edge exit of (f)). `fusion_scheme` aggregates features before the edge and cloud sections.
    The paper's "MP-CC" is exit_scheme MP, fusion_scheme CC.
    """

    edges: tuple[EdgeGroup, ...]
    local_exit: bool = True
    edge_section: bool = True
    exit_scheme: Scheme = "MP"
    fusion_scheme: Scheme = "CC"

    def __post_init__(self) -> None:
        if not self.edges or any(not edge.devices for edge in self.edges):
            raise ConfigError("a hierarchy needs at least one edge, and every edge a device")
        if self.exit_scheme not in SCHEMES or self.fusion_scheme not in SCHEMES:
            raise ConfigError(f"schemes are {', '.join(SCHEMES)}")
        nodes = [*self.devices, *(edge.id for edge in self.edges), CLOUD]
        for node in nodes:
            require_id(node, "node")
        if len(set(nodes)) != len(nodes):
            raise ConfigError(f"node ids must differ, got {', '.join(nodes)}")
        if len(self.devices) > MAX_DEVICES:
            raise ConfigError(f"{len(self.devices)} devices; at most {MAX_DEVICES} in a hierarchy")
        if len(self.edges) > 1 and not self.edge_section:
            raise ConfigError("several edges need an edge section (configuration f)")

    @property
    def devices(self) -> tuple[str, ...]:
        """Device ids; a device's position is its bit in every member mask."""
        return tuple(device for edge in self.edges for device in edge.devices)

    @property
    def lead(self) -> str:
        """The edge that decides at the exits and answers."""
        return self.edges[0].id

    @property
    def exits(self) -> tuple[Exit, ...]:
        """The exits that fuse, from shallow to deep."""
        shallow: tuple[Exit, ...] = ("local",) if self.local_exit else ()
        return (*shallow, "edge", "cloud") if self.edge_section else (*shallow, "cloud")

    @property
    def device_section(self) -> bool:
        """Whether devices compute; without a local exit they send the raw image (a)."""
        return self.local_exit

    @property
    def everyone(self) -> int:
        """The member mask with every device present."""
        return (1 << len(self.devices)) - 1

    def make_mask(self, devices: object) -> int:
        """The bit mask of an iterable of device ids."""
        wanted = set(devices)  # type: ignore[call-overload]
        return sum(1 << i for i, device in enumerate(self.devices) if device in wanted)

    def list_members(self, mask: int) -> tuple[str, ...]:
        """The device ids of a bit mask."""
        return tuple(device for i, device in enumerate(self.devices) if mask >> i & 1)

    def find_group(self, edge: str) -> EdgeGroup:
        """Find an edge with its devices; ConfigError where the hierarchy has no such edge."""
        for group in self.edges:
            if group.id == edge:
                return group
        known = ", ".join(group.id for group in self.edges)
        raise ConfigError(f"edge {edge!r} is not in the bundle's hierarchy; known: {known}")


def make_configuration(
    letter: Configuration,
    devices: int = 6,
    *,
    edges: int = 2,
    exit_scheme: Scheme = "MP",
    fusion_scheme: Scheme = "CC",
) -> Hierarchy:
    """Make the paper's configuration `letter` with nodes cam1 …, edge, (edge2 …), cloud.

    `devices` counts for (a), (c), (e), (f); (b) and (d) have one. `edges` counts for (f).
    """
    if letter not in CONFIGURATIONS:
        raise ConfigError(f"configuration {letter!r}: expected one of a, b, c, d, e, f")
    count = 1 if letter in "bd" else devices
    groups = edges if letter == "f" else 1
    if not 1 <= groups <= count <= MAX_DEVICES:
        raise ConfigError(
            f"{count} devices on {groups} edges: expected 1..{MAX_DEVICES} devices, one per edge"
        )
    cams = [f"cam{i + 1}" for i in range(count)]
    bounds = [round(g * count / groups) for g in range(groups + 1)]
    return Hierarchy(
        edges=tuple(
            EdgeGroup("edge" if g == 0 else f"edge{g + 1}", tuple(cams[bounds[g] : bounds[g + 1]]))
            for g in range(groups)
        ),
        local_exit=letter != "a",
        edge_section=letter in "def",
        exit_scheme=exit_scheme,
        fusion_scheme=fusion_scheme,
    )
