"""Section files: what was written runs, and a broken or hostile one is one SectionError."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy
from scipy import sparse

from ddnn.adapters.matrices import load_section, read_matrix, write_matrix
from ddnn.coding.section import MatrixSection
from ddnn.errors import SectionError

RNG = np.random.default_rng(0)
FULL = RNG.normal(size=(12, 5)).astype(np.float32)
THIN = (FULL * (RNG.random(FULL.shape) < 0.2)).astype(np.float32)
BIAS = np.arange(5, dtype=np.float32)
X = np.linspace(-1, 1, 12, dtype=np.float32)


def members(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("kernel", [FULL, THIN], ids=["full", "thin"])
@pytest.mark.parametrize("given_as", [np.asarray, sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("bias", [None, BIAS], ids=["no bias", "bias"])
def test_what_was_written_runs(
    tmp_path: Path, kernel: np.ndarray, given_as: Callable[..., Any], bias: np.ndarray | None
) -> None:
    write_matrix(tmp_path / "shard0.npz", given_as(kernel), bias)
    section = load_section(tmp_path / "shard0.npz")
    assert isinstance(section, MatrixSection)
    expected = X @ kernel + (0 if bias is None else bias)
    np.testing.assert_allclose(section({"x": X})["z"], expected, rtol=1e-5, atol=1e-6)


def test_the_smaller_form_is_written(tmp_path: Path) -> None:
    path = tmp_path / "shard.npz"
    write_matrix(path, FULL, None)
    assert set(members(path)) == {"kernel"}
    write_matrix(path, THIN, BIAS)
    assert set(members(path)) == {"data", "indices", "indptr", "inputs", "bias"}
    sizes = {}
    for density in (1.0, 0.02):
        kernel = (np.random.default_rng(1).random((300, 200)) < density).astype(np.float32)
        write_matrix(path, kernel, None)
        sizes[density] = path.stat().st_size
    assert sizes[0.02] < 0.06 * sizes[1.0]


def test_an_empty_shard_runs(tmp_path: Path) -> None:
    """More blocks than outputs: some have nothing but padding."""
    write_matrix(tmp_path / "shard.npz", np.zeros((12, 5), np.float32), BIAS)
    section = load_section(tmp_path / "shard.npz")
    np.testing.assert_array_equal(section({"x": X})["z"], BIAS)


def test_a_litert_file_runs_in_litert(tmp_path: Path) -> None:
    (tmp_path / "head.tflite").write_bytes(b"nothing")
    with pytest.raises(SectionError, match="LiteRT"):
        load_section(tmp_path / "head.tflite")


@pytest.mark.parametrize("name", ["shard.pkl", "shard", "shard.npz.exe"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SectionError, match=r"\.tflite or \.npz"):
        load_section(tmp_path / name)


def test_a_node_that_runs_only_litert_files_needs_no_scipy() -> None:
    program = (
        "import sys; sys.modules['scipy'] = None\n"
        "from pathlib import Path\n"
        "from ddnn.adapters.matrices import load_section\n"
        "from ddnn.errors import SectionError\n"
        "try: load_section(Path('shard.npz'))\n"
        "except SectionError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'ddnn[coding]'" in done.stdout, done.stderr


# Hostile files


def content(kernel: np.ndarray, tmp_path: Path) -> dict[str, np.ndarray[Any, Any]]:
    write_matrix(tmp_path / "good.npz", kernel, BIAS)
    return members(tmp_path / "good.npz")


def change_at(index: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] = value
        return array

    return change


SPARSE: list[tuple[str, Callable[[Any], Any]]] = [
    ("indices", change_at(0, 12)),
    ("indices", change_at(0, 2**31 - 1)),
    ("indices", change_at(-1, -1)),
    ("indices", lambda a: a[:-1]),
    ("indices", lambda a: a.astype(np.int64)),
    ("indices", lambda a: a.astype(np.float32)),
    ("indices", lambda a: a.astype(">i4")),
    ("indices", lambda a: a.reshape(1, -1)),
    ("indptr", change_at(0, 1)),
    ("indptr", change_at(0, -1)),
    ("indptr", change_at(1, 10**6)),
    ("indptr", change_at(-1, 10**6)),
    ("indptr", change_at(-1, 0)),
    ("indptr", change_at(-1, -5)),
    ("indptr", lambda a: a[:1]),
    ("indptr", lambda a: a[:0]),
    ("indptr", lambda a: a[:-1]),
    ("data", lambda a: a[:-1]),
    ("data", change_at(0, np.nan)),
    ("data", change_at(0, np.inf)),
    ("data", lambda a: a.astype(np.float64)),
    ("data", lambda a: np.array([None] * len(a))),
    ("inputs", lambda a: np.int64(0)),
    ("inputs", lambda a: np.int64(-3)),
    ("inputs", lambda a: np.int64(3)),
    ("inputs", lambda a: np.int64(2**62)),
    ("inputs", lambda a: np.array([12])),
    ("bias", lambda a: a[:-1]),
    ("bias", change_at(0, np.nan)),
    ("kernel", lambda a: FULL),
    ("extra", lambda a: BIAS),
]
DENSE: list[tuple[str, Callable[[Any], Any]]] = [
    ("kernel", lambda a: a.astype(np.float64)),
    ("kernel", lambda a: a.astype(np.int32)),
    ("kernel", lambda a: a.astype(object)),
    ("kernel", lambda a: np.asfortranarray(a)),
    ("kernel", lambda a: a[0]),
    ("kernel", lambda a: a[:0]),
    ("kernel", lambda a: a[:, :0]),
    ("kernel", change_at(0, np.nan)),
    ("bias", lambda a: BIAS[:, None]),
    ("data", lambda a: BIAS),
]


@pytest.mark.parametrize(
    ("kernel", "name", "change"),
    [(THIN, *case) for case in SPARSE] + [(FULL, *case) for case in DENSE],
)
def test_a_wrong_array_is_refused(
    tmp_path: Path, kernel: np.ndarray, name: str, change: Callable[[Any], Any]
) -> None:
    arrays = content(kernel, tmp_path)
    arrays[name] = change(arrays.get(name))
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **arrays)
    with pytest.raises(SectionError, match=r"bad\.npz is not a usable matrix file: \S"):
        load_section(tmp_path / "bad.npz")


@pytest.mark.parametrize("name", ["data", "indices", "indptr", "inputs"])
def test_a_missing_array_is_refused(tmp_path: Path, name: str) -> None:
    arrays = content(THIN, tmp_path)
    del arrays[name]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(SectionError, match="expected"):
        load_section(tmp_path / "bad.npz")


def header(shape: tuple[int, ...]) -> bytes:
    written = io.BytesIO()
    npy.write_array_header_1_0(written, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return written.getvalue()


@pytest.mark.parametrize("shape", [(2**40, 5), (12, 2**62), (12, 6), (11, 5), (2**33, 2**33)])
def test_a_header_that_promises_another_size_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("kernel.npy", header(shape) + FULL.tobytes())
    with pytest.raises(SectionError, match="reshape"):
        load_section(tmp_path / "bad.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_packed_member_is_refused(tmp_path: Path, method: int) -> None:
    """64 MB in 64 kB; a gigabyte would not be much more."""
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", method) as archive:
        archive.writestr("kernel.npy", header((1 << 12, 1 << 12)) + bytes(64 << 20))
    with pytest.raises(SectionError, match="packed"):
        load_section(tmp_path / "bad.npz")


def test_a_matrix_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_matrix(tmp_path / "large.npz", FULL, BIAS)
    held = sum(info.file_size for info in zipfile.ZipFile(tmp_path / "large.npz").infolist())
    monkeypatch.setattr("ddnn.adapters.matrices.MAX_MATRIX_BYTES", held)
    load_section(tmp_path / "large.npz")
    monkeypatch.setattr("ddnn.adapters.matrices.MAX_MATRIX_BYTES", held - 1)
    with pytest.raises(SectionError, match="bytes"):
        load_section(tmp_path / "large.npz")


def test_a_directory_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    write_matrix(path, FULL, None)
    data, real = path.read_bytes(), (len(header((12, 5))) + FULL.nbytes).to_bytes(4, "little")
    where = data.rindex(real)  # in the archive's directory
    for claimed in (1 << 20, 2**31, 0):
        lie = claimed.to_bytes(4, "little")
        path.write_bytes(data[: where - 4] + lie + lie + data[where + 4 :])
        with pytest.raises(SectionError, match="not a usable matrix file"):
            load_section(path)


@pytest.mark.parametrize("kernel", [FULL, THIN], ids=["full", "thin"])
def test_cut_short_anywhere(tmp_path: Path, kernel: np.ndarray) -> None:
    write_matrix(tmp_path / "good.npz", kernel, BIAS)
    data, path = (tmp_path / "good.npz").read_bytes(), tmp_path / "cut.npz"
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(SectionError):
            read_matrix(path)


@pytest.mark.parametrize("kernel", [FULL, THIN], ids=["full", "thin"])
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_any_byte_wrong(tmp_path: Path, kernel: np.ndarray, place: float, value: int) -> None:
    write_matrix(tmp_path / "good.npz", kernel, BIAS)
    data = bytearray((tmp_path / "good.npz").read_bytes())
    data[int(place * len(data))] = value
    (tmp_path / "wrong.npz").write_bytes(data)
    with contextlib.suppress(SectionError):
        section = load_section(tmp_path / "wrong.npz")
        assert section({"x": X})["z"].shape == (5,)


@pytest.mark.parametrize("name", ["absent.npz", "absent.tflite"])
def test_a_missing_file_says_so(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(SectionError, match="there is no file"):
            load_section(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(SectionError, match="not a usable matrix file"):
        load_section(tmp_path / "folder.npz")


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    path = str(tmp_path / "shard.npz")
    write_matrix(path, FULL, BIAS)
    np.testing.assert_array_equal(read_matrix(path)[0], FULL)
    np.testing.assert_allclose(load_section(path)({"x": X})["z"], X @ FULL + BIAS, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("again", ["kernel.npy", "kernel"])
def test_a_member_that_comes_twice_is_refused(tmp_path: Path, again: str) -> None:
    path = tmp_path / "shard.npz"
    write_matrix(path, FULL, None)
    with zipfile.ZipFile(path) as archive:
        member = archive.read("kernel.npy")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(again, member)
    with pytest.raises(SectionError, match="same name"):
        load_section(path)
