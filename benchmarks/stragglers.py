"""First k of n: answers with injected delays; see benchmarks/coding.py, part `stragglers`.

n workers of which any s may be late (s = 1: one parity, as in Hadidi et al., EDGE 2023, Fig. 13;
s = 2: MDS), each answer delayed by 5 ms and an exponential time of mean 10 ms. The time from asking
for the layer to having it, over real worker processes and a real broker (benchmarks/straggler.py):

first_k   straggler threshold 0: decoded from the first answers that suffice
all_n     straggler threshold large: all n are waited for
uncoded   k workers, nothing spare: all k are waited for

Beside it what the delays alone would make of it: `injected`, computed from the very delays that
were drawn, and `expected`, exact: the k-th of n exponential times has the mean
mean * (H_n - H_{n-k}), and its quantiles follow from the Beta(k, n-k+1) distribution of the k-th of
n uniform numbers. What is measured beyond `injected` is the system's own time (`own_p50_ms`). The
delays of worker i are the same in all rows, so that these do not differ by luck.

With one parity the gain over waiting for all n is one mean delay, whatever n is: as a share of the
whole it falls with n. The paper's gain grows from 3 to 6 devices, so that its stragglers were not
like these (such as rare and very late ones, of which one is the likelier the more devices there
are); its figures stand here as they were read off, not as something that is reproduced.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import special

from benchmarks.sharing import ENVIRONMENT, Progress, demo_plan, figures, planned
from benchmarks.straggler import FIXED_S, MEAN_S, MODES, WARM, delays_s
from ddnn.adapters import broker as brokers
from ddnn.errors import DdnnError
from ddnn.local_site.site import SiteConfig
from ddnn.runtime.fleet import Fleet

START_S = 120.0
PAPER_PERCENT = {3: 3, 4: 9, 5: 16, 6: 35}  # Fig. 13b, read off a figure; its text: "up to 35 %"


@dataclass(frozen=True)
class Effort:
    """groups: of (n, s) measured at the same time; they sleep most of it."""

    groups: tuple[tuple[tuple[int, int], ...], ...]
    seconds: float


SIZES = [*((n, 1) for n in range(3, 13)), *((n, 2) for n in range(5, 13))]
FULL = Effort(tuple(tuple(SIZES[i::3]) for i in range(3)), 50.0)
QUICK = Effort((((3, 1), (5, 2)),), 2.0)


def stragglers(
    seed: int, progress: Progress, quick: bool = False, plan: SiteConfig | None = None
) -> dict[str, Any]:
    """See the head of this file. progress: share done, what. plan: by default the demo's."""
    plan, effort = plan or demo_plan(), QUICK if quick else FULL
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(effort.groups):
        progress(number / len(effort.groups), f"stragglers, group {number + 1}")
        rows += measure(plan, group, seed, effort.seconds)
    progress(1.0, "stragglers")
    rows.sort(key=lambda row: (row["s"], row["n"]))
    return {
        "fixed_ms": 1e3 * FIXED_S,
        "mean_ms": 1e3 * MEAN_S,
        "rows": rows,
        "paper_fig13b_percent_read_off": PAPER_PERCENT,
        "holds": not any(row["lost"] or row["wrong"] for row in rows),
    }


