"""Writer of bundles: sections, measurements, thresholds and golden vectors of a network."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.files import BundleFile
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits import measure as m
from ddnn.exits.drift import measure_reference
from ddnn.exits.inference import compute_signs, run_devices
from ddnn.exits.manifest import Head, Manifest, fuse_features
from ddnn.exits.scores import ScoreFormat
from ddnn.runtime.bundle import make_file_entry, write_golden, write_manifest
from ddnn.runtime.new_directory import require_space
from ddnn.training.export import INPUT, section_to_litert, write_section, write_source
from ddnn.training.fit import SplitLike
from ddnn.training.golden import GoldenRecorder
from ddnn.training.models import Network

GOLDEN_SAMPLES = 4
BYTES_PER_WEIGHT = 4
COPIES = 2  # of the weights: LiteRT files, and Keras models of the edges
EXTRA_BYTES = 2 << 20  # golden vectors, manifest
_OPERATION = re.compile(r"\btf\.[A-Z]\w+")
MARGIN = 0.005  # accuracy below that of the best thresholds that cheaper ones may cost

Progress = Callable[[str, int, int], None]
LoadSection = Callable[[Path], Section]


def export_sources(network: Network, directory: Path) -> dict[str, BundleFile]:
    """Write the Keras models of the edges' sections that can be loaded again; entries by edge."""
    return {
        edge: make_file_entry(file)
        for edge, model in network.edges.items()
        if (file := write_source(directory, edge, model))
    }


def export_sections(network: Network, directory: Path) -> dict[str, BundleFile]:
    """Write one LiteRT file per section; devices that share weights share the file."""
    directory.mkdir(parents=True, exist_ok=True)
    written: dict[int, BundleFile] = {}
    entries: dict[str, BundleFile] = {}
    for place, name, model in _list_places(network):
        if id(model) not in written:
            shared = place == "device" and network.architecture.share_devices
            stem = "device" if shared else name
            written[id(model)] = make_file_entry(
                write_section(directory, stem, section_to_litert(model, place))
            )
        entries[name] = written[id(model)]
    return entries


def _list_places(network: Network) -> list[tuple[str, str, Any]]:
    """Place, name and model of every section."""
    return [
        *(("device", name, model) for name, model in network.devices.items()),
        *(("edge", name, model) for name, model in network.edges.items()),
        ("cloud", "cloud", network.cloud),
    ]


def check_export(network: Network, directory: Path, load_section: LoadSection) -> None:
    """Convert and run the user's sections before they are trained, and ask for the bundle's space.

    Raises ConfigError for a section that LiteRT cannot run, and for a full disk. The product's own
    sections are known to convert.
    """
    count = sum(int(np.prod(weight.shape)) for m in network.models for weight in m.weights)
    require_space(directory, COPIES * BYTES_PER_WEIGHT * count + EXTRA_BYTES)
    for place, name, model in _list_places(network):
        hook = network.architecture.sections.get(place)
        if hook is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                file = write_section(Path(scratch), name, section_to_litert(model, place))
                shape = tuple(int(n) for n in model.inputs[0].shape[1:])
                blank = np.zeros(shape, np.uint8 if place == "device" else np.float32)
                load_section(file)({INPUT.get(place, "features"): blank})
            except Exception as error:  # the converter and LiteRT raise many kinds
                raise ConfigError(
                    f"--section {place}={hook}: LiteRT cannot run it: {find_reason(error)}; use "
                    "operations that LiteRT has built in"
                ) from None


def find_reason(error: Exception) -> str:
    """The operations that a converter's message of many lines names, else its beginning."""
    text = str(error)
    if names := sorted(set(_OPERATION.findall(text))):
        return f"it has no operation {', '.join(names)}"
    return " ".join(text.split())[:300] or type(error).__name__


def draft_manifest(
    network: Network,
    name: str,
    data: str,
    classes: tuple[str, ...],
    files: dict[str, BundleFile],
    sources: dict[str, BundleFile] | None = None,
) -> Manifest:
    """The manifest before measurement: every threshold is 0, so that every sample escalates."""
    heads = {
        tier: Head(
            np.asarray(head.kernel).astype(float).tolist(),
            np.asarray(head.bias).astype(float).tolist(),
        )
        for tier, head in network.heads.items()
    }
    tiers = network.hierarchy.exits[:-1]
    return Manifest(
        format=1,
        name=name,
        data=data,
        classes=classes,
        image_shape=network.image_shape,
        hierarchy=network.hierarchy,
        score_format=ScoreFormat(),
        thresholds=dict.fromkeys(tiers, 0.0),
        device_features=network.device_features,
        edge_features=network.edge_features,
        sections=files,
        golden=BundleFile("", ""),
        sources=sources or {},
        heads=heads,
    )


