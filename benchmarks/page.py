"""The page over a database of many answers; see benchmarks/cloud.py, part `page`.

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
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made import answers
from benchmarks.report import quantiles_ms
from cloud_app.store import Store
from ddnn.adapters import broker as brokers
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet

DAY_S = 86_400.0
FEW = 1000
SITES = [f"site{number + 1}" for number in range(20)]
AT_ONCE = 5000  # answers per transaction while filling
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
SHOWN = """wanted => [...document.querySelectorAll('#headline dd')]
    .some(part => part.textContent.replace(/\\s/g, ' ') === wanted)"""


def as_shown(count: int) -> str:
    """The number of answers in the page's words."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:.2f} M"


def fill(url: str, count: int, bundle: str, progress: Callable[[int], None]) -> float:
    """Store a day of answers up to now; answers per second."""
    rate_hz = count / len(SITES) / DAY_S
    made = answers(np.random.default_rng(0), SITES, count, time.time(), rate_hz, bundle)
    began_s, done = time.monotonic(), 0
    store = Store(url)
    try:
        while batch := list(itertools.islice(made, AT_ONCE)):
            store.save(batch)
            done += len(batch)
            progress(done)
    finally:
        store.close()
    return count / (time.monotonic() - began_s)


def paths(rate_hz: float) -> dict[str, str]:
    """What is asked for, by name."""
    newest = int(time.time() * rate_hz)
    page = f"/api/v1/answers?site={SITES[0]}&first={newest - 100}&last={newest}"
    return {
        "page": "/",
        "state": "/api/v1/state",
        "series_1h": "/api/v1/series?minutes=60",
        "series_24h": "/api/v1/series?minutes=1440",
        "series_24h_of_a_site": f"/api/v1/series?site={SITES[0]}&minutes=1440",
        "answers": page,
        "metrics": "/metrics",
    }


def replies(port: int, wanted: dict[str, str], times: int) -> dict[str, dict[str, Any]]:
    """Time and size of each reply, over one connection that is kept."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=LOAD_S)
    result = {}
    for name, path in wanted.items():
        took_s, size = [], 0
        for _ in range(times):
            began_s = time.perf_counter()
            link.request("GET", path)
            response = link.getresponse()
            size = len(response.read())
            took_s.append(time.perf_counter() - began_s)
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {response.reason}")
        result[name] = {**quantiles_ms(took_s), "bytes": size}
    link.close()
    return result


def loads(port: int, count: int, times: int) -> dict[str, Any]:
    """Seconds until Chromium shows the number of answers."""
    from playwright.sync_api import sync_playwright

    took_s: list[float] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=CHROMIUM_OPTIONS,
        )
        warm = browser.new_page()  # Chromium's own beginnings are not the page's
        warm.goto(f"http://127.0.0.1:{port}/healthz")
        warm.close()
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda said: errors.extend([said.text] * (said.type == "error")))
            began_s = time.perf_counter()
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit", timeout=1000 * LOAD_S)
            page.wait_for_function(SHOWN, arg=as_shown(count), polling="raf", timeout=1000 * LOAD_S)
            took_s.append(time.perf_counter() - began_s)
            context.close()
        browser.close()
    return {
        "median_s": round(float(np.median(took_s)), 3),
        "max_s": round(max(took_s), 3),
        "loads": times,
        "console_errors": errors,
    }


def served(url: str, count: int, bundle: Path, times: int) -> dict[str, Any]:
    """Replies and loads of the real page over a database."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-bench-")))
        fleet = Fleet(state / "logs")
        stack.callback(fleet.close)
        broker, port = brokers.free_port(), brokers.free_port()
        fleet.start("broker", brokers.command("mosquitto", broker, state))
        brokers.wait_until_listening(broker)
        fleet.start(
            "page",
            [
                sys.executable,
                "-m",
                "cloud_app",
                "--serve",
                "page",
                "--node",
                "page",
                "--site",
                "all",
                "--bundle",
                str(bundle),
                "--state",
                str(state),
                "--database",
                url,
                "--broker-port",
                str(broker),
                "--http-port",
                str(port),
                "--sign-in",
                "off",
            ],
        )
        _wait_until_served(fleet, port)
        first = loads(port, count, 1)  # the server's first: no cache of it is warm
        result = {
            "first_load_s": first["max_s"],
            "load": loads(port, count, max(3, times // 5)),
            "replies": replies(port, paths(count / len(SITES) / DAY_S), times),
        }
        result["load"]["console_errors"] += first["console_errors"]
        return result


def _wait_until_served(fleet: Fleet, port: int) -> None:
    until_s = time.monotonic() + READY_S
    while True:
        fleet.check("page")
        try:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
            link.request("GET", "/healthz")
            link.getresponse().read()
            return
        except OSError:
            if time.monotonic() > until_s:
                raise RuntimeError(f"the page is not up: {fleet.tail('page')}") from None
            time.sleep(0.1)


def measure(
    url: str, small_url: str, count: int, bundle: Path, times: int, progress: Callable[[int], None]
) -> dict[str, Any]:
    """The same over `count` answers and over few, in two databases of the same kind."""
    _, bundle_id = read_manifest(bundle)
    fill(small_url, FEW, bundle_id, lambda _: None)
    filled_per_s = fill(url, count, bundle_id, progress)
    few = served(small_url, FEW, bundle, times)
    many = served(url, count, bundle, times)
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
