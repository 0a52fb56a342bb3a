"""Training of the teacher and of each method's students; a run that was killed goes on.

Every network has a directory below the work directory: its checkpoints, its arrays, and how many
seconds it took over all runs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.report import progress_bar
from benchmarks.students.methods import Method
from benchmarks.students.scales import Scale
from ddnn.data import Dataset
from ddnn.training.checkpoints import Checkpoints
from ddnn.training.fit import Images, Labels
from ddnn.training.split import FeatureSplit, split_features
from ddnn.training.students.distil import Training, distil
from ddnn.training.students.examples import CachedExamples, Examples, FloatArray, compute_batches
from ddnn.training.students.failout import FilledStudent, choose_fill, copy_model
from ddnn.training.students.family import Backbone, build_student
from ddnn.training.students.images import CachedCrops, CroppedImages, scale_images
from ddnn.training.students.teacher import (
    TeacherTraining,
    build_teacher,
    pool_classifier,
    train_teacher,
)
from ddnn.training.students.unified import UnifiedStudent

Show = Callable[[str, int, int], None]
SECONDS_FILE = "seconds.json"


@dataclass(frozen=True, slots=True)
class Photographs:
    """Images uint8 [images, height, width, 3] and their labels."""

    images: Images
    labels: Labels


@dataclass(frozen=True, slots=True)
class Bench:
    """What every training has in common. directory: of this scale, seed and data."""

    scale: Scale
    seed: int
    train: Photographs
    validation: Photographs
    test: Photographs
    classes: int
    directory: Path

    @classmethod
    def of(cls, scale: Scale, seed: int, dataset: Dataset, work: Path) -> Bench:
        """The first images of each split, as many as the scale takes."""
        given = (dataset.train, dataset.validation, dataset.test)
        train, validation, test = (
            Photographs(split.images[:most, 0], split.labels[:most])
            for split, most in zip(given, scale.images, strict=True)
        )
        sums = [int(part.images.sum(dtype=np.int64)) for part in (train, validation, test)]
        trained = msgspec.structs.replace(scale, draws=0, heterogeneities=())
        directory = work / digest([trained, seed, sums])[:12]
        return cls(scale, seed, train, validation, test, len(dataset.classes), directory)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained teacher, and the spatial means of its maps [images, 1, 1, filters]."""

    split: FeatureSplit
    classifier: Any  # of spatial means
    validation: FloatArray
    test: FloatArray


@dataclass(frozen=True, slots=True)
class Students:
    """A method's trained students, each as the spatial means of its portion of the test images.

    means: for each network, [images, 1, 1, filters]; plain: before the classifier learned about
    missing portions, which are 0; filled: after.
    """

    means: tuple[FloatArray, ...]
    plain: FilledStudent
    filled: FilledStudent
    parameters: tuple[int, ...]  # of each network


def digest(values: Any) -> str:
    """A short text that differs where the values do."""
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()


@contextmanager
def show_progress(name: str) -> Iterator[Show]:
    """Yields progress(what, done, total): a bar that is full at the end of each phase."""
    with progress_bar(name, 1.0) as bar:
        yield lambda what, done, total: bar(done / total, f"{name}: {what}")


