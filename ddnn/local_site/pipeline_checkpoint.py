"""The file from which a pipeline training goes on after its central node was killed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddnn.errors import ConfigError
from ddnn.pipeline.blobs import pack_arrays, unpack_arrays
from ddnn.pipeline.settings import Checkpoint
from ddnn.pipeline.sources import Stamp


class CheckpointFile:
    """Writes and reads checkpoints of one training. `latest`: the last that was made or read."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        """facts: what is trained and how; a checkpoint of another training is refused."""
        self.path = path
        self.latest: Checkpoint | None = None
        self._facts = dict(facts)

    def read(self) -> Checkpoint | None:
        """The checkpoint; None where there is no file. Raises ConfigError."""
        from ddnn.training.stages.checkpoint import read_checkpoint

        found = read_checkpoint(self.path)
        if found is None:
            return None
        notes = found.notes
        facts = notes.get("training", {})
        other = [key for key, value in self._facts.items() if facts.get(key) != value]
        if other:
            raise ConfigError(
                f"checkpoint {self.path} is of another training: {', '.join(other)} differ; give "
                "its options again, or another --checkpoint, or remove it to begin again"
            )
        layers = {n: pack_arrays(found.states.get(n, {})) for n in range(int(notes["layers"]))}
        stamp = Stamp(int(notes["term"]), int(notes["version"]))
        self.latest = Checkpoint(str(notes["run"]), stamp, layers, bool(notes["ended"]))
        return self.latest

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint. Raises OSError where the disk fails; `latest` is set all the same."""
        from ddnn.training.stages.checkpoint import write_checkpoint

        self.latest = checkpoint
        states = {n: unpack_arrays(blob) for n, blob in checkpoint.layers.items() if blob}
        notes = {
            "run": checkpoint.run,
            "term": checkpoint.stamp.term,
            "version": checkpoint.stamp.version,
            "ended": checkpoint.ended,
            "layers": len(checkpoint.layers),
            "training": self._facts,
        }
        write_checkpoint(self.path, states, notes)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
