"""Tables that were written are read as they were meant, and what could not be read is not written."""

import contextlib
import json
from pathlib import Path

import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.read_tables import read_records
from dualdistill.data.tables import TABLES, CalibratedSensor, EgoPose, Instance, Sample, Sensor, TableWriter, links
from dualdistill.errors import UserError
from tests.data.tiny_root import TinyRoot

POSE = EgoPose(token="a", translation=(1.0, 1e-17, 1 / 3), rotation=(1.0, 0.0, 0.0, 0.0))


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    camera = CalibratedSensor(
        token="é",
        sensor_token="s",
        translation=(0, 0, 0),
        rotation=(1, 0, 0, 0),
        camera_intrinsic=[[1.0, 0.0, 0.5]] * 3,
    )
    lidar = CalibratedSensor(
        token="b", sensor_token="s", translation=(0, 0, 0), rotation=(1, 0, 0, 0), camera_intrinsic=[]
    )
    with TableWriter(tmp_path / "v1.0-mini") as tables:
        for record in (camera, POSE, lidar):
            tables.write(record)
    assert [*read_records(tmp_path / "v1.0-mini", EgoPose)] == [[POSE]]
    assert [r for part in read_records(tmp_path / "v1.0-mini", CalibratedSensor) for r in part] == [camera, lidar]
    assert {path.stem for path in (tmp_path / "v1.0-mini").iterdir()} == set(TABLES)
    assert [*read_records(tmp_path / "v1.0-mini", Sensor)] == [[]]


def test_a_table_is_laid_out_as_nuscenes_publishes_it(tmp_path: Path, own_root: TinyRoot) -> None:
    records = own_root.table("sample_annotation") + own_root.table("calibrated_sensor")
    with TableWriter(tmp_path / "t") as tables:
        for record in records:
            kind = TABLES["sample_annotation" if "size" in record else "calibrated_sensor"]
            tables.write(kind(**record))
    for name in ("sample_annotation", "calibrated_sensor"):
        text = (tmp_path / "t" / f"{name}.json").read_text()
        assert text == json.dumps(json.loads(text), indent=0) + "\n"


def test_an_index_of_rewritten_tables_is_the_same(own_root: TinyRoot) -> None:
    before = NuscenesIndex.open(own_root.path)
    with TableWriter(own_root.path / "v1.0-copy") as tables:
        for name, kind in TABLES.items():
            for record in own_root.table(name):
                tables.write(kind(**record))
    after = NuscenesIndex.open(own_root.path, "v1.0-copy")
    assert list(after.data_filename) == list(before.data_filename)
    assert after.annotation_center.tobytes() == before.annotation_center.tobytes()


@pytest.mark.parametrize("change", [{"translation": (float("nan"), 0, 0)}, {"rotation": (1, 0, 0)}, {"token": None}])
def test_what_could_not_be_read_is_not_written(change: dict, tmp_path: Path) -> None:
    record = EgoPose(**{"token": "a", "translation": (0, 0, 0), "rotation": (1, 0, 0, 0)} | change)
    with TableWriter(tmp_path / "t") as tables, pytest.raises(UserError, match=r"ego_pose record .* not as nuScenes"):
        tables.write(record)


def test_tables_are_never_overwritten(own_root: TinyRoot) -> None:
    before = own_root.table("sample")
    with pytest.raises(UserError, match="already holds"):
        TableWriter(own_root.path / own_root.version)
    assert own_root.table("sample") == before


def test_tables_of_a_writer_that_failed_are_not_read(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), TableWriter(tmp_path) as tables:
        tables.write(POSE)
        tables.write(Instance(token=str(1 // 0), category_token=""))
    for kind in (EgoPose, Sample):
        with pytest.raises(UserError, match="cut off"):
            list(read_records(tmp_path, kind))


def test_chains_begin_and_end_with_an_empty_link() -> None:
    assert [links("abc", i) for i in range(3)] == [
        {"prev": "", "next": "b"},
        {"prev": "a", "next": "c"},
        {"prev": "b", "next": ""},
    ]
