"""No file that is read runs code: each kind is made to try, and leaves no trace."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from ddnn.adapters.command import read_config
from ddnn.adapters.litert import LiteRtSection
from ddnn.cli import main
from ddnn.errors import ConfigError, DdnnError
from ddnn.runtime.archive import read_all
from ddnn.runtime.bundle import load_bundle, make_file_entry, read_manifest, write_manifest
from ddnn.training.export import load_source, write_source
from ddnn.training.plan_files import PlannedEdge
from device_app.settings import DeviceSettings


class Trace:
    """Code that makes a file where it runs."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "it-ran"
        self.command = f"touch {self.file}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)

    @property
    def ran(self) -> bool:
        return self.file.exists()


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path)


def make_lambda_model(trace: Trace) -> Any:
    command = trace.command
    image = layers.Input((4,))

    def run(x: Any) -> Any:
        __import__("os").system(command)
        return x

    model = keras.Model(image, layers.Lambda(run, output_shape=(4,))(image))
    trace.file.unlink(missing_ok=True)  # building it ran it
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["edge.keras", "edge.h5", "edge.hdf5", "renamed"])
def test_code_in_a_layer_does_not_run(trace: Trace, tmp_path: Path, name: str) -> None:
    file = tmp_path / ("edge.h5" if name == "renamed" else name)
    make_lambda_model(trace).save(file)
    trace.file.unlink(missing_ok=True)
    if name == "renamed":  # HDF5, for which Keras's safe mode does not hold, by another name
        file = file.rename(tmp_path / "edge.keras")
    with pytest.raises(ConfigError, match="train the bundle again"):
        load_source(file)
    assert not trace.ran


def make_call(module: str, name: str, /, **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": name}


@pytest.mark.parametrize(
    "kind",
    ["os", "function", "partial", "builtins", "subclass", "nested"],
)
def test_a_description_that_names_other_code_does_not_run_it(
    trace: Trace, tmp_path: Path, kind: str
) -> None:
    command = trace.command
    layer = {
        "os": make_call("os", "system", command=command),
        "function": {
            "module": "builtins",
            "class_name": "function",
            "config": "system",
            "registered_name": "os>system",
        },
        "partial": make_call("functools", "partial", func="os.system", args=[command]),
        "builtins": make_call("builtins", "eval", source=f"__import__('os').system({command!r})"),
        "subclass": make_call("subprocess", "Popen", args=command, bufsize=0),
        "nested": make_call(
            "keras.layers", "Activation", name="a", activation=make_call("os", "system")
        ),
    }[kind]
    image = layers.Input((4,), name="image")
    whole = write_source(tmp_path, "edge", keras.Model(image, layers.Dense(4, name="d")(image)))
    assert whole is not None
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    described = json.loads(members["config.json"])
    dense = described["config"]["layers"][1]
    described["config"]["layers"][1] = {**dense, **layer}
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(described).encode()}.items():
            archive.writestr(name, content)
    with pytest.raises(ConfigError):
        load_source(whole)
    assert not trace.ran


def test_a_pickle_in_an_array_file_is_not_loaded(trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "golden.npz"
    np.savez(file, x=np.array([trace], object))
    with pytest.raises(ConfigError, match="expected numbers"):
        read_all(file, 1 << 20)
    assert not trace.ran


def test_a_section_file_of_another_kind_is_not_run(
    trace: Trace, tmp_path: Path, scenes_bundle: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(scenes_bundle, bundle)
    manifest, _ = read_manifest(bundle)
    name = manifest.sections["edge"].file
    (bundle / name).write_bytes(f"#!/bin/sh\n{trace.command}\n".encode())
    entry = make_file_entry(bundle / name)
    sections = {**manifest.sections, "edge": entry}
    write_manifest(bundle, msgspec.structs.replace(manifest, sections=sections))
    with pytest.raises(DdnnError):
        load_bundle(bundle, LiteRtSection, ["edge"])
    assert not trace.ran


def test_no_hook_is_taken_from_a_file(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenes_bundle: Path
) -> None:
    """Neither from the manifest of a bundle, nor from a configuration or the environment."""
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "hostile_hook.py"
    module.write_text(f"import os\nos.system({trace.command!r})\n\ndef build(*_): ...\n")
    hook = "edge=hostile_hook:build"
    bundle = tmp_path / "bundle"
    shutil.copytree(scenes_bundle, bundle)
    manifest, _ = read_manifest(bundle)
    training = {**manifest.training, "sections": "hostile_hook:build", "section": hook}
    write_manifest(bundle, msgspec.structs.replace(manifest, training=training))
    load_bundle(bundle, LiteRtSection)
    PlannedEdge(bundle, *read_manifest(bundle), "edge").load_model()
    file = tmp_path / "train.toml"
    file.write_text(f'out = "x"\nsection = ["{hook}"]\n')
    for words, environ in (
        (["--config", str(file)], {}),
        (["--out", "x"], {"DDNN_TRAIN_SECTION": hook}),
    ):
        result = CliRunner().invoke(main, ["train", *words], env=environ)
        assert result.exit_code == ConfigError.exit_code
        assert "key 'section' names code to run" in result.stderr
    file.write_text('out = "x"\nmodel = "hostile_hook:build"\n')
    result = CliRunner().invoke(main, ["pipeline", "train", "--config", str(file)])
    assert "key 'model' names code to run" in result.stderr
    with pytest.raises(ConfigError, match="key 'train_model' names code to run"):
        read_config(
            DeviceSettings, {"node": "w", "lend": "on"}, {"DDNN_TRAIN_MODEL": "hostile_hook:build"}
        )
    assert not trace.ran
    assert "hostile_hook" not in sys.modules


# ------------------------------------------------------------- another network


@pytest.fixture
def edge(tmp_path: Path, scenes_bundle: Path) -> PlannedEdge:
    """The edge of a copy of the bundle."""
    bundle = tmp_path / "bundle"
    shutil.copytree(scenes_bundle, bundle)
    return PlannedEdge(bundle, *read_manifest(bundle), "edge")


def replace_source(edge: PlannedEdge, model: Any) -> PlannedEdge:
    """Put another model in, with its checksum."""
    file = write_source(edge.bundle, "edge", model)
    assert file is not None
    sources = {**edge.manifest.sources, "edge": make_file_entry(file)}
    write_manifest(edge.bundle, msgspec.structs.replace(edge.manifest, sources=sources))
    return PlannedEdge(edge.bundle, *read_manifest(edge.bundle), "edge")


def test_the_source_that_was_deployed_is_loaded(edge: PlannedEdge) -> None:
    assert replace_source(edge, edge.load_model()).load_model().count_params() > 0


def test_the_source_of_another_network_is_refused(edge: PlannedEdge) -> None:
    model = edge.load_model()
    kernel = next(weight for weight in model.trainable_weights if "kernel" in weight.path)
    kernel.assign(kernel * 1.5)
    with pytest.raises(ConfigError, match="is another network than the section"):
        replace_source(edge, model).load_model()
    image = layers.Input(tuple(model.inputs[0].shape[1:]))
    for other in (
        keras.Model(image, layers.Dense(3)(layers.Flatten()(image))),
        keras.Model(i := layers.Input((7,)), layers.Dense(3)(i)),
    ):
        with pytest.raises(ConfigError, match="is another network than the section"):
            replace_source(edge, other).load_model()
