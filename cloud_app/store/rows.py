"""Converts records to rows of the table ANSWERS, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, select

from cloud_app.store.insert import insert_new
from cloud_app.store.records import Record, Replay
from cloud_app.store.schema import ANSWERS
from ddnn.exits.drift import Observation, make_observation
from ddnn.protocol.messages import Answer

Key = tuple[str, int]  # site, sample

_KEYS_PER_QUERY = 500  # databases bound the parameters of one statement
_JSON: dict[str, msgspec.json.Decoder[Any]] = {
    "probabilities": msgspec.json.Decoder(list[float]),
    "members": msgspec.json.Decoder(list[str]),
    "missing": msgspec.json.Decoder(list[str]),
    "votes": msgspec.json.Decoder(dict[str, tuple[int, float]]),
    "exit_trace": msgspec.json.Decoder(list[tuple[str, int, float]]),
}
_FIELDS = Answer.__struct_fields__
_COLUMNS = [ANSWERS.c[name] for name in ("id", "site", "first_answered_at_s", "labelled", *_FIELDS)]


def make_row(record: Record) -> dict[str, Any]:
    answer = record.answer
    row = {name: getattr(answer, name) for name in _FIELDS}
    for name in _JSON:
        row[name] = msgspec.json.encode(row[name]).decode()
    row["site"] = record.site
    row["first_answered_at_s"] = record.first_answered_at_s
    row["members_count"] = len(answer.members)
    row["correct"] = encode_correct(record)
    return row


def encode_correct(record: Record) -> int | None:
    return None if record.correct is None else int(record.correct)


def read_record(row: Row[Any]) -> Record:
    fields = dict(row._mapping)
    for name, decoder in _JSON.items():
        fields[name] = decoder.decode(fields[name])
    answer = Answer(**{name: fields[name] for name in _FIELDS})
    return Record(fields["site"], answer, fields["first_answered_at_s"], fields["labelled"])


def select_newest(site: str | None, n: int, *columns: str) -> Select[Any]:
    picked = [ANSWERS.c[name] for name in columns] or _COLUMNS
    query = select(*picked).limit(n)
    if site is None:
        return query.order_by(ANSWERS.c.id.desc())
    # A range of sites, ordered by the site: only the index of both columns serves this query. With
    # equality a planner may scan the ids instead, and where this site has no new answers it scans
    # those of all other sites.
    return query.where(ANSWERS.c.site.between(site, site)).order_by(
        ANSWERS.c.site.desc(), ANSWERS.c.id.desc()
    )


def select_between(site: str, first: int, last: int, n: int) -> Select[Any]:
    return (
        select(*_COLUMNS)
        .where(ANSWERS.c.site == site, ANSWERS.c.sample.between(first, last))
        .order_by(ANSWERS.c.sample)
        .limit(n)
    )


def insert_records(link: Connection, records: Iterable[Record], stored_at_s: float) -> list[Key]:
    """Insert the records whose samples have no row yet, and return their keys."""
    rows = [{**make_row(record), "stored_at_s": stored_at_s} for record in records]
    return [(row.site, row.sample) for row in insert_new(link, ANSWERS, rows, ("site", "sample"))]


def find_records(link: Connection, keys: Iterable[Key]) -> dict[Key, tuple[int, Record]]:
    """Find the records of those keys that have a row, with their ids."""
    samples: dict[str, list[int]] = defaultdict(list)
    for site, sample in sorted(keys):
        samples[site].append(sample)
    found = {}
    for site, wanted in samples.items():
        for start in range(0, len(wanted), _KEYS_PER_QUERY):
            some = wanted[start : start + _KEYS_PER_QUERY]
            query = select(*_COLUMNS).where(ANSWERS.c.site == site, ANSWERS.c.sample.in_(some))
            for row in link.execute(query):
                found[site, row.sample] = (row.id, read_record(row))
    return found


REPLAY_COLUMNS = (
    *("sample", "exit", "label", "truth", "labelled", "exit_trace"),
    *("members_count", "payload_bytes", "bundle"),
)


OBSERVATION_COLUMNS = ("exit_trace", "votes", "bundle")


def read_observation(row: Row[Any]) -> Observation | None:
    """None where no exit of the edge judged the sample."""
    trace = _JSON["exit_trace"].decode(row.exit_trace)
    return make_observation(trace, _JSON["votes"].decode(row.votes))


def read_replay(row: Row[Any]) -> Replay:
    return Replay(
        row.sample,
        row.exit,
        row.label,
        row.truth if row.labelled is None else row.labelled,
        _JSON["exit_trace"].decode(row.exit_trace),
        row.members_count,
        row.payload_bytes,
    )
