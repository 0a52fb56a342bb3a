"""Plans which workers compute which pieces of a section."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ddnn.core.device import DeviceProfile
from ddnn.core.ids import require_id
from ddnn.core.plan import MAX_PIECES, Plan, PlanRequest
from ddnn.core.text import decode_text
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.exits.manifest import Manifest
from ddnn.local_site.progress import show_progress
from ddnn.rooms import find_planner
from ddnn.runtime.plans import DIRECTORY

if TYPE_CHECKING:
    from ddnn.data import Dataset

UNIT_FLOPS_PER_S = 1e9  # of a worker of power 1: only ratios count


def plan_bundle(bundle: Path, out: Path | None, request: PlanRequest) -> Plan:
    """Plan with progress bars; the plan with its id. out: by default in the bundle."""
    with show_progress() as progress:
        progress("importing TensorFlow", 0, 1)
        make_plan = find_planner(request.redundancy)
        from ddnn.adapters.matrices import load_section, write_matrix

        progress("importing TensorFlow", 1, 1)
        return make_plan(
            bundle,
            out or bundle / DIRECTORY,
            request,
            load_section=load_section,
            write_matrix=write_matrix,
            load_data=load_training_data,
            progress=progress,
        )


def load_training_data(manifest: Manifest, data: str = "") -> Dataset:
    """The data set that a bundle was trained on, with the same splits. data: NAME[:PATH], by
    default the bundle's own where it is rendered. ConfigError where it does not fit the bundle."""
    from ddnn.data import RENDERED, load
    from ddnn.local_site.samples import check_fit, make_folder_request

    if not data and manifest.data not in RENDERED:
        raise ConfigError(
            f"bundle {manifest.name} was trained on {manifest.data}, which is not rendered; name "
            f"its file, such as --data {manifest.data}:PATH"
        )
    spec = data or manifest.data
    test = manifest.training.get("objects_test") if spec.startswith("eth80") else None
    dataset = load(
        spec,
        seed=int(manifest.training.get("data_seed", 0)),
        objects_test=None if test is None else int(test),
        folders=make_folder_request(manifest),
    )
    check_fit(manifest, spec, dataset.train)
    return dataset


def parse_workers(text: str) -> tuple[DeviceProfile, ...]:
    """The workers of --workers: "6", names with powers, "pi3,pi4=2", or a file of profiles,
    "devices.toml". Raises ConfigError, and InfeasiblePlanError where there are too many."""
    if text.endswith(".toml"):
        return read_profiles(Path(text))
    if text.isdecimal():
        count = int(text[:10])
        if count > MAX_PIECES:
            raise InfeasiblePlanError(
                f"--workers {text[:20]}: {count:,} shards or replicas are too many; a plan has at "
                f"most {MAX_PIECES}"
            )
        return tuple(make_worker(f"worker{i + 1}") for i in range(count))
    if get_close_matches(text, ["announced"]):
        raise ConfigError(f"--workers {text!r}: did you mean announced?")
    workers: dict[str, DeviceProfile] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        require_id(name, "--workers: worker")
        if name in workers:
            raise ConfigError(f"--workers: {name} is named twice")
        try:
            power = float(value or 1)
        except ValueError:
            raise ConfigError(f"--workers {part!r}: expected NAME=POWER, such as pi4=2") from None
        if not 0 < power < 1e6:
            raise ConfigError(f"--workers {part!r}: the power must be above 0")
        workers[name] = make_worker(name, power)
    return tuple(workers.values())


def read_profiles(path: Path) -> tuple[DeviceProfile, ...]:
    """Read the declared profiles: one table for each device, its fields those of DeviceProfile.

    Raises ConfigError where the file cannot be read or a value is impossible.
    """
    try:
        tables = tomllib.loads(decode_text(path.read_bytes()))
        profiles = tuple(
            msgspec.convert({**table, "name": name}, DeviceProfile)
            for name, table in tables.items()
        )
        unknown = {key for table in tables.values() for key in table} - set(
            DeviceProfile.__struct_fields__
        )
    except (OSError, ValueError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"--workers {path}: {error}; expected a table for each device, such as "
            "[pi3] with flops_per_s = 5e8"
        ) from None
    if unknown or not profiles:
        fields = ", ".join(DeviceProfile.__struct_fields__[1:])
        found = ", ".join(sorted(unknown)) or "no device"
        raise ConfigError(f"--workers {path}: it has {found}; the fields of a device are {fields}")
    return profiles


def make_worker(name: str, power: float = 1.0) -> DeviceProfile:
    """A worker whose speed is known relative to the others' only."""
    return DeviceProfile(name, power * UNIT_FLOPS_PER_S)
