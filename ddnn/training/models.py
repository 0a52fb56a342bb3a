"""Keras sections of devices, edges and cloud, and the network that joins them for training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import msgspec
import tensorflow as tf
from keras import layers

from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Exit, Hierarchy
from ddnn.training.backbone import Backbone
from ddnn.training.backbone_sections import build_section
from ddnn.training.blocks import Sign, add_conv, add_conv_p, add_fc, make_batch_norm, sign
from ddnn.training.fusion import fuse
from ddnn.training.hooks import load_function

Place = Literal["device", "edge", "cloud"]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the sections.

    style: "binary" is the paper's (ConvP and FC blocks, notes A3), "float" has float weights and
    the same binary features between tiers
    sections: user sections: "package.module:function" by place, called as
    function(place, input_shape, classes) -> keras.Model with outputs [scores, features] (cloud:
    scores); features are signed before they travel
    """

    style: Literal["float", "binary"] = "float"
    share_devices: bool = True  # one set of weights for all devices
    device_channels: tuple[int, ...] = (32, 48, 64, 96)
    device_map_side: int = 4  # features are maps of at most this side
    device_bits: int = 24  # binary maps (float style) or filters (binary style) of the last block
    device_head_side: int = 0  # scores of a device: from maps averaged to this side; 0: as they are
    edge_head_side: int = 0  # the same for an edge's scores
    upper_map_sides: tuple[int, int] = (4, 4)  # to which convolutions of edge and cloud pool
    edge_channels: tuple[int, ...] = (64,)
    edge_bits: int = 16
    edge_dense: tuple[int, ...] = ()  # wide layers before the edge's scores, worth coding
    cloud_channels: tuple[int, ...] = (64,)
    dropout: float = 0.2  # before the heads
    feature_dropout: float = 0.0  # of the fused features, while training
    pooled_heads: bool = (
        False  # edge and cloud: global average, not all positions (edge_dense: all)
    )
    sections: dict[str, str] = {}
    backbone: Backbone | None = None  # of which the sections are parts; else layers as above


def describe_architecture(architecture: Architecture) -> str:
    """The architecture as JSON for a bundle's manifest: a file of weights without its directory."""
    backbone = architecture.backbone
    if backbone is not None:
        fields = {**msgspec.to_builtins(backbone), "weights": Path(backbone.weights).name}
        return msgspec.json.encode(
            {**msgspec.to_builtins(architecture), "backbone": fields}
        ).decode()
    return msgspec.json.encode(architecture).decode()


def _build_device(architecture: Architecture, shape: tuple[int, ...], classes: int) -> Any:
    """uint8-valued float image [h, w, 3] -> scores [classes], features before their sign."""
    image = layers.Input(shape)
    x = layers.Rescaling(1 / 127.5, -1)(image)
    if architecture.style == "binary":
        features = add_conv_p(x, architecture.device_bits)
        return keras.Model(image, [add_fc(Sign()(features), classes), features])
    first, *more = architecture.device_channels
    x = add_conv(x, first, kernel=5, stride=2)
    for channels in more:
        x = add_conv(x, channels)
        if x.shape[1] > architecture.device_map_side:
            x = layers.MaxPooling2D(2)(x)
    while x.shape[1] > architecture.device_map_side:  # so that larger images do not send more bytes
        x = layers.MaxPooling2D(2)(x)
    side = architecture.device_head_side
    dropout = 0.0 if side else architecture.dropout
    head = layers.Dropout(dropout)(layers.Flatten()(_average_to(x, side)))
    bits = layers.Conv2D(architecture.device_bits, 1, use_bias=False)(x)
    return keras.Model(image, [layers.Dense(classes)(head), make_batch_norm()(bits)])


def _build_edge(architecture: Architecture, shape: tuple[int, ...], classes: int) -> Any:
    """Fused features [h, w, c] -> scores [classes], features for the cloud before their sign.

    The float style's layers that can be cut out have fixed names: conv1, dense1, scores, bits.
    """
    fused = layers.Input(shape)
    if architecture.style == "binary":
        features = add_conv_p(fused, architecture.edge_bits, pool_stride=1)
        return keras.Model(fused, [add_fc(Sign()(features), classes), features])
    x = layers.Dropout(architecture.feature_dropout)(fused)
    x = _add_convolutions(x, architecture.edge_channels, architecture.upper_map_sides[0])
    averaged = _average_to(x, architecture.edge_head_side)
    head = _add_head(architecture, averaged, architecture.edge_dense)
    bits = layers.Conv2D(architecture.edge_bits, 1, use_bias=False, name="bits")(x)
    scores = layers.Dense(classes, name="scores")(head)
    return keras.Model(fused, [scores, make_batch_norm("bits_norm")(bits)])


