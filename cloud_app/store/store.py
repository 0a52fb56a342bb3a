"""The store of answers, events and settings: every method is one transaction."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from math import floor
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Double, Row, bindparam, case, func, select, update

from cloud_app.store import rows, tallies
from cloud_app.store.database import Database
from cloud_app.store.expiry import delete_expired
from cloud_app.store.insert import insert_new, insert_or_replace
from cloud_app.store.records import (
    Bucket,
    Change,
    ExitSummary,
    Histogram,
    NodeEvent,
    NotFound,
    Record,
    Replay,
    Summary,
)
from cloud_app.store.schema import (
    ANSWERS,
    CHANGES,
    EVENTS,
    ROLLUP_STEPS_S,
    SETTINGS,
    TOTALS,
)
from ddnn.exits.answers import measure_doubt
from ddnn.exits.drift import Observation
from ddnn.exits.hierarchy import EXITS
from ddnn.exits.intervals import compute_wilson_interval
from ddnn.protocol.messages import Answer

_SUMMARIZED = ("exit", "latency_s", "label", "truth", "labelled")
DOUBTFUL_AMONG = 1000
PROTECTED = "stored behind"  # the setting of `protect`
LATENCY_WINDOW = 10_000  # percentiles are over so many of the newest answers


class Store:
    """Answers and events behind a URL: `sqlite:////var/lib/ddnn/cloud.db`, `postgresql://…`.

    Every method may be called from any thread, and raises LinkError where the database is locked,
    broken or away; nothing was written then, and the same call may be repeated.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Open the database and migrate its tables; ConfigError for a wrong URL.

        `clock` returns the wall time at which an answer is stored; `prune` compares with it.
        """
        self.database = Database(url)
        self.clock = clock

    def close(self) -> None:
        self.database.close()

    # -------------------------------------------------------------- writing

    def save(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Merge (site, answer) pairs in one transaction: all of them, or none and LinkError."""
        batch: dict[rows.Key, Record] = {}
        for site, answer in answers:
            record, key = Record(site, answer, answer.answered_at_s), (site, answer.sample)
            batch[key] = batch[key].merge(record) if key in batch else record
        if not batch:
            return
        tally = tallies.Tally()
        with self.database.write() as link:
            for key in rows.insert_records(link, batch.values(), self.clock()):
                tally.add(batch.pop(key))
            changed = []
            for key, (row_id, old) in rows.find_records(link, batch).items():
                record = old.merge(batch[key])
                if record != old:
                    tally.move(old, record)
                    changed.append({**rows.make_row(record), "row_id": row_id})
            if changed:
                same = ANSWERS.c.id == bindparam("row_id")
                link.execute(update(ANSWERS).where(same), changed)
            tally.write(link)

    def set_label(self, site: str, sample: int, label: int | None, by: str, at_s: float) -> Record:
        """Set the class that a person gives a sample; None takes it back. NotFound: not stored."""
        tally = tallies.Tally()
        with self.database.write() as link:
            found = rows.find_records(link, [(site, sample)])
            if not found:
                raise NotFound(f"site {site} has no sample {sample}, or has deleted it")
            ((row_id, old),) = found.values()
            record = msgspec.structs.replace(old, labelled=label)
            values = {"labelled": label, "labelled_by": by, "labelled_at_s": at_s}
            if label is None:
                values = dict.fromkeys(values)
            link.execute(
                update(ANSWERS)
                .where(ANSWERS.c.id == row_id)
                .values(**values, correct=rows.encode_correct(record))
            )
            tally.move(old, record)
            tally.write(link)
        return record

    def add_event(self, at_s: float, site: str, node: str, text: str, key: str = "") -> None:
        self.add_events([(at_s, site, node, text, key)])

    def add_events(self, events: Sequence[tuple[float, str, str, str, str]]) -> None:
        """Store events (at_s, site, node, text, key) in one transaction.

        One with a key is stored only once, even if several programs report it.
        """
        names = ("at_s", "site", "node", "what", "key")
        new = [dict(zip(names, (*event[:4], event[4] or None), strict=True)) for event in events]
        with self.database.write() as link:
            insert_new(link, EVENTS, new, ("id",))

    def add_change(self, change: Change) -> Change:
        """Store a change of thresholds, with a revision above all others of the site."""
        with self.database.write() as link:
            greatest = select(func.max(CHANGES.c.revision)).where(CHANGES.c.site == change.site)
            revision = max(change.revision, (link.execute(greatest).scalar() or 0) + 1)
            change = msgspec.structs.replace(change, revision=revision)
            row = msgspec.structs.asdict(change)
            for name in ("thresholds", "before"):
                row[name] = msgspec.json.encode(row[name]).decode()
            link.execute(CHANGES.insert(), row)
        return change

    def write_setting(self, key: str, value: str) -> None:
        with self.database.write() as link:
            insert_or_replace(link, SETTINGS, [{"key": key, "value": value}])

    def find_newest_s(self) -> float | None:
        """When the newest answer was stored; None: there is none."""
        newest = select(ANSWERS.c.stored_at_s).order_by(ANSWERS.c.id.desc()).limit(1)
        with self.database.read() as link:
            return link.execute(newest).scalar()

    def protect(self, from_s: float, until_s: float) -> None:
        """Delete nothing stored from `from_s` on, before `until_s`: the clock was behind."""
        self.write_setting(PROTECTED, f"{from_s} {until_s}")

    def prune(self, now_s: float, keep_s: float, at_most: int = 5000) -> int:
        """Delete answers and events stored more than `keep_s` ago; return how many.

        One call looks at the oldest `at_most` of each: call again while as many are deleted. Sums,
        series and counters stay. The newest event of each node stays, so that a retained message
        that repeats it is not stored as a new event.
        """
        until_s = now_s - keep_s
        protected = self.read_setting(PROTECTED)
        if protected is not None:
            from_s, protected_until_s = map(float, protected.split())
            until_s = min(until_s, from_s) if now_s < protected_until_s else until_s
        with self.database.write() as link:
            return delete_expired(link, until_s, at_most)

    # -------------------------------------------------------------- reading

    def summarize(self, site: str | None = None, last: int | None = None) -> Summary:
        """Summarize all samples, those of one site, or the `last` ones that arrived.

        Latencies and recalls are always over the newest LATENCY_WINDOW of these.
        """
        totals = (
            tallies.select_totals(site) if last is None else _select_windowed_totals(site, last)
        )
        window = min(last or LATENCY_WINDOW, LATENCY_WINDOW)
        with self.database.read() as link:
            newest = link.execute(rows.select_newest(site, window, *_SUMMARIZED))
            return _make_summary(link.execute(totals).all(), newest.all())

    def list_sites(self) -> list[str]:
        """The sites that have answered samples."""
        with self.database.read() as link:
            query = select(TOTALS.c.site).distinct().order_by(TOTALS.c.site)
            return list(link.execute(query).scalars())

    def count_truths(self) -> dict[str, tuple[int, int]]:
        """By site: the number of samples with a known truth, and of the correct ones among them."""
        sums = [func.sum(TOTALS.c[name]) for name in ("known", "correct")]
        with self.database.read() as link:
            found = link.execute(select(TOTALS.c.site, *sums).group_by(TOTALS.c.site))
            return {site: (round(known), round(correct)) for site, known, correct in found}

    def list_newest(self, n: int, site: str | None = None) -> list[Record]:
        """The n samples that arrived last, newest first."""
        with self.database.read() as link:
            return [rows.read_record(row) for row in link.execute(rows.select_newest(site, n))]

    def list_doubtful(self, n: int, site: str | None = None) -> list[Record]:
        """Of the newest DOUBTFUL_AMONG samples those without a known truth whose answers are most
        in doubt, the most doubtful one first."""
        newest = self.list_newest(DOUBTFUL_AMONG, site)
        unknown = [record for record in newest if record.correct is None]
        return sorted(unknown, key=lambda record: -measure_doubt(record.answer))[:n]

    def list_answers(self, site: str, first: int, last: int, n: int) -> list[Record]:
        """At most n samples of a site with first <= sample <= last, in order of the sample."""
        with self.database.read() as link:
            found = link.execute(rows.select_between(site, first, last, n))
            return [rows.read_record(row) for row in found]

    def list_replays(self, n: int, site: str, bundle: str) -> list[Replay]:
        """The samples that `bundle` answered, of the site's n newest ones, newest first.

        An empty `exit_trace`: the answer does not hold the outputs of the exits.
        """
        with self.database.read() as link:
            newest = link.execute(rows.select_newest(site, n, *rows.REPLAY_COLUMNS))
            return [rows.read_replay(row) for row in newest if row.bundle == bundle]

    def list_observations(self, n: int, site: str, bundle: str) -> list[Observation]:
        """What the first exit and the devices said to the samples that `bundle` answered, of the
        site's n newest ones, the newest last."""
        with self.database.read() as link:
            newest = link.execute(rows.select_newest(site, n, *rows.OBSERVATION_COLUMNS))
            found = [rows.read_observation(row) for row in newest if row.bundle == bundle]
        return [one for one in reversed(found) if one is not None]

    def list_events(self, n: int) -> list[NodeEvent]:
        """The n newest events, newest first."""
        query = select(EVENTS.c.at_s, EVENTS.c.site, EVENTS.c.node, EVENTS.c.what)
        with self.database.read() as link:
            newest = link.execute(query.order_by(EVENTS.c.id.desc()).limit(n))
            return [NodeEvent(*row) for row in newest]

    def list_changes(self, site: str, n: int) -> list[Change]:
        """The n newest changes of a site's thresholds, newest first."""
        query = select(*(CHANGES.c[name] for name in Change.__struct_fields__))
        query = query.where(CHANGES.c.site == site).order_by(CHANGES.c.revision.desc()).limit(n)
        with self.database.read() as link:
            return [_read_change(row) for row in link.execute(query)]

    def read_setting(self, key: str) -> str | None:
        with self.database.read() as link:
            query = select(SETTINGS.c.value).where(SETTINGS.c.key == key)
            return link.execute(query).scalar()

    def read_series(
        self, first_s: float, last_s: float, step_s: float, site: str | None = None
    ) -> list[Bucket]:
        """The samples by the time of their first answer: one bucket per step, also empty ones.

        `step_s` is rounded up to whole minutes. Buckets start at its multiples, the first at or
        before `first_s`, the last at or before `last_s`. ValueError for more than 10,000 buckets.
        """
        minute_s = ROLLUP_STEPS_S[0]
        step = max(1, -floor(-step_s / minute_s)) * minute_s
        first, last = floor(first_s / step) * step, floor(last_s / step) * step
        if (last - first) // step >= tallies.MAX_BUCKETS:
            raise ValueError(f"a series has at most {tallies.MAX_BUCKETS} steps; take longer ones")
        with self.database.read() as link:
            # To the end of the last step: a node's clock may be ahead of this one.
            query = tallies.select_series(first, last + step - 1, step, site)
            found = sorted(link.execute(query), key=lambda row: row.bucket_s)
        by_start = {
            start: list(some) for start, some in groupby(found, key=lambda row: row.bucket_s)
        }
        return [
            tallies.make_bucket(start, by_start.get(start, ()))
            for start in range(first, last + 1, step)
        ]

    def read_histograms(self, site: str | None = None) -> dict[str, Histogram]:
        """Latencies by exit. They are counters, which never fall: see `count_samples`."""
        with self.database.read() as link:
            return tallies.make_histograms(link.execute(tallies.select_counters(site)).all())

    def count_samples(self, site: str | None = None) -> dict[tuple[str, str], int]:
        """Samples by exit and quality, as counters that never fall.

        Each sample counts once, at the exit and quality of the answer that arrived first. Unlike
        in `summarize` a better answer does not move it; deleted samples stay counted.
        """
        with self.database.read() as link:
            found = link.execute(tallies.select_counters(site)).all()
            return {(row.exit, row.quality): tallies.count_samples(row) for row in found}


