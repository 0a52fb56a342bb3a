"""From a data set to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ddnn.core.preprocessing import WHOLE, Preprocessing, Roi, parse_roi
from ddnn.errors import ConfigError
from ddnn.exits.aggregate import Scheme
from ddnn.exits.hierarchy import Configuration
from ddnn.exits.hierarchy import make_configuration as describe
from ddnn.exits.measure import check_margin
from ddnn.local_site.interrupts import open_interrupt
from ddnn.local_site.progress import print_note, show_progress
from ddnn.runtime.learned import write_learned
from ddnn.runtime.new_directory import write_directory

if TYPE_CHECKING:
    from ddnn.data import Dataset, PairBy
    from ddnn.exits.manifest import Manifest
    from ddnn.training.backbone import Backbone

JPEG_SAMPLES = 100


def train_bundle(
    *,
    data: str,
    out: Path,
    configuration: Configuration,
    devices: int,
    edges: int = 2,
    exit_scheme: Scheme | None = None,
    fusion_scheme: Scheme | None = None,
    style: Literal["float", "binary"] = "float",
    own_weights: bool = False,
    bits: int | None = None,
    sections: tuple[str, ...] = (),
    edge_dense: tuple[int, ...] = (),
    sparsity: float | None = None,
    prune: tuple[str, ...] = (),
    scores: str = "auto",
    margin: float = 0.005,
    objects_test: int | None = None,
    folds: int | None = None,
    steps: int | None = None,
    distillation: Literal["off", "deepest", "teacher"] | None = None,
    seed: int = 0,
    cameras: tuple[str, ...] = (),
    pair_by: PairBy = "name",
    fit: Literal["crop", "stretch"] | None = None,
    roi: tuple[str, ...] = (),
    size: int | None = None,
    resume: bool = False,
    patience: int = 0,
    keeps_interrupted: bool = False,
    backbone: Backbone | None = None,
) -> Manifest:
    """Load the data, train with a progress bar, write the bundle.

    What was found in the data is printed on standard error.

    size: sides of the sections' inputs, in pixels.
    resume: go on from the checkpoints of a training that was killed.
    patience: end when so many checks of the validation loss in succession were no better; 0: do all
    steps.
    fit, roi: how pictures become inputs; by default as the devices did that recorded them, else the
    whole pictures, stretched.
    backbone: the pretrained network of whose parts the sections are made.
    keeps_interrupted: the first Ctrl-C ends the training, and the bundle is written.
    """
    hooks = dict(parse_section(text) for text in sections)
    name = data.partition(":")[0]
    if prune and sparsity is None:
        raise ConfigError(f"--prune {prune[0]} goes with --sparsity, such as --sparsity 0.98")
    if patience and sparsity is not None:
        raise ConfigError("--patience with --sparsity, which needs all steps; expected one of them")
    check_margin(margin)
    if (out / "manifest.json").exists():
        raise ConfigError(f"--out {out} holds a bundle already; remove it or choose another")
    from ddnn.data import FolderRequest, check_trainable, describe_dataset, load, measure_jpeg_bytes

    folders = None
    given = parse_cameras(cameras)
    if name == "directory":
        nodes = describe(configuration, devices, edges=edges).devices
        preprocessing = choose_preprocessing(
            Path(data.partition(":")[2]), fit, parse_rois(roi, nodes), nodes, given
        )
        shape = (size, size, 3) if size else FolderRequest().shape
        folders = FolderRequest(nodes, given, None, preprocessing, pair_by, shape)
    elif given or roi or size or pair_by != "name":
        raise ConfigError(
            f"--camera, --pair-by, --roi and --size go with directory, not with {name}"
        )
    with write_directory(out) as fresh, show_progress() as progress:
        progress("loading data", 0, 1)
        fine = name.startswith("eth80")  # photographs that augmentation scales down
        dataset = load(data, seed=seed, objects_test=objects_test, fine=fine, folders=folders)
        for line in describe_dataset(dataset):
            print_note(line)
        check_trainable(dataset, data)
        jpeg = float(measure_jpeg_bytes(dataset.validation.images[:JPEG_SAMPLES]).mean())
        progress("loading data", 1, 1)
        progress("importing TensorFlow", 0, 1)
        from ddnn.adapters.litert import LiteRtSection
        from ddnn.training.keeper import Keeping
        from ddnn.training.prune import Pruning
        from ddnn.training.recipes import choose_recipe
        from ddnn.training.train import train

        progress("importing TensorFlow", 1, 1)
        chosen = choose_recipe(
            name,
            style=style,
            schemes=(exit_scheme, fusion_scheme),
            share_devices=not own_weights,
            bits=bits,
            sections=hooks,
            steps=steps,
            seed=seed,
            edge_dense=edge_dense,
            distillation=distillation,
            backbone=backbone,
            pruning=None if sparsity is None else Pruning(sparsity=sparsity, layers=prune),
        )
        hierarchy = describe(
            configuration,
            devices,
            edges=edges,
            exit_scheme=chosen.schemes[0],
            fusion_scheme=chosen.schemes[1],
        )
        notes: dict[str, str | float | int] = {"configuration": configuration, "data_seed": seed}
        if folders:
            notes["pair_by"] = pair_by
        further: list[Dataset] = []
        if name.startswith("eth80"):
            notes["objects_test"] = test = int(dataset.test.groups[0])
            count = chosen.folds if folds is None else folds
            others = [*np.unique(dataset.train.groups), *np.unique(dataset.validation.groups)]
            further = [
                load(data, seed=seed, objects_test=test, objects_validation=int(other), fine=True)
                for other in others[:count]
            ]
            if further:  # nothing is chosen on the validation object: training uses it
                dataset = load(data, seed=seed, objects_test=test, train_all=True, fine=True)
        elif folds:
            raise ConfigError(f"--folds goes with eth80, not with {name}")
        kept = out.absolute().with_name(f".{out.name}.checkpoints")
        if resume and not kept.is_dir():
            print_note(f"--resume: no checkpoints of {out}; the training begins again")
        keeping = Keeping(kept, resume, lambda: open_interrupt(keeps_interrupted), patience)
        manifest = train(
            dataset,
            hierarchy,
            fresh,
            LiteRtSection,
            name=out.name,
            data=name,
            folds=further,
            preprocessing=folders.preprocessing if folders else None,
            architecture=chosen.architecture,
            settings=chosen.fit,
            margin=margin,
            score_type=scores,
            jpeg_bytes=jpeg,
            notes=notes,
            keeping=keeping,
            progress=progress,
        )
        if not name.startswith("eth80"):  # whose objects say what was learned from
            members = len(hierarchy.devices)
            splits = (dataset.train, dataset.validation)
            write_learned(fresh, *(split.images[:, :members] for split in splits))
    keeping.clear()
    if manifest.near_chance:
        print_note(
            f"warning: the validation accuracy, {manifest.accuracy[str(hierarchy.everyone)]}, is "
            f"not better than chance: naming always the most frequent class gives "
            f"{manifest.majority:.3f}; give more samples or --steps, or another --seed, and look "
            "whether the section sees what distinguishes the classes (--fit, --roi)"
        )
    for line in advise_on_exits(manifest):
        print_note(line)
    return manifest


def advise_on_exits(manifest: Manifest) -> list[str]:
    """What to do where a deeper exit is not more accurate than a shallower one, as lines."""
    hierarchy = manifest.hierarchy
    row = manifest.accuracy.get(str(hierarchy.everyone), {})
    lines = []
    for shallow, deep in zip(hierarchy.exits, hierarchy.exits[1:], strict=False):
        if row.get(deep, 1.0) > row.get(shallow, 0.0):
            continue
        features = "--bits (features of a device) and " if deep == "edge" else ""
        lines.append(
            f"warning: the {deep} exit ({row[deep]:.1%}) is not more accurate than the {shallow} "
            f"exit ({row[shallow]:.1%}) on validation data, so samples gain nothing there; try "
            f"more "
            f"{features}--steps, --distillation teacher, a larger section for the {deep} "
            f"(--section {deep}=MODULE:FUNCTION), or a configuration without it"
        )
    return lines


def parse_cameras(texts: tuple[str, ...]) -> dict[str, str]:
    """Folders by device of texts such as "cam1=front"; ConfigError."""
    pairs = [text.partition("=") for text in texts]
    found = {device: folder for device, _, folder in pairs}
    if len(found) < len(pairs) or not all(d and f for d, f in found.items()):
        raise ConfigError(
            f"--camera {' '.join(texts)!r}: expected DEVICE=FOLDER, once for each device, such as "
            "cam1=front"
        )
    return found


def parse_rois(texts: tuple[str, ...], devices: tuple[str, ...]) -> dict[str, Roi]:
    """Regions by device, of "cam1=0,0,0.5,1" or without a name for all; ConfigError."""
    rois: dict[str, Roi] = {}
    for text in texts:
        device, equals, region = text.rpartition("=")
        if equals and device not in devices:
            raise ConfigError(
                f"--roi {text!r}: no device {device!r}; expected {', '.join(devices)}"
            )
        rois.update(dict.fromkeys([device] if equals else devices, parse_roi(region)))
    return rois


def choose_preprocessing(
    path: Path,
    fit: Literal["crop", "stretch"] | None,
    rois: Mapping[str, Roi],
    devices: tuple[str, ...],
    cameras: Mapping[str, str],
) -> Preprocessing:
    """How pictures become inputs: as given, else as the devices did that recorded them, so that a
    network sees on a device what it saw in training.

    fit, rois: None and empty where they are not given. cameras: folders by device.

    Raises ConfigError where the devices of a recording did not do the same.
    """
    from ddnn.data.recordings import read_description

    description = read_description(path)
    recorded = {
        device: camera
        for device in devices
        if description is not None
        and (camera := description.cameras.get(cameras.get(device, device))) is not None
        and camera.preprocessing is not None
    }
    fits = {camera.preprocessing.fit for camera in recorded.values() if camera.preprocessing}
    if fit is None and len(fits) > 1:
        raise ConfigError(
            f"{path}: its cameras were recorded with different --fit ({', '.join(sorted(fits))}); "
            "give --fit"
        )
    chosen = fit or (fits.pop() if fits else "stretch")
    seen = {device: camera.roi for device, camera in recorded.items() if camera.roi != WHOLE}
    if recorded and fit is None:
        print_note(f"pictures become inputs as where they were recorded: --fit {chosen}")
    if seen and not rois:
        print_note(f"regions of interest are those of the recording, of {', '.join(seen)}")
    return Preprocessing(fit=chosen, rois=dict(rois) or seen)


def parse_section(text: str) -> tuple[str, str]:
    """Place and function of "edge=package.module:function"; ConfigError."""
    place, equals, hook = text.partition("=")
    if place not in ("device", "edge", "cloud") or not equals or ":" not in hook:
        raise ConfigError(f"--section {text!r}: expected device|edge|cloud=package.module:function")
    return place, hook
