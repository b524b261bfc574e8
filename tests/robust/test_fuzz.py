"""Whatever a file holds, its reader returns or raises UserError. `make soak` tries more (`ROBUST_EXAMPLES`)."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from dualdistill.convert.checkpoint_file import read_foreign
from dualdistill.data.augment import ImageView
from dualdistill.data.build import build_columns
from dualdistill.data.images import load_image
from dualdistill.data.sweeps import read_points
from dualdistill.deploy.calibration import Rig
from dualdistill.errors import UserError
from dualdistill.evaluate.submission import read_submission
from dualdistill.experiment.plain import from_plain, override, to_plain
from dualdistill.files import read_json
from dualdistill.models.checkpoints import load_weights, read_facts, save_weights
from dualdistill.recipes.catalogue import find
from dualdistill.train.metrics import read_metrics
from dualdistill.train.run_folder import RunFolder, RunRecord, Scores, WeightsFacts, read_scores
from dualdistill.train.teacher_cache import TeacherCache
from tests.commands.test_teacher_cache import answer, batch
from tests.data.tiny_root import write_root

EXAMPLES = int(os.environ.get("ROBUST_EXAMPLES", "30"))
often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
VIEW = ImageView(resize=1.0, crop=(0, 0), size=(90, 160))


def mutated(content: bytes, data: st.DataObject) -> bytes:
    """A file with bytes changed, cut out or put in."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        kind = data.draw(st.sampled_from(("change", "cut", "insert", "end")))
        if kind == "change" and changed:
            changed[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del changed[at : at + data.draw(st.integers(1, 64))]
        elif kind == "insert":
            changed[at:at] = data.draw(st.binary(max_size=16))
        else:
            del changed[at:]
    return bytes(changed)


def refusal(call: Callable[[], Any]) -> str | None:
    """The message of the UserError that a call raises; None without one."""
    try:
        call()
    except UserError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good file for each reader."""
    folder = tmp_path_factory.mktemp("originals")
    root = write_root(folder / "root", {"scene-0061": 2}, sweeps=False).path
    camera = {
        "name": "a",
        "intrinsics": [[9.0, 0, 5], [0, 9, 5], [0, 0, 1]],
        "lidar_from_camera": torch.eye(4).tolist(),
    }
    box = {"sample_token": "s", "translation": [1.0, 2, 3], "size": [1.0, 1, 1], "rotation": [1.0, 0, 0, 0]}
    box |= {"velocity": [0.0, 0], "detection_name": "car", "detection_score": 0.5, "attribute_name": ""}
    record = {
        "recipe": "r",
        "overrides": [],
        "seed": 0,
        "data": {"root": "", "version": "", "split": ""},
        "teacher": None,
    }
    record |= {"label_encoder": None, "teacher_cache": None, "log": [], "experiment": {}}
    contents = {
        "rig.json": {"image_size": [90, 160], "cameras": [camera]},
        "results.json": {"meta": {}, "results": {"s": [box]}},
        "experiment.json": record,
        "metrics.json": {"mean_ap": 0.1, "nd_score": 0.2, "tp_errors": {}, "mean_dist_aps": {"car": 0.1}},
        "metrics.jsonl": {"step": 1, "loss": 0.5},
    }
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    facts = record | {"role": "student", "step": 1}
    save_weights(folder / "weights.safetensors", nn.Linear(2, 3), facts)
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "foreign.pth")
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    files["cloud.bin"] = min((root / "samples" / "LIDAR_TOP").iterdir())
    files["image.jpg"] = min((root / "samples" / "CAM_FRONT").iterdir())
    return files


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "calibration": ("rig.json", lambda path: Rig.read(path, "lidar")),
    "results": ("results.json", read_submission),
    "run record": ("experiment.json", lambda path: read_json(path, RunRecord, "a run")),
    "scores": ("metrics.json", read_scores),
    "metrics": ("metrics.jsonl", read_metrics),
    "facts": ("weights.safetensors", lambda path: read_facts(path, WeightsFacts)),
    "weights": ("weights.safetensors", lambda path: load_weights(nn.Linear(2, 3), path)),
    "foreign": ("foreign.pth", read_foreign),
    "points": ("cloud.bin", read_points),
    "image": ("image.jpg", lambda path: load_image(path, VIEW, (90, 160))),
}


@pytest.mark.parametrize("name", READERS)
@often
@given(data=st.data())
def test_a_reader_raises_nothing_but_user_errors(
    originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    file, read = READERS[name]
    path = tmp_path_factory.getbasetemp() / f"fuzz-{file}"
    whole = data.draw(st.booleans())
    path.write_bytes(mutated(originals[file].read_bytes(), data) if whole else data.draw(st.binary(max_size=200)))
    message = refusal(lambda: read(path))
    assert message is None or str(path) in message


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("results", lambda content: content.replace(b'"car"', b'"c\x80r"')),
        ("metrics", lambda _: b"0"),
        ("foreign", lambda content: content[:231] + b"\x00" + content[232:]),
    ],
    ids=["text that is not UTF-8", "a number for a record", "a pickle with another byte"],
)
def test_damages_that_many_examples_found(
    originals: dict[str, Path], tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    file, read = READERS[name]
    path = tmp_path / file
    path.write_bytes(damage(originals[file].read_bytes()))
    message = refusal(lambda: read(path))
    assert message is None or str(path) in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", [RunRecord, Scores, WeightsFacts])
@often
@given(value=JSON)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, kind: Any, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    message = refusal(lambda: read_json(path, kind, "anything"))
    assert message is None or str(path) in message


@often
@given(data=st.data())
def test_any_experiment_is_read_or_refused(data: st.DataObject) -> None:
    plain = to_plain(find("synthetic/dualdistill-centerpoint").build())
    inner = plain
    while isinstance(inner, dict) and inner:
        key = data.draw(st.sampled_from(sorted(inner)))
        if not isinstance(inner[key], dict) or data.draw(st.booleans()):
            inner[key] = data.draw(JSON)
            break
        inner = inner[key]
    message = refusal(lambda: from_plain(plain))
    assert message is None or "experiment" in message


@often
@given(key=st.text(max_size=20), value=st.text(max_size=20) | st.floats().map(repr) | st.integers().map(str))
def test_any_override_is_taken_or_refused(key: str, value: str) -> None:
    base = find("synthetic/dualdistill-centerpoint").build()
    for name in (key, "training.steps", "data.image_size", "student.head.nms", "distiller.crd"):
        message = refusal(lambda name=name: override(base, [f"{name}={value}"]))
        assert message is None or "--set" in message


@pytest.mark.parametrize(
    "table", ["sample", "sample_data", "calibrated_sensor", "sample_annotation", "ego_pose", "instance"]
)
@often
@given(data=st.data())
def test_any_table_is_indexed_or_refused(
    tmp_path_factory: pytest.TempPathFactory, table: str, data: st.DataObject
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed-root"
    if not root.exists():
        write_root(root, {"scene-0061": 2}, sweeps=False)
    path = root / "v1.0-mini" / f"{table}.json"
    good = path.read_bytes()
    try:
        path.write_bytes(mutated(good, data))
        for _ in build_columns(root / "v1.0-mini"):
            pass
    except UserError:
        pass
    finally:
        path.write_bytes(good)


@often
@given(data=st.data())
def test_a_cached_answer_is_whole_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "answers"
    asked = batch((False, False))
    cache = TeacherCache(folder, {}, answer(1), ("neck",), "bf16")
    cache.write(asked, answer(1))
    path = cache.path("token0", (False, False))
    good = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        want = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path.write_bytes(changed := mutated(good, data))
    message = refusal(lambda: cache.load(asked))
    if message is not None:
        assert "teacher cache" in message
        return
    with safe_open(path, framework="pt") as file:
        assert all(torch.equal(file.get_tensor(name), value) for name, value in want.items()), changed == good


def test_runs_are_opened_or_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError):
            RunFolder.open(path)
