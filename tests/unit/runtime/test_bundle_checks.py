"""A bundle that is not as it was made is refused, with one clear error, and never run."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.errors import ConfigError
from ddnn.runtime.bundle import load_bundle, read_manifest


@pytest.fixture
def bundle(scenes_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes_bundle, tmp_path / "bundle"))


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_bytes())


def rewrite(bundle: Path, change: Callable[[dict], None]) -> None:
    content = manifest(bundle)
    change(content)
    (bundle / "manifest.json").write_text(json.dumps(content))


def replace_file(bundle: Path, name: str, data: bytes) -> None:
    """Another file with its checksum put right everywhere."""
    (bundle / name).write_bytes(data)

    def mend(content: dict) -> None:
        for entry in (content["golden"], *content["sections"].values()):
            if entry["file"] == name:
                entry["sha256"] = hashlib.sha256(data).hexdigest()

    rewrite(bundle, mend)


def assert_refused(bundle: Path, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_bundle(bundle, LiteRtSection)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text.strip()
    assert len(text) < 600
    return text


def test_it_loads_as_it_was_made(bundle: Path) -> None:
    loaded = load_bundle(bundle, LiteRtSection)
    assert set(loaded.sections) == set(manifest(bundle)["sections"])
    data = (bundle / "manifest.json").read_bytes()
    assert loaded.id == hashlib.sha256(data).hexdigest()[:8]
    assert set(load_bundle(bundle, LiteRtSection, ["cam2"]).sections) == {"cam2"}


def test_a_section_that_there_is_not(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="no section 'cam9'; it has"):
        load_bundle(bundle, LiteRtSection, ["cam9"])


def test_no_bundle_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="is not a bundle: No such file"):
            read_manifest(path)


@pytest.mark.parametrize("name", ["device.tflite", "edge.tflite", "cloud.tflite", "golden.npz"])
def test_a_missing_or_changed_file(bundle: Path, name: str) -> None:
    file = bundle / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert_refused(bundle, name, "sha256", "copy the bundle again")
    file.unlink()
    assert_refused(bundle, name, "No such file")
    file.mkdir()
    assert_refused(bundle, name, "Is a directory")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"no json", "malformed"),
        (b"\xff\xfe\x00", ""),
        (b"[]", "array"),
        (b"null", "null"),
        (b"[" * 100_000, ""),
        (b'{"classes":' * 50_000, ""),
        (b'{"format": 1}', "missing required field"),
    ],
)
def test_a_garbage_manifest(bundle: Path, data: bytes, words: str) -> None:
    (bundle / "manifest.json").write_bytes(data)
    assert_refused(bundle, "manifest.json", words)


def test_a_manifest_cut_at_any_byte(bundle: Path) -> None:
    whole = json.dumps({**manifest(bundle), "sweep": [], "accuracy": {}, "training": {}}).encode()
    for end in range(len(whole)):
        (bundle / "manifest.json").write_bytes(whole[:end])
        with pytest.raises(ConfigError):
            read_manifest(bundle)
    (bundle / "manifest.json").write_bytes(whole)
    read_manifest(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(extra=1), "unknown field `extra`"),
        (lambda m: m["hierarchy"].update(extra=1), "unknown field `extra`"),
        (lambda m: m["golden"].update(url="http://x"), "unknown field `url`"),
        (lambda m: m.update(format=2), "$.format"),
        (lambda m: m.update(format="1"), "$.format"),
        (lambda m: m.update(classes=["one"]), "at least two classes"),
        (lambda m: m.update(thresholds={}), "no threshold"),
        (lambda m: m["thresholds"].update(local=1.5), "no threshold in [0, 1]"),
        (lambda m: m["hierarchy"].update(edges=[]), "at least one edge"),
        (lambda m: m["hierarchy"]["edges"][0].update(id="../x"), "not an id"),
        (lambda m: m["sections"].pop("cloud") and m["golden"].update(file=""), "plain file name"),
    ],
)
def test_a_manifest_that_says_what_it_must_not(
    bundle: Path, change: Callable[[dict], None], words: str
) -> None:
    rewrite(bundle, change)
    assert_refused(bundle, words)


def test_an_oversized_manifest_is_not_read(bundle: Path) -> None:
    with (bundle / "manifest.json").open("r+b") as file:
        file.truncate(65 << 20)
    assert_refused(bundle, "larger than")


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "..", ".", "", "a/b", "a\\b", ".hidden", "x\0y", "x\n", "é", "-x"],
)
@pytest.mark.parametrize("entry", ["section", "golden"])
def test_names_that_leave_the_directory(bundle: Path, name: str, entry: str) -> None:
    secret = b"secret"
    (bundle.parent / "secret").write_bytes(secret)

    def change(content: dict) -> None:
        target = content["golden"] if entry == "golden" else content["sections"]["cloud"]
        target.update(file=name, sha256=hashlib.sha256(secret).hexdigest())

    rewrite(bundle, change)
    assert_refused(bundle, "is not a plain file name")


def test_a_section_of_another_shape_or_content(bundle: Path) -> None:
    """Its checksum is right, so the golden vectors must find it."""
    replace_file(bundle, "edge.tflite", (bundle / "cloud.tflite").read_bytes())
    assert_refused(bundle, "section edge")


def test_a_truncated_section_with_its_checksum_put_right(bundle: Path) -> None:
    whole = (bundle / "cloud.tflite").read_bytes()
    for end in {0, 1, 4, 8, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1}:
        replace_file(bundle, "cloud.tflite", whole[:end])
        assert_refused(bundle, "section cloud")
    replace_file(bundle, "cloud.tflite", b"\x1c\0\0\0TFL3" + bytes(1000))
    assert_refused(bundle, "section cloud")


def golden(bundle: Path) -> dict[str, np.ndarray]:
    with np.load(bundle / "golden.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def replace_golden(bundle: Path, arrays: dict[str, np.ndarray]) -> None:
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    replace_file(bundle, "golden.npz", data.getvalue())


def test_weights_that_compute_something_else(bundle: Path) -> None:
    """One golden score a little off stands for one weight a little off."""
    arrays = golden(bundle)
    arrays["cloud/out/scores"][-1, 0] += 0.02
    replace_golden(bundle, arrays)
    assert_refused(bundle, "section cloud does not reproduce its golden output scores")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cloud/out/scores", np.zeros(())),
        ("cloud/out/scores", np.zeros((0, 3))),
        ("cloud/out/scores", np.zeros((1, 3), np.float32)),
        ("cloud/out/scores", np.zeros((4, 7), np.float32)),
        ("cloud/out/scores", np.full((4, 3), "text")),
        ("cloud/out/scores", np.full((4, 3), np.nan)),
        ("cloud/out/more", np.zeros((4, 3), np.float32)),
        ("cloud/in/features", np.zeros((4, 2), np.float32)),
        ("cloud/in/features", np.zeros(())),
        ("cloud/in/features", np.full((4,), "text")),
    ],
)
def test_golden_vectors_of_another_kind(bundle: Path, name: str, value: np.ndarray) -> None:
    replace_golden(bundle, {**golden(bundle), name: value})
    assert_refused(bundle, "cloud")


def test_golden_vectors_that_lack_a_section(bundle: Path) -> None:
    arrays = golden(bundle)
    replace_golden(bundle, {k: v for k, v in arrays.items() if not k.startswith("cam4/")})
    assert_refused(bundle, "no golden vectors for section cam4")


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_golden_vectors_are_never_unpickled(bundle: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    replace_golden(bundle, {**golden(bundle), "x": np.array([Trap(sprung)], dtype=object)})
    assert_refused(bundle, "unreadable golden vectors")
    assert not sprung.exists()


def npy(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_golden_vectors_that_would_fill_the_memory(bundle: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(65 << 20))  # 65 MB of zeros, packed in 65 kB
    replace_file(bundle, "golden.npz", data.getvalue())
    assert_refused(bundle, "bytes of golden vectors")
    for side in (1 << 28, 1 << 50, 1 << 62, 1 << 70):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("x.npy", npy((side, 2), bytes(8)))
        replace_file(bundle, "golden.npz", data.getvalue())
        assert_refused(bundle, "unreadable golden vectors")


def test_golden_vectors_with_any_damage_load_or_are_refused(bundle: Path) -> None:
    """Nothing but ConfigError, wherever the zip is hurt."""
    dice = random.Random(3)
    whole = (bundle / "golden.npz").read_bytes()
    outcomes = {"loaded": 0, "refused": 0}
    for number in range(150):
        data = bytearray(whole)
        if number % 5 == 0:
            data = data[: dice.randrange(len(data))]
        else:
            for _ in range(dice.choice((1, 1, 4))):
                # headers stand at the ends, where a blind shot seldom hits
                span = dice.choice((len(data), 200))
                data[dice.randrange(span) * dice.choice((1, -1))] = dice.randrange(256)
        replace_file(bundle, "golden.npz", bytes(data))
        try:
            load_bundle(bundle, LiteRtSection, ["cloud"])
            outcomes["loaded"] += 1
        except ConfigError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 50, outcomes
