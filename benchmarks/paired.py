"""Another benchmark in an earlier revision and in this checkout, in turn.

    python -m benchmarks.paired --before a184ae8 --rounds 3 --path 'local.*' --cpu --json \\
        -- benchmarks.hierarchy --seconds 5 --rates 50

The revision is checked out into a temporary directory. In every round the benchmark runs there
and here, one after the other, so that both meet the same machine. For each number of the reports,
or for those that --path names, the values of all rounds, the medians and their ratio (after over
before) are printed. Files of this checkout that are not committed take part.

--cpu adds the processor time per sample, measured from outside (benchmarks/site_cpu.py), where a
revision's own report lacks it.
"""

from __future__ import annotations

import fnmatch
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import (
    ROOT,
    environment_of,
    interrupt_on_sigterm,
    read_to_end,
    temporary_directory,
)
from benchmarks.harness.report import (
    flatten,
    make_header,
    make_parser,
    print_report,
    progress_bar,
    read_commit,
)
from benchmarks.site_cpu import measure_site_cpu
from ddnn.errors import ConfigError, DdnnError

Numbers = dict[str, float]  # by path


@contextmanager
def check_out(revision: str) -> Iterator[Path]:
    """A work tree of a revision in a temporary directory. ConfigError: no such revision."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with temporary_directory() as directory:
        tree = directory / "before"
        add = [*git, "add", "--detach", str(tree), revision]
        done = subprocess.run(add, capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"--before {revision}: {done.stderr.strip()}")
        try:
            yield tree
        finally:
            remove = [*git, "remove", "--force", str(tree)]
            subprocess.run(remove, check=True, capture_output=True)


def run_benchmark(tree: Path, words: Sequence[str], timeout_s: float) -> dict[str, Any]:
    """The report of a benchmark in a checkout, whether or not its aims are met."""
    with subprocess.Popen(
        [sys.executable, "-m", *words, "--json"],
        cwd=tree,
        env=environment_of(tree),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        output, said = read_to_end(process, timeout_s)
    lines = output.strip().splitlines()
    try:
        report = json.loads(lines[-1])
    except (IndexError, ValueError):
        error = said.strip()[-500:]
        raise DdnnError(f"{words[0]} at {read_commit(tree)} printed no report: {error}") from None
    assert isinstance(report, dict)
    return report


def select_numbers(report: dict[str, Any], patterns: Sequence[str]) -> Numbers:
    """The numbers of a report whose path matches a pattern; all of them without patterns."""
    return {
        path: float(value)
        for path, value in flatten(report).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns or ["*"])
    }


def compare(before: Sequence[Numbers], after: Sequence[Numbers]) -> dict[str, Any]:
    """By path: the values of the rounds, their medians and the medians' ratio.

    Only paths that every report has are compared.
    """
    common = [path for path in after[0] if all(path in of for of in (*before, *after))]
    result = {}
    for path in common:
        values = [[of[path] for of in side] for side in (before, after)]
        old, new = (statistics.median(of) for of in values)
        result[path] = {
            "before": round(old, 4),
            "after": round(new, 4),
            "ratio": round(new / old, 3) if old else None,
            "before_values": values[0],
            "after_values": values[1],
        }
    return result


def measure(
    tree: Path, words: Sequence[str], patterns: Sequence[str], *, cpu: bool, timeout_s: float
) -> Numbers:
    """The selected numbers of one run."""
    report = run_benchmark(tree, words, timeout_s)
    if cpu and "cpu_ms_per_sample" not in report:
        report |= measure_site_cpu(tree)
    return select_numbers(report, patterns)


def main() -> None:
    parser = make_parser(__doc__, "of the benchmark, given to it")
    parser.add_argument("--before", required=True, metavar="REVISION", help="to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="runs in each checkout [3]")
    parser.add_argument(
        "--path",
        action="append",
        default=[],
        metavar="PATTERN",
        help="numbers to compare, such as 'local.p50_ms' or 'cpu_*'; repeatable [all]",
    )
    parser.add_argument("--cpu", action="store_true", help="measure processor time per sample, too")
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="of one run [3600]")
    parser.add_argument("benchmark", nargs="+", help="after --: module and its arguments")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    words = arguments.benchmark
    if not words[0].startswith("benchmarks."):
        parser.error(f"{words[0]}: expected a module of benchmarks, such as benchmarks.hierarchy")
    if arguments.seed:
        words = [*words, "--seed", str(arguments.seed)]
    before: list[Numbers] = []
    after: list[Numbers] = []
    runs = 2 * arguments.rounds
    with check_out(arguments.before) as old, progress_bar("paired", runs) as progress:
        commits = {"before": read_commit(old), "after": read_commit(ROOT)}
        for turn in range(runs):
            side, tree = ((before, old), (after, ROOT))[turn % 2]
            progress(
                turn, f"{words[0]}, round {turn // 2 + 1}, {'after' if turn % 2 else 'before'}"
            )
            side.append(
                measure(
                    tree,
                    words,
                    arguments.path,
                    cpu=arguments.cpu,
                    timeout_s=arguments.timeout_s,
                )
            )
    report = {**make_header("paired"), "commits": commits, "rounds": arguments.rounds}
    report["numbers"] = compare(before, after)
    print_report(report, as_json=arguments.json)


if __name__ == "__main__":
    main()
