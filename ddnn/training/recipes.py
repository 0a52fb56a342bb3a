"""Training settings for each data set, chosen on validation data."""

from __future__ import annotations

from typing import Literal

import msgspec

from ddnn.exits.aggregate import Scheme
from ddnn.training.augment import Augmentation
from ddnn.training.backbone import Backbone
from ddnn.training.fit import Distillation, Fit
from ddnn.training.models import Architecture
from ddnn.training.prune import Pruning


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a training; schemes: of the exits and of the fusion (notes A2)."""

    schemes: tuple[Scheme, Scheme]
    architecture: Architecture
    fit: Fit
    folds: int = 0  # further networks trained for thresholds; see ddnn.training.train


# Photographs of few objects from many sides: one set of weights for all cameras.
_PHOTOGRAPHS = Recipe(
    schemes=("AP", "AP"),
    architecture=Architecture(dropout=0.4, feature_dropout=0.3, pooled_heads=True),
    fit=Fit(
        steps=500,
        weight_decay=0.1,
        augmentation=Augmentation(
            log_scale=0.15,
            log_aspect=0.2,
            brightness=0.15,
            hue_turns=0.02,
            saturation=0.2,
            grey=0.05,
        ),
    ),
    folds=3,
)
# Street scenes from fixed cameras, for which a thin device section suffices.
_SCENES = Recipe(
    schemes=("AP", "CC"),
    architecture=Architecture(device_channels=(8, 16), device_map_side=8, device_bits=4),
    fit=Fit(
        steps=700,
        label_smoothing=0.05,
        augmentation=Augmentation(rotation_deg=5, hue_turns=0.25, grey=0.1, cutout=0.2),
    ),
)
# Street scenes of kinds that are alike. Devices are thin, and their scores are of 2x2
# averages; features, 128 B of a device and 640 B of the edge, keep the positions, which the
# sections of edge and cloud use. Kinds differ in colours and sides, so that augmentation changes
# them little. The upper exits' losses count most: what they need shapes the devices' features.
_ALIKE = Recipe(
    schemes=_SCENES.schemes,
    architecture=Architecture(
        device_channels=(12, 24),
        device_map_side=8,
        device_bits=16,
        device_head_side=2,
        edge_head_side=4,
        upper_map_sides=(8, 4),
        edge_channels=(80,),
        edge_bits=80,
        cloud_channels=(96, 160),
    ),
    fit=Fit(
        steps=1800,
        learning_rate=4e-3,
        label_smoothing=0.05,
        weights={"device": 0.1, "local": 0.2, "edge": 0.5, "cloud": 1.5},
        distillation="deepest",
        drop_share=0.2,
        augmentation=Augmentation(
            rotation_deg=5,
            flip=False,
            brightness=0.3,
            hue_turns=0.03,
            saturation=0.2,
            grey=0.0,
            cutout=0.1,
        ),
    ),
)
# Sizes of the paper's threshold table (notes A3, A9): 4 device filters, 16 in edge and cloud.
_BINARY = Architecture(style="binary", device_bits=4, edge_bits=16, cloud_channels=(16, 16))

# Features of a backbone, 8x8 of a device and 4x4 of the edge: 192 and 128 B.
_BACKBONE = {"device_map_side": 8, "device_bits": 24, "edge_bits": 64}
_BACKBONE_LEARNING_RATE = 1e-3  # pretrained weights are near their goal

_RECIPES = {"scenes": _SCENES, "scenes5": _ALIKE, "scenes8": _ALIKE}
_BINARY_STEPS = 2000  # binary weights change only when a shadow weight's sign does


def choose_recipe(
    data: str,
    *,
    style: Literal["float", "binary"] = "float",
    schemes: tuple[Scheme | None, Scheme | None] = (None, None),
    share_devices: bool = True,
    bits: int | None = None,
    sections: dict[str, str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    edge_dense: tuple[int, ...] = (),
    pruning: Pruning | None = None,
    distillation: Distillation | None = None,
    backbone: Backbone | None = None,
) -> Recipe:
    """The recipe for the data set with the name `data`; other arguments override its settings.

    style: "binary" is the paper's: MP-CC, ConvP and FC blocks
    """
    base = _RECIPES.get(data, _PHOTOGRAPHS)
    default: tuple[Scheme, Scheme] = ("MP", "CC") if style == "binary" else base.schemes
    architecture = msgspec.structs.replace(
        _BINARY if style == "binary" else base.architecture,
        share_devices=share_devices,
        sections=sections or {},
        edge_dense=edge_dense,
    )
    if backbone is not None:
        architecture = msgspec.structs.replace(architecture, backbone=backbone, **_BACKBONE)
    if bits is not None:
        architecture = msgspec.structs.replace(architecture, device_bits=bits)
    own: dict[str, float] = {"steps": _BINARY_STEPS, "average": 0.0} if style == "binary" else {}
    if backbone is not None:
        own["learning_rate"] = _BACKBONE_LEARNING_RATE
    fit = msgspec.structs.replace(base.fit, seed=seed, pruning=pruning, **own)
    return Recipe(
        schemes=(schemes[0] or default[0], schemes[1] or default[1]),
        architecture=architecture,
        fit=msgspec.structs.replace(
            fit,
            steps=fit.steps if steps is None else steps,
            distillation=distillation or fit.distillation,
        ),
        folds=base.folds if data.startswith("eth80") else 0,
    )
