"""The floors below the rooms know no room: no word of one in code or prose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DDNN = Path(__file__).resolve().parents[2] / "ddnn"
WORDS = re.compile(r"\b(shards?|parity|parities|generator matri\w+|decodable|students?)\b", re.I)
# A stage of a pipeline is the room's word; the exits' tiers and a sample's phases are not stages.
STAGE = re.compile(r"\b(training stages?|stages? of training|pipeline stages?)\b", re.I)


@pytest.mark.parametrize("floor", ["core", "machines", "protocol", "runtime"])
def test_no_word_of_a_room_below_the_rooms(floor: str) -> None:
    found = [
        f"{file.relative_to(DDNN.parent)}:{number}: {match[0]}"
        for file in sorted((DDNN / floor).rglob("*.py"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for match in (*WORDS.finditer(line), *STAGE.finditer(line))
    ]
    assert found == []
