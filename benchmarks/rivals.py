"""What the hierarchy is compared with: pictures sent to the cloud, raw and as JPEG.

The cloud then has an undistributed network of the same layers with float features and one exit,
trained as long on the same samples. It classifies what comes out of the JPEG decoder. A camera
that does not see the object sends nothing. Sizes below the section's input are enlarged again in
the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.data import Dataset, Split
from ddnn.exits.hierarchy import Hierarchy
from ddnn.exits.measure import compute_accuracy

QUALITIES, SIZES_PX = (10, 20, 40, 60, 90), (16, 32)
PIECE = 250

Images = NDArray[np.uint8]


def train_undistributed(dataset: Dataset, hierarchy: Hierarchy, recipe: Any) -> Any:
    """The network with one exit, of the recipe's layers and settings."""
    import msgspec

    from ddnn.training.fit import fit
    from ddnn.training.models import Network
    from ddnn.training.train import make_batches

    members = len(hierarchy.devices)
    network = Network(
        hierarchy, recipe.architecture, dataset.image_shape, len(dataset.classes), binary=False
    )
    settings = msgspec.structs.replace(recipe.fit, weights={"cloud": 1.0}, distillation="off")
    fit(network, make_batches(dataset, members), settings)
    return network


def measure_network(network: Any, images: Images, split: Split) -> float:
    """The accuracy of the network's deepest exit on images in place of the split's."""
    scores = [
        np.asarray(
            network(
                part.astype(np.float32),
                np.ones((len(part), len(network.hierarchy.devices)), np.float32),
                training=False,
            )["cloud"]
        )
        for part in (images[i : i + PIECE] for i in range(0, len(images), PIECE))
    ]
    return compute_accuracy(np.concatenate(scores), split.labels)


def measure_pictures(
    network: Any,
    split: Split,
    qualities: Sequence[int] = QUALITIES,
    sizes_px: Sequence[int] = SIZES_PX,
) -> list[dict[str, Any]]:
    """Accuracy against bytes per sample and device of raw pictures and of JPEG, as rows."""
    members = len(network.hierarchy.devices)
    images = split.images[:, :members]
    seen = float((split.view_labels[:, :members] >= 0).mean())
    raw = int(np.prod(images.shape[2:])) * seen
    rows: list[dict[str, Any]] = [
        {"sent": "raw", "bytes": raw, "accuracy": measure_network(network, images, split)}
    ]
    for size_px in sizes_px:
        for quality in qualities:
            received, size = transmit_as_jpeg(images, quality, size_px)
            rows.append(
                {
                    "sent": "jpeg",
                    "quality": quality,
                    "size_px": size_px,
                    "bytes": size,
                    "accuracy": measure_network(network, received, split),
                }
            )
    return rows


def transmit_as_jpeg(images: Images, quality: int, size_px: int) -> tuple[Images, float]:
    """The images [..., height, width, 3] as they leave a decoder, and the mean bytes of a view.

    A black image is a view that sees nothing: it stays black and costs nothing.
    """
    from PIL import Image

    flat = images.reshape(-1, *images.shape[-3:])
    received, sent = np.zeros_like(flat), 0
    height, width = flat.shape[1:3]
    for number in np.flatnonzero(flat.any(axis=(1, 2, 3))):
        picture, buffer = Image.fromarray(flat[number]), BytesIO()
        if size_px < width:
            picture = picture.resize((size_px, size_px * height // width), Image.Resampling.BOX)
        picture.save(buffer, "JPEG", quality=quality)
        sent += buffer.tell()
        with Image.open(buffer) as decoded:
            back = decoded.resize((width, height), Image.Resampling.BILINEAR)
        received[number] = np.maximum(np.asarray(back), 1)  # zero is for views that see nothing
    return received.reshape(images.shape), sent / len(flat)


def find_wins(exits: Sequence[dict[str, Any]], pictures: Sequence[dict[str, Any]]) -> list[Any]:
    """The rows of JPEG that surpass every row of the front: fewer or as many bytes, more
    accurate."""
    return [
        row
        for row in pictures
        if row["sent"] == "jpeg"
        and all(
            row["accuracy"] > other["accuracy"]
            for other in exits
            if other["total_bytes_per_sample_per_device"] <= row["bytes"]
        )
        and any(other["total_bytes_per_sample_per_device"] <= row["bytes"] for other in exits)
    ]
