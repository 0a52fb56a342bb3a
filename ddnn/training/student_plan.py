"""From a bundle to a plan of students: distil the edge's section, write students and classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.files import BundleFile
from ddnn.core.plan import Plan, PlanRequest
from ddnn.core.section import Section, is_close
from ddnn.errors import ConfigError, SectionError
from ddnn.exits.manifest import Manifest
from ddnn.runtime.plans import write_plan
from ddnn.students import StudentPlan, Tradeoff
from ddnn.students.detail import ROOM, Exit, StudentDetail, StudentSummary, read_detail
from ddnn.training.bundle import load_sections
from ddnn.training.checkpoints import Checkpoints, remove_checkpoints
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
from ddnn.training.students.distil import Distillation, Training, distil
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
    measure_missing,
)
from ddnn.training.students.family import count_flops, count_memory_bytes
from ddnn.training.students.groups import Grouping
from ddnn.training.students.unified import UnifiedStudent
from ddnn.training.train import DatasetLike

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
    check_options(request, "p_th", "outage", "objective", "network", "data", "steps")
    settings = choose_settings(request, settings or Distillation())
    teacher = split_features(planned.load_model())
    grouping = Grouping.of(request, teacher)
    tradeoffs = grouping.list_tradeoffs()  # before long work: raises where there is none
    progress("loading data", 0, 1)
    dataset = load_data(planned.manifest, request.data)
    progress("loading data", 1, 1)
    sections = load_sections(planned.manifest, bundle, load_section)
    examples, validation = prepare_data(planned, sections, teacher, dataset, request.seed, progress)
    z = compute_batches(teacher.features, validation.fused)
    grouped = grouping.plan(z)
    job = describe_job(planned.bundle_id, request.data, grouped, settings)
    training = Training(teacher, examples, settings, Checkpoints(out, job), progress)
    keras.utils.set_random_seed(settings.seed + 1)
    unified = grouping.build(grouped, teacher.classifier, positive=bool(z.min() >= 0))
    distil(unified, training)
    drop = [max(grouped.outage(group), settings.least_drop) for group in grouped.groups]
    filled = choose_fill(unified, drop, validation.fused, validation.labels, training)
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
            for number, group in enumerate(grouped.groups)
            for member in group.members
        },
        golden=write_golden_versioned(out, vectors),
        owned={"tail": pieces["tail"]},
        detail=msgspec.to_builtins(make_detail(grouped, tradeoffs, filled, teacher, accuracy)),
    )
    read_detail(plan)
    made = write_plan(out, plan)
    remove_checkpoints(out)
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


def describe_job(bundle: str, data: str, plan: StudentPlan, settings: Distillation) -> str:
    """A text that differs where another training is due."""
    groups = [(group.student.name, group.filters) for group in plan.groups]
    outage = [plan.outage(group) for group in plan.groups]
    job = msgspec.json.encode([bundle, data, groups, outage, settings])
    return hashlib.sha256(job).hexdigest()


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
    running = report_phase(progress, "running the device sections on validation data")
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
    plan: StudentPlan,
    tradeoffs: Sequence[Tradeoff],
    filled: FilledStudent,
    teacher: FeatureSplit,
    accuracy: Accuracies,
) -> StudentDetail:
    """What the plan has besides its pieces."""
    return StudentDetail(
        filters=[list(group.filters) for group in plan.groups],
        fill=filled.fill,
        fill_values=filled.values.astype(float).tolist(),
        outage=[plan.outage(group) for group in plan.groups],
        p_th=plan.p_th,
        students=[
            StudentSummary(
                name=group.student.name,
                flops=count_flops(student),
                memory_bytes=count_memory_bytes(student),
                parameters=student.count_params(),
            )
            for group, student in zip(plan.groups, filled.unified.students, strict=True)
        ],
        teacher_parameters=sum(
            part.count_params() for part in (teacher.features, teacher.classifier)
        ),
        guaranteed_latency_s=plan.guaranteed_latency_s,
        expected_latency_s=plan.expected_latency_s,
        best_latency_s=plan.best_latency_s,
        accuracy={str(lost): cast(dict[Exit, float], by) for lost, by in accuracy.items()},
        tradeoffs=list(tradeoffs),
        devices=list(plan.devices),
        assumed=list(plan.assumed),
        assumed_outage=plan.assumed_outage,
    )
