"""What comes of a pipeline's training: one Keras model, its accuracy, a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import msgspec
import numpy as np

from ddnn.core.preprocessing import Preprocessing
from ddnn.core.section import Section
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.manifest import Manifest
from ddnn.pipeline.stage import States
from ddnn.training.bundle import (
    GOLDEN_SAMPLES,
    Progress,
    draft_manifest,
    export_sections,
    find_reason,
    finish_bundle,
    measure_network,
)
from ddnn.training.export import section_to_litert
from ddnn.training.fit import Images, Labels
from ddnn.training.models import Architecture, Network
from ddnn.training.stages.factory import KerasStages
from ddnn.training.students.examples import compute_batches
from ddnn.training.train import DatasetLike


class Evaluation(NamedTuple):
    """The mean cross entropy and the share of correct answers."""

    loss: float
    accuracy: float


def join_layers(stages: KerasStages, states: States) -> Any:
    """The whole network with these states, as one Keras model."""
    layers = stages.build_layers(0, stages.layers)
    for layer in layers:
        if layer.number in states:
            layer.write_state(states[layer.number])
    inputs = x = keras.Input(stages.network.input_shape)
    for layer in layers:
        x = layer.model(x)
    return keras.Model(inputs, x)


def check_export(stages: KerasStages, model: str) -> None:
    """Convert the untrained network: ConfigError where LiteRT could not run the trained one."""
    try:
        section_to_litert(join_layers(stages, {}), "cloud")
    except Exception as error:  # the converter raises many kinds
        raise ConfigError(
            f"--model {model}: LiteRT cannot run it: {find_reason(error)}; use operations that "
            "LiteRT has built in"
        ) from None


def evaluate(model: Any, images: Images, labels: Labels) -> Evaluation:
    """Measure a model as it is used: without dropout, with the statistics of the training.

    images: uint8 [samples, height, width, channels]
    """
    scores = compute_batches(model, images.astype(np.float32))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, scores)
    return Evaluation(float(loss), float(np.mean(scores.argmax(-1) == labels)))


def export_bundle(
    model: Any,
    dataset: DatasetLike,
    out: Path,
    load_section: Callable[[Path], Section],
    *,
    name: str,
    data: str,
    jpeg_bytes: float | None = None,
    notes: Mapping[str, str | float | int] | None = None,
    preprocessing: Preprocessing | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Manifest:
    """Write the trained network as a bundle of configuration (a), which `ddnn demo --bundle` runs.

    That is the configuration in which devices send their images and the network, undivided, is the
    cloud's section: exactly what was trained. It is measured on the validation split.

    model: images of all views [height, width, 3 views] of 0..255 -> scores
    preprocessing: how the data's pictures became images, as every source must do
    """
    members = dataset.views
    hierarchy = make_configuration("a", members, fusion_scheme="CC")
    network = Network(hierarchy, Architecture(), dataset.image_shape, len(dataset.classes))
    network.cloud = model
    manifest = msgspec.structs.replace(
        draft_manifest(network, name, data, dataset.classes, export_sections(network, out)),
        preprocessing=preprocessing or Preprocessing(),
        cameras=dict(zip(hierarchy.devices, dataset.cameras.values(), strict=False)),
    )
    measured = measure_network(manifest, out, load_section, dataset.validation, progress)
    return finish_bundle(
        manifest,
        out,
        load_section,
        measured,
        dataset.validation.images[:GOLDEN_SAMPLES],
        jpeg_bytes=jpeg_bytes,
        training={"configuration": "a", **(notes or {})},
    )
