"""First k of n: results with injected delays; part `stragglers` of benchmarks.coding.

n workers of which any s may be late (s = 1: one parity, as in Hadidi et al., EDGE 2023, Fig. 13;
s = 2: MDS), each result delayed by 5 ms and an exponential time of mean 10 ms. The time from asking
for the layer to having it, over real worker processes and a real broker (straggler_processes.py):

first_k   straggler threshold 0: decoded from the first results that suffice
all_n     straggler threshold large: all n are waited for
uncoded   k workers, nothing spare: all k are waited for

What the delays alone would make of it stands next to each figure: `injected`, computed from the
very delays that were drawn, and `expected`, exact: the k-th of n exponential times has the mean
mean * (H_n - H_{n-k}), and its quantiles follow from the Beta(k, n-k+1) distribution of the k-th of
n uniform numbers. What is measured beyond `injected` is the system's own time (`own_p50_ms`). The
delays of worker i are the same in all rows, so that these do not differ by chance.

With one parity the gain over waiting for all n is one mean delay, whatever n is: as a share of the
whole it falls with n. The paper's gain grows from 3 to 6 devices, so its stragglers were not like
these (they may have been rare and very late, of which one is the likelier the more devices there
are); its figures are given as read off, and are not reproduced.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from scipy import special

from benchmarks.coding.latency import plan_layer, prepare_shared_site
from benchmarks.coding.straggler_processes import (
    FIXED_S,
    MEAN_S,
    MODES,
    WARM_UP_TASKS,
    Options,
    draw_delays_s,
)
from benchmarks.harness.percentiles import summarize_ms
from benchmarks.harness.processes import ONE_THREAD, module_command
from benchmarks.harness.report import Progress
from benchmarks.harness.sites import running_broker
from ddnn.errors import DdnnError
from ddnn.local_site.site import SiteConfig
from ddnn.runtime.fleet import Fleet

START_S = 120.0
PAPER_PERCENT = {3: 3, 4: 9, 5: 16, 6: 35}  # Fig. 13b, read off a figure; its text: "up to 35 %"


@dataclass(frozen=True)
class Schedule:
    """groups: of (n, s) measured at the same time; their processes sleep most of it."""

    groups: tuple[tuple[tuple[int, int], ...], ...]
    seconds: float


SIZES = [*((n, 1) for n in range(3, 13)), *((n, 2) for n in range(5, 13))]
FULL = Schedule(tuple(tuple(SIZES[i::3]) for i in range(3)), 50.0)
QUICK = Schedule((((3, 1), (5, 2)),), 2.0)


def measure_stragglers(
    seed: int, progress: Progress, quick: bool = False, config: SiteConfig | None = None
) -> dict[str, Any]:
    """The report of this part. progress: share done, text; config: by default the demo's site."""
    config, schedule = config or prepare_shared_site(), QUICK if quick else FULL
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(schedule.groups):
        progress(number / len(schedule.groups), f"stragglers, group {number + 1}")
        rows += measure_group(config, group, seed, schedule.seconds)
    progress(1.0, "stragglers")
    rows.sort(key=lambda row: (row["s"], row["n"]))
    return {
        "fixed_ms": 1e3 * FIXED_S,
        "mean_ms": 1e3 * MEAN_S,
        "rows": rows,
        "paper_fig13b_percent_read_off": PAPER_PERCENT,
        "holds": not any(row["lost"] or row["wrong"] for row in rows),
    }


def measure_group(
    config: SiteConfig, group: Sequence[tuple[int, int]], seed: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each (n, s), all measured at the same time over one broker."""
    plans = {
        (n, s): (plan_layer(config, "coded", n, s).path, plan_layer(config, "none", n - s, 0).path)
        for n, s in group
    }
    with running_broker() as (fleet, port, state):
        outs = {}
        for (n, s), (coded, plain) in plans.items():
            site = f"n{n}-s{s}"
            outs[n, s] = state / f"{site}.json"
            options = Options(site, port, str(config.bundle), str(coded), str(plain), seed)
            gather = replace(options, out=str(outs[n, s]), seconds=seconds)
            workers = {f"{site}-{i}": replace(options, worker=i) for i in range(1, n + 1)}
            for node, of in {**workers, site: gather}.items():
                command = module_command("benchmarks.coding.straggler_processes", of)
                fleet.start(node, command, ONE_THREAD)
        wait_for_results(fleet, outs, seconds)
        return [make_row(n, s, json.loads(out.read_text()), seed) for (n, s), out in outs.items()]


def wait_for_results(fleet: Fleet, outs: dict[tuple[int, int], Path], seconds: float) -> None:
    """Until every file is written. DdnnError where a process ends early, or none ends."""
    until_s = time.monotonic() + START_S + seconds
    while missing := [key for key, out in outs.items() if not out.exists()]:
        for n, s in missing:
            site = f"n{n}-s{s}"
            for node in (*(f"{site}-{number}" for number in range(1, n + 1)), "broker"):
                fleet.require_alive(node)
            if not fleet.is_alive(site) and not outs[n, s].exists():
                fleet.require_alive(site)
        if time.monotonic() > until_s:
            raise DdnnError(f"n={missing[0][0]} does not end")
        time.sleep(0.1)
    while any(fleet.is_alive(f"n{n}-s{s}") for n, s in outs):
        time.sleep(0.05)  # a file is complete once the process that writes it has ended


def make_row(n: int, s: int, found: dict[str, Any], seed: int) -> dict[str, Any]:
    """The figures of one (n, s)."""
    k = n - s
    took_s = {mode: np.asarray(found["took_s"][mode]) for mode in MODES}
    count = len(took_s["uncoded"])
    if not count or any(np.isnan(spans).all() for spans in took_s.values()):
        raise DdnnError(f"n={n}, s={s}: {found['lost']} tasks were lost, {count} are left")
    counted = slice(WARM_UP_TASKS, WARM_UP_TASKS + count)
    drawn = np.sort([draw_delays_s(seed, w + 1)[counted] for w in range(n)], axis=0)
    plain = np.max([draw_delays_s(seed, w + 1)[counted] for w in range(k)], axis=0)
    injected_s = {"first_k": drawn[k - 1], "all_n": drawn[-1], "uncoded": plain}
    order = {"first_k": (k, n), "all_n": (n, n), "uncoded": (k, k)}
    report: dict[str, Any] = {"n": n, "k": k, "s": s, "tasks": count}
    for mode in MODES:
        report[mode] = {
            **summarize_ms(took_s[mode][np.isfinite(took_s[mode])]),
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