def measure(
    plan: SiteConfig, group: Sequence[tuple[int, int]], seed: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each (n, s), all measured at the same time over one broker."""
    plans = {
        (n, s): (planned(plan, "coded", n, s).path, planned(plan, "none", n - s, 0).path)
        for n, s in group
    }
    with TemporaryDirectory(prefix="ddnn-bench-") as directory:
        state = Path(directory)
        fleet = Fleet(state / "logs")
        try:
            port = brokers.free_port()
            fleet.start("broker", brokers.command("mosquitto", port, state))
            brokers.wait_until_listening(port)
            outs = {}
            for (n, s), (coded, plain) in plans.items():
                site = f"n{n}-s{s}"
                command = [sys.executable, "-m", "benchmarks.straggler"]
                common = [
                    "--site",
                    site,
                    "--port",
                    str(port),
                    "--bundle",
                    str(plan.bundle),
                    "--coded",
                    str(coded),
                    "--plain",
                    str(plain),
                    "--seed",
                    str(seed),
                ]
                for number in range(1, n + 1):
                    more = ["--number", str(number)]
                    fleet.start(
                        f"{site}-{number}", [*command, "worker", *common, *more], ENVIRONMENT
                    )
                outs[n, s] = state / f"{site}.json"
                more = ["--seconds", str(seconds), "--out", str(outs[n, s])]
                fleet.start(site, [*command, "gather", *common, *more], ENVIRONMENT)
            wait(fleet, outs, seconds)
            return [row(n, s, json.loads(out.read_text()), seed) for (n, s), out in outs.items()]
        finally:
            fleet.close()


def wait(fleet: Fleet, outs: dict[tuple[int, int], Path], seconds: float) -> None:
    until_s = time.monotonic() + START_S + seconds
    while missing := [key for key, out in outs.items() if not out.exists()]:
        for n, s in missing:
            site = f"n{n}-s{s}"
            for node in (*(f"{site}-{number}" for number in range(1, n + 1)), "broker"):
                fleet.check(node)
            if not fleet.alive(site) and not outs[n, s].exists():
                fleet.check(site)
        if time.monotonic() > until_s:
            raise DdnnError(f"n={missing[0][0]} does not end")
        time.sleep(0.1)
    while any(fleet.alive(f"n{n}-s{s}") for n, s in outs):
        time.sleep(0.05)  # the files are written whole once who wrote them has ended


def row(n: int, s: int, found: dict[str, Any], seed: int) -> dict[str, Any]:
    """The figures of one (n, s)."""
    k = n - s
    took_s = {mode: np.asarray(found["took_s"][mode]) for mode in MODES}
    count = len(took_s["uncoded"])
    if not count or any(np.isnan(spans).all() for spans in took_s.values()):
        raise DdnnError(f"n={n}, s={s}: {found['lost']} tasks were lost, {count} are left")
    drawn = np.sort([delays_s(seed, w + 1)[WARM : WARM + count] for w in range(n)], axis=0)
    plain = np.max([delays_s(seed, w + 1)[WARM : WARM + count] for w in range(k)], axis=0)
    injected_s = {"first_k": drawn[k - 1], "all_n": drawn[-1], "uncoded": plain}
    order = {"first_k": (k, n), "all_n": (n, n), "uncoded": (k, k)}
    report: dict[str, Any] = {"n": n, "k": k, "s": s, "tasks": count}
    for mode in MODES:
        report[mode] = {
            **figures(took_s[mode][np.isfinite(took_s[mode])]),
            "sd_ms": round(1e3 * float(np.nanstd(took_s[mode])), 2),
            "injected_mean_ms": round(1e3 * float(np.mean(injected_s[mode])), 2),
            "injected_p99_ms": round(1e3 * float(np.percentile(injected_s[mode], 99)), 2),
            "expected_mean_ms": round(1e3 * expected_mean_s(*order[mode]), 2),
            "expected_p99_ms": round(1e3 * expected_quantile_s(*order[mode], 0.99), 2),
            "own_p50_ms": round(1e3 * float(np.nanmedian(took_s[mode] - injected_s[mode])), 2),
        }
    for other in MODES[1:]:
        report[f"ratio_to_{other}"] = {
            of: round(report["first_k"][f"{of}_ms"] / report[other][f"{of}_ms"], 3)
            for of in ("mean", "p99", "sd", "expected_mean", "expected_p99")
        }
    return {**report, "lost": found["lost"], "wrong": found["wrong"], "max_error": found["error"]}


def expected_mean_s(k: int, n: int) -> float:
    """Mean of the k-th of n delays."""
    return FIXED_S + MEAN_S * sum(1 / i for i in range(n - k + 1, n + 1))


def expected_quantile_s(k: int, n: int, share: float) -> float:
    """Quantile of the k-th of n delays."""
    uniform = special.betaincinv(k, n - k + 1, share)
    return FIXED_S - MEAN_S * float(np.log1p(-uniform))
