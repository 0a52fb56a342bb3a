"""What planners of all rooms share: the bundle that is planned for, and the files of a plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from ddnn.core.files import BundleFile
from ddnn.core.plan import ArraySpec, Piece, PlanRequest
from ddnn.core.section import is_close
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import CLOUD, Hierarchy
from ddnn.exits.manifest import Manifest
from ddnn.runtime.bundle import (
    MANIFEST,
    check_file,
    make_file_entry,
    read_golden,
    read_manifest,
    write_golden,
)
from ddnn.training.export import load_source

NO_SECTION = "its edges have no section that could be shared; use configuration d, e or f"
EXAMPLES = 4  # samples of golden vectors
OUTPUTS = ("scores", "features")  # of an edge's section
COMMON_OPTIONS = ("redundancy", "devices", "edge", "seed")  # of a request, whatever the room

Progress = Callable[[str, int, int], None]
WriteMatrix = Callable[[Path, Any, NDArray[Any] | None], object]


class PlannedEdge(NamedTuple):
    """The edge of a bundle whose section is planned."""

    bundle: Path
    manifest: Manifest
    bundle_id: str
    edge: str

    def load_model(self) -> Any:
        """The Keras source of the section.

        ConfigError where it cannot be loaded, or computes something else than the section that is
        deployed.
        """
        model = load_source(check_file(self.bundle, self.manifest.sources[self.edge]))
        self._check_outputs(model)
        return model

    def _check_outputs(self, model: Any) -> None:
        """Compare the model with the golden vectors of the deployed section."""
        golden = read_golden(check_file(self.bundle, self.manifest.golden))
        inputs = np.asarray(golden[f"{self.edge}/in/features"][:EXAMPLES], np.float32)
        try:
            outputs = [np.asarray(t) for t in keras.tree.flatten(model(inputs, training=False))]
        except Exception as error:  # Keras raises many kinds where shapes do not fit
            raise ConfigError(self._describe_other(str(error).partition("\n")[0])) from None
        for name, output in zip_longest(OUTPUTS, outputs):
            expected = golden.get(f"{self.edge}/out/{name}")
            if expected is None or not is_close(output, expected[:EXAMPLES]):
                raise ConfigError(self._describe_other(f"its {name} differ"))

    def _describe_other(self, how: str) -> str:
        return (
            f"bundle {self.manifest.name}: the source of section {self.edge} is another network "
            f"than the section ({how}); train the bundle again"
        )


def find_edge(bundle: Path, out: Path, request: PlanRequest) -> PlannedEdge:
    """The edge that a request is for. ConfigError where its section cannot be planned."""
    manifest, bundle_id = read_manifest(bundle)
    if (out / MANIFEST).exists():
        raise ConfigError(f"--out {out} is a bundle: the plan would overwrite its files")
    edge = request.edge or manifest.hierarchy.lead
    manifest.hierarchy.find_group(edge)
    check_names([device.name for device in request.devices], manifest.hierarchy)
    if not manifest.hierarchy.edge_section:
        raise ConfigError(f"bundle {manifest.name}: {NO_SECTION}")
    if edge not in manifest.sources:
        raise ConfigError(
            f"bundle {manifest.name} holds no source of section {edge}, so that it cannot be cut; "
            "train it again with this version"
        )
    return PlannedEdge(bundle, manifest, bundle_id, edge)


def check_names(workers: Sequence[str], hierarchy: Hierarchy) -> None:
    """ConfigError where a worker is an edge or the cloud: only devices work."""
    busy = {CLOUD, *(group.id for group in hierarchy.edges)}
    for name in workers:
        if name in busy:
            raise ConfigError(
                f"--workers: {name} is not a device, and only device_app lends; "
                f"use one of {', '.join(hierarchy.devices)}, or another name, such as worker1"
            )


def check_options(request: PlanRequest, *known: str) -> None:
    """ConfigError where the request has an option that its redundancy does not know.

    known: fields of PlanRequest, besides those of all rooms.
    """
    for field in request.__struct_fields__:
        value = getattr(request, field)
        if value not in (None, "", ()) and field not in (*COMMON_OPTIONS, *known):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in (field, *known))
            flag, _, others = flags.partition(", ")
            raise ConfigError(
                f"{flag} {value} does not go with --redundancy {request.redundancy}, which has "
                f"{others}"
            )


def version_file(file: Path) -> BundleFile:
    """Rename a file to carry the first digits of its sha256.

    A plan that is in use keeps its files while another is written into the same directory.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return make_file_entry(file.replace(file.with_name(f"{file.stem}-{digest}{file.suffix}")))


def write_golden_versioned(out: Path, vectors: dict[str, NDArray[Any]]) -> BundleFile:
    """Write golden vectors into a file of a name of its own."""
    return version_file(out / write_golden(out, vectors).file)


def declare_piece(name: str, file: BundleFile, vectors: Mapping[str, NDArray[Any]]) -> Piece:
    """A section file with the arrays of its golden vectors."""

    def declare(way: str) -> dict[str, ArraySpec]:
        prefix = f"{name}/{way}/"
        return {
            key.removeprefix(prefix): ArraySpec(str(v.dtype), v.shape[1:])  # type: ignore[arg-type]
            for key, v in vectors.items()
            if key.startswith(prefix)
        }

    return Piece(file, declare("in"), declare("out"))
