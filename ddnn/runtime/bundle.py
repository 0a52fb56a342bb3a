"""A bundle on disk: manifest.json, one file per section, golden vectors. Checked before use."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.files import BundleFile
from ddnn.core.section import Section
from ddnn.errors import ConfigError, SectionError
from ddnn.exits.manifest import Manifest

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
ID_CHARS = 8
MAX_MANIFEST_BYTES = 64 << 20
MAX_FILE_BYTES = 1 << 30
MAX_GOLDEN_BYTES = 64 << 20
# Kernels differ between processors in the last bits; a wrong file differs in the first.
GOLDEN_TOLERANCE = 2e-3
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle. `id` is the first 8 hex digits of the manifest's sha256."""

    path: Path
    id: str
    manifest: Manifest
    sections: dict[str, Section]


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle directory and the bundle's id."""
    file = path / MANIFEST
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_MANIFEST_BYTES} bytes, not a manifest")
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} is not a bundle: {error.strerror or error}; "
            "expected a directory made by `ddnn train --out`"
        ) from None
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file}: {error}; train or copy the bundle again") from None
    return manifest, hashlib.sha256(data).hexdigest()[:ID_CHARS]


def load_bundle(
    path: Path,
    load_section: Callable[[Path], Section],
    names: Iterable[str] | None = None,
) -> Bundle:
    """Load and check the sections `names` (default: all): checksums first, then golden outputs."""
    manifest, bundle_id = read_manifest(path)
    wanted = sorted(manifest.sections) if names is None else list(names)
    for name in wanted:
        if name not in manifest.sections:
            raise ConfigError(
                f"bundle {path} has no section {name!r}; it has {', '.join(manifest.sections)}"
            )
    golden = _read_golden(checked_file(path, manifest.golden))
    sections: dict[str, Section] = {}
    for name in wanted:
        file = checked_file(path, manifest.sections[name])
        try:
            section = load_section(file)
            _check_golden(path, name, section, golden)
        except SectionError as error:
            raise ConfigError(f"bundle {path}: section {name}: {error}") from None
        sections[name] = section
    return Bundle(path, bundle_id, manifest, sections)


def checked_file(path: Path, entry: BundleFile) -> Path:
    """The path of a bundle's file whose checksum is right."""
    if not _FILE_NAME.fullmatch(entry.file):
        raise ConfigError(f"bundle {path}: {entry.file!r} is not a plain file name")
    file = path / entry.file
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"bundle {path}: {error.strerror}: {entry.file}") from None
    if digest != entry.sha256:
        raise ConfigError(
            f"bundle {path}: {entry.file} has sha256 {digest[:12]}…, the manifest says "
            f"{entry.sha256[:12]}…; copy the bundle again"
        )
    return file


def _read_golden(file: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays named <section>/in/<name> and <section>/out/<name>."""
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise ConfigError(f"{file}: more than {MAX_GOLDEN_BYTES} bytes of golden vectors")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except ConfigError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise more than a dozen kinds
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{file}: unreadable golden vectors: {reason}") from None


def _check_golden(
    path: Path, name: str, section: Section, golden: dict[str, NDArray[np.generic]]
) -> None:
    def named(way: str) -> dict[str, NDArray[np.generic]]:
        prefix = f"{name}/{way}/"
        return {key[len(prefix) :]: golden[key] for key in golden if key.startswith(prefix)}

    inputs, expected = named("in"), named("out")
    arrays = [*inputs.values(), *expected.values()]
    count = arrays[0].shape[0] if arrays and arrays[0].ndim else 0
    if not inputs or not expected or not count or any(a.shape[:1] != (count,) for a in arrays):
        raise ConfigError(f"bundle {path}: no golden vectors for section {name}")
    for index in range(count):
        outputs = section({key: value[index] for key, value in inputs.items()})
        for key, values in expected.items():
            if not _close(outputs.get(key), values[index]):
                raise ConfigError(
                    f"bundle {path}: section {name} does not reproduce its golden output {key}; "
                    "this file or this LiteRT computes something else: export the bundle again"
                )


def _close(got: NDArray[np.generic] | None, expected: NDArray[np.generic]) -> bool:
    return (
        got is not None
        and expected.dtype.kind == "f"
        and got.shape == expected.shape
        and np.allclose(got, expected, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
    )


def write_golden(path: Path, vectors: dict[str, NDArray[np.generic]]) -> BundleFile:
    """Write golden vectors; see `_read_golden` for the names."""
    with (path / GOLDEN).open("wb") as file:
        np.savez_compressed(file, **vectors)  # type: ignore[arg-type]
    return file_entry(path / GOLDEN)


def file_entry(file: Path) -> BundleFile:
    return BundleFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Write the manifest last, so that a bundle without one is known as unfinished; its id."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    fresh = path / (MANIFEST + ".new")
    fresh.write_bytes(data)
    fresh.replace(path / MANIFEST)
    return hashlib.sha256(data).hexdigest()[:ID_CHARS]
