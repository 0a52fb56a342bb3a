"""A broken, truncated, hostile or ill-shaped file causes one ConfigError."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddnn.data import Dataset, load, load_samples
from ddnn.errors import ConfigError
from tests.unit.data.sample_files import (
    make_cifar10,
    make_directory,
    make_eth80,
    make_mvmc,
    make_npz,
)

SMALL: dict[str, Callable[[Path], Path]] = {
    "eth80": lambda path: make_eth80(path, directions=6, side=32, objects=(1, 2, 3)),
    "mvmc": lambda path: make_mvmc(path, samples=10, side=4),
    "npz": lambda path: make_npz(path, samples=24, side=4),
}


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("small")
    return {name: make(folder / f"{name}.npz").read_bytes() for name, make in SMALL.items()}


def read_arrays(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(io.BytesIO(content)) as archive:
        return dict(archive)


@pytest.mark.parametrize("name", SMALL)
def test_small_files_are_valid(name: str, small_files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "whole.npz"
    path.write_bytes(small_files[name])
    assert len(load(f"{name}:{path}").train) > 0


@pytest.mark.parametrize("name", SMALL)
def test_files_truncated_at_any_byte_are_refused(
    name: str, small_files: dict[str, bytes], tmp_path: Path
) -> None:
    content, path = small_files[name], tmp_path / "cut.npz"
    cuts = {*range(0, 64), *range(0, len(content), max(1, len(content) // 300))}
    cuts |= set(range(len(content) - 400, len(content)))
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        with pytest.raises(ConfigError) as caught:
            load(f"{name}:{path}")
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", SMALL)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_wrong_byte_is_refused_or_gives_a_valid_data_set(
    name: str, small_files: dict[str, bytes], tmp_path: Path, place: float, value: int
) -> None:
    content, path = bytearray(small_files[name]), tmp_path / "wrong.npz"
    content[int(place * len(content))] = value
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        assert isinstance(load(f"{name}:{path}"), Dataset)


WRONG: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("eth80", "images", lambda a: a.astype(np.float32)),
    ("eth80", "images", lambda a: a[..., :1]),
    ("eth80", "images", lambda a: a[:, :20]),
    ("eth80", "images", lambda a: a[:-1]),
    ("eth80", "images", lambda a: a[:0]),
    ("eth80", "images", lambda a: np.zeros_like(a)),
    ("eth80", "label", lambda a: a + 100),
    ("eth80", "label", lambda a: a[:, None]),
    ("eth80", "object", lambda a: a.astype(str)),
    ("eth80", "object", lambda a: a[:3]),
    ("eth80", "classes", lambda a: a[:1]),
    ("eth80", "classes", lambda a: np.array(["a", "a", "a"])),
    ("eth80", "classes", lambda a: np.arange(3)),
    ("eth80", "view_index", lambda a: a + 10_000),
    ("eth80", "view_index", lambda a: a - 1),
    ("eth80", "view_index", lambda a: a[::-1].reshape(6, -1)),
    ("mvmc", "X", lambda a: a * 300),
    ("mvmc", "X", lambda a: a * np.nan),
    ("mvmc", "X", lambda a: a - 1),
    ("mvmc", "X", lambda a: a.astype(np.uint8)),
    ("mvmc", "X", lambda a: a.transpose(0, 1, 3, 4, 2)),
    ("mvmc", "X", lambda a: a[:2]),
    ("mvmc", "y", lambda a: a + 5),
    ("mvmc", "y", lambda a: a - 5),
    ("mvmc", "y", lambda a: a * 0 - 1),
    ("mvmc", "y", lambda a: a[:, :5]),
    ("mvmc", "y", lambda a: a.astype(float)),
    ("npz", "images", lambda a: a[0]),
    ("npz", "images", lambda a: a.astype(np.uint16)),
    ("npz", "images", lambda a: a * 0),
    ("npz", "labels", lambda a: a - 1),
    ("npz", "labels", lambda a: a[:5]),
    ("npz", "labels", lambda a: a + 3),
    ("npz", "view_labels", lambda a: a[:, :1]),
    ("npz", "view_labels", lambda a: np.where(a == 1, 2, a)),
    ("npz", "classes", lambda a: a.astype(bytes)),
]


@pytest.mark.parametrize(("name", "array", "change"), WRONG)
def test_wrong_arrays_are_refused(
    name: str,
    array: str,
    change: Callable[[Any], Any],
    small_files: dict[str, bytes],
    tmp_path: Path,
) -> None:
    arrays, path = read_arrays(small_files[name]), tmp_path / "wrong.npz"
    arrays[array] = change(arrays[array])
    np.savez(path, **arrays)
    with pytest.raises(ConfigError, match=str(path)):
        load(f"{name}:{path}")


@pytest.mark.parametrize("name", SMALL)
def test_missing_arrays_are_reported(
    name: str, small_files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "missing.npz"
    for left_out in set(read_arrays(small_files[name])) - {"view_labels", "classes"}:
        np.savez(path, **{k: v for k, v in read_arrays(small_files[name]).items() if k != left_out})
        with pytest.raises(ConfigError, match=left_out):
            load(f"{name}:{path}")


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["DDNN_TEST_TRAP"],)


def test_nothing_is_unpickled(
    small_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDNN_TEST_TRAP", str(tmp_path / "sprung"))
    arrays, path = read_arrays(small_files["npz"]), tmp_path / "trap.npz"
    arrays["labels"] = np.array([_Trap()] * len(arrays["labels"]), object)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="labels is object"):
        load(f"npz:{path}")
    assert not (tmp_path / "sprung").exists()


def write_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    "shape",
    [(10**9, 6, 32, 32, 3), (2**62, 2**62, 2**62, 2**62, 3), (400, 6, 500, 500, 3)],
)
def test_a_false_size_in_a_header_allocates_no_memory(
    shape: tuple[int, ...], small_files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "huge.npz"
    member = write_header(shape) + bytes(1000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", member)
        for name, array in read_arrays(small_files["npz"]).items():
            if name != "images":
                part = io.BytesIO()
                np.save(part, array)
                archive.writestr(f"{name}.npy", part.getvalue())
    content = bytearray(buffer.getvalue())
    size = int(np.prod([float(n) for n in shape])) + len(member) - 1000
    if size < 2**32:  # give the archive's directory the same false size
        entry = content.index(b"PK\x01\x02")
        content[entry + 24 : entry + 28] = struct.pack("<I", size)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="images"):
            load(f"npz:{path}")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not a zip at all" * 50, b"PK\x05\x06" + bytes(18), b"\x93NUMPY" + bytes(100)],
)
@pytest.mark.parametrize("name", SMALL)
def test_files_of_another_kind_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        load(f"{name}:{path}")


@pytest.mark.parametrize("name", SMALL)
def test_paths_that_are_no_file_are_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent.npz", tmp_path / "pipe"):
        with pytest.raises(ConfigError, match=str(path)):
            load(f"{name}:{path}")


def test_broken_images_in_a_directory_are_refused(tmp_path: Path) -> None:
    make_directory(tmp_path)
    victim = next((tmp_path / "camera1" / "cat").glob("*.png"))
    content = victim.read_bytes()
    for broken in (b"", content[:40], content[: len(content) // 2], b"<svg/>", content[::-1]):
        victim.write_bytes(broken)
        with pytest.raises(ConfigError, match=victim.name):
            load(f"directory:{tmp_path}")


def test_directories_of_another_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        load(f"directory:{tmp_path / 'absent'}")
    with pytest.raises(ConfigError, match="<camera>/<class>"):
        load(f"directory:{tmp_path}")
    one = tmp_path / "camera1" / "cat"
    one.mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(one / "1.png")
    with pytest.raises(ConfigError, match="two"):
        load(f"directory:{tmp_path}")
    Image.new("RGB", (4, 4), "red").save(one / "1.jpg")
    (tmp_path / "camera1" / "dog").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "camera1" / "dog" / "1.png")
    with pytest.raises(ConfigError, match="one view"):
        load(f"directory:{tmp_path}")


def test_too_few_samples_are_refused(tmp_path: Path) -> None:
    path = make_mvmc(tmp_path / "few.npz", samples=2, side=4)
    with pytest.raises(ConfigError, match="add samples"):
        load(f"mvmc:{path}")
    assert len(load_samples(f"mvmc:{path}")) == 2


BROKEN_CIFAR10: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("train_jpeg", "offsets", lambda a: a[::-1], "offsets"),
    ("train_jpeg", "offsets", lambda a: a[:-1], "offsets"),
    ("train_jpeg", "offsets", lambda a: np.delete(a, 3), "one more"),
    ("train_jpeg", "jpeg", lambda a: a ^ 0xFF, "cannot be read"),
    ("train_jpeg", "label", lambda a: a + 1, "label"),
    ("test5000", "images", lambda a: a[:-1], "label for each image"),
    ("test5000", "images", lambda a: a * 0, "black"),
    ("test5000", "images", lambda a: a[:, :16], "images"),
]


@pytest.mark.parametrize(("file", "name", "change", "message"), BROKEN_CIFAR10)
def test_broken_cifar10_files_are_refused(
    file: str, name: str, change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    path = make_cifar10(tmp_path / "cifar10") / f"cifar10_{file}.npz"
    arrays = read_arrays(path.read_bytes())
    np.savez(path, **{**arrays, name: change(arrays[name])})
    with pytest.raises(ConfigError, match=message) as caught:
        load(f"cifar10:{path.parent}")
    assert path.name in str(caught.value)


def test_cifar10_images_of_another_size_are_refused(tmp_path: Path) -> None:
    path = make_cifar10(tmp_path / "cifar10", side=16)
    with pytest.raises(ConfigError, match="image 0 is 16x16; expected 32x32"):
        load(f"cifar10:{path}")
