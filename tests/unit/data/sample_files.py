"""Small generated files of every format."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = np.array(["apple", "car", "cow"])


def make_eth80(
    path: Path, *, objects: tuple[int, ...] = (1, 2, 3, 5), directions: int = 8, side: int = 64
) -> Path:
    generator = np.random.default_rng(1)
    pairs = [(label, number) for label in range(len(CLASSES)) for number in objects]
    labels, numbers = np.repeat(np.array(pairs, np.uint8), directions, axis=0).T
    images = generator.integers(1, 256, (len(labels), side, side, 3), np.uint8)
    first = np.arange(len(pairs))[:, None, None] * directions
    rigs = (first + (np.arange(4)[:, None] + np.arange(6)) % directions).reshape(-1, 6)
    np.savez_compressed(
        path,
        images=images,
        label=labels,
        object=numbers,
        classes=CLASSES,
        view_index=rigs.astype(np.int32),
    )
    return path


def make_mvmc(path: Path, *, samples: int = 40, side: int = 32) -> Path:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, (samples, 1))
    seen = generator.random((samples, 6)) < 0.6
    seen[:, 0] = True
    y = np.where(seen, labels, -1).astype(np.int32)
    x = generator.uniform(0.1, 1.0, (samples, 6, 3, side, side)).astype(np.float32)
    x[~seen] = 0
    np.savez_compressed(path, X=x, y=y)
    return path


def make_cifar10(path: Path, *, samples: int = 60, side: int = 32) -> Path:
    generator = np.random.default_rng(5)
    images = generator.integers(1, 256, (samples, side, side, 3), np.uint8)
    labels = np.sort(np.arange(samples) % 10).astype(np.uint8)
    files = []
    for image in images:
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    path.mkdir(parents=True)
    np.savez(
        path / "cifar10_train_jpeg.npz",
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        label=labels,
    )
    np.savez(path / "cifar10_test5000.npz", images=255 - images[:20], label=labels[:20])
    return path


def make_npz(path: Path, *, samples: int = 60, side: int = 8) -> Path:
    generator = np.random.default_rng(3)
    labels = np.arange(samples) % 3
    seen = generator.random((samples, 2)) < 0.7
    seen[:, 1] = True
    np.savez_compressed(
        path,
        images=generator.integers(1, 256, (samples, 2, side, side, 3), np.uint8),
        labels=labels,
        view_labels=np.where(seen, labels[:, None], -1),
        classes=CLASSES,
    )
    return path


def make_directory(path: Path) -> Path:
    generator = np.random.default_rng(4)
    for label in ("cat", "dog"):
        for number in range(20):
            for camera in ("camera1", "camera2", "camera10"):
                if camera != "camera2" and generator.random() < 0.3:
                    continue
                folder = path / camera / label
                folder.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(1, 256, (20, 30, 3), np.uint8)
                suffix = "jpg" if number % 2 else "png"
                Image.fromarray(pixels).save(folder / f"{number:03}.{suffix}")
    (path / "camera1" / "cat" / "notes.txt").write_text("not an image")
    (path / ".hidden").mkdir()
    return path
