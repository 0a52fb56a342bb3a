"""What `ddnn demo` keeps from one run to the next is of the same bundle and the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddnn.data import Split, digest_files
from ddnn.errors import ConfigError
from ddnn.exits.manifest import Manifest
from ddnn.local_site import bundles
from ddnn.local_site.bundles import prepare_site


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data sets that were loaded, in order."""
    monkeypatch.setenv("DDNN_HOME", str(tmp_path / "home"))
    found: list[str] = []

    def load(manifest: Manifest, data: str, bundle: Path) -> tuple[Split, int]:
        found.append(data)
        labels = np.full(3, len(found), np.int32)
        images = np.zeros((3, 6, 2, 2, 3), np.uint8)
        return Split("test", images, labels, np.tile(labels[:, None], 6), labels), 0

    monkeypatch.setattr(bundles, "load_test_samples", load)
    return found


def test_frames_of_other_files_are_others(
    scenes_bundle: Path, tmp_path: Path, loaded: list[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"a")
    sources = [f"directory:{photos}", f"npz:{tmp_path / 'a.npz'}", f"directory:{photos}"]
    configs = [prepare_site(source, bundle=scenes_bundle) for source in sources]
    assert loaded == sources[:2]
    assert [int(config.labels[0]) for config in configs] == [1, 2, 1]
    (photos / "b.png").write_bytes(b"b")
    assert int(prepare_site(sources[0], bundle=scenes_bundle).labels[0]) == 3


def test_what_changes_a_data_set_changes_its_digest(tmp_path: Path) -> None:
    photos, other = tmp_path / "photos", tmp_path / "other"
    photos.mkdir()
    digests = [digest_files(f"directory:{path}") for path in (photos, other)]
    for content in (b"a", b"ab"):
        (photos / "a.png").write_bytes(content)
        digests.append(digest_files(f"directory:{photos}"))
    assert len({*digests}) == 4
    assert digest_files(f"directory:{photos}") == digests[-1]
    assert digest_files("scenes5") == ""


@pytest.mark.usefixtures("loaded")
def test_a_bundle_of_other_devices_or_another_configuration_is_refused(scenes_bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"--devices 2, but bundle \S+ has 6 devices"):
        prepare_site("scenes", devices=2, bundle=scenes_bundle)
    assert prepare_site("scenes", devices=6, bundle=scenes_bundle).bundle == scenes_bundle
