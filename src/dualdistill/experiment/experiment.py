"""An experiment: everything that decides a result, as one frozen record; to JSON and back."""

import dataclasses
import difflib
import json
import types
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

import msgspec
from torch import nn

from dualdistill.data.config import DataConfig
from dualdistill.distill.crd import HeadCriterion
from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import DualDistillConfig
from dualdistill.distill.label_encoder import LabelEncoderConfig
from dualdistill.distill.labeldistill import LabelDistillConfig
from dualdistill.distill.shapes import BevShapes
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig
from dualdistill.errors import UserError
from dualdistill.experiment.external import UnloadedMethod, is_reference, load, reference_of
from dualdistill.experiment.training import TrainingConfig
from dualdistill.models.bevdepth_config import BevDepthConfig
from dualdistill.models.centerpoint import CenterPointConfig


@runtime_checkable
class DistillerConfig(Protocol):
    """Any distiller's configuration, a frozen dataclass of plain values: what an experiment asks of it."""

    @property
    def weights(self) -> dict[str, float]: ...
    def build(self, *, teacher: BevShapes, student: BevShapes, judge: HeadCriterion | None) -> nn.Module: ...


METHODS: dict[str, type[DistillerConfig]] = {
    "dualdistill": DualDistillConfig,
    "distillbev": DistillBevConfig,
    "labeldistill": LabelDistillConfig,
    "tigbev": TigBevConfig,
    "x3kd": X3kdConfig,
}
"""Name of each method in an experiment file."""

