"""All students and the classifier as one network: what they compute together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddnn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class UnifiedStudent:
    """Students whose portions, concatenated in the teacher's order of filters, are classified.

    filters: of each student's portion. They form disjoint parts, together 0 to M - 1; students of
    the same part are averaged (Jeong et al., Electronics 10(14):1614, 2021). classifier:
    z [height, width, M] -> [scores, further outputs]. Raises ConfigError where the filters do not
    cover the map.
    """

    students: tuple[Any, ...]
    filters: tuple[tuple[int, ...], ...]
    classifier: Any

    def __post_init__(self) -> None:
        total = int(self.classifier.inputs[0].shape[-1])
        given = [filter_ for part in self.parts for filter_ in part]
        sizes = [int(student.outputs[0].shape[-1]) for student in self.students]
        if sorted(given) != list(range(total)) or sizes != [len(part) for part in self.filters]:
            raise ConfigError(
                f"students of {sizes} filters for the parts {self.filters}: expected each of the "
                f"{total} filters in one part, and a student of that size for each part"
            )

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """The different parts of the filters, in the order of their first students."""
        return tuple(dict.fromkeys(self.filters))

    @property
    def labels(self) -> NDArray[np.int32]:
        """Which part holds each filter: [M]."""
        labels = np.zeros(sum(map(len, self.parts)), np.int32)
        for part, filters in enumerate(self.parts):
            labels[list(filters)] = part
        return labels

    @property
    def variables(self) -> list[Any]:
        """All that training changes, batch statistics and states of random generators included."""
        return [v for model in (*self.students, self.classifier) for v in model.variables]

    def compute_portions(self, inputs: Any, *, training: bool = False) -> list[Any]:
        """Each student's portion: K of [batch, height, width, filters]."""
        return [student(inputs, training=training) for student in self.students]

    def split(self, z: Any) -> list[Any]:
        """Each student's part of a whole feature map [batch, height, width, M]."""
        return [tf.gather(z, list(part), axis=-1) for part in self.filters]

    def join(self, portions: Sequence[Any]) -> Any:
        """The whole feature map of all students' portions."""
        same: dict[tuple[int, ...], list[Any]] = {part: [] for part in self.parts}
        for part, portion in zip(self.filters, portions, strict=True):
            same[part].append(portion)
        means = [tf.add_n(of_part) / len(of_part) for of_part in same.values()]
        return tf.gather(tf.concat(means, -1), np.argsort(np.concatenate(self.parts)), axis=-1)

    def classify(self, z: Any, *, training: bool = False) -> list[Any]:
        """Scores and further outputs of a whole feature map."""
        return list(keras.tree.flatten(self.classifier(z, training=training)))

    def __call__(self, inputs: Any, *, training: bool = False) -> list[Any]:
        """Scores and further outputs, with all portions."""
        portions = self.compute_portions(inputs, training=training)
        return self.classify(self.join(portions), training=training)
