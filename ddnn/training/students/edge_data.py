"""What an edge's section sees of a data set: the features of the bundle's own device sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Section
from ddnn.exits.inference import compute_signs, run_devices
from ddnn.exits.manifest import Manifest, aggregate_scores, fuse_features
from ddnn.training.fit import Images, Labels
from ddnn.training.plan_files import Progress
from ddnn.training.students.examples import FloatArray
from ddnn.training.train import DatasetLike

Features = NDArray[np.int8 | np.uint8]
MOST_SAMPLES = 4000  # of the training split
POOL_SAMPLES = 4000  # of random rigs, where the data set has a pool of views
MOST_VALIDATION_SAMPLES = 1000


def compute_features(
    manifest: Manifest,
    sections: Mapping[str, Section],
    images: Images,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """What each device sends for each sample: [samples, devices, h, w, channels], -1 and +1, or
    its image where it has no section.

    images: uint8 [samples, devices, height, width, 3]
    """
    devices = len(manifest.hierarchy.devices)
    kind = "int8" if manifest.hierarchy.device_section else "uint8"
    features: Features = np.zeros((len(images), devices, *manifest.device_features), kind)
    for n, sample in enumerate(images):
        features[n] = [output.features for output in run_devices(manifest, sections, sample)]
        progress(n + 1, len(images))
    return features


def draw_samples(dataset: DatasetLike, views: int, seed: int) -> tuple[Images, Labels]:
    """Training images uint8 [samples, views, height, width, 3] and labels: random samples of the
    split, and random rigs where the data set has a pool of views."""
    generator, train = np.random.default_rng(seed), dataset.train
    rows = generator.permutation(len(train.labels))[:MOST_SAMPLES]
    images, labels = train.images[rows, :views], train.labels[rows]
    if dataset.augment_pool is not None:
        more, their = dataset.augment_pool.draw(generator, POOL_SAMPLES, views)
        images, labels = np.concatenate([images, more]), np.concatenate([labels, their])
    return images, labels.astype(np.int32)


@dataclass(frozen=True)
class EdgeValidation:
    """Validation samples with all devices present, as one edge and the cloud see them.

    fused: the edge's inputs [samples, ...]; others: what the other edges' sections give, by edge:
    scores [samples, classes] and features [samples, ...].
    """

    manifest: Manifest
    cloud: Section
    edge: str
    labels: Labels
    fused: FloatArray
    others: Mapping[str, tuple[FloatArray, FloatArray]]

    def measure(self, outputs: list[FloatArray]) -> dict[str, float]:
        """The accuracy of the exits "edge" and "cloud" when the edge's section gives `outputs`:
        scores [samples, classes] and features before their sign [samples, ...]."""
        answers: dict[str, list[int]] = {"edge": [], "cloud": []}
        nodes = [group.id for group in self.manifest.hierarchy.edges]
        for n in range(len(self.labels)):
            given = {name: (scores[n], f[n]) for name, (scores, f) in self.others.items()}
            given[self.edge] = (outputs[0][n], compute_signs(outputs[1][n]))
            scores = aggregate_scores(self.manifest, "edge", [given[node][0] for node in nodes])
            answers["edge"].append(int(np.argmax(scores)))
            parts = [given[node][1] for node in nodes]
            fused = fuse_features(self.manifest, parts, self.manifest.edge_features)
            answers["cloud"].append(int(np.argmax(self.cloud({"features": fused})["scores"])))
        return {exit_: float(np.mean(self.labels == given)) for exit_, given in answers.items()}


def make_validation(
    manifest: Manifest,
    sections: Mapping[str, Section],
    edge: str,
    features: Features,
    labels: Labels,
) -> EdgeValidation:
    """features: of all devices [samples, devices, h, w, channels]."""
    fused: dict[str, FloatArray] = {}
    shape = manifest.device_features
    for group in manifest.hierarchy.edges:
        own = find_members(manifest, group.id)
        fused[group.id] = np.stack(
            [fuse_features(manifest, [*row], shape) for row in features[:, own]]
        )
    others = {name: _run(sections[name], fused[name]) for name in fused if name != edge}
    return EdgeValidation(manifest, sections["cloud"], edge, labels, fused[edge], others)


def find_members(manifest: Manifest, edge: str) -> list[int]:
    """The positions of an edge's devices among all."""
    devices = manifest.hierarchy.devices
    return [devices.index(device) for device in manifest.hierarchy.find_group(edge).devices]


def _run(section: Section, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
    outputs = [section({"features": row}) for row in inputs]
    scores = np.stack([output["scores"] for output in outputs])
    return scores, np.stack([compute_signs(output["features"]) for output in outputs])


def report_phase(progress: Progress, what: str) -> Callable[[int, int], None]:
    """progress(done, total) of one phase."""
    return lambda done, total: progress(what, done, total)
