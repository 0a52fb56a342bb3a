"""Pipeline training over unequal devices: speed, recovery, and the cost of copies.

    python -m benchmarks.pipeline --json
    python -m benchmarks.pipeline --only processes --json
    python -m benchmarks.pipeline --only faults --json

Simulated (virtual time, the product's machines, the layers' times and bytes of a measured profile,
links of 1 Gbit/s unless a row says otherwise):

- speed: time per batch in the steady state for 3, 6 and 10 devices whose slowest is 1 to 10 times
  slower than the central node (three devices: 1, 1, ratio; more: geometric), against PipeDream's
  static cut that takes all devices as equal, and against one device; over the best contiguous cut
  of all orders, by enumeration; at ratio 1 as a share of ideal scaling. Devices announce equal
  speeds: what they are worth is measured while training. deep: the same with 2 (N - i) - 1
  instead of N - i batches in flight, for both.
- recovery: the node of the second stage of five devices (1, 1, 2, 2, 5) is killed, or stopped (it
  hangs). Seconds until it is noticed, until the new layout is chosen, until layers are fetched,
  until all have committed, and until the first batch is done that was not done before; time per
  batch afterwards over before. Against a takeover by the neighbour without a new cut (as in
  ResPipe), and against a restart of all processes from the latest checkpoint.
- replication: the time that copies every k and m steps add to a batch, over none.

Not simulated: building and compiling stages after a new layout, and starting processes, which only
the restart needs.

Processes (--only processes): three real devices of one thread each, which emulate 1, 1 and ratio by
stretching the time of their computing, with a common factor, so that the cores of this machine
suffice; a broker on this machine. Medians of the stages' reports of the same run.

Faults (--only faults): a third of the fault matrix with real processes. Workers are killed, stopped
for 3 s, restarted, or run at a sixth of their speed, or messages are lost, repeated or overtaken
by others, each at six moments of a training; one, two adjacent or all workers in turn. Every
training must end, and equal plain training (restore `consistent`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness.processes import ROOT, interrupt_on_sigterm
from benchmarks.harness.report import Report, make_header, make_parser, print_report
from benchmarks.pipeline.faults import measure_faults
from benchmarks.pipeline.processes import measure_processes
from benchmarks.pipeline.recovery import measure_recovery
from benchmarks.pipeline.replication import measure_replication
from benchmarks.pipeline.simulated import read_profiles
from benchmarks.pipeline.speed import measure_speed
from ddnn.errors import DdnnError

PROFILE = ROOT / "benchmarks" / "results" / "pipeline-profile-mobilenet.json"
GIGABIT, FAST_ETHERNET = 125e6, 12.5e6  # bytes/s
PARTS = ("speed", "recovery", "replication", "processes", "faults")
SIMULATED = PARTS[:3]
AIM_PIPEDREAM, AIM_BEST, AIM_SCALING = 6.8, 1.1, 0.8


def main() -> None:
    parser = make_parser(__doc__, "of the simulated network's delays")
    parser.add_argument("--profile", type=Path, default=PROFILE, help="of pipeline_profile --json")
    parser.add_argument("--only", default=",".join(SIMULATED), help="parts, with commas")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {', '.join(sorted(unknown))}: expected {', '.join(PARTS)}")
    interrupt_on_sigterm()  # so that processes of the benchmark end with it
    header = make_header("pipeline")
    try:
        report = measure(parts, options.profile)
    except DdnnError as error:
        sys.exit(f"{error}")
    print_report({**header, **report}, as_json=options.json)


def measure(parts: list[str], file: Path) -> Report:
    """The report of these parts."""
    report: Report = {}
    if set(parts) & set(SIMULATED):
        profiles = read_profiles(file)
        report["profile"] = file.name
    if "speed" in parts:
        rows = report["speed"] = measure_speed(profiles, GIGABIT)
        report["aims"] = judge(rows)
    if "recovery" in parts:
        report["recovery"] = measure_recovery(profiles, GIGABIT)
    if "replication" in parts:
        report["replication"] = measure_replication(profiles, (GIGABIT, FAST_ETHERNET))
    if "processes" in parts:
        report["processes"] = measure_processes()
    if "faults" in parts:
        report["faults"] = measure_faults()
    return report


def judge(rows: list[Report]) -> Report:
    """The aims, and whether they are met, for three devices."""
    (ten,) = (row for row in rows if (row["devices"], row["ratio"]) == (3, 10))
    (one,) = (row for row in rows if (row["devices"], row["ratio"]) == (3, 1))
    figures = {
        "speedup_over_pipedream_at_10": (ten["speedup_over_pipedream"], AIM_PIPEDREAM, True),
        "over_best_cut_at_10": (ten["over_best_cut"], AIM_BEST, False),
        "deep_speedup_over_pipedream_at_10": (
            ten["deep_speedup_over_pipedream"],
            AIM_PIPEDREAM,
            True,
        ),
        "deep_over_best_cut_at_10": (ten["deep_over_best_cut"], AIM_BEST, False),
        "share_of_ideal_scaling_at_1": (one["share_of_ideal_scaling"], AIM_SCALING, True),
    }
    return {
        name: {"value": value, "aim": aim, "met": value >= aim if more else value <= aim}
        for name, (value, aim, more) in figures.items()
    }


if __name__ == "__main__":
    main()
