"""The tables are nuScenes': every token resolves, every chain is whole, every file is there."""

import json
from pathlib import Path
from typing import Any

import pytest

from dualdistill.data.splits import official_splits
from dualdistill.data.tables import TABLES
from dualdistill.synthetic import TINY

Tables = dict[str, dict[str, dict[str, Any]]]

REFERENCES = {
    "scene": {"log_token": "log", "first_sample_token": "sample", "last_sample_token": "sample"},
    "sample": {"scene_token": "scene", "prev": "sample", "next": "sample"},
    "sample_data": {
        "sample_token": "sample",
        "ego_pose_token": "ego_pose",
        "calibrated_sensor_token": "calibrated_sensor",
        "prev": "sample_data",
        "next": "sample_data",
    },
    "calibrated_sensor": {"sensor_token": "sensor"},
    "instance": {
        "category_token": "category",
        "first_annotation_token": "sample_annotation",
        "last_annotation_token": "sample_annotation",
    },
    "sample_annotation": {
        "sample_token": "sample",
        "instance_token": "instance",
        "visibility_token": "visibility",
        "attribute_tokens": "attribute",
        "prev": "sample_annotation",
        "next": "sample_annotation",
    },
    "map": {"log_tokens": "log"},
}


def test_there_are_the_thirteen_tables(tables: Tables) -> None:
    assert set(tables) == set(TABLES)
    assert len(TABLES) == 13
    assert all(tables.values())


def test_tokens_are_32_hexadecimal_digits_and_unique(tiny_root: Path, tables: Tables) -> None:
    for name, rows in tables.items():
        listed = json.loads((tiny_root / "v1.0-trainval" / f"{name}.json").read_text())
        assert len(listed) == len(rows)
        if name != "visibility":
            assert all(len(token) == 32 and int(token, 16) >= 0 for token in rows)


@pytest.mark.parametrize("table", REFERENCES)
def test_every_token_leads_to_a_row(tables: Tables, table: str) -> None:
    for row in tables[table].values():
        for field, target in REFERENCES[table].items():
            tokens = row[field] if isinstance(row[field], list) else [row[field]]
            for token in tokens:
                assert token in tables[target] or (token == "" and field in ("prev", "next"))


@pytest.mark.parametrize("table", ["sample", "sample_data", "sample_annotation"])
def test_who_comes_next_says_who_came_before(tables: Tables, table: str) -> None:
    rows = tables[table]
    for token, row in rows.items():
        assert row["next"] == "" or rows[row["next"]]["prev"] == token
        assert row["prev"] == "" or rows[row["prev"]]["next"] == token


def test_chains_go_forward_in_time_and_stay_with_their_sensor(tables: Tables) -> None:
    data = tables["sample_data"]
    for row in data.values():
        if row["next"]:
            later = data[row["next"]]
            assert later["timestamp"] > row["timestamp"]
            assert later["calibrated_sensor_token"] == row["calibrated_sensor_token"]
        assert tables["ego_pose"][row["ego_pose_token"]]["timestamp"] == row["timestamp"]


def test_a_chain_of_annotations_is_its_instance(tables: Tables) -> None:
    annotations = tables["sample_annotation"]
    counted = 0
    for token, instance in tables["instance"].items():
        step, length = instance["first_annotation_token"], 0
        while step:
            assert annotations[step]["instance_token"] == token
            last, step, length = step, annotations[step]["next"], length + 1
        assert (last, length) == (instance["last_annotation_token"], instance["nbr_annotations"])
        counted += length
    assert counted == len(annotations)


def test_each_sample_has_all_seven_sensors_at_its_time(tables: Tables) -> None:
    keys: dict[str, set[str]] = {}
    for row in tables["sample_data"].values():
        if row["is_key_frame"]:
            sensor = tables["calibrated_sensor"][row["calibrated_sensor_token"]]["sensor_token"]
            keys.setdefault(row["sample_token"], set()).add(tables["sensor"][sensor]["channel"])
            away = tables["sample"][row["sample_token"]]["timestamp"] - row["timestamp"]
            assert 0 <= away < 50_000
    assert len(keys) == len(tables["sample"]) == 3 * TINY.key_frames
    assert all(len(channels) == 7 for channels in keys.values())


def test_every_file_is_there_and_no_other(tiny_root: Path, tables: Tables) -> None:
    named = {row["filename"] for row in tables["sample_data"].values()}
    named |= {row["filename"] for row in tables["map"].values()}
    found = {
        path.relative_to(tiny_root).as_posix()
        for folder in ("samples", "sweeps", "maps")
        for path in (tiny_root / folder).rglob("*")
        if path.is_file()
    }
    assert found == named


def test_scenes_bear_names_of_the_official_splits(tables: Tables) -> None:
    names = {scene["name"] for scene in tables["scene"].values()}
    assert len(names & set(official_splits()["train"])) == TINY.train_scenes
    assert len(names & set(official_splits()["val"])) == TINY.val_scenes


def test_an_object_keeps_its_size_and_its_attribute_agrees_with_its_motion(tables: Tables) -> None:
    attributes = {token: row["name"] for token, row in tables["attribute"].items()}
    rows = tables["sample_annotation"]
    for row in rows.values():
        if not row["next"]:
            continue
        later = rows[row["next"]]
        assert later["size"] == row["size"]
        moved = sum((b - a) ** 2 for a, b in zip(row["translation"], later["translation"], strict=True)) ** 0.5
        for name in (attributes[token] for token in row["attribute_tokens"]):
            assert (moved > 0.05) == name.endswith("moving") or name.startswith("cycle")
