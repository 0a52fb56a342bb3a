"""What a pipeline has trained is one network, which a bundle computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.errors import LocalProtocolError
from ddnn.runtime.bundle import load_bundle
from ddnn.training.stages.batches import join_views, make_batches
from ddnn.training.stages.factory import KerasStages, read_states
from ddnn.training.stages.families import parse_network
from ddnn.training.stages.optimizers import OptimizerSettings
from ddnn.training.stages.result import evaluate, export_bundle, join_layers
from ddnn.training.stages.threads import set_threads
from tests.unit.training.small_networks import draw_dataset


def test_a_trained_network_becomes_a_bundle_that_computes_it(tmp_path: Path):
    dataset = draw_dataset()
    shape = join_views(dataset.test.images).shape[1:]
    network = parse_network("mlp-8", shape, len(dataset.classes))
    stages = KerasStages(network, OptimizerSettings(learning_rate=0.01))
    parts = [stages.build(0, 1), stages.build(1, 2)]
    batches = make_batches(dataset.train, 20)
    for number in range(30):
        images, labels = batches.make(number)
        result = parts[1].train_last(number, parts[0].forward(number, images), labels)
        parts[0].backward(number, result.gradient)
        for part in parts:
            part.apply()

    model = join_layers(stages, read_states(parts))
    images = join_views(dataset.train.images)
    trained = evaluate(model, images, dataset.train.labels)
    before = evaluate(join_layers(stages, {}), images, dataset.train.labels)
    assert trained.loss < before.loss
    assert trained.accuracy > before.accuracy

    manifest = export_bundle(
        model, dataset, tmp_path, LiteRtSection, name="mlp", data="colours", notes={"data_seed": 0}
    )
    validation = evaluate(model, join_views(dataset.validation.images), dataset.validation.labels)
    everyone = str(manifest.hierarchy.everyone)
    assert manifest.accuracy[everyone]["overall"] == pytest.approx(validation.accuracy)
    bundle = load_bundle(tmp_path, LiteRtSection)
    assert list(bundle.sections) == ["cloud"]
    images = join_views(dataset.test.images)[:4].astype(np.float32)
    for image, expected in zip(images, np.asarray(model(images)), strict=True):
        scores = bundle.sections["cloud"]({"features": image})["scores"]
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_threads_cannot_change_after_the_first_operation():
    parse_network("mlp-2", (2,), 2).build(0, 1)
    with pytest.raises(LocalProtocolError, match="before its first operation"):
        set_threads(1)
