"""Coded redundancy: what vanishing and slow workers cost, and what the codes cost.

    python -m benchmarks.coding --json [--only latency,stragglers,sparse,scale] [--seed 0] [--quick]

latency     a site whose workers are killed and stopped, against other ways (benchmarks/sharing.py)
stragglers  the first k of n delayed answers against all of them (benchmarks/stragglers.py)
sparse      low-weight codes against dense ones on sparse matrices (benchmarks/sparse_codes.py)
scale       codes for up to 1,000 workers (benchmarks/sparse_codes.py)

Exit code 1 where an aim is missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks import sharing, sparse_codes, stragglers
from benchmarks.report import bar, ended_cleanly, header, parser, show

Part = Callable[[int, sharing.Progress, bool], dict[str, Any]]

PARTS: dict[str, Part] = {
    "latency": sharing.latency,
    "stragglers": stragglers.stragglers,
    "sparse": sparse_codes.sparse,
    "scale": sparse_codes.scale,
}


def main() -> None:
    parse = parser(__doc__)
    parse.add_argument("--only", default=",".join(PARTS), help="parts, by commas [all]")
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--quick", action="store_true", help="seconds, not minutes: does it run?")
    arguments = parse.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - PARTS.keys():
        parse.error(f"--only {min(unknown)!r}: the parts are {', '.join(PARTS)}")
    ended_cleanly()
    report = {**header("coding"), "seed": arguments.seed, "quick": arguments.quick}
    for name in wanted:
        with bar(name, 1.0) as progress:
            report[name] = PARTS[name](arguments.seed, progress, arguments.quick)
    show(report, one_line=arguments.json)
    sys.exit(0 if all(report[name].get("holds", True) for name in wanted) else 1)


if __name__ == "__main__":
    main()
