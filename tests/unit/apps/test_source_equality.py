"""A section sees the same array of one picture by every path: training, evaluation, sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddnn.core.preprocessing import Preprocessing, Roi
from ddnn.data import FolderRequest, load_samples
from ddnn.errors import ConfigError
from ddnn.exits.manifest import Manifest
from ddnn.runtime.pictures import make_input, read_picture
from device_app.settings import DeviceSettings
from device_app.sources import open_source
from device_app.target import make_input_format
from tests.integration.video_file import need_opencv
from tests.unit.exits.exit_builders import make_manifest

SHAPE = (32, 32, 3)
ROI = Roi(0.25, 0.1, 0.5, 0.8)
WAYS = [
    Preprocessing(fit="stretch"),
    Preprocessing(fit="crop"),
    Preprocessing(fit="stretch", rois={"cam2": ROI}),
    Preprocessing(fit="crop", rois={"cam2": ROI}),
]


def write_cameras(path: Path, picture: Image.Image, ending: str = "png", **options: object) -> Path:
    for camera in ("cam1", "cam2"):
        for label in ("down", "up"):
            folder = path / camera / label
            folder.mkdir(parents=True)
            picture.save(folder / f"0.{ending}", **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("way", WAYS)
def test_every_path_gives_the_section_the_same_array(way: Preprocessing, tmp_path: Path) -> None:
    """Folder, arrays, data set on a device, directory, video and camera, of a picture of 16:9."""
    cv2 = need_opencv()
    pixels = np.random.default_rng(0).integers(1, 256, (90, 160, 3), np.uint8)
    path = write_cameras(tmp_path / "photos", Image.fromarray(pixels))
    np.savez(tmp_path / "own.npz", images=np.tile(pixels, (2, 2, 1, 1, 1)), labels=[0, 1])
    video = cv2.VideoWriter(
        str(tmp_path / "lossless.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 10, (160, 90)
    )
    video.write(np.ascontiguousarray(pixels[:, :, ::-1]))
    video.release()
    manifest = describe_inputs(way)
    settings = DeviceSettings(node="cam2", bundle="b", source="video:x")
    input_format = make_input_format(settings, manifest)._replace(classes=None)
    folders = FolderRequest(("cam1", "cam2"), {}, None, way)

    expected = load_samples(f"directory:{path}", folders=folders).images[0, 1]
    assert expected.shape == SHAPE
    arrays = load_samples(f"npz:{tmp_path / 'own.npz'}", folders=folders).images[1, 1]
    np.testing.assert_array_equal(arrays, expected)
    for uri in (
        f"directory:{path / 'cam2' / 'up'}",
        f"dataset:directory:{path}",
        f"dataset:npz:{tmp_path / 'own.npz'}",
    ):
        frame = open_source(uri, 1, SHAPE, input_format).read_frame(5)
        np.testing.assert_array_equal(frame.image, expected, err_msg=uri)
    for bgr in (False, True):  # a camera delivers an array, in one of two orders of channels
        picture = np.ascontiguousarray(pixels[:, :, ::-1] if bgr else pixels)
        frame = make_input(picture, SHAPE, input_format.preprocessing, input_format.roi, bgr=bgr)
        np.testing.assert_array_equal(frame, expected)
    source = open_source(f"video:{tmp_path / 'lossless.avi'}", 1, SHAPE, input_format)
    image = source.read_frame(7).image
    np.testing.assert_allclose(image.astype(int), expected, atol=2)  # YUV inside the video


def test_a_picture_is_read_upright(tmp_path: Path) -> None:
    """As every viewer shows it: cameras that are mounted overhead write EXIF orientation 3."""
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[:32] = 200
    for orientation, stored in (
        (3, Image.fromarray(pixels).rotate(180)),
        (6, Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = tmp_path / f"{orientation}.jpg"
        stored.save(file, exif=exif, quality=95)
        picture = read_picture(file).astype(int)
        assert picture.shape == pixels.shape
        assert np.abs(picture - pixels).mean() < 2


def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        picture = read_picture(tmp_path / name)
        np.testing.assert_array_equal(picture[..., 0], np.rint(ramp / 257))
        assert picture.shape == (64, 64, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_an_unknown_range_are_refused(dtype: type, tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ConfigError, match=r"a\.tif.*8 or 16 bits: convert"):
        read_picture(tmp_path / "a.tif")


def test_transparent_pixels_show_the_background(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (9, 9, 9, 255)
    pixels[1, 1, 3] = 51
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")[..., 0]
    np.testing.assert_array_equal(picture, [[9, 255], [255, 204]])
    assert read_picture(tmp_path / "a.png", (7, 8, 9))[0, 1].tolist() == [7, 8, 9]
    palette = Image.new("P", (2, 2))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_picture(tmp_path / "p.png")[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr"])
def test_pictures_of_every_mode_become_rgb(mode: str, tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    file = tmp_path / ("a.png" if mode not in ("CMYK", "YCbCr") else "a.tif")
    Image.fromarray(pixels).convert(mode).save(file)
    picture = read_picture(file)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - pixels).max() <= 2


def test_a_region_of_the_device_takes_the_place_of_the_bundles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = describe_inputs(WAYS[2])
    own = make_input_format(DeviceSettings(node="cam2", bundle="b", source="video:x"), manifest)
    assert own.roi == ROI
    assert not caplog.records
    settings = DeviceSettings(node="cam2", bundle="b", source="video:x", roi="0,0,0.5,1")
    assert make_input_format(settings, manifest).roi == (0, 0, 0.5, 1)
    assert "trained with 0.25,0.1,0.5,0.8" in caplog.text


def describe_inputs(way: Preprocessing) -> Manifest:
    return make_manifest("c", 2, preprocessing=way, cameras={"cam1": "cam1", "cam2": "cam2"})
