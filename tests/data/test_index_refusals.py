"""Tables that would hang, leave the root or bend geometry are refused when they are indexed, with the record's name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from tests.data.tiny_root import TinyRoot

CAR = "scene-0061-vehicle.car"
FRONT = "scene-0061-CAM_FRONT"


def change_record(root: TinyRoot, table: str, token: str, change: dict) -> None:
    def edit(records: list[dict]) -> None:
        (record,) = (record for record in records if record["token"] == token)
        record.update(change)

    root.rewrite(table, edit)


@pytest.mark.parametrize(
    ("table", "token", "change"),
    [
        ("sample", "scene-0061-1", {"prev": "scene-0061-1"}),
        ("sample", "scene-0061-0", {"prev": "scene-0061-2"}),
        ("sample", "scene-0061-2", {"next": "scene-0061-0"}),
        ("sample_data", f"{FRONT}-1", {"prev": f"{FRONT}-1"}),
        ("sample_data", f"{FRONT}-0", {"prev": f"{FRONT}-2"}),
        ("sample_data", f"{FRONT}-2", {"next": f"{FRONT}-0"}),
        ("sample_data", f"{FRONT}-1", {"timestamp": 1_700_000_000_000_000}),
        ("sample_data", f"{FRONT}-2", {"prev": "scene-0061-LIDAR_TOP-0"}),
        ("sample_annotation", f"{CAR}-1", {"prev": f"{CAR}-1"}),
        ("sample_annotation", f"{CAR}-1", {"next": f"{CAR}-0"}),
        ("sample_annotation", f"{CAR}-1", {"prev": "scene-0061-animal-0"}),
    ],
)
def test_links_lead_forth_and_back_in_time_within_their_chain(own_root: TinyRoot, table, token, change) -> None:
    change_record(own_root, table, token, change)
    with pytest.raises(UserError, match=rf"{table}\.json: record .* has a (prev|next) that is not .*correct or remove"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize(
    "filename",
    ["/etc/passwd", "../secret.jpg", "samples/../../secret.jpg", "..", "C:/x.jpg", "samples\\x.jpg", "a\x00b", ""],
)
def test_files_lie_inside_the_root(own_root: TinyRoot, filename: str) -> None:
    change_record(own_root, "sample_data", f"{FRONT}-1", {"filename": filename})
    with pytest.raises(UserError, match=rf"{FRONT}-1' has a file name that is empty, absolute or leaves the root"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize("filename", ["samples/a..b.jpg", "samples/...jpg", "samples/été (1).jpg"])
def test_unusual_file_names_inside_the_root_are_read(own_root: TinyRoot, filename: str) -> None:
    change_record(own_root, "sample_data", f"{FRONT}-1", {"filename": filename})
    assert filename in list(NuscenesIndex.open(own_root.path).data_filename)


@pytest.mark.parametrize("token", ["a/b", "../../a", "/a", "a\\b", "..", ".", "", "a\nb", "a\x00"])
@pytest.mark.parametrize("table", ["sample", "scene", "sample_data", "log"])
def test_tokens_can_be_part_of_file_names(own_root: TinyRoot, token: str, table: str) -> None:
    own_root.rewrite(table, lambda records: records[-1].update(token=token))
    if table == "log":  # refers to nothing that is read
        NuscenesIndex.open(own_root.path)
        return
    with pytest.raises(UserError, match=rf"{table}\.json: token .* has slashes or control characters"):
        NuscenesIndex.open(own_root.path)


def matrix(**changes: float) -> list[list[float]]:
    values = {"fx": 120.0, "fy": 120.0, "cx": 80.0, "cy": 45.0, "last": 1.0} | changes
    return [[values["fx"], 0.0, values["cx"]], [0.0, values["fy"], values["cy"]], [0.0, 0.0, values["last"]]]


@pytest.mark.parametrize(
    "intrinsic",
    [
        [],
        [[1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0, 0.0], [0.0, 1.0], [0.0, 0.0, 1.0]],
        matrix(fx=0.0),
        matrix(fy=-1.0),
        matrix(fx=1e300),
        matrix(last=0.0),
        matrix(cx=-1.0),
        matrix(cy=91.0),
        matrix(cx=1e300),
    ],
)
def test_camera_matrices_project_into_their_images(own_root: TinyRoot, intrinsic: list) -> None:
    change_record(own_root, "calibrated_sensor", "calibrated-CAM_BACK", {"camera_intrinsic": intrinsic})
    with pytest.raises(UserError, match=r"record .*CAM_BACK.* has a (camera matrix|calibrated sensor)"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize(
    ("table", "token"),
    [("calibrated_sensor", "calibrated-CAM_BACK"), ("ego_pose", f"{FRONT}-1"), ("sample_annotation", f"{CAR}-1")],
)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rotation": [0, 0, 0, 0]}, "rotation of length zero"),
        ({"rotation": [1e-300, 0, 0, 0]}, "rotation of length zero"),
        ({"rotation": [1e200, 0, 0, 0]}, "a huge one"),
        ({"translation": [0, -1e308, 0]}, r"translation of 1e\+08 m or more"),
        ({"translation": [0, 0]}, "translation"),
    ],
)
def test_poses_can_be_computed_with(own_root: TinyRoot, table, token, change, complaint) -> None:
    change_record(own_root, table, token, change)
    with pytest.raises(UserError, match=rf"{table}\.json: .*{complaint}"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize("change", [{"height": 0}, {"width": None}, {"height": -90}, {"width": 10**9}])
def test_images_have_a_size(own_root: TinyRoot, change: dict) -> None:
    change_record(own_root, "sample_data", f"{FRONT}-1", change)
    with pytest.raises(UserError, match=rf"{FRONT}-1' has no image height and width"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize("number", [2**63, -(2**64), 10**400])
def test_integers_fit(own_root: TinyRoot, number: int) -> None:
    change_record(own_root, "sample", "scene-0061-1", {"timestamp": number})
    with pytest.raises(UserError, match=r"sample\.json: .*timestamp"):
        NuscenesIndex.open(own_root.path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    "damage", [Path.unlink, cut, lambda path: path.write_bytes(b""), lambda path: path.write_text("x")]
)
def test_a_damaged_cache_is_made_again(own_root: TinyRoot, damage: Callable[[Path], None]) -> None:
    before = NuscenesIndex.open(own_root.path)
    centers = np.array(before.annotation_center)
    assert len(before.digests) == 8
    for name in before.digests:
        damage(before.folder / f"{name}.arrow")
        after = NuscenesIndex.open(own_root.path)
        assert np.array_equal(after.annotation_center, centers)
        assert len(after) == 3
