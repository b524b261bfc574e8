"""Images of a user's own cameras that are no such images, or not the rig's."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.robust.cases.case import Build, Case, png
from tests.robust.cases.rigs import rig
from tests.robust.places import Places

SIZE = (160, 90)


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _noise(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    return _saved(Image.fromarray(pixels), form)


IMAGES: dict[str, Callable[[], bytes]] = {
    "16 bits": lambda: _saved(Image.fromarray(np.full(SIZE[::-1], 40_000, np.uint16)), "PNG"),
    "32 bits": lambda: _saved(Image.fromarray(np.full(SIZE[::-1], 70_000, np.int32)), "TIFF"),
    "numbers with points": lambda: _saved(Image.fromarray(np.ones(SIZE[::-1], np.float32)), "TIFF"),
    "a film": lambda: _saved(Image.new("L", SIZE), "GIF", save_all=True, append_images=[Image.new("L", SIZE, 99)]),
    "one pixel": lambda: _saved(Image.new("RGB", (1, 1)), "PNG"),
    "a larger one": lambda: _saved(Image.new("RGB", (320, 180)), "JPEG"),
    "upright": lambda: _saved(Image.new("RGB", SIZE[::-1]), "JPEG"),
    "a bomb": lambda: png(100_000, 100_000),
    "a drawing": lambda: b"<svg width='160' height='90'/>",
    "empty": lambda: b"",
    "JPEG, two bytes": lambda: _noise("JPEG")[:2],
    "JPEG, its header": lambda: _noise("JPEG")[:200],
    "JPEG, half": lambda: _noise("JPEG")[:3000],
    "JPEG, without its end": lambda: _noise("JPEG")[:-200],
    "JPEG, another coding": lambda: b"\xff\xd8\xff\xc9\x00\x11\x08\x00\x5a\x00\xa0\x03" + bytes(40),
    "PNG, half": lambda: _noise("PNG")[:3000],
    "PNG, bits changed": lambda: _noise("PNG")[:3000] + b"\xff" * 100 + _noise("PNG")[3100:],
}


def own_images() -> Iterator[Case]:
    """Files given to `predict --images`, and folders of them."""
    for what, content in IMAGES.items():
        yield Case("7 own images", what, _given({"front.img": content()}, "front.img"), ("front.img",))
    folder = ("should hold NAME.jpg",)
    image = _noise("PNG")
    for what, files in {
        "an empty folder": {},
        "a folder of other names": {"back.png": image},
        "two files of a camera": {"front.png": image, "front.jpg": _noise("JPEG")},
        "an empty folder of a camera": {"front/": b""},
        "a name that ends with a space": {"front .png": image},
    }.items():
        yield Case("7 own images", what, _given(files, ""), folder)
    yield Case("7 own images", "a folder as an image", _given({"front.png/": b""}, ""), ("front.png", "folder"))
    yield Case("7 own images", "missing", _given({}, "front.png"), ("front.png", "check the path"))
    two = ("expected one image each",)
    yield Case("7 own images", "two for one camera", _given({"a.png": image, "b.png": image}, "a.png", "b.png"), two)


def _given(files: dict[str, bytes], *names: str) -> Build:
    def build(at: Places) -> list[str]:
        folder = at.new()
        for name, content in files.items():
            path = folder / name
            path.mkdir() if name.endswith("/") else path.write_bytes(content)
        calibration = at.new() / "rig.json"
        calibration.write_text(json.dumps(rig()))
        images = [part for name in names for part in ("--images", str(Path(folder, name)))]
        return ["predict", str(at.run()), "--calibration", str(calibration), *images]

    return build