def _read_change(row: Row[Any]) -> Change:
    fields = dict(row._mapping)
    for name in ("thresholds", "before"):
        fields[name] = msgspec.json.decode(fields[name], type=dict[str, float])
    return Change(**fields)


# ------------------------------------------------------------------ summary


def _select_windowed_totals(site: str | None, last: int) -> Any:
    """The sums of TOTALS, over the newest rows only."""
    row = rows.select_newest(
        site,
        last,
        *("exit", "quality", "correct", "labelled", "late", "expected_accuracy"),
        *("members_count", "payload_bytes", "wire_bytes"),
    ).subquery()
    sums = {
        "answered": func.count(),
        "known": func.count(row.c.correct),
        "correct": func.sum(row.c.correct),
        "labelled": func.count(row.c.labelled),
        "late": func.sum(case((row.c.late, 1), else_=0)),
        "expected": func.count(row.c.expected_accuracy),
        "expected_accuracy": func.sum(row.c.expected_accuracy),
        "members": func.sum(row.c.members_count),
        "payload_bytes": func.sum(row.c.payload_bytes.cast(Double)),
        "wire_bytes": func.sum(row.c.wire_bytes.cast(Double)),
    }
    return select(
        row.c.exit, row.c.quality, *(value.label(name) for name, value in sums.items())
    ).group_by(row.c.exit, row.c.quality)


