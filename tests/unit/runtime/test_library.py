"""Bundles on a node's disk: whole or not there, bounded, and never one that cannot be used."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ddnn.core.section import BundleKey
from ddnn.errors import ConfigError, RemoteProtocolError
from ddnn.exits.manifest import Manifest
from ddnn.protocol.codec import decode, encode
from ddnn.protocol.rollout_messages import BundleOrder
from ddnn.protocol.topics import Kind
from ddnn.runtime.bundle import (
    Bundle,
    load_bundle,
    make_file_entry,
    read_manifest,
    write_golden,
    write_manifest,
)
from ddnn.runtime.library import (
    BundleLibrary,
    find_bundle_path,
    pack_bundle,
    unpack_bundle,
)
from tests.simulation.small_hierarchy import IMAGE, make_hierarchy, make_manifest, make_sections

FILES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
SECTIONS = make_sections(make_manifest(make_hierarchy("e", 3)))


class FileSection:
    """The section whose name is in the file."""

    def __init__(self, file: Path) -> None:
        self._run = SECTIONS[file.read_text()]

    def __call__(self, inputs: Any) -> Any:
        return self._run(inputs)

    def example(self) -> dict[str, Any]:
        return {}


def make_bundle(path: Path, **changes: Any) -> Bundle:
    """Write a bundle of the small hierarchy, with changes of its manifest."""
    path.mkdir()
    manifest = make_manifest(make_hierarchy("e", 3))
    generator = np.random.default_rng(1)
    shapes = dict.fromkeys(manifest.hierarchy.devices, ("image", IMAGE))
    shapes["edge"] = ("features", (4, 4, 9))
    shapes["cloud"] = ("features", manifest.edge_features)
    golden: dict[str, Any] = {}
    files = {}
    for name, (key, shape) in shapes.items():
        (path / f"{name}.tflite").write_text(name)
        files[name] = make_file_entry(path / f"{name}.tflite")
        inputs = generator.integers(0, 2, (1, *shape)).astype("uint8" if key == "image" else "f4")
        golden[f"{name}/in/{key}"] = inputs
        for output, value in SECTIONS[name]({key: inputs[0]}).items():
            golden[f"{name}/out/{output}"] = value[None].astype(np.float32)
    changed = msgspec.structs.replace(
        manifest, sections=files, golden=write_golden(path, golden), **changes
    )
    write_manifest(path, changed)
    return load_bundle(path, FileSection)


def make_order(bundle: str, archive: bytes) -> BundleOrder:
    return BundleOrder(bundle, hashlib.sha256(archive).hexdigest(), len(archive))


@pytest.fixture
def started(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "started")


@pytest.fixture
def make_library(tmp_path: Path, started: Bundle) -> Callable[[], BundleLibrary]:
    def list_sections(manifest: Manifest) -> list[str]:
        return ["cam2"]

    return lambda: BundleLibrary(tmp_path / "state", "cam2", started, FileSection, list_sections)


def test_a_bundle_arrives_as_it_was_packed(
    tmp_path: Path, make_library: Callable[[], BundleLibrary]
) -> None:
    new = make_bundle(tmp_path / "new", name="new")
    archive = pack_bundle(new.path)
    assert archive == pack_bundle(new.path)
    library = make_library()
    assert library.find(new.id) is None
    assert library.add(make_order(new.id, archive), archive) == new.manifest
    section = library.load(BundleKey(new.id, "cam2"))
    image = {"image": np.zeros(IMAGE, np.uint8)}
    np.testing.assert_array_equal(section(image)["scores"], SECTIONS["cam2"](image)["scores"])
    assert make_library().find(new.id) == new.manifest
    with pytest.raises(ConfigError, match="no bundle that was rolled out"):
        library.load(BundleKey(new.id, "cam1"))
    path = tmp_path / "state/cam2.bundles" / new.id
    assert read_manifest(path)[1] == new.id
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


def test_the_bundle_of_the_start_is_found(
    started: Bundle, make_library: Callable[[], BundleLibrary]
) -> None:
    assert make_library().find(started.id) == started.manifest


def test_after_a_restart_the_adopted_bundle_is_used(
    tmp_path: Path, started: Bundle, make_library: Callable[[], BundleLibrary]
) -> None:
    state, root = tmp_path / "state", tmp_path / "state/cam2.bundles"
    assert find_bundle_path(state, "cam2", started.path) == started.path
    new = make_bundle(tmp_path / "new", name="new")
    archive = pack_bundle(new.path)
    make_library().add(make_order(new.id, archive), archive)
    assert find_bundle_path(state, "cam2", started.path) == started.path
    make_library().adopt(make_order(new.id, archive))
    assert find_bundle_path(state, "cam2", started.path) == root / new.id
    shutil.rmtree(root / new.id)
    assert find_bundle_path(state, "cam2", started.path) == started.path


def test_a_node_that_runs_what_was_rolled_out_finds_the_bundle_that_it_was_given(
    tmp_path: Path, started: Bundle, make_library: Callable[[], BundleLibrary]
) -> None:
    """A return to that bundle is ordered without an archive."""
    new = make_bundle(tmp_path / "new", name="new")
    library = BundleLibrary(
        tmp_path / "state", "cam2", new, FileSection, lambda manifest: ["cam2"], started.path
    )
    assert library.find(started.id) == started.manifest
    assert library.load(BundleKey(started.id, "cam2")) is not None


def test_a_node_that_is_started_with_another_bundle_uses_that(
    tmp_path: Path, started: Bundle, make_library: Callable[[], BundleLibrary]
) -> None:
    """The order that the broker still retains is done."""
    new, chosen = make_bundle(tmp_path / "new", name="new"), make_bundle(tmp_path / "c", name="c")
    archive = pack_bundle(new.path)
    order = msgspec.structs.replace(make_order(new.id, archive), given_at_s=50.0)
    make_library().add(order, archive)
    make_library().adopt(order)
    assert make_library().done_until_s < 0
    state = tmp_path / "state"
    assert find_bundle_path(state, "cam2", chosen.path) == chosen.path
    library = BundleLibrary(state, "cam2", chosen, FileSection, lambda manifest: ["cam2"])
    assert library.done_until_s == 50.0


@pytest.mark.parametrize("damage", [b"", b"{}", b"ab12cd34", b"[" * 5000])
def test_a_damaged_note_is_none(tmp_path: Path, started: Bundle, damage: bytes) -> None:
    root = tmp_path / "state/cam2.bundles"
    root.mkdir(parents=True)
    (root / "in-use").write_bytes(damage)
    assert find_bundle_path(tmp_path / "state", "cam2", started.path) == started.path


@pytest.mark.parametrize("bundle", ["", "../../up", "/../../up", ".", "AB12CD34", "ab12cd34\n"])
def test_an_order_names_no_other_directory(bundle: str) -> None:
    order = BundleOrder("ab12cd34", "0" * 64, 100)
    assert decode(Kind.BUNDLE_ORDER, encode(order)) == order
    with pytest.raises(RemoteProtocolError):
        decode(Kind.BUNDLE_ORDER, encode(msgspec.structs.replace(order, bundle=bundle)))


@pytest.mark.parametrize("change", ["sha256", "size", "id"])
def test_another_archive_than_the_ordered_one_is_refused(
    tmp_path: Path, make_library: Callable[[], BundleLibrary], change: str
) -> None:
    new = make_bundle(tmp_path / "new", name="new")
    archive = pack_bundle(new.path)
    order = make_order(new.id, archive)
    changed = {
        "sha256": msgspec.structs.replace(order, sha256="0" * 64),
        "size": msgspec.structs.replace(order, size_bytes=len(archive) - 1),
        "id": msgspec.structs.replace(order, bundle="00000000"),
    }[change]
    with pytest.raises(ConfigError):
        make_library().add(changed, archive)
    assert list((tmp_path / "state").rglob("manifest.json")) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": ("a", "b", "c", "d")}, "other classes"),
        ({"hierarchy": make_hierarchy("e", 2)}, "other cameras|cannot answer"),
        ({"image_shape": (16, 16, 3)}, "another size|cannot answer"),
    ],
)
def test_a_bundle_that_a_running_node_cannot_change_to_is_refused(
    tmp_path: Path, make_library: Callable[[], BundleLibrary], changes: Any, reason: str
) -> None:
    path = tmp_path / "new"
    with contextlib.suppress(ConfigError):  # its manifest is written
        make_bundle(path, **changes)
    archive = pack_bundle(path)
    with pytest.raises(ConfigError, match=reason):
        make_library().add(make_order(read_manifest(path)[1], archive), archive)


def test_a_section_that_computes_something_else_is_refused(
    tmp_path: Path, make_library: Callable[[], BundleLibrary]
) -> None:
    new = make_bundle(tmp_path / "new")
    (new.path / "cam2.tflite").write_text("cam1")
    files = {**new.manifest.sections, "cam2": make_file_entry(new.path / "cam2.tflite")}
    bundle_id = write_manifest(new.path, msgspec.structs.replace(new.manifest, sections=files))
    archive = pack_bundle(new.path)
    with pytest.raises(ConfigError, match="golden output"):
        make_library().add(make_order(bundle_id, archive), archive)


def make_archive(*members: tuple[str, bytes, bytes], mode: str = "w:xz") -> bytes:
    """An archive of members: name, type, content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, kind, data in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(data), "/etc/passwd"
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        make_archive(("../out", tarfile.REGTYPE, b"x")),
        make_archive(("/out", tarfile.REGTYPE, b"x")),
        make_archive(("a/b", tarfile.REGTYPE, b"x")),
        make_archive((".hidden", tarfile.REGTYPE, b"x")),
        make_archive(("link", tarfile.SYMTYPE, b"")),
        make_archive(("hard", tarfile.LNKTYPE, b"")),
        make_archive(("pipe", tarfile.FIFOTYPE, b"")),
        make_archive(("device", tarfile.CHRTYPE, b"")),
        make_archive(("dir", tarfile.DIRTYPE, b"")),
        make_archive(("a", tarfile.REGTYPE, b"x"), ("a", tarfile.REGTYPE, b"y")),
        make_archive(("a", tarfile.REGTYPE, b"x"), mode="w:gz"),
        make_archive(("a", tarfile.REGTYPE, np.random.default_rng(1).bytes(1 << 16)))[: 1 << 15],
        b"",
        b"no archive",
    ],
    ids=range(14),
)
def test_a_hostile_archive_is_refused(tmp_path: Path, archive: bytes) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(ConfigError, match="archive"):
        unpack_bundle(archive, into)
    assert [p.name for p in tmp_path.iterdir()] == ["into"]
    assert all(p.is_file() and not p.is_symlink() for p in into.iterdir())