@contextmanager
def add_seconds(directory: Path) -> Iterator[None]:
    """Add the seconds of the block, ended or interrupted, to those in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    before, start_s = read_seconds(directory), time.monotonic()
    try:
        yield
    finally:
        spent_s = before + time.monotonic() - start_s
        (directory / SECONDS_FILE).write_bytes(msgspec.json.encode(round(spent_s, 1)))


def read_seconds(directory: Path) -> float:
    """Seconds that a network took so far, over all runs."""
    file = directory / SECONDS_FILE
    return float(msgspec.json.decode(file.read_bytes())) if file.exists() else 0.0


def load_or_compute(
    file: Path, job: str, compute: Callable[[], Mapping[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """The arrays that an earlier run computed for this job, or those that are computed now."""
    if file.exists():
        with np.load(file, allow_pickle=False) as stored:
            if str(stored["job"]) == job:
                return {name: stored[name] for name in stored.files if name != "job"}
    arrays = dict(compute())
    fresh = file.with_suffix(".new")
    with fresh.open("wb") as written:
        np.savez(written, job=np.array(job), **arrays)  # type: ignore[arg-type]
    fresh.replace(file)
    return arrays


def pool(z: Any) -> FloatArray:
    """Spatial means [images, 1, 1, filters] of maps [images, height, width, filters]."""
    means: FloatArray = np.mean(z, axis=(1, 2), dtype=np.float32, keepdims=True)
    return means


# ---------------------------------------------------------------------- teacher


def prepare_teacher(bench: Bench) -> tuple[Teacher, Examples]:
    """The trained teacher, and what students learn from it."""
    scale, directory = bench.scale, bench.directory / "teacher"
    with add_seconds(directory), show_progress("teacher") as show:
        keras.utils.set_random_seed(bench.seed + 1)
        shape = bench.train.images.shape[1:]
        model = build_teacher(Backbone.parse(scale.teacher), shape, bench.classes)
        settings = scale.make_teacher_settings(bench.seed)
        job = digest([scale.teacher, settings])
        training = TeacherTraining(
            bench.train.images, bench.train.labels, settings, Checkpoints(directory, job), show
        )
        train_teacher(model, training)
        split = split_features(model)
        means = [
            pool(compute_batches(split.features, scale_images(part.images)))
            for part in (bench.validation, bench.test)
        ]
        if not scale.variants:
            return Teacher(split, pool_classifier(split), *means), CroppedImages(
                bench.train.images, bench.train.labels, split.features
            )
        examples = CachedCrops.of(
            split.features,
            bench.train.images,
            bench.train.labels,
            scale.variants,
            directory / f"z-{job[:12]}.npy",
            bench.seed,
            lambda done, total: show("feature maps of the training images", done, total),
        )
        return Teacher(split, pool_classifier(split), *means), examples


# --------------------------------------------------------------------- students


def train_students(
    bench: Bench, name: str, method: Method, teacher: Teacher, examples: Examples
) -> Students:
    """Distil the method's students, then teach its classifier to cope with missing portions."""
    directory = bench.directory / name
    settings = bench.scale.make_student_settings(bench.seed)
    job = digest([bench.scale.teacher, method.students, settings])
    checkpoints = Checkpoints(directory, job)
    with add_seconds(directory), show_progress(name) as show:
        keras.utils.set_random_seed(bench.seed + 2)
        unified = build_students(method, teacher.split, bench.train.images.shape[1:])
        distil(unified, Training(teacher.split, examples, settings, checkpoints, show))

        def compute() -> dict[str, FloatArray]:
            few = bench.train.images[: bench.scale.failout_images]
            return {
                f"{part}{number}": pool(compute_batches(student, scale_images(images)))
                for part, images in (
                    ("train", few),
                    ("validation", bench.validation.images),
                    ("test", bench.test.images),
                )
                for number, student in enumerate(unified.students)
            }

        arrays = load_or_compute(directory / "portions.npz", job, compute)
        count = len(unified.students)
        train, validation, test = (
            tuple(arrays[f"{part}{number}"] for number in range(count))
            for part in ("train", "validation", "test")
        )
        pooled = pool_students(unified, teacher.split)
        few_labels = bench.train.labels[: len(train[0])]
        joined = np.asarray(unified.join(train))
        targets = compute_targets(bench, teacher, len(joined))
        given = CachedExamples(joined, few_labels, targets)
        pooled_teacher = FeatureSplit(teacher.split.features, teacher.classifier)
        drop = [max(method.plan.outage(group), settings.least_drop) for group in method.plan.groups]
        filled = choose_fill(
            pooled,
            drop,
            np.asarray(unified.join(validation)),
            bench.validation.labels,
            Training(pooled_teacher, given, settings, checkpoints, show),
        )
        zeros = np.zeros(joined.shape[-1], np.float32)
        parameters = tuple(int(student.count_params()) for student in unified.students)
        return Students(test, FilledStudent(pooled, "zero", zeros), filled, parameters)


def build_students(
    method: Method, teacher: FeatureSplit, input_shape: tuple[int, ...]
) -> UnifiedStudent:
    """Students with random weights, and a copy of the teacher's classifier."""
    height, width, _ = teacher.shape
    side, wide, channels = input_shape
    students = tuple(
        build_student(Backbone.parse(name), (side, wide, channels), (height, width, len(filters)))
        for name, filters in method.students
    )
    filters = tuple(filters for _, filters in method.students)
    return UnifiedStudent(students, filters, copy_model(teacher.classifier))


def pool_students(unified: UnifiedStudent, teacher: FeatureSplit) -> UnifiedStudent:
    """Students of joined spatial means [1, 1, M]: each takes its part out, and they are classified.

    With them the classifier is trained on portions that were computed once.
    """
    total = teacher.shape[2]
    parts = unified.parts
    takers = tuple(make_taker(total, part) for part in parts)
    of_means = pool_classifier(FeatureSplit(teacher.features, unified.classifier))
    return UnifiedStudent(takers, parts, of_means)


def make_taker(total: int, filters: tuple[int, ...]) -> Any:
    """A Keras model: z [1, 1, total] -> these filters of it."""
    z = keras.Input((1, 1, total))
    return keras.Model(z, keras.ops.take(z, list(filters), axis=-1))


def compute_targets(bench: Bench, teacher: Teacher, count: int) -> FloatArray:
    """The teacher's spatial means of the first training images, computed once for all methods."""
    directory = bench.directory / "teacher"
    job = digest([bench.scale.teacher, bench.scale.make_teacher_settings(bench.seed), count])

    def compute() -> dict[str, FloatArray]:
        images = scale_images(bench.train.images[:count])
        return {"z": pool(compute_batches(teacher.split.features, images))}

    return np.asarray(load_or_compute(directory / "targets.npz", job, compute)["z"])
