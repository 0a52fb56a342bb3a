"""What a training checks before it starts, and when it stops."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from ddnn.adapters.litert import LiteRtSection
from ddnn.data import Dataset
from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.manifest import is_near_chance
from ddnn.exits.measure import compute_majority, compute_recalls
from ddnn.local_site.samples import load_test_samples
from ddnn.local_site.train import train_bundle
from ddnn.runtime.bundle import GOLDEN, read_golden, read_manifest
from ddnn.training.fit import Fit
from ddnn.training.models import Architecture
from ddnn.training.train import train
from device_app.sources import open_source

TINY = Architecture(device_channels=(4, 6), device_bits=3, edge_channels=(6,), cloud_channels=(6,))
SECTIONS = """
import keras, tensorflow as tf
from keras import layers

class Digamma(layers.Layer):  # LiteRT has no such operation
    def call(self, x):
        return tf.math.digamma(x + 1.0)
    def compute_output_shape(self, shape):
        return shape

class Log(layers.Layer):  # of black pixels: -inf
    def call(self, x):
        return tf.math.log(x * 0)
    def compute_output_shape(self, shape):
        return shape

def build(layer, shape, classes):
    image = layers.Input(shape)
    maps = layers.Conv2D(2, 3, strides=4, padding="same")(layer(image))
    return keras.Model(image, [layers.Dense(classes)(layers.Flatten()(maps)), maps])

def digamma(place, shape, classes):
    return build(Digamma(), shape, classes)

def log(place, shape, classes):
    return build(Log(), shape, classes)

def fail(place, shape, classes):
    raise RuntimeError("boom")
"""


def attempt(
    dataset: Dataset, out: Path, settings: Fit, hook: str = "", steps: list[str] | None = None
) -> None:
    architecture = msgspec.structs.replace(TINY, sections={"device": hook} if hook else {})
    seen = [] if steps is None else steps
    train(
        dataset,
        make_configuration("c", 2),
        out,
        LiteRtSection,
        name="made",
        data="scenes",
        architecture=architecture,
        settings=settings,
        progress=lambda what, done, total: seen.append(what),
    )


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("digamma", r"--section device=own_sections:digamma: LiteRT cannot run it.*Digamma"),
        ("fail", r"--section device=own_sections:fail raised RuntimeError: boom"),
        ("log", r"the loss is nan at step 1 of 3"),
    ],
)
def test_a_section_that_cannot_be_used_stops_at_once(
    function: str, words: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules of the current directory are found, as for a script in it."""
    (tmp_path / "own_sections.py").write_text(SECTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    monkeypatch.delitem(sys.modules, "own_sections", raising=False)
    steps: list[str] = []
    with pytest.raises(ConfigError, match=words):
        attempt(dataset, tmp_path / "out", Fit(steps=3, batch=4), f"own_sections:{function}", steps)
    assert not steps


def test_a_seed_makes_the_same_network_again(dataset: Dataset, tmp_path: Path) -> None:
    """Bit for bit: the answers of all sections. Names inside the files differ in one process."""
    made = []
    for out in (tmp_path / "one", tmp_path / "two"):
        attempt(dataset, out, Fit(steps=4, batch=8, seed=5))
        made.append((read_golden(out / GOLDEN), read_manifest(out)[0]))
    (one, first), (other, second) = made
    assert first.training["loss"] == second.training["loss"]
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def test_an_out_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    for out in (tmp_path / "file" / "bundle", tmp_path / "full", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"cannot be written|not an empty directory"):
            train_bundle(data="npz:/never/read", out=out, configuration="c", devices=2)
    with pytest.raises(ConfigError, match="no such file"):
        train_bundle(data="npz:/never/read", out=tmp_path / "new", configuration="c", devices=2)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "full"}


def test_recalls_and_the_majority_are_of_the_samples() -> None:
    labels = np.array([0, 0, 0, 2], np.int32)
    answers = np.array([0, 0, 2, 1], np.int32)
    assert compute_recalls(answers, labels, ("a", "b", "c")) == {"a": 2 / 3, "c": 0.0}
    assert compute_majority(labels) == 0.75


@pytest.mark.parametrize(
    ("accuracy", "majority", "samples", "near"),
    [(0.5, 0.5, 4, True), (1.0, 0.5, 4, False), (0.95, 0.95, 200, True), (0.99, 0.95, 200, False)],
)
def test_a_training_near_chance_is_noticed(
    accuracy: float, majority: float, samples: int, near: bool
) -> None:
    assert is_near_chance(accuracy, majority, samples) == near


def test_inputs_may_be_larger_and_devices_send_no_more(tmp_path: Path) -> None:
    """Training, evaluation and a device's source make inputs of the size that the bundle says."""
    for camera in ("cam1", "cam2"):
        for label, level in (("dark", 40), ("light", 200)):
            folder = tmp_path / "photos" / camera / label
            folder.mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (90, 60), (level + number,) * 3).save(folder / f"{number}.png")
    data = f"directory:{tmp_path / 'photos'}"
    features = []
    for size in (None, 48):
        out = tmp_path / f"bundle{size}"
        options = {"configuration": "c", "devices": 2, "steps": 2, "bits": 4}
        manifest = train_bundle(data=data, out=out, size=size, **options)
        assert manifest.image_shape == (size or 32, size or 32, 3)
        split, seen = load_test_samples(manifest, data, out)
        assert split.images.shape[2:] == manifest.image_shape
        assert (len(split), seen) == (2, 0)
        grown = tmp_path / f"grown{size}"
        shutil.copytree(tmp_path / "photos", grown)
        for camera in ("cam1", "cam2"):
            for label, level in (("dark", 70), ("light", 230)):
                for number in range(6, 40):
                    new = Image.new("RGB", (90, 60), (level, number, 0))
                    new.save(grown / camera / label / f"{number}.png")
        split, seen = load_test_samples(manifest, f"directory:{grown}", out)
        trained, _ = load_test_samples(manifest, data, tmp_path)  # a bundle without a record
        assert seen == 0
        assert 4 <= len(split) <= 12
        added = (split.images[..., 2] == 0).all(axis=(1, 2, 3))
        assert (~added).sum() <= len(trained)
        features.append(np.prod(manifest.device_features))
    assert features[1] <= features[0]
    uri = f"directory:{tmp_path / 'photos' / 'cam1' / 'dark'}"
    assert open_source(uri, 0, manifest.image_shape).read_frame(0).image.shape == (48, 48, 3)
    with pytest.raises(ConfigError, match="--size go with directory"):
        train_bundle(data="scenes", out=tmp_path / "x", configuration="c", devices=2, size=48)