def measure_network(
    manifest: Manifest,
    directory: Path,
    load_section: LoadSection,
    split: SplitLike,
    progress: Progress,
    subset_samples: int | None = None,
) -> m.Measurement:
    """Measure the exported network on a split, for every subset of members on some samples."""
    sections = load_sections(manifest, directory, load_section)
    members = len(manifest.hierarchy.devices)
    return m.measure_scores(
        manifest,
        sections,
        split.images[:, :members],
        split.labels,
        m.list_member_masks(members),
        lambda done, total: progress("measuring every subset of members", done, total),
        subset_samples,
    )


def load_sections(
    manifest: Manifest, directory: Path, load_section: LoadSection
) -> dict[str, Section]:
    """The sections of a bundle, by name."""
    return {name: load_section(directory / e.file) for name, e in manifest.sections.items()}


def finish_bundle(
    manifest: Manifest,
    directory: Path,
    load_section: LoadSection,
    measured: m.Measurement,
    images: NDArray[np.uint8],
    *,
    margin: float = MARGIN,
    score_type: str = "auto",
    jpeg_bytes: float | None = None,
    training: Mapping[str, str | float | int] | None = None,
) -> Manifest:
    """Choose score type and thresholds from measurements; write golden vectors and manifest.

    images: uint8 [samples, devices, h, w, 3], for the golden vectors.
    """
    hierarchy = manifest.hierarchy
    labels = measured.labels
    everyone = hierarchy.everyone
    sweep: list[Any] = []
    score_format = ScoreFormat()
    thresholds: dict[str, float] = {}
    if hierarchy.device_section:
        score_format, sweep, row = m.choose_format(manifest, measured, margin)
        if score_type != "auto" and score_type != score_format.type:
            score_format = next(
                f for f in m.list_score_formats(measured.devices) if f.type == score_type
            )
            rescored = m.encode_with_format(manifest, measured, score_format)
            sweep = m.sweep_thresholds(manifest, rescored.exits[everyone], labels, score_format)
            row = m.choose_row(sweep, lambda row: m.compute_total_bytes(manifest, row), margin)
        thresholds = row.thresholds
        measured = m.encode_with_format(manifest, measured, score_format)
    table = m.make_accuracy_table(hierarchy, measured, thresholds)
    _, answers = m.apply_exits(hierarchy, measured.exits[everyone], thresholds)
    devices = (
        {
            device: m.compute_accuracy(measured.devices[:, i], labels)
            for i, device in enumerate(hierarchy.devices)
        }
        if hierarchy.device_section
        else {}
    )
    manifest = msgspec.structs.replace(
        manifest,
        score_format=score_format,
        thresholds=thresholds,
        accuracy=table,
        device_accuracy=devices,
        recall=m.compute_recalls(answers, labels, manifest.classes),
        majority=m.compute_majority(labels),
        behaviour=measure_reference(
            hierarchy,
            score_format.decode(score_format.encode(measured.devices)),
            measured.exits[everyone][hierarchy.exits[0]],
        ),
        sweep=tuple(sweep),
        jpeg_bytes=jpeg_bytes,
        golden=write_golden(
            directory,
            compute_golden_vectors(
                manifest, load_sections(manifest, directory, load_section), images
            ),
        ),
        training={"margin": margin, "validation_samples": len(labels), **(training or {})},
    )
    write_manifest(directory, manifest)
    return manifest


def compute_golden_vectors(
    manifest: Manifest, sections: Mapping[str, Section], images: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Inputs and outputs of every section for a few samples, by <section>/in|out/<array>."""
    hierarchy = manifest.hierarchy
    golden = GoldenRecorder(sections)
    for sample in images[:GOLDEN_SAMPLES]:
        if hierarchy.device_section:
            features: dict[str, NDArray[Any]] = {
                device: compute_signs(golden.run(device, {"image": sample[i]})["features"])
                for i, device in enumerate(hierarchy.devices)
            }
        else:
            outputs = run_devices(manifest, sections, sample)
            features = {d: o.features for d, o in zip(hierarchy.devices, outputs, strict=True)}
        shape = manifest.device_features
        if hierarchy.edge_section:
            for group in hierarchy.edges:
                own = [features[device] for device in group.devices]
                out = golden.run(group.id, {"features": fuse_features(manifest, own, shape)})
                features[group.id] = compute_signs(out["features"])
            shape = manifest.edge_features
        nodes = (
            [group.id for group in hierarchy.edges]
            if hierarchy.edge_section
            else list(hierarchy.devices)
        )
        fused = fuse_features(manifest, [features[node] for node in nodes], shape)
        golden.run("cloud", {"features": fused})
    return golden.stack()