def test_an_archive_that_expands_without_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddnn.runtime.library.MAX_UNPACKED_BYTES", 1 << 16)
    with pytest.raises(ConfigError, match="too large"):
        unpack_bundle(make_archive(("a", tarfile.REGTYPE, bytes(1 << 17))), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_disk_use_is_bounded(tmp_path: Path, make_library: Callable[[], BundleLibrary]) -> None:
    library = make_library()
    ids = []
    for n in range(6):
        new = make_bundle(tmp_path / f"new{n}", name=f"new{n}")
        archive = pack_bundle(new.path)
        library.add(make_order(new.id, archive), archive)
        ids.append(new.id)
        if n == 1:
            library.adopt(make_order(new.id, archive))
    kept = {p.name for p in (tmp_path / "state/cam2.bundles").iterdir() if p.is_dir()}
    assert kept == {ids[1], ids[4], ids[5]}


def die_after(operations: int) -> Callable[[str, Any], None]:
    """An audit hook that ends the process at once after so many file operations."""
    left = operations

    def count(event: str, arguments: Any) -> None:
        nonlocal left
        if event in FILES:
            left -= 1
            if left < 0:
                os._exit(9)

    return count


def test_a_process_that_is_killed_at_any_file_operation_leaves_a_whole_bundle_or_none(
    tmp_path: Path, started: Bundle, make_library: Callable[[], BundleLibrary]
) -> None:
    new = make_bundle(tmp_path / "new", name="new")
    archive = pack_bundle(new.path)
    order = make_order(new.id, archive)
    make_library()  # what is imported is no operation of this test
    whole = operations = 0
    while True:
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        pid = os.fork()
        if pid == 0:
            sys.addaudithook(die_after(operations))
            library = make_library()
            library.add(order, archive)
            library.adopt(order)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found = make_library().find(new.id)
        assert found in (None, new.manifest)
        whole += found is not None
        used = find_bundle_path(tmp_path / "state", "cam2", started.path)
        assert used == started.path or read_manifest(used)[1] == new.id
        assert make_library().add(order, archive) == new.manifest
        if status == 0:
            break
        operations += 1
    assert operations > 20
    assert whole > 3
