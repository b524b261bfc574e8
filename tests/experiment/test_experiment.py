"""Experiments as records: round trips, overrides, differences."""

from dataclasses import replace

import pytest

from dualdistill.errors import UserError
from dualdistill.experiment.external import UnloadedMethod
from dualdistill.experiment.plain import differences, from_plain, override, to_plain
from dualdistill.recipes.catalogue import RECIPES, find


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name):
    experiment = RECIPES[name].build()
    assert from_plain(to_plain(experiment)) == experiment


def test_the_families_have_the_same_rows_save_those_of_size_and_of_two_frames():
    rows = {family: {n.split("/")[1] for n in RECIPES if n.startswith(family)} for family in ("nuscenes", "synthetic")}
    assert rows["synthetic"] <= rows["nuscenes"]
    assert all(
        name.endswith(("-r101", "-official", "-key-frame", "-0.075")) for name in rows["nuscenes"] - rows["synthetic"]
    )


def test_overrides_are_typed_and_reach_every_depth():
    base = find("synthetic/dualdistill-centerpoint").build()
    sets = [
        "distiller.crd.temperature=0.5",
        "data.image_size=32,96",
        "student.head.nms=circle",
        "training.steps=7",
        "training.precision=32",
    ]
    changed = override(base, sets)
    assert changed.distiller.crd.temperature == 0.5
    assert changed.data.image_size == (32, 96)
    assert changed.student.head.nms == "circle"
    assert changed.training.steps == 7
    assert changed.training.precision == "32"
    keys = [key for key, _, _ in differences(to_plain(base), to_plain(changed))]
    assert sorted(keys) == [
        "data.image_size",
        "distiller.crd.temperature",
        "student.head.nms",
        "training.steps",
    ]


def test_settings_that_depend_on_each_other_change_together():
    base = find("synthetic/student").build()
    with pytest.raises(UserError, match=r"student\.temporal\.frames wants 2"):
        override(base, ["student.temporal.frames=2"])
    assert override(base, ["student.temporal.frames=2", "data.num_frames=2"]).student.temporal.frames == 2
    steps = override(base, ["training.steps=none", "training.epochs=2"])
    assert steps.training.total_steps(100) == 2 * 100 // base.training.batch_size


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.stps=1", "Did you mean steps"),
        ("training.steps=1.5", "expected a whole number from 1 on or none"),
        ("distiller.mfd=perhaps", "or none"),
        ("distiller.mfd.alignment=sideways", "aoa or"),
        ("distiller.crd.temperature=-1", "expected a number above 0"),
        ("distiller.crd=false", "or none"),
        ("training.steps.more=1", "a single value"),
        ("training", "key=value"),
        ("data.points=false", "a LiDAR teacher wants True"),
    ],
)
def test_a_wrong_override_says_what_was_expected(assignment, message):
    with pytest.raises(UserError, match=message):
        override(find("synthetic/dualdistill-centerpoint").build(), [assignment])


def test_parts_of_a_distiller_are_switched_off_with_none_and_on_with_default_or_a_setting():
    whole = find("synthetic/dualdistill-centerpoint").build()
    assert override(whole, ["distiller.crd=none"]).distiller.crd is None
    alone = find("synthetic/dualdistill-centerpoint-no-crd").build()
    assert override(alone, ["distiller.crd=default"]) == whole
    assert override(alone, ["distiller.crd.temperature=0.5"]) == override(whole, ["distiller.crd.temperature=0.5"])
    with pytest.raises(UserError, match="none in this recipe: take a recipe that has it"):
        override(find("synthetic/student").build(), ["distiller.crd.temperature=0.5"])


def test_a_control_takes_the_teachers_head_and_needs_neither_points_nor_a_distiller():
    control, alone = find("synthetic/control-centerpoint").build(), find("synthetic/student").build()
    assert control.init_head_from_teacher
    assert control.distiller is None
    assert (control.data, control.training, control.student) == (alone.data, alone.training, alone.student)


def test_an_experiment_of_another_version_is_named_as_such():
    plain = to_plain(find("synthetic/student").build())
    with pytest.raises(UserError, match="version"):
        from_plain(plain | {"data": plain["data"] | {"smell": 3}})


def test_a_distiller_that_learns_from_instances_and_data_that_have_them_go_together():
    full = find("synthetic/x3kd-full-centerpoint").build()
    assert full.distiller.requires.instance_masks
    assert full.data.instances.masks == "synthetic"
    assert find("nuscenes/x3kd-full-centerpoint-r101").build().data.instances.masks == "maskrcnn"
    with pytest.raises(UserError, match=r"data\.instances is none.*x3kd-full"):
        override(find("synthetic/x3kd-centerpoint").build(), ["distiller.xis=default"])
    with pytest.raises(UserError, match=r"data\.instances is none"):
        override(full, ["data.instances=none"])
    with pytest.raises(UserError, match=r"data\.instances has no effect"):
        override(full, ["distiller.xis=none"])
    with pytest.raises(ValueError, match="no effect"):
        replace(find("synthetic/dualdistill-centerpoint").build(), data=full.data)
    assert override(full, ["distiller.xis=none", "data.instances=none"]).data == replace(full.data, instances=None)


def test_a_method_of_ones_own_may_learn_from_instances():
    full = find("synthetic/x3kd-full-centerpoint").build()
    own = UnloadedMethod(reference="somewhere.py:Method", settings="{}")
    assert replace(full, distiller=own).data.instances is not None


def test_a_whole_trained_student_leaves_nothing_else_to_start_from():
    with pytest.raises(UserError, match="init_head_from_teacher would overwrite"):
        override(find("synthetic/dualdistill-centerpoint").build(), ["student.pretrained=a.safetensors"])
    with pytest.raises(UserError, match=r"image\.pretrained has no effect"):
        override(find("nuscenes/student").build(), ["student.pretrained=a.safetensors"])
    alone = override(find("synthetic/student").build(), ["student.pretrained=a.safetensors"])
    assert from_plain(to_plain(alone)) == alone


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("student", {"student": None}, "needs a teacher, a student, or both"),
        ("student", {"init_head_from_teacher": True}, "no effect without a teacher"),
        ("dualdistill-centerpoint", {"student": None}, "a distiller needs a teacher and a student"),
        ("control-centerpoint", {"init_head_from_teacher": False}, "need a distiller, or init_head_from_teacher"),
        (
            "labeldistill-centerpoint",
            {"teacher": None, "distiller": None, "init_head_from_teacher": False},
            "a label_encoder is trained for a teacher's head",
        ),
        ("labeldistill-centerpoint", {"label_encoder_recipe": None}, "a frozen label_encoder needs a label_encoder_r"),
    ],
)
def test_an_experiment_without_one_of_its_parts_is_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(find(f"synthetic/{recipe}").build(), **changes)
