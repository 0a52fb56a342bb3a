"""URLs of the store, errors of SQLite, intervals and percentiles.

tests/contracts/test_store.py tests the store on every database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloud_app.store import Store
from cloud_app.store.statistics import quantile
from ddnn.errors import ConfigError, LinkError
from ddnn.exits.intervals import compute_wilson_interval
from ddnn.protocol.messages import Answer

Make = Callable[..., Answer]


# ------------------------------------------------------------------- SQLite


def test_a_locked_database_is_a_link_error_and_the_batch_can_be_repeated(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_app.store.database.BUSY_TIMEOUT_S", 0.05)
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    other = sqlite3.connect(tmp_path / "cloud.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    batch = [("home", make(i)) for i in range(3)]
    with pytest.raises(LinkError, match=r"locked.*try again"):
        store.save(batch)
    assert store.summarize().answered == 0  # readers do not wait
    other.execute("ROLLBACK")
    other.close()
    store.save(batch)
    assert store.summarize().answered == 3
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cloud.db").write_bytes(b"these are not the rows you look for" * 100)
    with pytest.raises(LinkError, match="not a database"):
        Store(f"sqlite:///{tmp_path}/cloud.db")


def test_a_missing_folder_is_a_link_error(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="folder"):
        Store(f"sqlite:///{tmp_path}/nowhere/cloud.db")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "nonsense", "nosuch://host/db", "mysql+nosuch://h/db"],
)
def test_a_wrong_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///cloud\.db"):
        Store(url)


@pytest.mark.parametrize(
    "url",
    [
        "nosuch://me:hunter2@host/db",
        "sqlite://me:hunter2@/:memory:",
        "me:hunter2@host",
        "postgresql://me:hunter2@host:port/db",
        "postgresql://me:pass:hunter2/db",
        "sqlite:////tmp/hunter.db?timeout=hunter2",
    ],
)
def test_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(url)
    assert "hunter2" not in str(caught.value)


def test_confirmed_answers_survive_a_power_cut(store: Store) -> None:
    """Each commit is synced (2 is FULL): the node forgets an answer once it is confirmed."""
    with store.database.read() as link:
        assert link.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert link.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


# --------------------------------------------------------------- statistics


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("known", [10, 50, 400])
def test_the_interval_covers_the_true_share_with_its_confidence(share: float, known: int) -> None:
    """The coverage is near 95 %, also for 10 samples with 97 % correct, where the normal
    approximation covers the true share in a quarter of the cases."""
    correct = np.random.default_rng(1).binomial(known, share, 4000)
    holds = [
        low <= share <= high for low, high in (compute_wilson_interval(c, known) for c in correct)
    ]
    assert 0.9 <= np.mean(holds) <= 1.0  # discrete counts let it swing around 0.95


def test_the_interval_solves_its_defining_equation() -> None:
    """Its ends are the shares p with |observed - p| = z sqrt(p (1 - p) / n)."""
    for correct, known in ((1, 3), (17, 20), (480, 500)):
        for end in compute_wilson_interval(correct, known):
            z = abs(correct / known - end) / np.sqrt(end * (1 - end) / known)
            assert z == pytest.approx(1.959963985)


def test_the_interval_is_exact_at_0_and_1() -> None:
    assert compute_wilson_interval(0, 0) == (0.0, 1.0)
    assert compute_wilson_interval(0, 7)[0] == 0.0
    assert 0.0 < compute_wilson_interval(0, 7)[1] < 0.5
    assert compute_wilson_interval(7, 7)[1] == 1.0


def test_a_quantile_lies_in_its_bucket() -> None:
    bounds = (1.0, 2.0, 4.0)
    assert quantile(bounds, (0, 0, 0, 0), 0.5) is None
    assert quantile(bounds, (0, 10, 0, 0), 0.5) == 1.5
    assert quantile(bounds, (10, 0, 10, 0), 0.5) == 1.0
    assert quantile(bounds, (10, 0, 10, 0), 0.75) == 3.0
    assert quantile(bounds, (0, 0, 0, 3), 0.99) == 4.0  # it lies beyond; this much is known
