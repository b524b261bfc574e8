"""Boxes in your own images: python predict.py RUN rig.json front_left.jpg front.jpg ..."""

import sys

import numpy as np
from PIL import Image

import dualdistill as dd

student = dd.load(sys.argv[1])  # a run, a weights file, "zoo:NAME", "hf:owner/name"
rig = dd.Rig.read(sys.argv[2])  # docs/export.md shows the file
images = [np.asarray(Image.open(file).convert("RGB")) for file in sys.argv[3:]]
boxes = student.predict(images, rig, min_score=0.3)
for label, score, (x, y, _) in zip(boxes.label, boxes.score, boxes.center, strict=True):
    print(f"{student.classes[label]:12} {score:.2f}  {x:6.1f} m right {y:6.1f} m forward")
