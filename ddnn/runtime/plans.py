"""A plan on disk: plan.json, one file per section, golden vectors; all are checked before use."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.plan import ArraySpec, PieceKey, Plan, find_base, make_zeros
from ddnn.core.section import Array, Arrays, Section
from ddnn.errors import ConfigError
from ddnn.machines.room import Room
from ddnn.protocol.machine import PlanRead, SectionName
from ddnn.runtime.bundle import (
    check_file,
    load_sections,
    make_file_entry,
    read_document,
    read_golden,
    write_document,
)

PLAN = "plan.json"
VERSIONED = re.compile(r"-([0-9a-f]{8})\.(?:npz|tflite)\Z")  # names that `ddnn plan` gives
DIRECTORY = "deployment"  # in the bundle, unless another is named
WATCH_S = 1.0


def read_plan(path: Path, bundle: str) -> Plan:
    """Read the plan in a directory; ConfigError where there is none, or one for another bundle."""
    plan, plan_id = read_document(path / PLAN, Plan, "a plan", "ddnn plan")
    if plan.bundle != bundle:
        raise ConfigError(
            f"the plan in {path} is for bundle {plan.bundle}, not for {bundle}; "
            "plan again with `ddnn plan`"
        )
    return msgspec.structs.replace(plan, id=plan_id)


def write_plan(path: Path, plan: Plan) -> Plan:
    """Write plan.json, and return the plan with its id. The files that it names must exist.

    Files of earlier plans are removed, except those of the previous plan: a site that runs by it
    may still load them. Files of other names are not touched: the directory may be anybody's.
    """
    named = _list_files(plan)
    try:
        before = read_document(path / PLAN, Plan, "a plan", "ddnn plan")[0]
        kept = named | _list_files(before)
    except ConfigError:
        kept = named
    plan_id = write_document(path / PLAN, msgspec.structs.replace(plan, id=""))
    for file in path.iterdir():
        if file.name not in kept and _is_of_a_plan(file):
            file.unlink()
    return msgspec.structs.replace(plan, id=plan_id)


def _is_of_a_plan(file: Path) -> bool:
    """Whether `ddnn plan` has named the file: by the first digits of its sha256."""
    found = VERSIONED.search(file.name)
    if found is None:
        return False
    return make_file_entry(file).sha256.startswith(found[1])


def _list_files(plan: Plan) -> set[str]:
    pieces = [*plan.pieces, *plan.owned.values()]
    return {plan.golden.file, *(piece.file.file for piece in pieces)}


class PlannedSection:
    """A section of a plan with an example of its inputs, on which the loop measures its duration.

    A matrix alone does not know how many rows a task has; the plan does.
    """

    def __init__(self, section: Section, inputs: Mapping[str, ArraySpec]) -> None:
        self._section, self._inputs = section, inputs

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        return self._section(inputs)

    def example(self) -> dict[str, Array]:
        return make_zeros(self._inputs)


class PlanDirectory:
    """The plans that one directory held since this process started, newest last."""

    def __init__(
        self,
        path: Path,
        bundle: str,
        load_section: Callable[[Path], Section],
        find_room: Callable[[str], Room],
    ) -> None:
        self.path, self.bundle = path, bundle
        self._load_section, self._find_room = load_section, find_room
        self._plans: dict[str, Plan] = {}
        self._lock = threading.Lock()  # sections are loaded in one thread, plans read in another

    def read(self) -> Plan:
        """Read and check the directory's plan; ConfigError where it cannot be used."""
        plan = read_plan(self.path, self.bundle)
        with self._lock:
            if plan.id not in self._plans:
                golden = read_golden(check_file(self.path, plan.golden))
                for piece in plan.owned.values():  # all is there: a copy may still be under way
                    check_file(self.path, piece.file)
                self._find_room(plan.room).check(plan, golden)
                _check_arrays(plan, golden)
                self._plans[plan.id] = plan
        return plan

    def find(self, plan_id: str) -> Plan | None:
        """Read the directory's plan, also as a revision of it; None where there is none, or one
        with another id."""
        try:
            plan = self.read()
        except ConfigError:
            return None
        return plan.rename(plan_id)

    def load(self, key: SectionName) -> Section:
        """Load a section of a plan that was read, and check its golden outputs. ConfigError."""
        if not isinstance(key, PieceKey):
            raise ConfigError(f"section {key} is no piece of a plan")
        with self._lock:
            plan = self._plans.get(find_base(key.plan))
        if plan is None:
            raise ConfigError(f"there is no plan {key.plan} in {self.path}")
        piece, name = plan.section(key.piece), str(key.piece)
        sections = load_sections(
            self.path, {name: piece.file}, plan.golden, self._load_section, [name]
        )
        return PlannedSection(sections[name], piece.inputs)


class PlanWatch:
    """Checks every second, in a thread, whether `ddnn plan` has written another plan."""

    def __init__(
        self,
        directory: PlanDirectory,
        current: str,
        found: Callable[[PlanRead], None],
        failed: Callable[[ConfigError], None],
    ) -> None:
        """found: takes each new plan. failed: takes the error of a new plan that cannot be used."""
        self._directory, self._current = directory, current
        self._found, self._failed = found, failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plan watch", daemon=True)
        # None: one that was written since the present one was read is noticed, too.
        self._seen: frozenset[tuple[str, int, int, int]] | None = None
        self._reported = ""  # the error that was reported last

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(2 * WATCH_S)

    def _run(self) -> None:
        while not self._stop.wait(WATCH_S):
            self.check_once()

    def check_once(self) -> None:
        """Read the plan if a file of its directory has changed: one that is copied there may come
        before the others of its plan."""
        stamp = self._read_stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            plan = self._directory.read()
        except ConfigError as error:
            if str(error) != self._reported:
                self._reported = str(error)
                self._failed(error)
            return
        self._reported = ""
        if plan.id != self._current:
            self._current = plan.id
            self._found(PlanRead(plan.id, plan))

    def _read_stamp(self) -> frozenset[tuple[str, int, int, int]] | None:
        """Of all files there; None without a plan."""
        try:
            with os.scandir(self._directory.path) as entries:
                found = {entry.name: entry.stat() for entry in entries}
        except OSError:  # one is gone meanwhile
            return None
        if PLAN not in found:
            return None
        return frozenset((name, s.st_ino, s.st_mtime_ns, s.st_size) for name, s in found.items())


def _check_arrays(plan: Plan, golden: Mapping[str, NDArray[np.generic]]) -> None:
    """ConfigError where a section's golden vectors are not the arrays that the plan declares."""
    pieces = {**{str(number): piece for number, piece in enumerate(plan.pieces)}, **plan.owned}
    declared: set[str] = set()
    for name, piece in pieces.items():
        for way, specs in (("in", piece.inputs), ("out", piece.outputs)):
            for array, spec in specs.items():
                key = f"{name}/{way}/{array}"
                declared.add(key)
                vectors = golden.get(key)
                if vectors is None or (vectors.shape[1:], vectors.dtype) != (
                    spec.shape,
                    spec.dtype,
                ):
                    raise ConfigError(
                        f"plan {plan.id}: section {name} has no golden {array} of "
                        f"{spec.type} {spec.shape}; plan again with `ddnn plan`"
                    )
    for key in sorted(golden.keys() - declared):
        if key.partition("/")[0] in pieces:
            raise ConfigError(
                f"plan {plan.id}: golden {key} is no array that its section declares; "
                "plan again with `ddnn plan`"
            )
