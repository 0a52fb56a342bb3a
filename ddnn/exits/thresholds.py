"""The exit thresholds in use, those of the bundle or those that were commanded last, and the
audit."""

from __future__ import annotations

from ddnn.errors import ConfigError
from ddnn.exits.audit import is_audited
from ddnn.exits.manifest import Manifest
from ddnn.protocol.messages import Thresholds

# Revisions grow by one. A much greater step is a defect or a forgery, after which the site's own
# commands would be the older ones; the next of these takes the place of the retained one.
MAX_STEP = 1 << 20


class ThresholdsInUse:
    """The manifest with the thresholds that apply to the next decision.

    audit_share: of the samples that the first exit is sure of and that go up all the same
    """

    def __init__(self, bundle: str, manifest: Manifest, audit_share: float = 0.0) -> None:
        self._bundle, self._own, self._audit_share = bundle, manifest, audit_share
        self.manifest = manifest
        self.revision = 0  # of the command in use; 0: the thresholds are the bundle's own

    def take(self, command: Thresholds) -> bool:
        """Use other thresholds; False where the command does not fit.

        The message is retained: the same command comes again at every connect.
        """
        step = command.revision - self.revision
        if command.bundle != self._bundle or not 0 <= step <= MAX_STEP:
            return False
        thresholds = {str(tier): value for tier, value in command.thresholds.items()}
        try:
            self.manifest = self._own.with_thresholds(thresholds)
        except ConfigError:
            return False
        self.revision = command.revision
        return True

    def audits(self, sample: int) -> bool:
        """Whether a sample goes up though the first exit is sure of it."""
        return is_audited(sample, self._audit_share)

    @property
    def gauges(self) -> dict[str, float]:
        """The thresholds and their revision, by which the sender of a command sees it applied."""
        thresholds = {f"threshold_{tier}": t for tier, t in self.manifest.thresholds.items()}
        return {
            **thresholds,
            "threshold_revision": float(self.revision),
            "audit_share": self._audit_share,
        }
