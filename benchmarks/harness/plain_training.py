"""A small training in this process, one batch after the other: what a pipeline must equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.data import load
from ddnn.local_site.pipeline_training import TrainingRequest, prepare


def write_pictures(path: Path) -> Path:
    """Three classes of small pictures, each with a stripe of its own."""
    generator, labels = np.random.default_rng(0), np.arange(240) % 3
    images = generator.integers(0, 90, (240, 1, 8, 8, 3), dtype=np.uint8)
    for image, label in zip(images[:, 0], labels, strict=True):
        image[:, 3 * label : 3 * label + 2, label] += 40
    np.savez(path, images=images, labels=labels)
    return path


def train_plainly(request: TrainingRequest) -> tuple[list[float], float, float]:
    """Train as the request says: the losses of the batches, loss and accuracy of the test."""
    from ddnn.training.stages.batches import join_views
    from ddnn.training.stages.result import evaluate, join_layers

    dataset = load(request.data)
    prepared = prepare(request, dataset)
    stages = prepared.stages
    stage = stages.build(0, stages.layers)
    losses = []
    for batch in range(request.batches or 0):
        images, labels = prepared.data(batch)
        result = stage.train_last(batch, images, labels, 1 / request.micro_batches)
        losses.append(round(result.loss, 4))
        if (batch + 1) % request.micro_batches == 0:
            stage.apply()
    model = join_layers(stages, {n: stage.read_layer(n) for n in range(stages.layers)})
    measured = evaluate(model, join_views(dataset.test.images), dataset.test.labels)
    return losses, round(measured.loss, 4), round(measured.accuracy, 4)
