"""Sections made of a network of keras.applications (a backbone), pretrained on other pictures.

The backbone is cut where a single map passes: the device has its first blocks, to an eighth of the
image's side, the edge those to a sixteenth, the cloud the rest. Between them travel binary features
as in all networks of ddnn: a convolution 1x1 makes them of the map, and another one makes of the
fused features of all members a map with as many channels as the next block takes.

With few pictures of one's own a network learns more from a start that has seen many (J. Yosinski et
al., NeurIPS 2014). Weights come from a file, or from the network's publisher, which needs a network
connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
from keras import layers

from ddnn.errors import ConfigError
from ddnn.training.backbone import RANDOM, Backbone, BackboneName
from ddnn.training.blocks import make_batch_norm

if TYPE_CHECKING:
    from ddnn.training.models import Architecture, Place

LEAST_SIDE = 32  # of an image
MOMENTUM = 0.95  # of batch statistics: published networks have 0.999, for far longer trainings


class _Network(NamedTuple):
    build: Callable[..., Any]  # of keras.applications
    device: str  # the last layer of the device's part
    edge: str  # the last layer of the edge's part
    scales: bool  # it takes pixels of 0 to 255


NETWORKS: dict[BackboneName, _Network] = {
    "mobilenetv3small": _Network(
        keras.applications.MobileNetV3Small, "expanded_conv_2_add", "expanded_conv_7_add", True
    ),
    "mobilenetv2": _Network(keras.applications.MobileNetV2, "block_5_add", "block_12_add", False),
    "efficientnetv2b0": _Network(
        keras.applications.EfficientNetV2B0, "block3b_add", "block5e_add", True
    ),
}


def build_backbone(backbone: Backbone) -> Any:
    """The whole network without its top, for images of any size.

    Raises ConfigError where the weights cannot be had or are of another network.
    """
    weights = None if backbone.weights == RANDOM else backbone.weights
    build = NETWORKS[backbone.name].build
    try:
        return build(input_shape=(None, None, 3), include_top=False, weights=weights)
    except Exception as error:  # of h5py, of Keras, of the connection
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"--weights {backbone.weights}: no weights of {backbone.name} without its top: "
            f"{reason}; give a file, as save_weights of the model in keras.applications writes it "
            f"with include_top=False, or --weights {RANDOM}"
        ) from None


def build_section(
    backbone: Backbone,
    architecture: Architecture,
    place: Place,
    after: Place,
    shape: tuple[int, ...],
    classes: int,
) -> Any:
    """A section with the backbone's part for a place; sizes of features are the architecture's.

    after: whose features [h, w, channels] the section takes; for a device, which takes an image
    [h, w, 3] of 0 to 255, its own place.
    """
    network, whole = NETWORKS[backbone.name], build_backbone(backbone)
    start, *ends = list_cuts(backbone, whole)
    cuts = dict(zip(("device", "edge", "cloud"), ends, strict=True))
    source = layers.Input(shape)
    if place == "device":
        if min(shape[:2]) < LEAST_SIDE:
            raise ConfigError(
                f"--backbone {backbone.name}: images of {shape[0]}x{shape[1]}; expected "
                f"{LEAST_SIDE} or more (--size)"
            )
        x = source if network.scales else layers.Rescaling(1 / 127.5, -1)(source)
        x = take_part(whole, start, cuts["device"], backbone)(x)
    else:
        x = layers.Dropout(architecture.feature_dropout)(source)
        channels = whole.get_layer(cuts[after]).output.shape[-1]
        x = make_batch_norm()(layers.Conv2D(channels, 1, use_bias=False)(x))
        x = take_part(whole, cuts[after], cuts[place], backbone)(x)
    head = layers.Dropout(architecture.dropout)(layers.GlobalAveragePooling2D()(x))
    scores = layers.Dense(classes, name="scores")(head)
    if place == "cloud":
        return keras.Model(source, scores)
    while x.shape[1] > architecture.device_map_side:
        x = layers.MaxPooling2D(2)(x)
    count = architecture.device_bits if place == "device" else architecture.edge_bits
    bits = layers.Conv2D(count, 1, use_bias=False, name="bits")(x)
    return keras.Model(source, [scores, make_batch_norm("bits_norm")(bits)])


def list_cuts(backbone: Backbone, whole: Any) -> list[str]:
    """The names of the first layer, and of the last ones of device, edge and cloud."""
    network = NETWORKS[backbone.name]
    return [whole.layers[0].name, network.device, network.edge, whole.layers[-1].name]


def take_part(whole: Any, first: str, last: str, backbone: Backbone) -> Any:
    """The layers after `first` up to `last`, as one layer."""
    part = keras.Model(whole.get_layer(first).output, whole.get_layer(last).output)
    part.trainable = not backbone.frozen
    for layer in part.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return part
