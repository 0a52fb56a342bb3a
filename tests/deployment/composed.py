"""docker-compose.yml as a container engine reads it: merged, and its variables put in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
APPS = {"device": "device_app", "edge": "edge_app", "cloud": "cloud_app"}  # target: program
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+):-([^}]*)\})")


def compose(variables: dict[str, str] | None = None) -> dict[str, Any]:
    """The whole file; `variables` are those of the environment or of .env."""
    given = variables or {}

    def value(found: re.Match[str]) -> str:
        return given.get(found[1], found[2]) if found[1] else "$"

    return yaml.safe_load(_VARIABLE.sub(value, COMPOSE_FILE.read_text()))


def dockerfile() -> dict[str, list[tuple[str, str]]]:
    """The stages of the Dockerfile: name -> (instruction, rest), the stage's FROM first."""
    lines = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    stages: dict[str, list[tuple[str, str]]] = {"": []}
    stage = ""
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#"):
            instruction, _, rest = line.partition(" ")
            if instruction == "FROM":
                stage = rest.split(" AS ")[1]
                stages[stage] = []
            stages[stage].append((instruction, rest.strip()))
    return stages


def list_inherited(stages: dict[str, list[tuple[str, str]]], stage: str) -> list[tuple[str, str]]:
    """A stage's instructions after those of the stages that it is made from."""
    base = stages[stage][0][1].split(" AS ")[0]
    return [*(list_inherited(stages, base) if base in stages else []), *stages[stage]]
