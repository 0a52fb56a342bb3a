"""The page over a database of many answers; part `page` of benchmarks.cloud.

The store is filled by its own `save` with a day of answers of 20 sites, so that all sums and
roll-ups are what they would be in use. Then the real `cloud_app --serve page` serves it: replies
are timed over HTTP, and loads of the page in a real Chromium, each in a fresh context (no cache),
from the request until the number of answers is painted. The baseline is the same over a database
of few answers in the same run: `ratio` says what a million cost more. Any console error fails.
"""

from __future__ import annotations

import http.client
import itertools
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.percentiles import quantiles_ms
from benchmarks.harness.processes import app_command
from benchmarks.harness.report import Progress
from benchmarks.harness.sites import running_broker
from benchmarks.harness.synthetic_answers import draw_answers
from cloud_app.store import Store
from ddnn.adapters import broker as brokers
from ddnn.errors import DdnnError
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet

DAY_S = 86_400.0
FEW = 1000
SITES = [f"site{number + 1}" for number in range(20)]
TRANSACTION_ANSWERS = 5000  # while filling
AIM_S = 1.0
READY_S = 30.0
LOAD_S = 30.0
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
IS_SHOWN = """wanted => [...document.querySelectorAll('#headline dd')]
    .some(part => part.textContent.replace(/\\s/g, ' ') === wanted)"""


def format_count(count: int) -> str:
    """A number of answers as the page shows it."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:.2f} M"


def fill(url: str, count: int, bundle: str, seed: int, progress: Progress) -> float:
    """Store a day of answers up to now; answers per second."""
    rate_hz = count / len(SITES) / DAY_S
    random = np.random.default_rng(seed)
    answers = draw_answers(random, SITES, count, time.time(), rate_hz, bundle)
    began_s, done = time.monotonic(), 0
    store = Store(url)
    try:
        while batch := list(itertools.islice(answers, TRANSACTION_ANSWERS)):
            store.save(batch)
            done += len(batch)
            progress(done)
    finally:
        store.close()
    return count / (time.monotonic() - began_s)


def list_paths(rate_hz: float) -> dict[str, str]:
    """The paths that are requested, by name."""
    newest = int(time.time() * rate_hz)
    return {
        "page": "/",
        "state": "/api/v1/state",
        "series_1h": "/api/v1/series?minutes=60",
        "series_24h": "/api/v1/series?minutes=1440",
        "series_24h_of_a_site": f"/api/v1/series?site={SITES[0]}&minutes=1440",
        "answers": f"/api/v1/answers?site={SITES[0]}&first={newest - 100}&last={newest}",
        "metrics": "/metrics",
    }


def time_replies(port: int, paths: dict[str, str], times: int) -> dict[str, dict[str, Any]]:
    """Time and size of each reply, over one connection that is kept."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=LOAD_S)
    result = {}
    for name, path in paths.items():
        took_s, size = [], 0
        for _ in range(times):
            began_s = time.perf_counter()
            link.request("GET", path)
            response = link.getresponse()
            size = len(response.read())
            took_s.append(time.perf_counter() - began_s)
            if response.status != 200:
                raise DdnnError(f"{path}: {response.status} {response.reason}; expected 200")
        result[name] = {**quantiles_ms(took_s), "bytes": size}
    link.close()
    return result


def time_loads(port: int, count: int, times: int) -> dict[str, Any]:
    """Seconds until Chromium shows the number of answers."""
    from playwright.sync_api import sync_playwright

    took_s: list[float] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=CHROMIUM_OPTIONS,
        )
        warm_up = browser.new_page()  # the start of Chromium is not the page's time
        warm_up.goto(f"http://127.0.0.1:{port}/healthz")
        warm_up.close()
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda said: errors.extend([said.text] * (said.type == "error")))
            began_s, limit_ms = time.perf_counter(), 1000 * LOAD_S
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit", timeout=limit_ms)
            shown = format_count(count)
            page.wait_for_function(IS_SHOWN, arg=shown, polling="raf", timeout=limit_ms)
            took_s.append(time.perf_counter() - began_s)
            context.close()
        browser.close()
    return {
        "median_s": round(float(np.median(took_s)), 3),
        "max_s": round(max(took_s), 3),
        "loads": times,
        "console_errors": errors,
    }


def measure_served(url: str, count: int, bundle: Path, times: int) -> dict[str, Any]:
    """Replies and loads of the real page over a database."""
    with running_broker() as (fleet, broker_port, state):
        port = brokers.free_port()
        options = {
            "serve": "page",
            "node": "page",
            "site": EVERYWHERE,
            "bundle": bundle,
            "state": state,
            "database": url,
            "broker-port": broker_port,
            "http-port": port,
            "sign-in": "off",
        }
        fleet.start("page", app_command("cloud_app", options))
        wait_until_served(fleet, port)
        first = time_loads(port, count, 1)  # before any cache of the server is warm
        result = {
            "first_load_s": first["max_s"],
            "load": time_loads(port, count, max(3, times // 5)),
            "replies": time_replies(port, list_paths(count / len(SITES) / DAY_S), times),
        }
        result["load"]["console_errors"] += first["console_errors"]
        return result


def wait_until_served(fleet: Fleet, port: int) -> None:
    """DdnnError with the last line of its log where the page is not up in READY_S."""
    until_s = time.monotonic() + READY_S
    while True:
        fleet.require_alive("page")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
        try:
            with closing(connection):
                connection.request("GET", "/healthz")
                connection.getresponse().read()
            return
        except OSError:
            if time.monotonic() > until_s:
                raise DdnnError(f"the page is not up: {fleet.read_last_line('page')}") from None
            time.sleep(0.1)


def measure_page(
    make_database: Callable[[], str],
    bundle: Path,
    count: int,
    times: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """The same over `count` answers and over few, in two databases of the same kind.

    make_database: makes a database and returns its URL; progress: answers stored so far
    """
    _, bundle_id = read_manifest(bundle)
    url, small_url = make_database(), make_database()
    fill(small_url, FEW, bundle_id, seed, lambda _: None)
    filled_per_s = fill(url, count, bundle_id, seed, progress)
    few = measure_served(small_url, FEW, bundle, times)
    many = measure_served(url, count, bundle, times)
    ratio = {
        name: round(reply["p50_ms"] / few["replies"][name]["p50_ms"], 2)
        for name, reply in many["replies"].items()
    }
    ratio["load"] = round(many["load"]["median_s"] / few["load"]["median_s"], 2)
    errors = many["load"]["console_errors"] + few["load"]["console_errors"]
    return {
        "answers": count,
        "filled_per_s": round(filled_per_s),
        **many,
        "of_few_answers": {"answers": FEW, **few},
        "ratio": ratio,
        "aim_s": AIM_S,
        "holds": many["load"]["median_s"] < AIM_S and many["first_load_s"] < AIM_S and not errors,
    }
