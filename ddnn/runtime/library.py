"""The bundles on a node's disk: the one that it was started with, and those that were rolled out.

    STATE/NODE.bundles/<id>/     a bundle, whole: it is written beside and renamed
    STATE/NODE.bundles/in-use    which bundle the node changed to last, and in the place of which

The bundle that was rolled out counts until the node is started with another one than before.

Disk use is bounded: only the bundle in use, the one before and the one being made ready are kept.
"""

from __future__ import annotations

import hashlib
import io
import logging
import lzma
import math
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ddnn.core.section import BundleKey, Section
from ddnn.errors import ConfigError, DdnnError
from ddnn.exits.manifest import Manifest
from ddnn.exits.trial import try_sample
from ddnn.protocol.machine import SectionName
from ddnn.protocol.messages import BundleId, Seconds
from ddnn.protocol.rollout_messages import MAX_ARCHIVE_BYTES, BundleOrder
from ddnn.runtime.bundle import MANIFEST, Bundle, load_bundle, read_manifest
from ddnn.runtime.new_directory import require_space, write_directory
from ddnn.runtime.settings import NodeSettings
from ddnn.runtime.whole_file import flush_directory, write_whole

log = logging.getLogger(__name__)

IN_USE = "in-use"
KEEP = 3  # bundles: in use, before, being made ready
MAX_FILES = 1000
MAX_IN_USE_BYTES = 4096
MAX_UNPACKED_BYTES = 4 * MAX_ARCHIVE_BYTES


class InUse(msgspec.Struct, frozen=True):
    """The bundle that a node changed to, the one that it was started with, and when the order was
    given (wall time)."""

    bundle: BundleId
    instead_of: BundleId
    given_at_s: Seconds


