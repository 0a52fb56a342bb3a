"""One cloud: many sites at once, answers written, a page over a million of them.

    python -m benchmarks.cloud --only sites --edges 20 --json

sites   edges of six simulated devices against one cloud on one machine (many_sites.py)
ingest  answers per second into SQLite and PostgreSQL (ingest.py)
page    replies, and loads in Chromium, over 1,000,000 answers in either (page.py)

Exit code 1 where an aim is missed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cloud.ingest import measure_ingest
from benchmarks.cloud.many_sites import measure_sites
from benchmarks.cloud.page import measure_page
from benchmarks.harness.processes import interrupt_on_sigterm, temporary_directory
from benchmarks.harness.report import make_header, make_parser, print_report, progress_bar
from ddnn.local_site.bundles import prepare_site
from tests.postgres import running_postgres

PARTS = ("sites", "ingest", "page")


@contextmanager
def running_database(kind: str) -> Iterator[Callable[[], str]]:
    """Yields a function that makes a new database and returns its URL.

    PostgreSQL syncs to the disk before it confirms, as in use; tests do without.
    """
    if kind == "postgresql":
        with running_postgres(fsync=True) as server:
            yield server.database
        return
    with temporary_directory() as directory:
        numbers = itertools.count()
        yield lambda: f"sqlite:///{directory}/cloud{next(numbers)}.db"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The report of the parts that the arguments ask for."""
    parts = (arguments.only,) if arguments.only else PARTS
    kinds = arguments.databases.split(",")
    report: dict[str, Any] = {}
    if parts != ("ingest",):
        config = prepare_site(
            arguments.data, arguments.devices, bundle=arguments.bundle, seed=arguments.seed
        )
    if "sites" in parts:
        rates = [float(rate) for rate in arguments.rates.split(",")]
        report["sites"] = measure_sites(
            config, arguments.edges, arguments.devices, arguments.seconds, rates
        )
    for part in ("ingest", "page"):
        if part not in parts:
            continue
        report[part] = {}
        for kind in kinds:
            with (
                running_database(kind) as make_database,
                progress_bar(f"{part}, {kind}", arguments.stored) as progress,
            ):
                report[part][kind] = (
                    measure_ingest(
                        make_database(),
                        arguments.answers,
                        min(10.0, arguments.seconds),
                        arguments.seed,
                    )
                    if part == "ingest"
                    else measure_page(
                        make_database,
                        config.bundle,
                        arguments.stored,
                        arguments.requests,
                        arguments.seed,
                        progress,
                    )
                )
    return report


def main() -> None:
    parser = make_parser(__doc__, "of bundle and answers")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--edges", type=int, default=20, help="sites: how many [20]")
    parser.add_argument("--devices", type=int, default=6, help="sites: per edge [6]")
    parser.add_argument("--seconds", type=float, default=20.0, help="sites: per rate [20]")
    parser.add_argument(
        "--rates",
        default="2,5,10,15,20,25,30,40,50,60",
        help="sites: samples per second of each edge to try",
    )
    parser.add_argument("--answers", type=int, default=30_000, help="ingest: how many [30000]")
    parser.add_argument("--stored", type=int, default=1_000_000, help="page: answers [1000000]")
    parser.add_argument("--requests", type=int, default=50, help="page: per path [50]")
    parser.add_argument(
        "--databases", default="sqlite,postgresql", help="ingest, page: [sqlite,postgresql]"
    )
    parser.add_argument("--data", default="scenes", help="data set of the bundle [scenes]")
    parser.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parser.parse_args()
    interrupt_on_sigterm()
    report = {**make_header("cloud"), **measure(arguments)}
    print_report(report, as_json=arguments.json)
    judged = [found for part in ("ingest", "page") for found in report.get(part, {}).values()]
    sys.exit(0 if all(found["holds"] for found in judged) else 1)


if __name__ == "__main__":
    main()
