"""What tests of several rooms share: a small trained bundle, made once a session."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import browser, open_page, problems  # noqa: F401  fixtures
from tests.postgres import Postgres, running_postgres
from tests.timed import TimedTests

ROOT = Path(__file__).resolve().parents[1]

# A shell that starts the tests in the background has SIGINT ignored, and so would every process
# that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        config.pluginmanager.register(TimedTests(config))


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some of the time of most tests is waiting."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    """The group stands in a test's id; without groups the order and the fixtures are lost."""
    if any("@" not in name for name in ids):
        pytest.exit("pytest-xdist makes no groups: install what pyproject.toml names", 2)


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The directory that `make` fills, the same for all workers of a run."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        directory = factory.mktemp("once") / name
        make(directory)
        return directory
    directory = factory.getbasetemp().parent / "once" / name
    directory.parent.mkdir(exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = directory.with_suffix(".done")
        if not done.exists():
            make(directory)
            done.touch()
    return directory


@pytest.fixture(scope="session", autouse=True)
def ddnn_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is rendered is kept for this run, by all of its processes, and not in the user's
    home."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDNN_HOME", str(shared / "ddnn-home"))
        yield


@pytest.fixture(scope="session")
def ddnn() -> list[str]:
    """The command `ddnn` of this environment."""
    return [sys.executable, "-m", "ddnn.cli"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests that do not harm it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """The URL of a PostgreSQL database that is new for each test."""
    return postgres_server.database()


def balance(bundle: Path, images) -> Path:
    """Thresholds at the medians of the entropies, so that every exit answers some samples."""
    import msgspec
    import numpy as np

    from ddnn.adapters.litert import LiteRtSection
    from ddnn.exits.entropy import normalized_entropy, softmax
    from ddnn.exits.measure import measure_scores
    from ddnn.runtime.bundle import load_bundle, write_manifest

    loaded = load_bundle(bundle, LiteRtSection)
    manifest, everyone = loaded.manifest, loaded.manifest.hierarchy.everyone
    labels = np.zeros(len(images), np.int32)
    exits = measure_scores(manifest, loaded.sections, images, labels, [everyone]).exits[everyone]
    thresholds, left = {}, np.ones(len(images), bool)
    for tier in manifest.thresholds:
        eta = normalized_entropy(softmax(exits[tier]))
        thresholds[tier] = float(np.median(eta[left]))
        left &= eta >= thresholds[tier]
    write_manifest(bundle, msgspec.structs.replace(manifest, thresholds=thresholds))
    return bundle


def train_briefly(out: Path, dataset, data: str, fusion_scheme: str, steps: int) -> None:
    """Configuration (e): enough for every exit to answer some samples of this data set."""
    from ddnn.adapters.litert import LiteRtSection
    from ddnn.exits.hierarchy import make_configuration
    from ddnn.training.recipes import choose_recipe
    from ddnn.training.train import train

    chosen = choose_recipe(data, steps=steps)
    train(
        dataset,
        make_configuration("e", 6, exit_scheme="AP", fusion_scheme=fusion_scheme),
        out,
        LiteRtSection,
        name=f"{data}-e",
        data=data,
        architecture=chosen.architecture,
        settings=chosen.fit,
        score_type="float32",
    )


@pytest.fixture(scope="session")
def scenes_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered scenes."""

    def make(out: Path) -> None:
        from ddnn.data import load

        train_briefly(out, load("scenes", samples=(600, 200, 50)), "scenes", "CC", steps=150)
        balance(out, load("scenes", samples=(50, 50, 50)).validation.images)

    return make_once(tmp_path_factory, "scenes-e", make)


@pytest.fixture(scope="session")
def eth80_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of six cameras."""
    from tests.parts import need_data

    path = need_data("eth80.npz")

    def make(out: Path) -> None:
        from ddnn.data import load

        dataset = load(f"eth80:{path}")
        train_briefly(out, dataset, "eth80", "AP", steps=60)
        balance(out, dataset.validation.images)

    return make_once(tmp_path_factory, "eth80-e", make)


@pytest.fixture(scope="session")
def scenes_plan(scenes_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The heaviest layer of its edge on worker1 to worker6, any two of which may vanish."""

    def make(out: Path) -> None:
        from ddnn.core.plan import PlanRequest
        from ddnn.local_site.planning import parse_workers, plan_bundle

        plan_bundle(scenes_bundle, out, PlanRequest("coded", parse_workers("6"), tolerate=2))

    return make_once(tmp_path_factory, "coded-6-2", make)
