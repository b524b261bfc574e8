"""Class maps of a nuScenes root from a TFLite segmenter trained on Cityscapes, for `--masks semantic`.

pip install ai-edge-litert pillow numpy
python tools/class_maps.py ROOT MODEL.tflite FOLDER
"""

import argparse
import json
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

LEGEND = {11: "pedestrian", 13: "car", 14: "truck", 15: "bus", 17: "motorcycle", 18: "bicycle"}
"""Class numbers of Cityscapes; riders (12) have none of their own in nuScenes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    segmenter = Interpreter(str(given.model))
    segmenter.allocate_tensors()
    (question,), (answer,) = segmenter.get_input_details(), segmenter.get_output_details()
    _, height, width, _ = question["shape"]
    images = sorted(given.root.glob("samples/CAM_*/*.jpg"))
    if not images:
        raise SystemExit(f"{given.root} has no images samples/CAM_*/*.jpg")
    for path in images:
        image = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        segmenter.set_tensor(question["index"], np.asarray(image, dtype=np.uint8)[None])
        segmenter.invoke()
        classes = segmenter.get_tensor(answer["index"])[0].astype(np.uint8)
        target = (given.folder / path.relative_to(given.root)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(classes).save(target)
    (given.folder / "classes.json").write_text(json.dumps(LEGEND) + "\n")
    print(f"{len(images)} class maps in {given.folder}")


if __name__ == "__main__":
    main()
