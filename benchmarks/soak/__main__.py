"""A site under random faults: is every sample answered in time, and does nothing grow?

    python -m benchmarks.soak --minutes 30 --seed 0 --json

A real site (Mosquitto, cloud, dashboard, edge, six devices, each a process) runs while nodes, the
broker included, are killed (SIGKILL) or stopped (SIGSTOP) at random, one or several at once, every
few seconds, and brought back after a random short time (benchmarks/soak/faults.py). Every sample
that is owed an answer (benchmarks/soak/samples.py) must have exactly one stored answer, with a
label, given first within the deadline after its capture tick.

Meanwhile clocks are set, disks are full, the edge's link is thin, a peer floods a camera's topic,
and other processes take the cores (benchmarks/soak/troubles.py).

The run is cut into epochs, and in each of them some nodes are spared, every node once: it has one
long life while all others die around it, by which its growth is judged (benchmarks/soak/growth.py).

Exit code 1 where something does not hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness.processes import interrupt_on_sigterm
from benchmarks.harness.report import make_header, make_parser, print_report
from benchmarks.soak.run import run_soak
from ddnn.local_site.bundles import prepare_site


def main() -> None:
    parser = make_parser(__doc__, "of the faults")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long [30]")
    parser.add_argument("--rate-hz", type=float, default=10.0, help="samples per second [10]")
    parser.add_argument("--deadline-s", type=float, default=1.5, help="of a sample [1.5]")
    parser.add_argument("--gap-s", type=float, default=3.0, help="mean time between faults [3]")
    parser.add_argument(
        "--trouble-gap-s", type=float, default=12.0, help="mean time between troubles; 0: none [12]"
    )
    parser.add_argument("--fail-fast", action="store_true", help="end at the first failure")
    parser.add_argument("--data", default="scenes", help="data set of the bundle [scenes]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    result = run_soak(
        prepare_site(arguments.data, bundle=arguments.bundle),
        60 * arguments.minutes,
        arguments.seed,
        rate_hz=arguments.rate_hz,
        deadline_s=arguments.deadline_s,
        gap_s=arguments.gap_s,
        trouble_gap_s=arguments.trouble_gap_s or None,
        fail_fast=arguments.fail_fast,
    )
    header = {**make_header("soak"), "minutes": arguments.minutes, "seed": arguments.seed}
    print_report({**header, **result}, as_json=arguments.json)
    sys.exit(0 if result["holds"] else 1)


if __name__ == "__main__":
    main()
