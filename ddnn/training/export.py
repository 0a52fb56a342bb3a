"""Export of Keras sections to LiteRT files."""

from __future__ import annotations

import contextlib
import logging
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ddnn.errors import ConfigError
from ddnn.training import blocks  # noqa: F401  registers the layers for load_source

if TYPE_CHECKING:
    from ddnn.coding.layers import Linear

log = logging.getLogger(__name__)
SOURCE = ".keras"
INPUT = {"device": "image"}  # every other section takes "features"


def section_to_litert(model: Any, kind: str) -> bytes:
    """Convert a section to a LiteRT file with one signature and batch 1.

    A dynamic batch would add shape operations to Flatten. Devices take uint8 images, the dtype of
    camera frames. Weights and activations are float32: post-training int8 flips about 3 % of the
    feature bits.
    """
    outputs = ("scores", "features")[: len(model.outputs)]
    image = tf.uint8 if kind == "device" else None
    return model_to_litert(model, [INPUT.get(kind, "features")], outputs, image)


def model_to_litert(
    model: Any, inputs: Sequence[str], outputs: Sequence[str], dtype: Any = None
) -> bytes:
    """Convert a model to a LiteRT file with these array names, in the order of the model's.

    dtype: of the inputs; None: the model's
    """
    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), dtype or tensor.dtype, name=name)
        for name, tensor in zip(inputs, model.inputs, strict=True)
    ]

    def run(*arrays: Any) -> dict[str, Any]:
        cast = [tf.cast(a, t.dtype) for a, t in zip(arrays, model.inputs, strict=True)]
        results = model(keras.tree.pack_sequence_as(model.input, cast), training=False)
        return dict(zip(outputs, keras.tree.flatten(results), strict=True))

    return _convert(tf.function(run), specs, [variable.value for variable in model.variables])


def convolution_to_litert(layer: Linear, input_shape: tuple[int, ...]) -> bytes:
    """Convert one convolution to a LiteRT file "x" -> "z"; input_shape: [h, w, in]."""
    kernel = tf.constant(layer.kernel, tf.float32)

    def run(x: Any) -> dict[str, Any]:
        z = tf.nn.conv2d(x, kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation)
        return {"z": z if layer.bias is None else z + tf.constant(layer.bias, tf.float32)}

    specs = [tf.TensorSpec((1, *input_shape), tf.float32, name="x")]
    return _convert(tf.function(run, autograph=False), specs)


def _convert(run: Any, inputs: Sequence[Any], variables: Sequence[Any] = ()) -> bytes:
    """Convert a tf.function with these inputs to a LiteRT file.

    variables: all that it reads. Tracking only these takes less than half of the time of a Keras
    export archive, which describes every layer.
    """
    tracked = tf.Module()
    tracked.kept = list(variables)
    with _silence_stderr():
        concrete = run.get_concrete_function(*inputs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tracked)
        return bytes(converter.convert())


@contextlib.contextmanager
def _silence_stderr() -> Iterator[None]:
    """Discard stderr by its file descriptor, to which the converter writes directly."""
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
    """Write the Keras model; None, with a warning, where it cannot be loaded safely."""
    file = directory / f"{name}{SOURCE}"
    try:
        model.save(file)
        load_source(file)
    except Exception as error:  # get_config of user layers may raise anything
        file.unlink(missing_ok=True)
        log.warning(
            "%s: this section cannot be kept as a Keras model, so its layers cannot be coded: %s",
            name,
            str(error).partition("\n")[0],
        )
        return None
    return file


def load_source(file: Path) -> Any:
    """Read a Keras model that `write_source` wrote, without running code from the file.

    Only the format `.keras` is read: Keras's safe mode does not hold for HDF5. Raises ConfigError
    where the file is of another format, is damaged, or has layers that are not registered
    (keras.saving).
    """
    if file.suffix != SOURCE or not zipfile.is_zipfile(file):
        raise ConfigError(
            f"{file}: not of the format {SOURCE}, the only one that is read, because others can "
            "run code; train the bundle again"
        )
    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py and Keras raise more than a dozen kinds
        raise ConfigError(
            f"{file}: no Keras model that can be loaded: {str(error).partition(chr(10))[0]}; "
            "train the bundle again"
        ) from None


def write_section(directory: Path, name: str, data: bytes) -> Path:
    """Write a section's file under its node's name."""
    file = directory / f"{name}.tflite"
    file.write_bytes(data)
    return file
