"""The Dockerfile names what exists, and its images hold the programs whole."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

from ddnn.cli import main
from tests.deployment.composed import APPS, ROOT, compose, dockerfile, list_inherited

STAGES = dockerfile()
TARGETS = sorted({s["build"]["target"] for s in compose()["services"].values() if "build" in s})
PACKAGES = ("ddnn", "device_app", "edge_app", "cloud_app")


def list_copied_sources() -> list[str]:
    """Every file and folder of the repository that the Dockerfile copies."""
    sources: list[str] = []
    for stage in STAGES.values():
        for instruction, rest in stage:
            assert instruction != "ADD"
            if instruction == "COPY" and not rest.startswith("--from="):
                sources += shlex.split(rest)[:-1]
    return sources


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps the file out: the last pattern that fits decides."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parts = pattern.removeprefix("**/").split("/")
            expression = "/".join(re.escape(p).replace(r"\*", "[^/]*") for p in parts)
            anywhere = "(?:.*/)?" if pattern.startswith("**/") else ""
            if re.fullmatch(f"{anywhere}{expression}(/.*)?", path):
                verdict = not line.startswith("!")
    return verdict


def test_it_copies_only_what_exists_and_is_not_ignored():
    sources = list_copied_sources()
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


def test_nothing_of_the_site_enters_an_image():
    for path in (
        "secrets/api_token",
        ".git/config",
        ".env",
        ".venv/bin/python",
        "ddnn/__pycache__/x",
    ):
        assert is_ignored(path), path
    assert not is_ignored("cloud_app/templates/page.html")


def test_copies_between_stages_name_stages():
    for stage in STAGES.values():
        for instruction, rest in stage:
            if instruction == "COPY" and rest.startswith("--from="):
                assert rest.split()[0].removeprefix("--from=") in STAGES


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_in_particular_and_hears_sigterm(target):
    instructions = list_inherited(STAGES, target)
    last = dict(instructions)
    assert last["USER"] == "10001:10001"
    assert isinstance(json.loads(last["ENTRYPOINT"]), list)  # exec form: no shell in between
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert "PYTHONUNBUFFERED=1" in last["ENV"]
    assert "CMD" not in last
    services = [
        s for s in compose()["services"].values() if s.get("build", {}).get("target") == target
    ]
    assert all(service["user"] == last["USER"] for service in services)
    version = dict(STAGES[""])["ARG"]
    assert re.fullmatch(r"PYTHON=python:3\.11\.\d+-slim-bookworm", version)


@pytest.mark.parametrize("target", TARGETS)
def test_only_training_brings_tensorflow(target):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    source = dict(STAGES[target])["COPY"].split()[0].removeprefix("--from=")
    installed = " ".join(
        r for i, r in list_inherited(STAGES, source) if i == "RUN" and "install" in r
    )
    chosen = {e for listed in re.findall(r"\[([\w,]+)\]", installed) for e in listed.split(",")}
    assert chosen <= extras.keys()
    brings = any("tensorflow" in line for extra in chosen for line in extras[extra])
    assert brings == (target == "train")


def test_entrypoints_are_the_programs():
    for target, package in APPS.items():
        assert json.loads(dict(STAGES[target])["ENTRYPOINT"]) == ["python", "-m", package]
        assert (ROOT / package / "__main__.py").exists()


def test_a_health_check_needs_no_more_than_every_image_has():
    """`ddnn health` starts with the packages of every extra blocked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", line)[0].lower() for line in lines}

    extras = {n for lines in project["optional-dependencies"].values() for n in names(lines)}
    absent = extras - names(project["dependencies"]) - {"ddnn"}
    blocked = {"tensorflow"} | {  # whose modules no metadata name
        module
        for module, packages in packages_distributions().items()
        if absent & {package.lower() for package in packages}
    }
    assert {"flask", "keras", "rich", "sqlalchemy"} <= blocked
    start = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({sorted(blocked)}));"
        "sys.argv[0] = 'ddnn'; runpy.run_module('ddnn.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", start, "health", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "whether a node works" in done.stdout


def test_what_is_copied_builds_a_package_with_every_file_of_the_programs(tmp_path: Path):
    """What `pip install .` packs from the copied files: also templates, migrations, styles."""
    context = tmp_path / "src"
    context.mkdir()
    for source in list_copied_sources():
        if (ROOT / source).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "observability")
            shutil.copytree(ROOT / source, context / source, ignore=skip)
        else:
            shutil.copy(ROOT / source, context)
    wanted = {
        str(path.relative_to(context))
        for package in PACKAGES
        for path in (context / package).rglob("*")
        if path.is_file() and (path.suffix == ".py" or path.parent != context / package)
        if path.suffix != ".md"
    }
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(context),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert wanted <= {*packed.namelist()}, sorted(wanted - {*packed.namelist()})


def test_train_makes_a_bundle_where_there_is_none_and_leaves_one_that_is_there(tmp_path: Path):
    """The volume is a mount point of a read-only root: nothing is written beside it."""
    service = compose()["services"]["train"]
    (script,) = service["command"]
    volume, scratch, tools = (tmp_path / name for name in ("volume", "scratch", "tools"))
    for directory in (volume, scratch, tools):
        directory.mkdir()
    called = tools / "called"
    stand_in = tools / "python"
    stand_in.write_text(
        f"#!/bin/sh\necho $* >> {called}\nmkdir {scratch}/new\n"
        f"echo section > {scratch}/new/device.tflite\necho {{}} > {scratch}/new/manifest.json\n"
    )
    stand_in.chmod(0o755)
    script = script.replace("/tmp", str(scratch))  # noqa: S108
    script = script.replace("/bundle", str(volume))
    command = [*service["entrypoint"], script]
    for _ in range(2):
        environment = {"PATH": f"{tools}:/usr/bin:/bin"}
        assert subprocess.run(command, env=environment, timeout=5).returncode == 0
    made = {file.name: file.read_text() for file in volume.iterdir()}
    assert made == {"device.tflite": "section\n", "manifest.json": "{}\n"}

    (line,) = called.read_text().splitlines()
    _, module, subcommand, *flags = shlex.split(line)
    assert module == "ddnn.cli"
    train = main.get_command(click.Context(main), subcommand)
    assert train is not None
    taken = train.make_context(subcommand, flags).params
    assert (taken["data"], Path(taken["out"])) == ("scenes", scratch / "new")
