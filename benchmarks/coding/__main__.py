"""Coded redundancy: what vanishing and slow workers cost, and what the codes cost.

    python -m benchmarks.coding --only latency,stragglers --seed 0 --json

latency     a site whose workers are killed and stopped, against other ways (latency.py)
stragglers  the first k of n delayed results against all of them (stragglers.py)
sparse      low-weight codes against dense ones on sparse matrices (sparse.py)
scale       codes for up to 1,000 workers (scale.py)

Exit code 1 where an aim is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.coding.latency import measure_latency
from benchmarks.coding.scale import measure_scale
from benchmarks.coding.sparse import measure_sparse
from benchmarks.coding.stragglers import measure_stragglers
from benchmarks.harness.processes import interrupt_on_sigterm
from benchmarks.harness.report import (
    Progress,
    make_header,
    make_parser,
    print_report,
    progress_bar,
)

PARTS: dict[str, Callable[[int, Progress, bool], dict[str, Any]]] = {
    "latency": measure_latency,
    "stragglers": measure_stragglers,
    "sparse": measure_sparse,
    "scale": measure_scale,
}


def main() -> None:
    parser = make_parser(__doc__, "of faults, delays, matrices and codes")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas [all]")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"--only {min(unknown)!r}: the parts are {', '.join(PARTS)}")
    interrupt_on_sigterm()
    report = {**make_header("coding"), "seed": arguments.seed, "quick": arguments.quick}
    for name in parts:
        with progress_bar(name, 1.0) as progress:
            report[name] = PARTS[name](arguments.seed, progress, arguments.quick)
    print_report(report, as_json=arguments.json)
    sys.exit(0 if all(report[name].get("holds", True) for name in parts) else 1)


if __name__ == "__main__":
    main()
