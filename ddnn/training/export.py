"""Keras sections to LiteRT files."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ddnn.errors import ConfigError
from ddnn.training import blocks  # noqa: F401  registers our layers for load_source

if TYPE_CHECKING:
    from ddnn.coding.layers import Linear

log = logging.getLogger(__name__)
SOURCE = ".keras"
INPUT = {"device": "image"}  # every other section takes "features"


def to_litert(model: Any, kind: str) -> bytes:
    """A LiteRT file with one signature and the batch fixed to 1 (a dynamic Flatten adds shape ops).

    Devices take uint8 images, so that a camera's frame goes in as it is. Float32 throughout:
    post-training int8 flips about 3 % of the bits (seen in a prototype).
    """
    outputs = ("scores", "features")[: len(model.outputs)]
    image = tf.uint8 if kind == "device" else None
    return model_to_litert(model, [INPUT.get(kind, "features")], outputs, image)


def model_to_litert(
    model: Any, inputs: Sequence[str], outputs: Sequence[str], dtype: Any = None
) -> bytes:
    """A LiteRT file whose arrays bear these names, in the order of the model's own.

    dtype: of the inputs, where it is not the model's.
    """
    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), dtype or tensor.dtype, name=name)
        for name, tensor in zip(inputs, model.inputs, strict=True)
    ]

    def run(*arrays: Any) -> dict[str, Any]:
        cast = [tf.cast(a, t.dtype) for a, t in zip(arrays, model.inputs, strict=True)]
        results = model(keras.tree.pack_sequence_as(model.input, cast), training=False)
        return dict(zip(outputs, keras.tree.flatten(results), strict=True))

    with tempfile.TemporaryDirectory() as directory, _quiet():
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", run, input_signature=specs)
        archive.write_out(directory, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        return bytes(converter.convert())


def convolution_to_litert(layer: Linear, input_shape: tuple[int, ...]) -> bytes:
    """A LiteRT file "x" -> "z" of one convolution; input_shape: [h, w, in].

    Its weights are constants, so no SavedModel is needed: 0.05 s instead of 0.2 s.
    """
    kernel = tf.constant(layer.kernel, tf.float32)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(x: Any) -> dict[str, Any]:
        z = tf.nn.conv2d(x, kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation)
        return {"z": z if layer.bias is None else z + tf.constant(layer.bias, tf.float32)}

    concrete = run.get_concrete_function(tf.TensorSpec((1, *input_shape), tf.float32, name="x"))
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
        return bytes(converter.convert())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter writes to the file descriptor itself."""
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def write_source(directory: Path, name: str, model: Any) -> Path | None:
    """Write the Keras model as it can be loaded safely; None, with a warning, where it cannot."""
    file = directory / f"{name}{SOURCE}"
    try:
        model.save(file)
        load_source(file)
    except Exception as error:  # of one's own layers: whatever their get_config raises
        file.unlink(missing_ok=True)
        log.warning(
            "%s: this section cannot be kept as a Keras model, so none of its layers can be "
            "coded: %s",
            name,
            str(error).partition("\n")[0],
        )
        return None
    return file


def load_source(file: Path) -> Any:
    """The Keras model that `write_source` wrote. No pickle, no lambda, no code from the file.

    ConfigError: damaged, or with layers that are not registered (keras.saving).
    """
    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py and Keras raise more than a dozen kinds
        raise ConfigError(
            f"{file}: no Keras model that can be loaded: {str(error).partition(chr(10))[0]}"
        ) from None


def write_section(directory: Path, name: str, data: bytes) -> Path:
    """Write a section's file under its node's name."""
    file = directory / f"{name}.tflite"
    file.write_bytes(data)
    return file