Role = Literal["teacher", "label_encoder", "student"]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A teacher (no student), a student alone (no teacher), a student that learns from a teacher, or a label encoder
    that learns to speak to a teacher's head (no student)."""

    data: DataConfig
    training: TrainingConfig
    teacher: CenterPointConfig | None = None
    student: BevDepthConfig | None = None
    distiller: DistillerConfig | None = None
    label_encoder: LabelEncoderConfig | None = None
    """Learns where there is no student; teaches, beside the teacher, where the distiller asks for it."""
    teacher_recipe: str | None = None
    """Recipe whose trained weights the teacher takes; None where the experiment has no teacher or trains one."""
    label_encoder_recipe: str | None = None
    """Recipe whose trained weights the label encoder takes; None where there is none or it is trained."""
    init_head_from_teacher: bool = False
    """Start the student's task heads from the teacher's (docs/methods/dualdistill.md#training-recipe)."""

    def __post_init__(self) -> None:
        if self.teacher is None and self.student is None:
            raise ValueError("an experiment needs a teacher, a student, or both")
        distils = self.teacher is not None and self.student is not None
        if distils != (self.distiller is not None):
            raise ValueError("teacher and student together need a distiller; one alone takes none")
        if self.training.teacher_precision != "fp32" and not distils:
            raise ValueError("training.teacher_precision has no effect without a teacher that teaches: set it to fp32")
        if self.training.distiller_warmup_steps and not distils:
            raise ValueError("training.distiller_warmup_steps has no effect without a distiller: set it to 0")
        if self.training.distill_fraction != 1 and not distils:
            raise ValueError("training.distill_fraction has no effect without a distiller: set it to 1")
        if (self.training.distill_weight != 1 or self.training.gradient_share is not None) and not distils:
            raise ValueError("training.distill_weight and gradient_share have no effect without a distiller")
        if self.init_head_from_teacher and not distils:
            raise ValueError("init_head_from_teacher has no effect without a teacher: set it to false")
        if self.init_head_from_teacher and self.student is not None and self.student.pretrained != "none":
            raise ValueError(
                "init_head_from_teacher would overwrite the task heads that student.pretrained holds: set it to false"
            )
        self._check_label_encoder()
        if (distils or self.role == "label_encoder") != (self.teacher_recipe is not None):
            raise ValueError("a teacher that teaches needs a teacher_recipe; one that is trained takes none")
        self._check_data()

    def _check_label_encoder(self) -> None:
        """One is trained through a teacher, or is there because the distiller learns from it."""
        learns_from_labels = isinstance(self.distiller, LabelDistillConfig) and self.distiller.label
        if self.student is not None and learns_from_labels != (self.label_encoder is not None):
            raise ValueError("a student has a label_encoder if its distiller is LabelDistill with label on, only then")
        if self.label_encoder is not None and self.teacher is None:
            raise ValueError("a label_encoder speaks to a teacher's head: it needs a teacher")
        if learns_from_labels != (self.label_encoder_recipe is not None):
            raise ValueError(
                "a label_encoder that teaches needs a label_encoder_recipe; one that is trained takes none"
            )

    def _check_data(self) -> None:
        """What the data gives must be what the networks take."""
        data = self.data
        agreements: list[tuple[str, object, object, str]] = []
        if self.student is not None:
            lift, frames = self.student.lift, self.student.temporal.frames
            agreements += [
                ("data.cameras", data.cameras, True, "a camera student"),
                ("data.depth", data.depth, True, "a camera student"),
                ("data.num_frames", data.num_frames, frames, "student.temporal.frames"),
                ("data.depth_stride", data.depth_stride, self.student.image.stride, "student.image.stride"),
                (
                    "data.depth_range",
                    tuple(data.depth_range),
                    tuple(lift.depth_range),
                    "student.lift.depth_range",
                ),
            ]
        if self.role == "label_encoder":
            agreements += [
                ("data.object_sampling", data.object_sampling, None, "a label encoder, which sees annotations alone,"),
                ("data.bev_frame", data.bev_frame, "lidar", "a LiDAR teacher"),
            ]
        elif self.teacher is not None:
            agreements += [
                ("data.points", data.points, True, "a LiDAR teacher"),
                ("data.point_channels", data.point_channels, self.teacher.point_channels, "teacher.point_channels"),
            ]
        if self.teacher is not None and self.student is not None:
            agreements += [
                (
                    "data.object_sampling",
                    data.object_sampling,
                    None,
                    "distillation: no image shows a pasted object",
                ),
                ("student.bev.reach", self.student.bev.reach, self.teacher.reach, "teacher.reach"),
                ("data.bev_frame", data.bev_frame, "lidar", "a LiDAR teacher"),
            ]
        if self.teacher is not None and self.student is not None and self.init_head_from_teacher:
            ours, theirs = self.student.head, self.teacher.head
            why = "init_head_from_teacher, which starts it as a copy of the teacher's,"
            agreements += [
                ("student.head.shared_channels", ours.shared_channels, theirs.shared_channels, why),
                ("student.head.head_channels", ours.head_channels, theirs.head_channels, why),
            ]
        if isinstance(self.distiller, TigBevConfig) and self.distiller.inner_depth and self.student is not None:
            lift = self.student.lift
            agreements += [
                ("data.depth_instance", data.depth_instance, True, "TiG-BEV's inner depth"),
                ("distiller.depth_range", tuple(self.distiller.depth_range), tuple(lift.depth_range), "student.lift"),
                ("distiller.depth_step", self.distiller.depth_step, lift.depth_step, "student.lift"),
            ]
        if self.student is not None and isinstance(self.distiller, LabelDistillConfig):
            distiller, frames = self.distiller, self.student.temporal.frames
            if distiller.partition == "key_frame":
                agreements += [("distiller.frames", distiller.frames, frames, "student.temporal.frames")]
        self._check_instances()
        for key, value, wanted, why in agreements:
            if value != wanted:
                raise ValueError(f"{key} is {value}, but {why} wants {wanted}")

    def _check_instances(self) -> None:
        """What an instance segmenter sees is for X3KD-style distillation, or for a method outside this package."""
        learns = isinstance(self.distiller, X3kdConfig) and self.distiller.instances
        if learns and self.data.instances is None:
            raise ValueError(
                "distiller.instances is on, but data.instances is none: nobody says which objects the images show. "
                "Take a recipe x3kd-full-…, whose data have them, or switch distiller.instances off"
            )
        foreign = self.distiller is not None and type(self.distiller) not in METHODS.values()
        if self.data.instances is not None and not (learns or foreign):
            raise ValueError("data.instances has no effect, since no distiller learns from it: set it to none")

    @property
    def role(self) -> Role:
        """Who learns."""
        if self.student is not None:
            return "student"
        return "teacher" if self.label_encoder is None else "label_encoder"


def to_plain(experiment: Experiment) -> dict[str, Any]:
    """As JSON values; a distiller carries the name of its method."""
    plain = dataclasses.asdict(experiment)
    if experiment.distiller is not None:
        plain["distiller"] = _plain_method(experiment.distiller)
    return json.loads(json.dumps(plain))


def from_plain(plain: dict[str, Any]) -> Experiment:
    """The experiment `to_plain` made.

    Raises:
        UserError: for a key or value that this version does not know.
    """
    values: dict[str, Any] = {}
    hints = get_type_hints(Experiment)
    try:
        for name, value in plain.items():
            if name == "distiller":
                values[name] = _method(value)
            else:
                values[name] = _convert(value, hints[name])
        return Experiment(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"This experiment was not written by this version of dualdistill: {error}. "
            "Use the version named in the run's environment.json."
        ) from None


def _convert(value: Any, hint: Any) -> Any:
    """JSON value to the field's type; unknown keys of a record are errors."""
    kinds: list[Any] = [kind for kind in _alternatives(hint) if dataclasses.is_dataclass(kind)]
    if not kinds or value is None:
        return msgspec.convert(value, hint, strict=False)
    (kind,) = kinds
    hints = get_type_hints(kind)
    return kind(**{name: _convert(item, hints[name]) for name, item in value.items()})


