"""A bundle on disk: manifest.json, one file per section, golden vectors. Checked before use."""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ddnn.core.files import BundleFile
from ddnn.core.section import Section, is_close
from ddnn.errors import ConfigError, SectionError
from ddnn.exits.manifest import Manifest
from ddnn.runtime.whole_file import write_whole

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
ID_CHARS = 8
MAX_MANIFEST_BYTES = 64 << 20
MAX_FILE_BYTES = 1 << 30
MAX_GOLDEN_BYTES = 64 << 20
Document = TypeVar("Document", bound=msgspec.Struct)
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle. `id` is the first 8 hex digits of the manifest's sha256."""

    path: Path
    id: str
    manifest: Manifest
    sections: dict[str, Section]


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """Read the manifest of a bundle's directory; return it and the bundle's id."""
    return read_document(path / MANIFEST, Manifest, "a bundle", "ddnn train --out")


def read_document(
    file: Path, kind: type[Document], what: str, made_by: str
) -> tuple[Document, str]:
    """Read and check a JSON document at the root of a directory; return it and its id."""
    try:
        require_regular(file)
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_MANIFEST_BYTES} bytes, not {what}'s")
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file.parent} is not {what}: {error.strerror or error}; "
            f"expected a directory made by `{made_by}`"
        ) from None
    try:
        document = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file}: {error}; make or copy it again") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return document, compute_document_id(data)


def require_regular(file: Path) -> None:
    """Raise ConfigError for a device, a FIFO or a socket: reading it may never end."""
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ConfigError(f"{file} is no regular file; copy the bundle again")


def compute_document_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:ID_CHARS]


def load_bundle(
    path: Path,
    load_section: Callable[[Path], Section],
    names: Iterable[str] | None = None,
) -> Bundle:
    """Load and check the sections `names` (default: all): checksums first, then golden outputs."""
    manifest, bundle_id = read_manifest(path)
    wanted = sorted(manifest.sections) if names is None else list(names)
    sections = load_sections(path, manifest.sections, manifest.golden, load_section, wanted)
    return Bundle(path, bundle_id, manifest, sections)


def load_sections(
    path: Path,
    files: Mapping[str, BundleFile],
    golden_file: BundleFile,
    load_section: Callable[[Path], Section],
    names: Iterable[str],
) -> dict[str, Section]:
    """Load the sections `names` of a directory, and check each against its golden outputs."""
    names = list(names)
    for name in names:
        if name not in files:
            raise ConfigError(f"bundle {path} has no section {name!r}; it has {', '.join(files)}")
    golden = read_golden(check_file(path, golden_file))
    sections: dict[str, Section] = {}
    for name in names:
        file = check_file(path, files[name])
        try:
            section = load_section(file)
            _check_golden(path, name, section, golden)
        except SectionError as error:
            raise ConfigError(f"bundle {path}: section {name}: {error}") from None
        sections[name] = section
    return sections


def check_file(path: Path, entry: BundleFile) -> Path:
    """Check a file's name, size and checksum; return its path. Raises ConfigError."""
    if not _FILE_NAME.fullmatch(entry.file):
        raise ConfigError(f"bundle {path}: {entry.file!r} is not a plain file name")
    file = path / entry.file
    try:
        require_regular(file)
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"bundle {path}: {error.strerror}: {entry.file}") from None
    if digest != entry.sha256:
        raise ConfigError(
            f"bundle {path}: {entry.file} has sha256 {digest[:12]}…; the manifest expects "
            f"{entry.sha256[:12]}…: copy the bundle again"
        )
    return file


def read_golden(file: Path) -> dict[str, NDArray[np.generic]]:
    """Read the golden vectors: arrays named <section>/in/<name> and <section>/out/<name>."""
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise ConfigError(f"{file}: more than {MAX_GOLDEN_BYTES} bytes of golden vectors")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except ConfigError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise more than a dozen types
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{file}: unreadable golden vectors: {reason}") from None


def _check_golden(
    path: Path, name: str, section: Section, golden: dict[str, NDArray[np.generic]]
) -> None:
    def select_arrays(way: str) -> dict[str, NDArray[np.generic]]:
        prefix = f"{name}/{way}/"
        return {key[len(prefix) :]: golden[key] for key in golden if key.startswith(prefix)}

    inputs, expected = select_arrays("in"), select_arrays("out")
    arrays = [*inputs.values(), *expected.values()]
    count = arrays[0].shape[0] if arrays and arrays[0].ndim else 0
    if not inputs or not expected or not count or any(a.shape[:1] != (count,) for a in arrays):
        raise ConfigError(f"bundle {path}: no golden vectors for section {name}")
    for index in range(count):
        outputs = section({key: value[index] for key, value in inputs.items()})
        for key, values in expected.items():
            if not is_close(outputs.get(key), values[index]):
                raise ConfigError(
                    f"bundle {path}: section {name} does not reproduce its golden output {key}; "
                    "this file or this LiteRT computes something else: export the bundle again"
                )


def write_golden(path: Path, vectors: dict[str, NDArray[np.generic]]) -> BundleFile:
    """Write golden vectors; see `read_golden` for the names."""
    with (path / GOLDEN).open("wb") as file:
        np.savez_compressed(file, **vectors)  # type: ignore[arg-type]
    return make_file_entry(path / GOLDEN)


def make_file_entry(file: Path) -> BundleFile:
    return BundleFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest())


def write_manifest(path: Path, manifest: Manifest) -> str:
    """Write the manifest and return its id. Write it last: a bundle without one is incomplete."""
    return write_document(path / MANIFEST, manifest)


def write_document(file: Path, document: msgspec.Struct) -> str:
    """Write a JSON document atomically, and return its id."""
    data = msgspec.json.format(msgspec.json.encode(document), indent=1)
    write_whole(file, data, durable=False)
    return compute_document_id(data)
