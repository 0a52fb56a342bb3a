"""Plans which workers compute which pieces of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddnn.core.ids import require_id
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.local_site.progress import show_progress

if TYPE_CHECKING:
    from ddnn.coding.deployment import Deployment

REDUNDANCIES = ("none", "replicate", "coded", "coded-sparse")


def require_redundancy(name: str) -> None:
    """ConfigError unless this kind of redundancy can be planned."""
    if name not in REDUNDANCIES:
        raise ConfigError(f"--redundancy {name!r}: expected one of {', '.join(REDUNDANCIES)}")


def plan_bundle(
    bundle: Path,
    out: Path | None,
    *,
    redundancy: Any,
    power: Mapping[str, float],
    tolerate: int | None = None,
    edge: str = "",
    layer: str = "",
    seed: int = 0,
    memory_bytes: Mapping[str, int] | None = None,
) -> tuple[Deployment, str]:
    """Plan with progress bars; the plan and its id.

    out:      directory to write, by default in the bundle
    tolerate: by default 1, with redundancy none 0
    """
    if tolerate is None:
        tolerate = 0 if redundancy == "none" else 1
    if tolerate < 0:
        raise ConfigError(f"--tolerate {tolerate}: expected 0 or more")
    if 0 < len(power) <= tolerate and redundancy != "none":
        raise InfeasiblePlanError(
            f"--tolerate {tolerate} of {say_count(len(power), 'worker')} leaves none to compute "
            "the layer; use more workers or a smaller --tolerate"
        )
    with show_progress() as progress:
        progress("importing TensorFlow", 0, 1)
        try:
            import scipy  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"ddnn plan needs scipy ({error}): pip install 'ddnn[train,coding]'"
            ) from None
        from ddnn.adapters.shards import load_section, write_matrix
        from ddnn.runtime.deployment import DIRECTORY
        from ddnn.training.plan import Wanted, make_plan

        progress("importing TensorFlow", 1, 1)
        wanted = Wanted(redundancy, power, tolerate, edge, layer, seed, memory_bytes or {})
        return make_plan(
            bundle, out or bundle / DIRECTORY, wanted, load_section, write_matrix, progress
        )


def parse_workers(text: str) -> dict[str, float]:
    """The workers of --workers and their powers: "6", or "pi3,pi4=2"; ConfigError."""
    if text.isdecimal():
        return {f"worker{i + 1}": 1.0 for i in range(int(text))}
    if get_close_matches(text, ["announced"]):
        raise ConfigError(f"--workers {text!r}: did you mean announced?")
    power: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        require_id(name, "--workers: worker")
        if name in power:
            raise ConfigError(f"--workers: {name} is named twice")
        try:
            power[name] = float(value or 1)
        except ValueError:
            raise ConfigError(f"--workers {part!r}: expected NAME=POWER, such as pi4=2") from None
        if not 0 < power[name] < 1e6:
            raise ConfigError(f"--workers {part!r}: the power must be above 0")
    return power


def say_count(number: int, one: str, several: str = "") -> str:
    """ "1 worker", "2 workers"; several: the plural where it is not with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
