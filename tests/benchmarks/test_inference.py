from benchmarks.inference import inference_rows
from tests.models.camera_batches import students


def test_every_deployed_form_answers_as_the_live_student():
    config = students()["distill, one frame"]
    rows = inference_rows(config, (32, 96), repeats=1, compiled=False)
    assert rows[0].name == "eager fp32"
    for row in rows[1:]:
        allowed = 5e-2 if "bf16" in row.name else 1e-4
        assert row.difference is not None
        assert row.difference < allowed, row