def pack_bundle(path: Path) -> bytes:
    """The archive of a bundle: the files that its manifest names, always the same bytes.

    Raises ConfigError where a file is missing or the archive is larger than what can be rolled out.
    """
    manifest, _ = read_manifest(path)
    entries = (manifest.golden, *manifest.sections.values())
    files = {MANIFEST, *(entry.file for entry in entries)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=6) as archive:
        for name in sorted(files):
            if not (path / name).is_file():
                raise ConfigError(f"bundle {path}: there is no {name}; make or copy it again")
            data = (path / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    if buffer.tell() > MAX_ARCHIVE_BYTES:
        raise ConfigError(
            f"bundle {path}: its archive has {buffer.tell()} bytes; at most {MAX_ARCHIVE_BYTES} "
            "can be rolled out: copy it to the machines and restart the nodes"
        )
    return buffer.getvalue()


def unpack_bundle(archive: bytes, path: Path) -> None:
    """Write the files of an archive, which are plain files in one directory. Raises ConfigError."""
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as members:
            for number, member in enumerate(members):
                total += member.size
                name = Path(member.name).name
                if number >= MAX_FILES or total > MAX_UNPACKED_BYTES:
                    raise ConfigError("the archive is too large")
                if not member.isreg() or name != member.name or name.startswith("."):
                    raise ConfigError(f"the archive has {member.name[:80]!r}, no plain file")
                file = members.extractfile(member)
                with (path / name).open("xb") as out:
                    shutil.copyfileobj(file, out)  # type: ignore[arg-type]
                    out.flush()
                    os.fsync(out.fileno())
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise ConfigError(f"the archive cannot be unpacked: {error}") from None


class BundleLibrary:
    """Implements ddnn.machines.rollout.Library; methods are called in several threads."""

    def __init__(
        self,
        state: Path,
        node: str,
        started: Bundle,
        load_section: Callable[[Path], Section],
        list_sections: Callable[[Manifest], Sequence[str]],
        given: Path | None = None,
        *,
        load_other: Callable[[SectionName], Section] | None = None,
        changed: Callable[[str, Manifest], None] = lambda bundle, manifest: None,
    ) -> None:
        """started: the bundle that the node runs. list_sections: those of this node.

        given: the bundle that the node was told to use; by default the one that it runs.
        load_other: loads sections that are of no bundle. changed: called with the bundle that the
        node has changed to, and its manifest
        """
        self._root = state / f"{node}.bundles"
        self._started, self._load_section = started, load_section
        self._given_path = given or started.path
        self._given = read_manifest(self._given_path)[1]
        used = read_in_use(self._root)
        self.done_until_s = -math.inf
        if used is not None and used.instead_of != self._given:
            self.done_until_s = used.given_at_s
        self._list_sections, self._load_other = list_sections, load_other
        self._changed = changed
        self._ready: dict[BundleKey, Section] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls,
        settings: NodeSettings,
        started: Bundle,
        load_section: Callable[[Path], Section],
        list_sections: Callable[[Manifest], Sequence[str]],
        **more: Any,
    ) -> BundleLibrary:
        """The library of a node with these settings."""
        state, given = Path(settings.state), Path(settings.bundle)
        return cls(state, settings.node, started, load_section, list_sections, given, **more)

    def find(self, bundle: str) -> Manifest | None:
        """The manifest of a bundle on this disk that can be used; None where there is none."""
        for path, _ in self._locate(bundle):
            try:
                return self._open(path)
            except DdnnError as error:
                log.warning("bundle %s cannot be used: %s", path, error)
        return None

    def add(self, order: BundleOrder, archive: bytes) -> Manifest:
        """Check an archive and keep its bundle. Raises ConfigError where it cannot be used."""
        digest = hashlib.sha256(archive).hexdigest()
        if digest != order.sha256 or len(archive) != order.size_bytes:
            raise ConfigError(
                f"the archive has sha256 {digest[:12]}…; the order names {order.sha256[:12]}…"
            )
        self._root.mkdir(parents=True, exist_ok=True)
        self._prune(order.bundle)
        target = self._root / order.bundle
        shutil.rmtree(target, ignore_errors=True)  # one that could not be used
        with write_directory(target) as fresh:
            require_space(fresh, 2 * len(archive))
            unpack_bundle(archive, fresh)
            bundle_id = read_manifest(fresh)[1]
            if bundle_id != order.bundle:
                raise ConfigError(f"the archive holds bundle {bundle_id}, not {order.bundle}")
            manifest = self._open(fresh)
        flush_directory(self._root)
        return manifest

    def load(self, key: SectionName) -> Section:
        """The section of a bundle that `find` or `add` has opened. Raises ConfigError."""
        with self._lock:
            section = self._ready.pop(key, None) if isinstance(key, BundleKey) else None
        if section is not None:
            return section
        if self._load_other is None or isinstance(key, BundleKey):
            raise ConfigError(f"section {key} is of no bundle that was rolled out")
        return self._load_other(key)

    def adopt(self, order: BundleOrder) -> None:
        """Note that the node uses the bundle of this order."""
        bundle = order.bundle
        for _, manifest in self._locate(bundle):
            self._changed(bundle, manifest)
            break
        self._root.mkdir(parents=True, exist_ok=True)
        used = InUse(bundle, self._given, order.given_at_s)
        write_whole(self._root / IN_USE, msgspec.json.encode(used))

    def _locate(self, bundle: str) -> Iterator[tuple[Path, Manifest]]:
        """The directories that hold a bundle on this disk, and its manifest."""
        paths = (self._root / bundle, self._started.path, self._given_path)
        for path in dict.fromkeys(paths):
            try:
                manifest, bundle_id = read_manifest(path)
            except ConfigError as error:
                if path.exists():
                    log.warning("bundle %s cannot be used: %s", path, error)
                continue
            if bundle_id == bundle:
                yield path, manifest

    def _open(self, path: Path) -> Manifest:
        """Load and check this node's sections, and run a sample through them."""
        names = self._list_sections(read_manifest(path)[0])
        bundle = load_bundle(path, self._load_section, names)
        try_sample(bundle.manifest, bundle.sections)
        check_change(self._started.manifest, bundle.manifest)
        with self._lock:  # of one bundle at a time: the one before was not taken
            self._ready = {BundleKey(bundle.id, n): s for n, s in bundle.sections.items()}
        return bundle.manifest

    def _prune(self, coming: str) -> None:
        """Remove bundles that are neither in use, nor the newest others."""
        used = read_in_use(self._root)
        kept = {coming, used.bundle if used else ""}
        others = [path for path in self._root.iterdir() if path.is_dir() and path.name not in kept]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEEP - 2 :]:
            shutil.rmtree(path, ignore_errors=True)


def check_change(before: Manifest, after: Manifest) -> None:
    """Raise ConfigError where a running site cannot change from one bundle to another."""
    remedy = "stop the site's nodes and start them with the new bundle"
    if before.hierarchy.devices != after.hierarchy.devices:
        raise ConfigError(f"it is for other cameras than the one in use; {remedy}")
    if before.hierarchy.edges != after.hierarchy.edges:
        raise ConfigError(f"it is for other edges than the one in use; {remedy}")
    if (before.image_shape, before.preprocessing) != (after.image_shape, after.preprocessing):
        raise ConfigError(f"it takes pictures of another size or kind; {remedy}")
    if before.classes != after.classes:
        raise ConfigError(f"it knows other classes than the one in use; {remedy}")


def find_bundle_path(state: Path, node: str, given: Path) -> Path:
    """The bundle that a node uses: the one that was rolled out to it in the place of `given`, else
    `given`. ConfigError where that is no bundle."""
    root = state / f"{node}.bundles"
    used = read_in_use(root)
    if used is None or used.instead_of != read_manifest(given)[1]:
        return given
    path = root / used.bundle
    if used.bundle == used.instead_of or not (path / MANIFEST).is_file():
        return given
    log.warning("using bundle %s, which was rolled out to this node, not %s", used.bundle, given)
    return path


def read_in_use(root: Path) -> InUse | None:
    """What the node changed to last; None where it did not, or the file is damaged."""
    try:
        with (root / IN_USE).open("rb") as file:
            return msgspec.json.decode(file.read(MAX_IN_USE_BYTES), type=InUse)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        log.warning("%s cannot be read: %s", root / IN_USE, error)
        return None
