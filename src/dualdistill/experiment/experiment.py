"""An experiment: everything that decides a result, as one frozen record."""

from dataclasses import dataclass, replace
from typing import Literal

from dualdistill.data.config import DataConfig
from dualdistill.distill.label_encoder import LabelEncoderConfig
from dualdistill.distill.method import DistillerConfig, Requires
from dualdistill.experiment.external import UnloadedMethod
from dualdistill.experiment.training import TrainingConfig
from dualdistill.models.bevdepth_config import BevDepthConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.settings import checked

Role = Literal["teacher", "label_encoder", "student"]

Agreement = tuple[str, object, object, str]
"""A setting, its value, the value it must have, and why."""


@dataclass(frozen=True, kw_only=True)
@checked
class Experiment:
    """A teacher (no student), a student alone (no teacher), a student distilled from a teacher, or a label encoder
    trained through a teacher's head (no student)."""

    data: DataConfig
    training: TrainingConfig
    teacher: CenterPointConfig | None = None
    student: BevDepthConfig | None = None
    distiller: DistillerConfig | None = None
    label_encoder: LabelEncoderConfig | None = None
    """Trained where there is no student; frozen beside the teacher where the distiller requires it."""
    teacher_recipe: str | None = None
    """Recipe whose trained weights the teacher takes; None where the experiment has no teacher or trains one."""
    label_encoder_recipe: str | None = None
    """Recipe whose trained weights the label encoder takes; None where there is none or it is trained."""
    init_head_from_teacher: bool = False
    """Start the student's task heads from the teacher's (docs/methods/dualdistill.md#training-recipe)."""

    def __post_init__(self) -> None:
        if self.teacher is None and self.student is None:
            raise ValueError("an experiment needs a teacher, a student, or both")
        both = self.teacher is not None and self.student is not None
        if self.distils and not both:
            raise ValueError("a distiller needs a teacher and a student: set both, or distiller to none")
        if both and not (self.distils or self.init_head_from_teacher):
            raise ValueError("teacher and student together need a distiller, or init_head_from_teacher")
        if not self.distils:
            self.training.check_alone()
        self._check_head()
        self._check_label_encoder()
        if (self.teacher is not None and self.role != "teacher") != (self.teacher_recipe is not None):
            raise ValueError("a frozen teacher needs a teacher_recipe; one that is trained takes none")
        self._check_instances()
        for key, value, wanted, why in self._agreements():
            if value != wanted:
                raise ValueError(f"{key} is {value}, but {why} wants {wanted}")

    @property
    def role(self) -> Role:
        """Name of the network that is trained."""
        if self.student is not None:
            return "student"
        return "teacher" if self.label_encoder is None else "label_encoder"

    @property
    def evaluation_data(self) -> DataConfig:
        """What the trained detector reads: a camera student no points, depth labels or instance masks."""
        if self.role != "student":
            return self.data
        return replace(self.data, points=False, virtual_points=None, depth=False, depth_instance=False, instances=None)

    @property
    def distils(self) -> bool:
        return self.distiller is not None

    @property
    def requires(self) -> Requires | None:
        """What the distiller declares; None without a distiller, and for one whose code is not loaded."""
        if self.distiller is None or isinstance(self.distiller, UnloadedMethod):
            return None
        return self.distiller.requires

    def _check_head(self) -> None:
        if not self.init_head_from_teacher:
            return
        if self.teacher is None or self.student is None:
            raise ValueError("init_head_from_teacher has no effect without a teacher: set it to false")
        if self.student.pretrained != "none":
            raise ValueError(
                "init_head_from_teacher would overwrite the task heads that student.pretrained holds: set it to false"
            )

    def _check_label_encoder(self) -> None:
        """One is trained through a teacher, or is there because the distiller requires it."""
        frozen = self.student is not None and self.label_encoder is not None
        if self.requires is not None and self.requires.label_encoder != frozen:
            raise ValueError("a student has a label_encoder if its distiller requires one, only then")
        if self.label_encoder is not None and self.teacher is None:
            raise ValueError("a label_encoder is trained for a teacher's head: it needs a teacher")
        if frozen != (self.label_encoder_recipe is not None):
            raise ValueError("a frozen label_encoder needs a label_encoder_recipe; one that is trained takes none")

    def _check_instances(self) -> None:
        """Instance masks are read where the distiller requires them."""
        if self.requires is not None and self.requires.instance_masks and self.data.instances is None:
            raise ValueError(
                "the distiller requires instance masks, but data.instances is none: take a recipe whose data have "
                "them, such as x3kd-full-…, or leave that part of the distiller out"
            )
        unused = self.distiller is None or (self.requires is not None and not self.requires.instance_masks)
        if self.data.instances is not None and unused:
            raise ValueError("data.instances has no effect, since no distiller requires it: set it to none")

    def _agreements(self) -> list[Agreement]:
        """Settings of the data that follow from the networks, and of the networks that follow from each other."""
        data, teacher, student = self.data, self.teacher, self.student
        rows: list[Agreement] = []
        if student is not None:
            rows += [
                ("data.cameras", data.cameras, True, "a camera student"),
                ("data.depth", data.depth, True, "a camera student"),
                ("data.num_frames", data.num_frames, student.temporal.frames, "student.temporal.frames"),
                ("data.depth_stride", data.depth_stride, student.image.stride, "student.image.stride"),
                ("data.depth_range", (*data.depth_range,), (*student.lift.depth_range,), "student.lift.depth_range"),
            ]
        if self.role == "label_encoder":
            rows += [
                ("data.object_sampling", data.object_sampling, None, "a label encoder, which reads annotations alone,"),
                ("data.bev_frame", data.bev_frame, "lidar", "a LiDAR teacher"),
            ]
        elif teacher is not None and (student is None or self.distils):
            rows += [
                ("data.points", data.points, True, "a LiDAR teacher"),
                ("data.point_channels", data.point_channels, teacher.point_channels, "teacher.point_channels"),
            ]
        if teacher is not None and student is not None:
            rows += [
                ("data.object_sampling", data.object_sampling, None, "distillation: no image shows a pasted object"),
                ("student.bev.reach", student.bev.reach, teacher.reach, "teacher.reach"),
                ("data.bev_frame", data.bev_frame, "lidar", "a LiDAR teacher"),
            ]
            if self.requires is not None and self.requires.depth_instances:
                rows.append(("data.depth_instance", data.depth_instance, True, "the distiller"))
            if self.init_head_from_teacher:
                ours, theirs = student.head, teacher.head
                why = "init_head_from_teacher, which starts it as a copy of the teacher's,"
                rows += [
                    ("student.head.shared_channels", ours.shared_channels, theirs.shared_channels, why),
                    ("student.head.head_channels", ours.head_channels, theirs.head_channels, why),
                ]
        return rows