def _plain_method(distiller: DistillerConfig) -> dict[str, Any]:
    """Settings of a distiller with the name of its method: ours, or where it stands outside this package."""
    if isinstance(distiller, UnloadedMethod):
        return {"method": distiller.reference, **json.loads(distiller.settings)}
    if not dataclasses.is_dataclass(distiller) or isinstance(distiller, type):
        raise UserError(f"A distiller's configuration must be a dataclass, {type(distiller).__name__} is none.")
    ours = next((name for name, kind in METHODS.items() if type(distiller) is kind), None)
    return {"method": ours or reference_of(type(distiller)), **dataclasses.asdict(distiller)}


def _method(plain: dict[str, Any] | None) -> DistillerConfig | None:
    """What `_plain_method` made plain; one outside this package stays unloaded."""
    if plain is None:
        return None
    settings = dict(plain)
    method = settings.pop("method")
    if is_reference(method):
        return UnloadedMethod(reference=method, settings=json.dumps(settings))
    return _convert(settings, METHODS[method])


def with_method(experiment: Experiment) -> Experiment:
    """The experiment with its method loaded, if that stands outside this package: its code runs.

    Raises:
        UserError: if it is not where it was, or has other settings now.
    """
    method = experiment.distiller
    if not isinstance(method, UnloadedMethod):
        return experiment
    try:
        return replace(experiment, distiller=_convert(json.loads(method.settings), load(method.reference)))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{method.reference} does not take the settings of this run any more: {error}.") from None


def override(experiment: Experiment, assignments: list[str]) -> Experiment:
    """The experiment with `a.b=c` assignments applied all at once, typed and checked.

    Raises:
        UserError: for an unknown key (with the nearest ones), a value of the wrong type, or one the record refuses.
    """
    parsed = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set takes key=value, for example --set training.batch_size=4; got {assignment!r}.")
        parsed.append((key.strip(), key.strip().split("."), text.strip()))
    return _assign(experiment, parsed) if parsed else experiment


def _assign(record: Any, assignments: list[tuple[str, list[str], str]]) -> Any:
    """`record` with the assignments (whole key, rest of its path, text) applied, then checked as one."""
    names = [f.name for f in dataclasses.fields(record)]
    hints = get_type_hints(type(record))
    changes: dict[str, Any] = {}
    inner: dict[str, list[tuple[str, list[str], str]]] = {}
    for key, (name, *rest), text in assignments:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known here: {', '.join(names)}."
            raise UserError(f"--set {key}: {type(record).__name__} has no {name!r}. {hint}")
        if not rest:
            changes[name] = _parse(text, hints[name], key)
            continue
        if not dataclasses.is_dataclass(getattr(record, name)):
            what = "none in this recipe" if getattr(record, name) is None else "a single value"
            raise UserError(f"--set {key}: {name!r} is {what}, it has no {rest[0]!r}.")
        inner.setdefault(name, []).append((key, rest, text))
    changes |= {name: _assign(getattr(record, name), deeper) for name, deeper in inner.items()}
    try:
        return replace(record, **changes)
    except ValueError as error:
        said = ", ".join(f"{key}={text}" for key, _, text in assignments)
        raise UserError(f"--set {said}: {error}.") from None


def _parse(text: str, hint: Any, key: str) -> Any:
    if text.lower() == "none":
        raw: Any = None
    else:
        is_tuple = any(get_origin(kind) is tuple for kind in _alternatives(hint))
        literal = f"[{text.strip('()[]')}]" if is_tuple else text
        try:
            raw = json.loads(literal)
        except json.JSONDecodeError:
            raw = text
    for value in (raw, text):  # as text, too: training.precision=32 means the word
        with suppress(msgspec.ValidationError, TypeError):
            return msgspec.convert(value, hint, strict=False)
    raise UserError(f"--set {key}={text}: expected {_describe(hint)}.")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _describe(hint: Any) -> str:
    words = []
    for kind in _alternatives(hint):
        if get_origin(kind) is Literal:
            words += [str(choice) for choice in get_args(kind)]
        elif kind is types.NoneType:
            words.append("none")
        elif get_origin(kind) is tuple:
            words.append(
                f"values separated by commas ({', '.join(getattr(a, '__name__', '…') for a in get_args(kind))})"
            )
        else:
            words.append({bool: "true or false", int: "a whole number", float: "a number"}.get(kind, str(kind)))
    return " or ".join(words)


def differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Where two plain experiments differ: (key, value in a, value in b), keys joined by dots."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [*a, *(key for key in b if key not in a)]
        return [
            row for key in keys for row in differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if a == b else [(prefix, a, b)]
