"""The documents say what is there: links, files, commands and flags."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import msgspec
import pytest

from cloud_app.app import CloudSettings
from ddnn.adapters.command import schema_options
from ddnn.cli import main
from device_app.settings import DeviceSettings
from edge_app.app import EdgeSettings

ROOT = Path(__file__).resolve().parents[2]
OTHERS = re.compile(r"\.(?!ci$).*|__pycache__|build|dist|.*\.egg-info|secrets")


def files(folder: Path = ROOT) -> Iterator[str]:
    """Every file of the repository, by its path from the root."""
    for path in folder.iterdir():
        if path.is_file():
            yield str(path.relative_to(ROOT))
        elif not OTHERS.fullmatch(path.name) and not (path / "pyvenv.cfg").exists():
            yield from files(path)


FILES = frozenset(files())
PATHS = FILES | {str(parent) for file in FILES for parent in Path(file).parents}
NAMES = {Path(file).name for file in FILES}
DOCUMENTS = sorted(file for file in FILES if file.endswith(".md"))
SETTINGS: dict[str, type[msgspec.Struct]] = {
    "device_app": DeviceSettings,
    "edge_app": EdgeSettings,
    "cloud_app": CloudSettings,
}
README_LINES = 200
TOPICS = "ddnn/v1"  # not a path
SUFFIXES = (".py", ".sh", ".md", ".toml", ".conf", ".service", ".yml")

FENCE = re.compile(r"^```.*?$\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMAND = re.compile(
    r"(?:(?<![\w/])ddnn|/bin/ddnn|-m ddnn\.cli) +(?P<command>[a-z]+)\b|-m (?P<module>[a-z_0-9.]+)"
)
PATH = re.compile(r"(?<![\w./~-])[\w.-]+(?:/[\w.-]+)*/?")
# Flags of other programs, where a document names them without their program.
FOREIGN = {"--system-site-packages", "--remove-retained", "--durations", "--help"}


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return FENCE.sub("", text)


def code(text: str) -> list[str]:
    """Lines of blocks, with their continuations, and spans of code."""
    blocks = [block.replace("\\\n", " ").splitlines() for block in FENCE.findall(text)]
    spans = [" ".join(span.split()) for span in SPAN.findall(prose(text))]
    return [line for block in blocks for line in block] + spans


@cache
def list_anchors(document: str) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    titles = [
        re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(read(document)))
    ]
    return {title.strip().replace(" ", "-") for title in titles}


def list_flags(params: list[click.Parameter]) -> set[str]:
    return {flag for param in params for flag in (*param.opts, *param.secondary_opts)}


def app_flags(app: str) -> set[str]:
    return list_flags(schema_options(SETTINGS[app])) | {"--check", "--help"}


def list_commands(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """Commands by their words, such as "pipeline train"."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found[before + name] = command
        if isinstance(command, click.Group):
            found |= list_commands(command, f"{before}{name} ")
    return found


COMMANDS = list_commands(main)


def command_flags(name: str) -> set[str]:
    flags = list_flags(COMMANDS[name].params) | {"--help"}
    if name == "doctor":  # it takes those of the node's app, too
        flags = flags.union(*map(app_flags, SETTINGS))
    return flags


@cache
def benchmark_flags() -> set[str]:
    sources = [read(file) for file in FILES if re.fullmatch(r"benchmarks/.*\.py", file)]
    return {flag for source in sources for flag in re.findall(r'"(--[a-z-]+)"', source)}


@cache
def all_flags() -> set[str]:
    scripts = [read(file) for file in FILES if file.endswith(".sh")]
    return FOREIGN.union(
        benchmark_flags(),
        *map(app_flags, SETTINGS),
        *map(command_flags, COMMANDS),
        *(FLAG.findall(script) for script in scripts),
    )


def find_wrong_flags(line: str) -> list[str]:
    """Flags in `line` that its command does not have; a command or module that does not exist."""
    if line.startswith("--"):
        return [flag for flag in FLAG.findall(line) if flag not in all_flags()]
    wrong = []
    found = list(COMMAND.finditer(line))
    ends = [match.start() for match in found[1:]] + [len(line)]
    for match, end in zip(found, ends, strict=False):
        rest = line[match.end() : end]
        command, module = match["command"], match["module"] or ""
        if command is not None:
            if isinstance(COMMANDS.get(command), click.Group) and (more := rest.split()):
                command = f"{command} {more[0]}"
            if command not in COMMANDS:
                wrong.append(f"ddnn {command}")
                continue
            known = command_flags(command)
        elif module in SETTINGS:
            known = app_flags(module)
        elif module.startswith("benchmarks."):
            known = benchmark_flags()
            if importlib.util.find_spec(module) is None:
                wrong.append(module)
        else:
            continue
        wrong += [flag for flag in FLAG.findall(rest) if flag not in known]
    return wrong


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    for link in LINK.findall(prose(read(document))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent.joinpath(path).resolve() if path else ROOT / document
        name = str(target.relative_to(ROOT))
        assert name in PATHS, f"{document}: no file {link}"
        if anchor:
            assert anchor in list_anchors(name), f"{document}: {name} has no heading #{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_flag_exists(document: str) -> None:
    assert [wrong for line in code(read(document)) for wrong in find_wrong_flags(line)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    """Paths from the root or from the document's folder; names with a known ending anywhere."""
    folders = {path for path in PATHS - FILES - {"."} if "/" not in path}
    for span in code(read(document)):
        for path in PATH.findall(span):
            name = path.rstrip("/")
            if name.startswith(TOPICS):
                continue
            if "/" in name and name.split("/")[0] in folders:
                local = str(Path(document).parent / name)
                assert name in PATHS or local in PATHS, f"{document}: no file {path}"
            elif "/" not in name and name.endswith(SUFFIXES):
                assert name in NAMES, f"{document}: no file {path}"


def test_wrong_commands_are_found() -> None:
    assert find_wrong_flags("ddnn demo --headless --nonsense") == ["--nonsense"]
    assert find_wrong_flags("ddnn demonstrate") == ["ddnn demonstrate"]
    assert find_wrong_flags("ddnn pipeline train --kill x") == ["--kill"]
    assert find_wrong_flags("ddnn pipeline drain") == ["ddnn pipeline drain"]
    assert find_wrong_flags("python -m edge_app --source x && ddnn status --watch") == ["--source"]
    assert find_wrong_flags("python -m benchmarks.nothing --json") == ["benchmarks.nothing"]
    assert find_wrong_flags("--broker-hots") == ["--broker-hots"]
