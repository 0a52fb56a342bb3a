"""Time of sections, bytes and files by the size of the pictures and by the network.

    python -m benchmarks.input_sizes --json

Builds the sections of configuration e for three cameras and five classes at 32, 64, 96 and 128
pixels: those of `ddnn train` for folders, and with each backbone. Weights are random, on which
neither time nor bytes depend. Each section runs in LiteRT as on its node, one call after the other;
`device_app --check` measures the same on the machine where the camera is. The ratio is that of a
device's time to the one of its own sections at 32 pixels.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, get_args

from benchmarks.harness.report import make_header, make_parser, print_report
from ddnn.adapters.litert import LiteRtSection
from ddnn.core.bits import packed_bytes
from ddnn.exits.hierarchy import make_configuration
from ddnn.training.backbone import RANDOM, Backbone, BackboneName
from ddnn.training.bundle import export_sections
from ddnn.training.models import Network
from ddnn.training.recipes import choose_recipe
from device_app.speed import measure_section_s

SIZES = (32, 64, 96, 128)
CAMERAS, CLASSES = 3, 5
OWN = "own"


def measure(size: int, name: str, measure_s: float) -> dict[str, Any]:
    """The figures of one network at one size."""
    backbone = None if name == OWN else Backbone(name=name, weights=RANDOM)  # type: ignore[arg-type]
    recipe = choose_recipe("directory", backbone=backbone)
    hierarchy = make_configuration(
        "e", CAMERAS, exit_scheme=recipe.schemes[0], fusion_scheme=recipe.schemes[1]
    )
    network = Network(hierarchy, recipe.architecture, (size, size, 3), CLASSES)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        files = export_sections(network, Path(directory))
        for tier, node in (("device", "cam1"), ("edge", hierarchy.lead), ("cloud", "cloud")):
            file = Path(directory) / files[node].file
            section_s = measure_section_s(LiteRtSection(file), measure_s)
            figures[f"{tier}_ms"] = round(1e3 * section_s, 3)
            figures[f"{tier}_kib"] = round(file.stat().st_size / 1024)
    figures["device_bytes"] = packed_bytes(math.prod(network.device_features))
    figures["edge_bytes"] = packed_bytes(math.prod(network.edge_features))
    return figures


def main() -> None:
    parser = make_parser(__doc__, seed="of nothing: no figure depends on weights")
    parser.add_argument("--seconds", type=float, default=1.0, help="per section [1]")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in (OWN, *get_args(BackboneName)):
        for size in SIZES:
            found[f"{name} {size}"] = measure(size, name, arguments.seconds)
    base_ms = found[f"{OWN} {SIZES[0]}"]["device_ms"]
    for figures in found.values():
        figures["device_ratio"] = round(figures["device_ms"] / base_ms, 1)
    print_report({**make_header("input_sizes"), "sections": found}, as_json=arguments.json)


if __name__ == "__main__":
    main()
