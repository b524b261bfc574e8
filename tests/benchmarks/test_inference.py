from dataclasses import replace

from benchmarks.inference import inference_rows
from dualdistill.recipes.catalogue import find
from tests.models.camera_batches import students


def test_every_deployed_form_gives_the_live_students_maps():
    config = students()["distill, one frame"]
    data = replace(find("synthetic/student").build().data, image_size=(32, 96), num_frames=1)
    rows = inference_rows(config, data, repeats=1, compiled=False)
    assert rows[0].name == "eager fp32"
    for row in rows[1:]:
        allowed = 5e-2 if "bf16" in row.name else 1e-4
        assert row.difference is not None
        assert row.difference < allowed, row