def _measure_recall(newest: Sequence[Row[Any]]) -> tuple[dict[str, float], float | None]:
    """The recall by class, and the accuracy of always naming the most frequent one."""
    known = [(r.truth if r.labelled is None else r.labelled, r.label) for r in newest]
    known = [(truth, label) for truth, label in known if truth is not None and truth >= 0]
    counts = Counter(truth for truth, _ in known)
    right = Counter(truth for truth, label in known if truth == label)
    if not counts:
        return {}, None
    recall = {str(truth): right[truth] / count for truth, count in sorted(counts.items())}
    return recall, max(counts.values()) / counts.total()


def _make_summary(totals: Sequence[Row[Any]], newest: Sequence[Row[Any]]) -> Summary:
    def add_up(name: str, **where: str) -> float:
        """The sum of a column over the rows that match; null counts as 0."""
        matching = (r for r in totals if all(getattr(r, key) == is_ for key, is_ in where.items()))
        return sum(getattr(row, name) or 0.0 for row in matching)

    answered = add_up("answered")
    times: dict[str, list[float]] = defaultdict(list)
    for row in newest:
        times[row.exit].append(row.latency_s)

    def summarize_exit(exit_: str) -> ExitSummary:
        p50_s, p99_s = _compute_percentiles(times[exit_])
        count, known = add_up("answered", exit=exit_), add_up("known", exit=exit_)
        correct = add_up("correct", exit=exit_)
        return ExitSummary(
            answered=round(count),
            share=count / answered if answered else 0.0,
            known=round(known),
            accuracy=_compute_mean(correct, known),
            accuracy_interval=compute_wilson_interval(correct, known) if known else None,
            latency_p50_s=p50_s,
            latency_p99_s=p99_s,
        )

    known, correct = add_up("known"), add_up("correct")
    recall, majority = _measure_recall(newest)
    return Summary(
        recall=recall,
        majority=majority,
        answered=round(answered),
        known=round(known),
        labelled=round(add_up("labelled")),
        accuracy=_compute_mean(correct, known),
        accuracy_interval=compute_wilson_interval(correct, known) if known else None,
        expected_accuracy=_compute_mean(add_up("expected_accuracy"), add_up("expected")),
        late=round(add_up("late")),
        quality={q: round(add_up("answered", quality=q)) for q in ("full", "degraded")},
        exits={exit_: summarize_exit(exit_) for exit_ in EXITS},
        payload_bytes=_compute_mean(add_up("payload_bytes"), add_up("members")),
        wire_bytes=_compute_mean(add_up("wire_bytes"), add_up("members")),
    )


def _compute_mean(total: float, count: float) -> float | None:
    return total / count if count else None


def _compute_percentiles(times_s: Sequence[float]) -> tuple[float | None, float | None]:
    if not times_s:
        return None, None
    return float(np.percentile(times_s, 50)), float(np.percentile(times_s, 99))
