"""The device node: its samples by one bundle or, during a roll-out, by two; and its outbox."""

from __future__ import annotations

from collections.abc import Iterable

from ddnn.core.pace import PaceHistory
from ddnn.exits.device_exit import DeviceExit, list_device_sections
from ddnn.exits.manifest import Manifest
from ddnn.exits.pace_follower import PaceFollower
from ddnn.exits.timing import Timing
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.outbox import Outbox
from ddnn.machines.versioned import Version, VersionedMachine
from ddnn.protocol.messages import Answer


class DeviceNode(CompositeMachine):
    """A device of the hierarchy. `versions` takes further bundles."""

    def __init__(
        self,
        site: str,
        node: str,
        bundle: str,
        manifest: Manifest,
        timing: Timing,
        pending: Iterable[Answer] = (),
    ) -> None:
        """pending: answers of an earlier process that no store has confirmed."""
        self.outbox, self._pace = Outbox(site, node, pending), PaceFollower()
        self._site, self._node, self._timing = site, node, timing
        first = self.make_version(bundle, manifest)
        self.versions = VersionedMachine(first, hold_s=2 * timing.deadline_s)
        super().__init__(self.outbox, self.versions)

    def make_version(self, bundle: str, manifest: Manifest) -> Version[DeviceExit]:
        """What this device does by a bundle, and the sections that it runs for it."""
        machine = DeviceExit(
            self._site, self._node, bundle, manifest, self._timing, self.outbox, self._pace
        )
        return Version(bundle, machine, list_device_sections(manifest, self._node))

    @property
    def pace(self) -> PaceHistory:
        """Which ticks the camera must take. Safe in any thread."""
        return self._pace.history
