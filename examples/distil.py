"""Distillation in a training loop of your own: detectors of any architecture, here with three classes."""

import torch
from your_detectors import batches, student, teacher

import dualdistill as dd

area = (-51.2, -51.2, 51.2, 51.2)  # what all BEV maps cover: x, y from, x, y to, metres
distill = dd.DualDistill(
    teacher=dd.Shapes(stages=((32, 32, 32), (64, 16, 16)), neck=(64, 32, 32), extent=area),
    student=dd.Shapes(stages=((24, 32, 32), (48, 16, 16)), neck=(48, 32, 32), extent=area),
    classes=3,
)
optimiser = torch.optim.AdamW([*student.parameters(), *distill.parameters()], lr=2e-4)
for points, images, boxes in batches(20):
    with torch.no_grad():
        stages, neck = teacher(points)
    teacher_maps = dd.Maps(stages=stages, neck=neck, head=teacher.head)
    stages, neck = student(images)
    student_maps = dd.Maps(stages=stages, neck=neck)
    loss = student.loss(neck, boxes) + distill(teacher_maps, student_maps, boxes)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"loss {loss.item():.3f}")
