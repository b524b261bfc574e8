"""Losses from a cached teacher are those of the live one."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dualdistill import files
from dualdistill.commands.options.training import Resume, Train
from dualdistill.commands.train import resume_training, start_training
from dualdistill.data.collate import collate
from dualdistill.errors import UserError
from dualdistill.structures import Batch, BevOutput, Boxes, HeadOutput, SampleMeta
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.step import LiveTeacher
from dualdistill.train.teacher_cache import TeacherCache, flips_of, still_missing
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER

RECIPE = "synthetic/dualdistill-centerpoint"
SETS = [*TINY_TEACHER, *TINY_STUDENT, *STEPS]


def losses_of(path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in RunFolder.open(path).metrics.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name.startswith("loss")} for line in lines]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 1e-2), ("bf16", 3e-2)])
def test_losses_taught_from_memory_are_those_taught_live(runs, world, console, tmp_path, precision, tolerance):
    sets = [*SETS, f"training.cache_precision={precision}"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 1, "workers": 0, "teacher": runs["teacher"]}
    path = start_training(console, Train(RECIPE, teacher_cache=tmp_path / "cache", **given))
    # The first step: later ones amplify rounding by the optimiser.
    assert losses_of(path)[0] == pytest.approx(losses_of(runs["distilled"])[0], rel=tolerance, abs=1e-5)
    told = " ".join(console.file.getvalue().split())  # the console breaks lines where it likes
    assert "samples x 2 flips x" in told
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert {file.stem.rpartition("-")[2] for file in files} == {"", "x"}
    if precision != "fp32":
        return
    # A second training finds everything, and so does a resumed one.
    written = [file.stat().st_mtime_ns for file in files]
    start_training(console, Train(RECIPE, teacher_cache=tmp_path / "cache", **given))
    (path / "finished.json").unlink()
    resume_training(console, Resume(path, workers=0))
    assert [file.stat().st_mtime_ns for file in files] == written
    assert sorted((tmp_path / "cache").rglob("*.safetensors")) == files


def test_a_teacher_in_bf16_differs_from_float32_by_the_rounding_of_its_layers(runs, world):
    trained = LoadedDetector.load(weights_of(runs["teacher"], "last"))
    dataset = trained.dataset(trained.index(world, None), "val")
    batch = collate([dataset[0, 0], dataset[0, 1]])
    exact, rounded = (LiveTeacher(trained.detector, precision)(batch) for precision in ("fp32", "bf16"))
    # A convolution rounds its input, its weights and its output, by at most 2^-9 of each.
    layers = sum(isinstance(module, nn.Conv2d) for module in trained.detector.modules())
    for want, came in zip((*exact.stages, exact.neck), (*rounded.stages, rounded.neck), strict=True):
        assert not torch.equal(came.float(), want)
        assert (came.float() - want).norm() <= layers * 3 * 2**-9 * want.norm()


def test_a_student_is_trained_with_a_teacher_in_bf16(runs, world, console, tmp_path):
    sets = [*SETS, "training.teacher_precision=bf16"]
    given = {"data": world, "out": tmp_path, "overrides": sets, "seed": 1, "workers": 0, "teacher": runs["teacher"]}
    halved, live = losses_of(start_training(console, Train(RECIPE, **given)))[0], losses_of(runs["distilled"])[0]
    own = [name for name in live if name.startswith(("loss/heatmap", "loss/box", "loss/depth"))]
    assert [halved[name] for name in own] == pytest.approx([live[name] for name in own], rel=1e-5)
    assert halved["loss/mfd/neck/foreground"] != live["loss/mfd/neck/foreground"]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.bev_augmentation.rotation=-0.1,0.1"], "data.bev_augmentation.rotation=0,0"),
        (["data.bev_augmentation.scale=0.9,1.1"], "data.bev_augmentation.scale=1,1"),
        (["data.random_sweeps=true"], "data.random_sweeps=false"),
    ],
)
def test_what_is_drawn_anew_each_epoch_is_refused_with_the_setting_to_change(
    runs, world, console, tmp_path, sets, message
):
    with pytest.raises(UserError, match=f"--set {message}"):
        start_training(
            console,
            Train(
                RECIPE,
                data=world,
                out=tmp_path / "runs",
                overrides=[*SETS, *sets],
                seed=0,
                teacher=runs["teacher"],
                teacher_cache=tmp_path / "cache",
            ),
        )
    assert not any(tmp_path.iterdir())


def test_a_student_without_a_teacher_has_nothing_to_cache(world, console, tmp_path):
    with pytest.raises(UserError, match="does not distil"):
        start_training(
            console,
            Train("synthetic/student", data=world, out=tmp_path, overrides=[], seed=0, teacher_cache=tmp_path / "c"),
        )


def head(neck: torch.Tensor) -> HeadOutput:
    raise AssertionError("no test applies the head")


def answer(samples: int = 2) -> BevOutput:
    return BevOutput(
        extent=(-4.0, -4.0, 4.0, 4.0),
        canvas=torch.randn(samples, 3, 8, 8),
        stages=(torch.randn(samples, 4, 8, 6), torch.randn(samples, 5, 4, 4)),
        neck=torch.randn(samples, 7, 4, 4),
        predictions=HeadOutput(heatmap=torch.randn(samples, 10, 4, 4), regression=torch.randn(samples, 6, 10, 4, 4)),
        head=head,
    )


def batch(*flips: tuple[bool, bool]) -> Batch:
    matrices = [torch.diag(torch.tensor([-1.0 if x else 1.0, -1.0 if y else 1.0, 1.0, 1.0])) for x, y in flips]
    nowhere = torch.eye(4, dtype=torch.float64)
    return Batch(
        boxes=(Boxes.empty(),) * len(flips),
        augmented_from_bev=torch.stack(matrices),
        meta=tuple(
            SampleMeta(token=f"token{n}", timestamp_us=0, global_from_bev=nowhere, ego_from_bev=nowhere)
            for n in range(len(flips))
        ),
    )


def test_each_flip_has_an_answer_of_its_own_and_what_is_not_kept_cannot_be_mistaken(tmp_path):
    plain, mirrored = answer(), answer()
    cache = TeacherCache(tmp_path, {"teacher": "a"}, plain, ("stage1", "neck"), "fp32")
    straight, flipped = batch((False, False), (False, False)), batch((True, False), (True, True))
    cache.write(straight, plain)
    cache.write(flipped, mirrored)
    for asked, wrote in ((straight, plain), (flipped, mirrored)):
        came = cache.output(cache.load(asked), head)
        assert torch.equal(came.neck, wrote.neck)
        assert torch.equal(came.stages[1], wrote.stages[1])
        assert torch.equal(came.predictions.heatmap, wrote.predictions.heatmap)
        assert torch.equal(came.predictions.regression, wrote.predictions.regression)
        assert came.canvas.shape == wrote.canvas.shape
        assert came.stages[0].shape == wrote.stages[0].shape
        assert came.canvas.isnan().all()
        assert came.stages[0].isnan().all()
    size = sum(file.stat().st_size for file in cache.folder.rglob("*.safetensors")) / 4
    assert size == pytest.approx(cache.bytes_of_one, abs=1500)  # a header each
    with pytest.raises(UserError, match="lacks"):
        cache.load(batch((False, True)))
    cache.path("token0", (False, False)).write_bytes(b"torn")
    with pytest.raises(UserError, match="delete the file"):
        cache.load(straight)


def test_caches_of_other_teachers_data_or_precision_lie_apart(tmp_path):
    def folder(identity, maps, precision):
        return TeacherCache(tmp_path, identity, answer(), maps, precision).folder

    folders = {
        folder({"teacher": "a"}, ("neck",), "bf16"),
        folder({"teacher": "b"}, ("neck",), "bf16"),
        folder({"teacher": "a"}, ("neck", "stage1"), "bf16"),
        folder({"teacher": "a"}, ("neck",), "fp16"),
    }
    assert len(folders) == 4
    assert folder({"teacher": "a"}, ("neck",), "bf16") in folders


def test_trainings_side_by_side_make_each_answer_once(tmp_path):
    def numbers(batches):
        return [number for batch in batches for _, number in batch]

    cache, tokens, flip = (
        TeacherCache(tmp_path, {}, answer(), ("neck",), "bf16"),
        list("abcdefghij"),
        (False, True),
    )
    items = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert sorted(numbers(still_missing(cache, tokens, flip, items))) == items
    mine = still_missing(cache, tokens, flip, items)
    begun = next(mine)
    made_by_another = [number for number in items if number % 2]
    for number in made_by_another:
        path = cache.path(tokens[number], flip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(numbers([begun, *mine])) == sorted({*items} - {*made_by_another} | {*numbers([begun])})


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    cache = TeacherCache(tmp_path, {}, answer(), ("neck",), "bf16")
    monkeypatch.setattr(files, "disk_usage", lambda path: type("Usage", (), {"free": 10_000}))
    cache.bytes_of_one = 1000
    cache.require_room(9)
    with pytest.raises(UserError, match=r"\(10 more files\) needs 10.2 kB in .*, whose disk has 10 kB"):
        cache.require_room(10)


def test_a_turned_batch_is_no_flip():
    turned = replace(batch((False, False)), augmented_from_bev=torch.eye(4)[None] + 0.01)
    with pytest.raises(ValueError, match="rotated, scaled or moved"):
        flips_of(turned)
    assert flips_of(batch((True, False), (False, True), (True, True), (False, False))) == [
        (True, False),
        (False, True),
        (True, True),
        (False, False),
    ]


def test_half_precision_is_that_of_the_features_alone(tmp_path):
    said = answer()
    cache = TeacherCache(tmp_path, {}, said, ("neck",), "bf16")
    cache.write(batch((False, False), (False, False)), said)
    came = cache.output(cache.load(batch((False, False), (False, False))), head)
    assert came.neck.dtype == torch.bfloat16
    assert_close(came.neck.float(), said.neck, rtol=4e-3, atol=0)
    assert torch.equal(came.predictions.heatmap, said.predictions.heatmap)
