"""Sizes of the benchmark: networks, epochs, and the seconds that they are expected to take."""

from __future__ import annotations

import math

import msgspec

from ddnn.training.students.distil import Distillation

DEVICES = 8
BATCH = 128
SECONDS_PER_IMAGE = {  # of training at batch 128, measured on two busy cores
    "wrn-16-2-s2": 170 / 50_000,
    "wrn-16-1-s2": 76 / 50_000,
    "wrn-10-1-s2": 43 / 50_000,
}
FORWARD_SHARE = 1 / 3  # of a training step, what a computation without gradients takes


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """One size of the benchmark.

    teacher: a backbone; students: the most filters that a plan gives to each backbone; variants:
    crops of each image with cached feature maps of the teacher, 0 for new crops in every batch;
    images: the most of training, validation and test; failout_images: training images for the
    classifier; draws: of the devices, for the latency at each of the heterogeneities;
    untrained: methods without an accuracy.
    """

    teacher: str
    students: dict[str, int]
    teacher_epochs: float
    student_epochs: float
    variants: int
    failout_steps: int = 600
    failout_images: int = 20_000
    batch: int = BATCH
    images: tuple[int, int, int] = (45_000, 5_000, 5_000)
    draws: int = 5
    heterogeneities: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    untrained: tuple[str, ...] = ()

    def count_steps(self, epochs: float) -> int:
        """Batches of so many epochs."""
        return math.ceil(epochs * self.images[0] / self.batch)

    def make_teacher_settings(self, seed: int) -> Distillation:
        """Few epochs need AdamW with a strong weight decay."""
        steps = self.count_steps(self.teacher_epochs)
        return Distillation(
            steps=steps,
            batch=self.batch,
            warm_up_steps=max(1, steps // 20),
            weight_decay=0.05,
            seed=seed,
        )

    def make_student_settings(self, seed: int) -> Distillation:
        """The room's settings, with this scale's steps."""
        steps = self.count_steps(self.student_epochs)
        return Distillation(
            steps=steps,
            batch=self.batch,
            warm_up_steps=max(1, steps // 20),
            failout_steps=self.failout_steps,
            seed=seed,
        )

    def estimate_teacher_s(self) -> float | None:
        """Seconds of the teacher's training and of its cached feature maps."""
        each = SECONDS_PER_IMAGE.get(self.teacher)
        if each is None:
            return None
        images = self.teacher_epochs + FORWARD_SHARE * self.variants
        return each * self.images[0] * images

    def estimate_students_s(self, names: tuple[str, ...]) -> float | None:
        """Seconds of the training of these students together, and of their portions."""
        if not all(name in SECONDS_PER_IMAGE for name in (*names, self.teacher)):
            return None
        each = sum(SECONDS_PER_IMAGE[name] for name in names)
        drawn = self.student_epochs * self.images[0]
        teacher = 0 if self.variants else FORWARD_SHARE * SECONDS_PER_IMAGE[self.teacher] * drawn
        once = self.failout_images + sum(self.images[1:])
        return each * (drawn + FORWARD_SHARE * once) + teacher


# Estimated on two busy cores, in seconds: teacher 1480, rocoin-4x2 670, rocoin-2x4 590, the planned
# groups 670, nonn, averaging-nonn and heterogeneous 1340 each: two hours. The report compares
# estimate and measurement. A half of the resolution is a quarter of the work.
SMALL = Scale(
    teacher="wrn-16-2-s2",
    students={"wrn-10-1-s2": 40, "wrn-16-1-s2": 64},  # four of the first hold all 128 filters
    teacher_epochs=9,
    student_epochs=4,
    variants=2,
)
# The paper's networks and epochs, for an accelerator; no estimate.
PAPER = Scale(
    teacher="wrn-40-4",
    students={"wrn-16-1": 64, "wrn-22-1": 128},
    teacher_epochs=200,
    student_epochs=200,
    variants=0,
    failout_steps=3000,
    failout_images=45_000,
)
# Every part, in seconds and without a meaning: for tests.
TINY = Scale(
    teacher="conv-1-64-s2",
    students={"conv-1-16-s2": 16, "conv-1-32-s2": 32},
    teacher_epochs=1,
    student_epochs=1,
    variants=2,
    failout_steps=2,
    failout_images=32,
    batch=16,
    images=(48, 32, 32),
    draws=1,
    heterogeneities=(1, 6),
    untrained=("nonn", "heterogeneous"),  # trained as averaging-nonn
)
SCALES = {"small": SMALL, "paper": PAPER, "tiny": TINY}
