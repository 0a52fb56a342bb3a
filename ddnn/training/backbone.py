"""The choice of a pretrained network, which takes no TensorFlow to make."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from ddnn.errors import ConfigError

BackboneName = Literal["mobilenetv3small", "mobilenetv2", "efficientnetv2b0"]
PUBLISHED = "imagenet"  # weights by the network's publisher
RANDOM = "random"


class Backbone(msgspec.Struct, frozen=True, kw_only=True):
    """A network of keras.applications of whose parts sections are made.

    weights: "imagenet", "random" or a file of weights for the network without its top (.h5,
    .weights.h5). frozen: training leaves the network's own layers as they are.

    Raises ConfigError where there is no such file.
    """

    name: BackboneName
    weights: str = PUBLISHED
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.weights not in (PUBLISHED, RANDOM) and not Path(self.weights).is_file():
            raise ConfigError(
                f"--weights {self.weights}: no such file; expected {PUBLISHED}, {RANDOM} or a file "
                f"of weights of {self.name} without its top"
            )
