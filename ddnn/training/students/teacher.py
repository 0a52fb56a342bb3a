"""Teachers of photographs: a backbone, global average pooling and one dense layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from ddnn.training.checkpoints import Checkpoints
from ddnn.training.fit import Images, Labels
from ddnn.training.split import FeatureSplit
from ddnn.training.students.distil import Distillation, Phase, Progress, ignore, train_phase
from ddnn.training.students.family import Backbone, Shape, build_body
from ddnn.training.students.images import crop_images, draw_crops, scale_images
from ddnn.training.students.loss import compute_cross_entropy


def build_teacher(backbone: Backbone, input_shape: Shape, classes: int) -> Any:
    """A Keras model: float32 [batch, *input_shape] -> scores [batch, classes]."""
    inputs = layers.Input(input_shape)
    z = build_body(inputs, backbone)
    pooled = layers.GlobalAveragePooling2D()(z)
    return keras.Model(inputs, layers.Dense(classes, name="classifier")(pooled))


@dataclass(frozen=True, slots=True)
class TeacherTraining:
    """What a teacher is trained with; images: uint8 [images, height, width, channels]."""

    images: Images
    labels: Labels
    settings: Distillation
    checkpoints: Checkpoints | None = None
    progress: Progress = ignore


def train_teacher(model: Any, training: TeacherTraining) -> float:
    """Minimize the cross entropy of random crops and flips over the model's weights, in place.

    The mean loss of the last tenth of the steps, 0 where all of them were done before.
    """
    settings = training.settings

    def draw(generator: np.random.Generator) -> tuple[Any, ...]:
        rows = generator.integers(0, len(training.labels), settings.batch)
        crops = draw_crops(generator, (settings.batch,))
        return scale_images(crop_images(training.images[rows], crops)), training.labels[rows]

    def compute(inputs: Any, labels: Any) -> Any:
        return compute_cross_entropy(labels, model(inputs, training=True))

    return train_phase(
        Phase("teacher", "training the teacher", 3, settings.steps, settings.learning_rate),
        draw,
        compute,
        model.trainable_variables,
        model.variables,
        training,
    )


def pool_classifier(split: FeatureSplit) -> Any:
    """A copy of the classifier for spatial means of the map: z [1, 1, filters] -> its outputs.

    Exact for classifiers that begin with global average pooling, as `build_teacher` makes them.
    """
    pooled = keras.models.clone_model(
        split.classifier, input_tensors=layers.Input((1, 1, split.shape[2]))
    )
    pooled.set_weights(split.classifier.get_weights())
    return pooled
