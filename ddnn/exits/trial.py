"""One sample through everything that a node runs: what a check does before the node starts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ddnn.core.section import Array, Arrays, Section
from ddnn.errors import ConfigError, DdnnError, SectionError
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.inference import run_devices, run_exits
from ddnn.exits.manifest import Manifest, judge


def try_sample(
    manifest: Manifest,
    sections: Mapping[str, Section],
    images: Mapping[str, NDArray[np.uint8]] | None = None,
) -> None:
    """Answer one sample at every exit, with all devices and with each alone.

    sections: those that the node has; others are stood in for. images: by device; others are black.

    Raises ConfigError where that fails, or an answer is none.
    """
    hierarchy = manifest.hierarchy
    views = np.zeros((len(hierarchy.devices), *manifest.image_shape), np.uint8)
    for device, image in (images or {}).items():
        views[hierarchy.devices.index(device)] = image
    stand_ins = _stand_in(manifest)
    everything: dict[str, Section] = {
        name: _Checked(name, sections.get(name, stand_in), stand_in)
        for name, stand_in in stand_ins.items()
    }
    masks = [hierarchy.everyone, *(1 << i for i in range(len(hierarchy.devices)))]
    # Whatever fails here fails in the running node: numpy raises several types.
    try:
        outputs = run_devices(manifest, everything, views)
        judged = [
            judge(manifest, tier, scores, mask)
            for mask in masks
            for tier, scores in run_exits(manifest, everything, outputs, mask).items()
        ]
    except DdnnError as error:
        raise ConfigError(f"bundle {manifest.name} cannot answer a sample: {error}") from error
    except Exception as error:
        raise ConfigError(
            f"bundle {manifest.name} cannot answer a sample: {type(error).__name__}: {error}; "
            "export the bundle again"
        ) from error
    classes = len(manifest.classes)
    for judgement in judged:
        probabilities = judgement.probabilities
        if len(probabilities) != classes or not np.isfinite(probabilities).all():
            raise ConfigError(
                f"bundle {manifest.name}: exit {judgement.exit} gives {len(probabilities)} "
                f"probabilities with a sum of {sum(probabilities):g} for {classes} classes; export "
                "the bundle again"
            )


def _stand_in(manifest: Manifest) -> dict[str, _Zeros]:
    """Sections that give zeros of the right shape."""
    hierarchy = manifest.hierarchy
    shapes = dict.fromkeys(hierarchy.devices, manifest.device_features)
    shapes |= {group.id: manifest.edge_features for group in hierarchy.edges}
    classes = len(manifest.classes)
    return {
        **{node: _Zeros(classes, shape) for node, shape in shapes.items()},
        CLOUD: _Zeros(classes, ()),
    }


class _Checked:
    """A section whose outputs must have the shapes of its stand-in's, and be finite."""

    def __init__(self, name: str, section: Section, stand_in: _Zeros) -> None:
        self._name, self._section, self._stand_in = name, section, stand_in

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        outputs = self._section(inputs)
        for key, expected in self._stand_in(inputs).items():
            given = outputs.get(key)
            if given is None or given.shape != expected.shape or not np.isfinite(given).all():
                found = "none" if given is None else f"{given.dtype} {given.shape}"
                raise SectionError(
                    f"section {self._name}: output {key} is {found}; expected finite numbers "
                    f"{expected.shape}"
                )
        return outputs

    def example(self) -> dict[str, Array]:
        return {}


class _Zeros:
    """A section whose outputs are zeros."""

    def __init__(self, classes: int, features: tuple[int, ...]) -> None:
        self._classes, self._features = classes, features

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        outputs = {"scores": np.zeros(self._classes, np.float32)}
        if self._features:
            outputs["features"] = np.zeros(self._features, np.float32)
        return outputs

    def example(self) -> dict[str, Array]:
        return {}
