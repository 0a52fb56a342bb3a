"""The exit thresholds in use: those of the bundle, or those that were commanded last."""

from __future__ import annotations

from ddnn.errors import ConfigError
from ddnn.exits.manifest import Manifest
from ddnn.protocol.messages import Thresholds

MAX_REVISION = 1 << 40  # a greater one is a defect, after which no command could be accepted


class ThresholdsInUse:
    """The manifest with the thresholds that apply to the next decision."""

    def __init__(self, bundle: str, manifest: Manifest) -> None:
        self._bundle, self._own = bundle, manifest
        self.manifest = manifest
        self.revision = 0  # of the command in use; 0: the thresholds are the bundle's own

    def take(self, command: Thresholds) -> bool:
        """Use other thresholds; False where the command does not fit.

        The message is retained: the same command comes again at every connect.
        """
        if command.bundle != self._bundle or not self.revision <= command.revision <= MAX_REVISION:
            return False
        thresholds = {str(tier): value for tier, value in command.thresholds.items()}
        try:
            self.manifest = self._own.with_thresholds(thresholds)
        except ConfigError:
            return False
        self.revision = command.revision
        return True

    @property
    def gauges(self) -> dict[str, float]:
        """The thresholds and their revision, by which the sender of a command sees it applied."""
        thresholds = {f"threshold_{tier}": t for tier, t in self.manifest.thresholds.items()}
        return {**thresholds, "threshold_revision": float(self.revision)}
