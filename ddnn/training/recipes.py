"""How each data set is trained: sizes, steps and augmentation, found on validation data."""

from __future__ import annotations

from typing import Literal

import msgspec

from ddnn.training.augment import Augmentation
from ddnn.training.fit import Fit
from ddnn.training.models import Architecture

# Street scenes: colour says nothing, the cameras' pose says much.
_SCENES = Fit(
    steps=700,
    label_smoothing=0.05,
    augmentation=Augmentation(rotation_deg=5, hue_turns=0.25, grey=0.1, cutout=0.2),
)
_RECIPES = {"scenes": _SCENES}


def recipe(
    data: str,
    *,
    style: Literal["float", "binary"] = "float",
    share_devices: bool = True,
    bits: int | None = None,
    sections: dict[str, str] | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> tuple[Architecture, Fit]:
    """Architecture and training for data set `data`; what is given overrides."""
    architecture = Architecture(style=style, share_devices=share_devices, sections=sections or {})
    if style == "binary":
        # sizes of the paper's threshold table (notes A3, A9): 4 device filters, 16 in the cloud
        architecture = msgspec.structs.replace(architecture, device_bits=4, cloud_channels=16)
    if bits is not None:
        architecture = msgspec.structs.replace(architecture, device_bits=bits)
    how = _RECIPES.get(data, Fit())
    if steps is not None:
        how = msgspec.structs.replace(how, steps=steps)
    return architecture, msgspec.structs.replace(how, seed=seed)
