"""One cloud: many sites at once, answers written, a page over a million of them.

    python -m benchmarks.cloud --json [--only sites|ingest|page]

sites   20 edges of six simulated devices against one cloud on one machine (benchmarks/fan_in.py)
ingest  answers per second into SQLite and PostgreSQL (benchmarks/ingest.py)
page    replies, and loads in Chromium, over 1,000,000 answers in either (benchmarks/page.py)

Exit code 1 where an aim is missed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import fan_in, ingest, page
from benchmarks.report import bar, ended_cleanly, header, parser, show
from ddnn.local_site.bundles import prepare_site
from ddnn.local_site.site import SiteConfig
from tests.postgres import running_postgres

DATABASES = ("sqlite", "postgresql")


@contextmanager
def databases(kind: str) -> Iterator[Callable[[], str]]:
    """A function that makes a new database and gives its URL, until the block ends.

    PostgreSQL syncs to the disk before it confirms, as in use; tests do without.
    """
    if kind == "postgresql":
        with running_postgres(fsync=True) as server:
            yield server.database
        return
    with tempfile.TemporaryDirectory(prefix="ddnn-bench-") as directory:
        numbers = itertools.count()
        yield lambda: f"sqlite:///{directory}/cloud{next(numbers)}.db"


def main() -> None:
    parse = parser(__doc__)
    parse.add_argument("--only", choices=["sites", "ingest", "page"], help="one part alone")
    parse.add_argument("--edges", type=int, default=20, help="sites: how many [20]")
    parse.add_argument("--devices", type=int, default=6, help="sites: per edge [6]")
    parse.add_argument("--seconds", type=float, default=20.0, help="sites: per rate [20]")
    parse.add_argument(
        "--rates",
        default="2,5,10,15,20,25,30,40,50,60",
        help="sites: samples per second of each edge to try",
    )
    parse.add_argument("--answers", type=int, default=30_000, help="ingest: how many [30000]")
    parse.add_argument("--stored", type=int, default=1_000_000, help="page: answers [1000000]")
    parse.add_argument("--requests", type=int, default=50, help="page: per path [50]")
    parse.add_argument("--databases", default=",".join(DATABASES), help="ingest, page: which")
    parse.add_argument("--data", default="scenes", help="data set of the demo's bundle [scenes]")
    parse.add_argument("--bundle", type=Path, default=None, help="another bundle")
    arguments = parse.parse_args()
    ended_cleanly()
    report = {**header("cloud"), **measure(arguments)}
    show(report, one_line=arguments.json)
    parts = [part for name in ("ingest", "page") for part in report.get(name, {}).values()]
    sys.exit(0 if all(part["holds"] for part in parts) else 1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parts that are asked for."""
    wanted = (arguments.only,) if arguments.only else ("sites", "ingest", "page")
    kinds = arguments.databases.split(",")
    report: dict[str, Any] = {}
    if wanted != ("ingest",):
        plan = prepare_site(arguments.data, arguments.devices, "e", arguments.bundle, 0)
    if "sites" in wanted:
        rates = [float(rate) for rate in arguments.rates.split(",")]
        report["sites"] = fan_in.measure(
            plan, arguments.edges, arguments.devices, arguments.seconds, rates
        )
    if "ingest" in wanted:
        report["ingest"] = {kind: measure_ingest(kind, arguments) for kind in kinds}
    if "page" in wanted:
        report["page"] = {kind: measure_page(kind, arguments, plan) for kind in kinds}
    return report


def measure_ingest(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with databases(kind) as database:
        return ingest.measure(database(), arguments.answers, min(10.0, arguments.seconds))


def measure_page(kind: str, arguments: argparse.Namespace, plan: SiteConfig) -> dict[str, Any]:
    with databases(kind) as database, bar(f"filling {kind}", arguments.stored) as progress:
        return page.measure(
            database(), database(), arguments.stored, plan.bundle, arguments.requests, progress
        )


if __name__ == "__main__":
    main()
