"""From a bundle to a plan of students: distil the edge's section, write students and classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.device import DeviceProfile
from ddnn.core.files import BundleFile
from ddnn.core.plan import Plan, PlanRequest
from ddnn.core.section import Section, is_close
from ddnn.errors import ConfigError, SectionError
from ddnn.exits.manifest import Manifest
from ddnn.runtime.plans import write_plan
from ddnn.students import StudentPlan, build_filter_graph, list_tradeoffs
from ddnn.students import plan as plan_students
from ddnn.students.types import Objective
from ddnn.training.bundle import load_sections
from ddnn.training.checkpoints import Checkpoints
from ddnn.training.export import model_to_litert, write_section
from ddnn.training.fit import Labels
from ddnn.training.golden import GoldenRecorder
from ddnn.training.plan_files import (
    EXAMPLES,
    OUTPUTS,
    PlannedEdge,
    Progress,
    check_options,
    declare_piece,
    find_edge,
    version_file,
    write_golden_versioned,
)
from ddnn.training.split import FeatureSplit, split_features
from ddnn.training.students.distil import Distillation, distil
from ddnn.training.students.edge_data import (
    MOST_VALIDATION_SAMPLES,
    EdgeValidation,
    compute_features,
    draw_samples,
    find_members,
    make_validation,
    report_phase,
)
from ddnn.training.students.examples import FloatArray, FusedExamples, compute_batches
from ddnn.training.students.failout import (
    Accuracies,
    FilledStudent,
    choose_fill,
    compute_joined,
    copy_model,
    measure_missing,
)
from ddnn.training.students.family import (
    WORD_BYTES,
    Backbone,
    Shape,
    build_student,
    count_flops,
    count_memory_bytes,
    list_students,
)
from ddnn.training.students.unified import UnifiedStudent
from ddnn.training.train import DatasetLike

ROOM = "students"
OUTAGE = 0.1  # of devices that declare none
P_TH = 0.02  # above OUTAGE squared: groups of two
LoadData = Callable[[Manifest, str], DatasetLike]


def make_plan(
    bundle: Path,
    out: Path,
    request: PlanRequest,
    *,
    load_section: Callable[[Path], Section],
    load_data: LoadData,
    progress: Progress = lambda what, done, total: None,
    settings: Distillation | None = None,
    **_: Any,
) -> Plan:
    """Distil an edge's section into students and write their plan into `out`; the plan with its id.

    The teacher is the bundle's Keras source of the section. It is given the features that the
    bundle's device sections compute of the data set load_data(manifest, request.data), of which
    random devices are absent. A distillation that was killed goes on from the checkpoints in `out`.

    Raises ConfigError where the bundle cannot be planned as requested, InfeasiblePlanError where no
    groups of the devices meet the request.
    """
    planned = find_edge(bundle, out, request)
    check_options(request, "p_th", "outage", "objective", "networks", "data", "steps")
    settings = choose_settings(request, settings or Distillation())
    teacher = split_features(planned.load_model())
    dataset = load_data(planned.manifest, request.data)
    sections = load_sections(planned.manifest, bundle, load_section)
    examples, validation = prepare_data(planned, sections, teacher, dataset, request.seed, progress)
    grouped = plan_groups(request, teacher, validation.fused)
    checkpoints = Checkpoints(out, describe_job(planned.bundle_id, grouped.plan, settings))
    keras.utils.set_random_seed(settings.seed + 1)
    unified = build_students(grouped, teacher)
    distil(unified, teacher, examples, settings, checkpoints, progress)
    drop = [max(q, settings.least_drop) for q in grouped.outage]
    filled = choose_fill(
        unified,
        drop,
        teacher,
        examples,
        validation.fused,
        validation.labels,
        settings,
        checkpoints,
        progress,
    )
    accuracy = measure_missing(
        filled,
        compute_joined(filled.unified, validation.fused),
        validation.measure,
        report_phase(progress, "measuring sets of missing portions"),
    )
    files = write_files(filled.unified, out)
    written = {name: load_section(out / file.file) for name, file in files.items()}
    vectors = run_golden(filled.unified, written, validation.fused[:EXAMPLES])
    pieces = {name: declare_piece(name, file, vectors) for name, file in files.items()}
    plan = Plan(
        format=1,
        room=ROOM,
        bundle=planned.bundle_id,
        group=planned.edge,
        pieces=tuple(pieces[str(number)] for number in range(len(unified.students))),
        placement={
            member: (number,)
            for number, group in enumerate(grouped.plan.groups)
            for member in group.members
        },
        golden=write_golden_versioned(out, vectors),
        owned={"tail": pieces["tail"]},
        detail=make_detail(grouped, filled, teacher, accuracy),
    )
    made = write_plan(out, plan)
    checkpoints.remove()
    return made


def choose_settings(request: PlanRequest, base: Distillation) -> Distillation:
    """The settings with the request's steps and seed. ConfigError: no positive number of steps."""
    if request.steps is not None and request.steps < 1:
        raise ConfigError(f"--steps {request.steps}: expected 1 or more")
    steps = request.steps or base.steps
    return msgspec.structs.replace(
        base,
        steps=steps,
        failout_steps=max(1, base.failout_steps * steps // base.steps),
        seed=request.seed,
    )


# --------------------------------------------------------------------- planning


class GroupedStudents(NamedTuple):
    """The plan of groups, and what it was made of.

    input_shape: of the section; positive: no value of the teacher's feature map is negative.
    """

    plan: StudentPlan
    tradeoffs: list[Any]
    input_shape: Shape
    positive: bool

    @property
    def outage(self) -> list[float]:
        """Of each group."""
        return [self.plan.outage(group) for group in self.plan.groups]


def plan_groups(request: PlanRequest, teacher: FeatureSplit, inputs: FloatArray) -> GroupedStudents:
    """Group the devices and the teacher's filters. Raises ConfigError and InfeasiblePlanError.

    inputs: of the teacher, validation samples [samples, ...], for the graph of its filters.
    """
    z = compute_batches(teacher.features, inputs)
    input_shape = cast(Shape, tuple(int(n) for n in teacher.features.inputs[0].shape[1:]))
    positive = bool(z.min() >= 0)
    height, width, filters = teacher.shape
    students = list_students(input_shape, teacher.shape, request.networks, positive=positive)
    devices = declare_outages(request)
    p_th = P_TH if request.p_th is None else request.p_th
    objective = request.objective or get_args(Objective)[0]
    word_bits = 8 * WORD_BYTES
    bits = {
        "bits_per_filter": word_bits * height * width,
        "input_bits": word_bits * int(np.prod(input_shape)),
        "seed": request.seed,
    }
    graph = build_filter_graph(z.mean(axis=(1, 2)))
    made = plan_students(devices, graph, students, p_th, objective, **bits)
    tradeoffs = list_tradeoffs(devices, filters, students, p_th, objective, **bits)
    return GroupedStudents(made, tradeoffs, input_shape, positive)


def declare_outages(request: PlanRequest) -> list[DeviceProfile]:
    """The devices, with the request's outage probability where they declare none."""
    outage = OUTAGE if request.outage is None else request.outage
    if not 0 <= outage < 1:
        raise ConfigError(f"--outage {outage}: expected a probability from 0 to below 1")
    return [
        device
        if device.outage_probability
        else msgspec.structs.replace(device, outage_probability=outage)
        for device in request.devices
    ]


def describe_job(bundle: str, plan: StudentPlan, settings: Distillation) -> str:
    """A text that differs where another training is due."""
    groups = [(group.student.name, group.filters) for group in plan.groups]
    outage = [plan.outage(group) for group in plan.groups]
    job = msgspec.json.encode([bundle, groups, outage, settings])
    return hashlib.sha256(job).hexdigest()


def build_students(grouped: GroupedStudents, teacher: FeatureSplit) -> UnifiedStudent:
    """Students with random weights and a copy of the teacher's classifier."""
    height, width, _ = teacher.shape
    groups = grouped.plan.groups
    students = tuple(
        build_student(
            Backbone.parse(group.student.name),
            grouped.input_shape,
            (height, width, len(group.filters)),
            positive=grouped.positive,
        )
        for group in groups
    )
    filters = tuple(group.filters for group in groups)
    return UnifiedStudent(students, filters, copy_model(teacher.classifier))


# ------------------------------------------------------------------------- data


def prepare_data(
    planned: PlannedEdge,
    sections: Mapping[str, Section],
    teacher: FeatureSplit,
    dataset: DatasetLike,
    seed: int,
    progress: Progress,
) -> tuple[FusedExamples, EdgeValidation]:
    """What the students learn from and what they are measured with."""
    manifest = planned.manifest
    views = len(manifest.hierarchy.devices)
    images, labels = draw_samples(dataset, views, seed)
    running = report_phase(progress, "running the device sections")
    features = compute_features(manifest, sections, images, running)
    own = find_members(manifest, planned.edge)
    examples = FusedExamples(
        features[:, own], labels, manifest.hierarchy.fusion_scheme, teacher.features
    )
    split = dataset.validation
    chosen = slice(MOST_VALIDATION_SAMPLES)
    running = report_phase(progress, "running the device sections, validation data")
    seen = compute_features(manifest, sections, split.images[chosen, :views], running)
    kept: Labels = split.labels[chosen]
    return examples, make_validation(manifest, sections, planned.edge, seen, kept)


# ------------------------------------------------------------------------ files


def write_files(unified: UnifiedStudent, out: Path) -> dict[str, BundleFile]:
    """Write the students "0", "1", … and the classifier, "tail"."""
    out.mkdir(parents=True, exist_ok=True)
    sections = {
        f"student{number}": model_to_litert(student, ["features"], ["portion"])
        for number, student in enumerate(unified.students)
    }
    sections["tail"] = model_to_litert(unified.classifier, ["z"], OUTPUTS)
    return {
        name.removeprefix("student"): version_file(write_section(out, name, data))
        for name, data in sections.items()
    }


def run_golden(
    unified: UnifiedStudent, sections: Mapping[str, Section], inputs: FloatArray
) -> dict[str, NDArray[Any]]:
    """Inputs and outputs of the plan's sections, by <section>/in|out/<array>.

    sections: as written, loaded; inputs: of the section that they replace [samples, ...].
    SectionError where the files together are not the trained network.
    """
    golden = GoldenRecorder(sections)
    whole = unified(inputs)
    for index, sample in enumerate(inputs):
        z = np.zeros(unified.classifier.inputs[0].shape[1:], np.float32)
        for number, filters in enumerate(unified.filters):
            z[..., list(filters)] = golden.run(str(number), {"features": sample})["portion"]
        outputs = golden.run("tail", {"z": z})
        for name, expected in zip(OUTPUTS, whole, strict=True):
            if not is_close(outputs[name], np.asarray(expected)[index]):
                raise SectionError(
                    f"the students' {name} are not those of the trained network; "
                    "this version of TensorFlow exports something else"
                )
    return golden.stack()


def make_detail(
    grouped: GroupedStudents,
    filled: FilledStudent,
    teacher: FeatureSplit,
    accuracy: Accuracies,
) -> dict[str, Any]:
    """What the plan has besides its pieces."""
    plan, unified = grouped.plan, filled.unified
    return {
        "filters": [list(group.filters) for group in plan.groups],
        "fill": filled.fill,
        "fill_values": filled.values.astype(float).tolist(),
        "outage": grouped.outage,
        "p_th": plan.p_th,
        "students": [
            {
                "name": group.student.name,
                "flops": count_flops(student),
                "memory_bytes": count_memory_bytes(student),
                "parameters": student.count_params(),
            }
            for group, student in zip(plan.groups, unified.students, strict=True)
        ],
        "teacher_parameters": sum(
            part.count_params() for part in (teacher.features, teacher.classifier)
        ),
        "guaranteed_latency_s": plan.guaranteed_latency_s,
        "expected_latency_s": plan.expected_latency_s,
        "best_latency_s": plan.best_latency_s,
        "accuracy": {str(missing): exits for missing, exits in accuracy.items()},
        "tradeoffs": msgspec.to_builtins(grouped.tradeoffs),
    }
