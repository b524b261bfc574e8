"""An experiment: everything that decides a result, as one frozen record."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
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
        for broken, rule in self._rules():
            if broken:
                raise ValueError(rule)
        if not self.distils:
            self.training.check_alone()
        for key, wanted, why in self._agreements():
            if (value := attrgetter(key)(self)) != wanted:
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

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """Which networks, recipes and data go together: whether each rule is broken, and the rule."""
        teacher, student, encoder, requires = self.teacher, self.student, self.label_encoder, self.requires
        both, copied = teacher is not None and student is not None, self.init_head_from_teacher
        frozen = student is not None and encoder is not None
        yield teacher is None and student is None, "an experiment needs a teacher, a student, or both"
        yield self.distils and not both, "a distiller needs a teacher and a student: set both, or distiller to none"
        alone = both and not (self.distils or copied)
        yield alone, "teacher and student together need a distiller, or init_head_from_teacher"
        yield copied and not both, "init_head_from_teacher has no effect without a teacher: set it to false"
        held = copied and student is not None and student.pretrained != "none"
        yield (
            held,
            "init_head_from_teacher would overwrite the task heads that student.pretrained holds: set it to false",
        )
        unmet = requires is not None and requires.label_encoder != frozen
        yield unmet, "a student has a label_encoder if its distiller requires one, only then"
        untaught = encoder is not None and teacher is None
        yield untaught, "a label_encoder is trained for a teacher's head: it needs a teacher"
        unnamed = frozen != (self.label_encoder_recipe is not None)
        yield unnamed, "a frozen label_encoder needs a label_encoder_recipe; one that is trained takes none"
        unnamed = (teacher is not None and self.role != "teacher") != (self.teacher_recipe is not None)
        yield unnamed, "a frozen teacher needs a teacher_recipe; one that is trained takes none"
        masks = requires.instance_masks if requires is not None else self.distils and self.data.instances is not None
        yield (
            masks and self.data.instances is None,
            "the distiller requires instance masks, but data.instances is none: take a recipe whose data have them, "
            "such as x3kd-full-…, or leave that part of the distiller out",
        )
        unused = self.data.instances is not None and not masks
        yield unused, "data.instances has no effect, since no distiller requires it: set it to none"

    def _agreements(self) -> Iterator[tuple[str, object, str]]:
        """Settings of the data that follow from the networks, and of the networks that follow from each other: a key,
        the value it must have, and why."""
        teacher, student = self.teacher, self.student
        if student is not None:
            yield "data.cameras", True, "a camera student"
            yield "data.depth", True, "a camera student"
            yield "data.num_frames", student.temporal.frames, "student.temporal.frames"
            yield "data.depth_stride", student.image.stride, "student.image.stride"
            if (*self.data.depth_range,) != (*student.lift.depth_range,):  # lists serve, too
                yield "data.depth_range", student.lift.depth_range, "student.lift.depth_range"
        if self.role == "label_encoder":
            yield "data.object_sampling", None, "a label encoder, which reads annotations alone,"
            yield "data.bev_frame", "lidar", "a LiDAR teacher"
        elif teacher is not None and (student is None or self.distils):
            yield "data.points", True, "a LiDAR teacher"
            yield "data.point_channels", teacher.point_channels, "teacher.point_channels"
        if teacher is not None and student is not None:
            yield "data.object_sampling", None, "distillation: no image shows a pasted object"
            yield "student.bev.reach", teacher.reach, "teacher.reach"
            yield "data.bev_frame", "lidar", "a LiDAR teacher"
            if self.requires is not None and self.requires.depth_instances:
                yield "data.depth_instance", True, "the distiller"
            for width in ("shared_channels", "head_channels") if self.init_head_from_teacher else ():
                why = "init_head_from_teacher, which starts it as a copy of the teacher's,"
                yield f"student.head.{width}", getattr(teacher.head, width), why
