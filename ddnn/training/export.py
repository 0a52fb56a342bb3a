"""Keras sections to LiteRT files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

INPUT = {"device": "image"}  # every other section takes "features"


def to_litert(model: Any, kind: str) -> bytes:
    """A LiteRT file with one signature and the batch fixed to 1 (a dynamic Flatten adds shape ops).

    Devices take uint8 images, so that a camera's frame goes in as it is. Float32 throughout:
    post-training int8 flips about 3 % of the bits (seen in a prototype).
    """
    name = INPUT.get(kind, "features")
    shape = (1, *model.inputs[0].shape[1:])
    spec = tf.TensorSpec(shape, tf.uint8 if kind == "device" else tf.float32, name=name)

    def run(x: Any) -> dict[str, Any]:
        outputs = model(tf.cast(x, tf.float32), training=False)
        if isinstance(outputs, (list, tuple)):
            return {"scores": outputs[0], "features": outputs[1]}
        return {"scores": outputs}

    with tempfile.TemporaryDirectory() as directory, _quiet():
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", run, input_signature=[spec])
        archive.write_out(directory, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
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


def write_section(directory: Path, name: str, data: bytes) -> Path:
    """Write a section's file under its node's name."""
    file = directory / f"{name}.tflite"
    file.write_bytes(data)
    return file