def _build_cloud(architecture: Architecture, shape: tuple[int, ...], classes: int) -> Any:
    """Fused features [h, w, c] -> scores [classes]."""
    fused = layers.Input(shape)
    if architecture.style == "binary":
        x = fused
        for filters in architecture.cloud_channels:
            x = Sign()(add_conv_p(x, filters, pool_stride=1))
        return keras.Model(fused, add_fc(x, classes))
    x = _add_convolutions(fused, architecture.cloud_channels, architecture.upper_map_sides[1])
    head = _add_head(architecture, x)
    return keras.Model(fused, layers.Dense(classes)(head))


def _add_convolutions(x: Any, channels: tuple[int, ...], side: int) -> Any:
    """Add convolutions, each followed by pooling while the map is larger than `side`."""
    for number, count in enumerate(channels, 1):
        x = add_conv(x, count, name=f"conv{number}")
        if x.shape[1] > side:
            x = layers.MaxPooling2D(2)(x)
    return x


def _average_to(x: Any, side: int) -> Any:
    """Average maps to `side`; 0: as they are."""
    return layers.AveragePooling2D(max(1, x.shape[1] // side))(x) if side else x


def _add_head(architecture: Architecture, x: Any, dense: tuple[int, ...] = ()) -> Any:
    """Add pooling or flattening, dropout and the dense layers before the scores."""
    pooled = architecture.pooled_heads and not dense
    flat = layers.GlobalAveragePooling2D() if pooled else layers.Flatten()
    x = layers.Dropout(architecture.dropout)(flat(x))
    for number, units in enumerate(dense, 1):
        x = layers.Dense(
            units, activation="relu", kernel_initializer="he_normal", name=f"dense{number}"
        )(x)
        x = layers.Dropout(architecture.dropout)(x)
    return x


def build_cloud_only(architecture: Architecture, shape: tuple[int, ...], classes: int) -> Any:
    """Configuration (a): raw views [h, w, 3 n] -> scores [classes], one undivided network."""
    views = layers.Input(shape)
    x = layers.Rescaling(1 / 127.5, -1)(views)
    x = add_conv(x, architecture.device_channels[0] * 2, kernel=5, stride=2)
    for channels in architecture.device_channels[1:]:
        x = add_conv(x, channels)
        if x.shape[1] >= 8:
            x = layers.MaxPooling2D(2)(x)
    head = layers.Dropout(architecture.dropout)(layers.Flatten()(x))
    return keras.Model(views, layers.Dense(classes)(head))


_BUILDERS: dict[Place, Callable[[Architecture, tuple[int, ...], int], Any]] = {
    "device": _build_device,
    "edge": _build_edge,
    "cloud": _build_cloud,
}


def _build_section(
    architecture: Architecture, place: Place, after: Place, shape: tuple[int, ...], classes: int
) -> Any:
    """The section for a place, the user's where the architecture names one.

    after: whose features the section takes; a device's own place.

    Raises ConfigError where the user's function is missing or returns another kind of model.
    """
    hook = architecture.sections.get(place)
    if hook is None and architecture.backbone is not None:
        return build_section(architecture.backbone, architecture, place, after, shape, classes)
    if hook is None:
        return _BUILDERS[place](architecture, shape, classes)
    function = load_function(hook, f"--section {place}={hook}")
    try:
        model = function(place, shape, classes)
    except Exception as error:  # user code
        raise ConfigError(
            f"--section {place}={hook} raised {type(error).__name__}: {error}; it is called as "
            f"{hook.partition(':')[2]}({place!r}, {shape}, {classes})"
        ) from error
    outputs = 1 if place == "cloud" else 2
    got = len(model.outputs) if isinstance(model, keras.Model) else 0
    if got != outputs or tuple(model.outputs[0].shape[1:]) != (classes,):
        raise ConfigError(
            f"--section {place}={hook}: expected a keras.Model whose first output are scores "
            f"[{classes}] and, for device and edge, a second one are features"
        )
    return model


class Network:
    """All sections of a hierarchy, joined for training.

    binary: whether features between tiers are signs; False: floats (ReLU), as in the
    undistributed network that the hierarchy is compared with
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        architecture: Architecture,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        binary: bool = True,
    ) -> None:
        self.hierarchy, self.architecture = hierarchy, architecture
        self.image_shape, self.classes, self.binary = image_shape, classes, binary
        if architecture.edge_dense and (
            not hierarchy.edge_section
            or architecture.style == "binary"
            or "edge" in architecture.sections
            or architecture.backbone is not None
        ):
            raise ConfigError(
                f"--edge-dense {architecture.edge_dense}: expected a configuration with an edge "
                "(d, e or f), --style float, no --backbone and no user section for the edge"
            )
        if architecture.backbone is not None and (
            not hierarchy.device_section or architecture.style == "binary"
        ):
            raise ConfigError(
                f"--backbone {architecture.backbone.name}: expected a configuration with sections "
                "on devices (b to f) and --style float"
            )
        members = len(hierarchy.devices)
        self.devices: dict[str, Any] = {}
        if hierarchy.device_section:
            shared: Any = None
            for device in hierarchy.devices:
                if shared is None or not architecture.share_devices:
                    shared = _build_section(architecture, "device", "device", image_shape, classes)
                self.devices[device] = shared
            shape = tuple(int(n) for n in shared.outputs[1].shape[1:])
        else:
            shape = image_shape
        self.device_features = shape
        self.edge_features: tuple[int, ...] = ()
        self.edges: dict[str, Any] = {}
        for group in hierarchy.edges if hierarchy.edge_section else ():
            width = self._fuse_shape(shape, len(group.devices))
            self.edges[group.id] = _build_section(architecture, "edge", "device", width, classes)
            outputs = self.edges[group.id].outputs
            self.edge_features = tuple(int(n) for n in outputs[1].shape[1:])
        if hierarchy.edge_section:
            shape, members = self.edge_features, len(hierarchy.edges)
        if hierarchy.device_section:
            after: Place = "edge" if hierarchy.edge_section else "device"
            fused = self._fuse_shape(shape, members)
            self.cloud = _build_section(architecture, "cloud", after, fused, classes)
        else:
            self.cloud = build_cloud_only(architecture, self._fuse_shape(shape, members), classes)
        self.heads: dict[str, Any] = {}
        if hierarchy.exit_scheme == "CC":
            for tier, count in (("local", len(hierarchy.devices)), ("edge", len(hierarchy.edges))):
                if tier in hierarchy.exits:
                    head = layers.Dense(classes)
                    head.build((None, count * classes))
                    self.heads[tier] = head

    def _fuse_shape(self, shape: tuple[int, ...], members: int) -> tuple[int, ...]:
        """The shape of the fused features of `members` members."""
        factor = members if self.hierarchy.fusion_scheme == "CC" else 1
        return (*shape[:-1], shape[-1] * factor)

    @property
    def models(self) -> list[Any]:
        """Every Keras model and layer, each once."""
        found = [*self.devices.values(), *self.edges.values(), self.cloud, *self.heads.values()]
        return list({id(model): model for model in found}.values())

    @property
    def trainable_variables(self) -> list[Any]:
        return [v for model in self.models for v in model.trainable_variables]

    def __call__(self, images: Any, mask: Any, *, training: bool) -> dict[Exit, Any]:
        """Class scores of every exit; "device" is [batch, devices, classes].

        images: float32 [batch, devices, h, w, 3] of 0..255; mask: float32 [batch, devices].
        """
        hierarchy = self.hierarchy
        exits: dict[Exit, Any] = {}
        features = images
        if hierarchy.device_section:
            exits["device"], features = self._run_devices(images, training)
            exits["local"] = self._compute_exit("local", exits["device"], mask)
            features = self._activate(features)
        if hierarchy.edge_section:
            scores, outputs, present, start = [], [], [], 0
            for group in hierarchy.edges:
                part = slice(start, start + len(group.devices))
                start = part.stop
                fused = fuse(features[:, part], mask[:, part], hierarchy.fusion_scheme)
                edge_scores, edge_features = self.edges[group.id](fused, training=training)
                scores.append(edge_scores)
                outputs.append(self._activate(edge_features))
                present.append(tf.reduce_max(mask[:, part], 1))
            features, mask = tf.stack(outputs, 1), tf.stack(present, 1)
            exits["edge"] = self._compute_exit("edge", tf.stack(scores, 1), mask)
        fused = fuse(features, mask, hierarchy.fusion_scheme)
        exits["cloud"] = self.cloud(fused, training=training)
        return exits

    def _activate(self, features: Any) -> Any:
        return sign(features) if self.binary else tf.nn.relu(features)

    def _compute_exit(self, tier: str, scores: Any, mask: Any) -> Any:
        fused = fuse(scores, mask, self.hierarchy.exit_scheme)
        return self.heads[tier](fused) if tier in self.heads else fused

    def _run_devices(self, images: Any, training: bool) -> tuple[Any, Any]:
        devices = self.hierarchy.devices
        if self.architecture.share_devices:
            flat = tf.reshape(images, [-1, *self.image_shape])
            scores, features = self.devices[devices[0]](flat, training=training)
            return (
                tf.reshape(scores, [-1, len(devices), self.classes]),
                tf.reshape(features, [-1, len(devices), *self.device_features]),
            )
        outputs = [
            self.devices[device](images[:, i], training=training)
            for i, device in enumerate(devices)
        ]
        return tf.stack([o[0] for o in outputs], 1), tf.stack([o[1] for o in outputs], 1)
