"""Ray casting with embree, on one mesh of all static objects and one for each moving object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dualdistill.errors import optional
from dualdistill.synthetic.mesh import GROUND, Mesh
from dualdistill.synthetic.plan import Actor, ScenePlan
from dualdistill.synthetic.rig import Matrix

NOBODY = -1
"""Owner of faces that belong to no actor."""

Rays = Float[np.ndarray, "rays 3"]
EmbreeScene = Any
"""An `embreex.rtcore_scene.EmbreeScene`, imported only where one is built: embreex is optional."""


@dataclass(frozen=True, kw_only=True)
class Hits:
    """First hit of each ray, in the street frame; rays without one have it marked in `distance` and `face` only."""

    distance: Float[np.ndarray, "rays"]
    """Metres; infinity for nothing."""
    owner: Int[np.ndarray, "rays"]
    """Position of the actor in the plan, or `NOBODY`."""
    face: Int[np.ndarray, "rays"]
    """Row in the stage's face arrays; -1 for nothing."""
    weights: Float[np.ndarray, "rays 2"]
    """Barycentric coordinates of the second and third corner."""
    normal: Float[np.ndarray, "rays 3"]
    """Unit normal of the face, outwards."""


@dataclass(frozen=True, kw_only=True)
class _Mover:
    """A moving actor: its faces in its own box frame, so that nothing is built again when it moves on."""

    actor: Actor
    scene: EmbreeScene
    first_face: int
    radius: float
    """Radius of the ball around the box's centre that contains the mesh, metres."""


class Stage:
    """All faces of a scene; `at` gives it as it stands at one time."""

    def __init__(self, plan: ScenePlan):
        actors = plan.actors
        still = [number for number, actor in enumerate(actors) if actor.speed == 0]
        moving = [number for number, actor in enumerate(actors) if actor.speed > 0]
        pieces: list[tuple[Mesh, Matrix, int]] = [(_ground(), np.eye(4), NOBODY)]
        pieces += [(prop.mesh, prop.street_from_prop, NOBODY) for prop in plan.props]
        pieces += [(actors[number].mesh, actors[number].street_from_box(0.0), number) for number in still]
        pieces += [(actors[number].mesh, np.eye(4), number) for number in moving]
        joined = Mesh.join(mesh for mesh, _, _ in pieces)
        counts = [len(mesh) for mesh, _, _ in pieces]
        self.color, self.material = joined.color.astype(np.float32), joined.material
        self.owner = np.repeat([owner for _, _, owner in pieces], counts)
        """Actor of each face; NOBODY for the ground and props."""
        shade = np.repeat([(number * 0.618) % 1.0 for number in range(len(pieces))], counts)
        self.shade = shade.astype(np.float32)
        """A number in [0, 1) for each piece, to texture equal things differently."""
        self.local = joined.triangles.astype(np.float32)
        """Corners of each face in the frame of its piece, in which textures are defined."""
        first = np.concatenate([[0], np.cumsum(counts)])[-1 - len(moving) :]
        standing = pieces[: len(pieces) - len(moving)]
        placed = [mesh.triangles.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3] for mesh, matrix, _ in standing]
        turned = [mesh.normals @ matrix[:3, :3].T for mesh, matrix, _ in pieces]
        self.normal = np.concatenate(turned).astype(np.float32)
        """Normal of each face; those of moving actors are in their box frame."""
        self.standing = _embree(np.concatenate(placed).reshape(-1, 3, 3))
        self._movers = [
            _Mover(
                actor=actors[number],
                scene=_embree(actors[number].mesh.triangles),
                first_face=int(face),
                radius=float(np.linalg.norm(actors[number].size) / 2),
            )
            for number, face in zip(moving, first[:-1], strict=True)
        ]

    def at(self, time: float) -> "Moment":
        """The scene `time` seconds after the first key frame."""
        return Moment(self, [(mover, mover.actor.street_from_box(time)) for mover in self._movers])


class Moment:
    """A stage at one time."""

    def __init__(self, stage: Stage, movers: list[tuple[_Mover, Matrix]]):
        self.stage = stage
        self._movers = movers
        self._centers = np.array([matrix[:3, 3] for _, matrix in movers]).reshape(-1, 3)
        self._radii = np.array([mover.radius for mover, _ in movers])

    def cast(self, origin: Float[np.ndarray, "3"], directions: Rays) -> Hits:
        """First hits of rays from one point, street frame; `directions` are unit vectors."""
        face, distance, weights = _first_hits(self.stage.standing, origin, directions)
        normal = self.stage.normal[face]
        for (mover, street_from_box), towards in zip(self._movers, self._towards(origin, directions), strict=True):
            rows = np.flatnonzero(towards)
            if not len(rows):
                continue
            rotation = street_from_box[:3, :3].astype(np.float32)
            start = (origin - street_from_box[:3, 3]) @ street_from_box[:3, :3]
            their_face, their_distance, their_weights = _first_hits(mover.scene, start, directions[rows] @ rotation)
            nearer = np.flatnonzero(their_distance < distance[rows])
            rows = rows[nearer]
            face[rows] = their_face[nearer] + mover.first_face
            distance[rows], weights[rows] = their_distance[nearer], their_weights[nearer]
            normal[rows] = self.stage.normal[face[rows]] @ rotation.T
        owner = np.where(face >= 0, self.stage.owner[face], NOBODY)
        return Hits(distance=distance, owner=owner, face=face, weights=weights, normal=normal)

    def blocked(self, origins: Rays, direction: Float[np.ndarray, "3"]) -> Bool[np.ndarray, "rays"]:
        """Whether anything stands in the way of parallel rays."""
        met = _occluded(self.stage.standing, origins, direction)
        # Seen along the rays, movers are discs and rays are points.
        across = np.linalg.svd(direction[None])[2][1:]
        discs, (u, v) = self._centers @ across.T, across.astype(np.float32) @ origins.T
        for (mover, street_from_box), (x, y), radius in zip(self._movers, discs, self._radii, strict=True):
            near = (u - np.float32(x)) ** 2 + (v - np.float32(y)) ** 2 < radius**2
            rows = np.flatnonzero(near & ~met)
            if len(rows):
                rotation = street_from_box[:3, :3]
                starts = (origins[rows] - street_from_box[:3, 3]) @ rotation
                met[rows] = _occluded(mover.scene, starts, direction @ rotation)
        return met

    def _towards(self, origin: Float[np.ndarray, "3"], directions: Rays) -> Bool[np.ndarray, "movers rays"]:
        """Mask of the rays that can hit the ball around each mover."""
        offset = self._centers - origin
        reach = np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
        opening = np.sqrt(np.clip(1 - (self._radii / reach) ** 2, 0, 1))
        # From inside of a ball, every ray can.
        opening[reach <= self._radii] = -2.0
        along = (offset / reach[:, None]).astype(np.float32) @ directions.T
        return along >= opening[:, None].astype(np.float32)


def _first_hits(
    scene: EmbreeScene, origin: Float[np.ndarray, "3"], directions: Rays
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Face (-1: none), distance and barycentric weights of what rays from one point meet first."""
    found = scene.run(_repeat(origin, len(directions)), np.ascontiguousarray(directions, dtype=np.float32), output=1)
    face = found["primID"].astype(np.int64)
    distance = np.where(face >= 0, found["tfar"], np.float32(np.inf))
    return face, distance, np.stack([found["u"], found["v"]], axis=1)


def _repeat(vector: Float[np.ndarray, "3"], count: int) -> Rays:
    return np.full((count, 3), vector, dtype=np.float32)


def _occluded(scene: EmbreeScene, origins: Rays, direction: Float[np.ndarray, "3"]) -> Bool[np.ndarray, "rays"]:
    """Mask of the parallel rays that hit anything."""
    return scene.run(origins.astype(np.float32), _repeat(direction, len(origins)), query="OCCLUDED") == 0


def require_embree() -> None:
    """Raises UserError where the ray caster cannot be imported."""
    for module in ("embreex.mesh_construction", "embreex.rtcore_scene"):
        optional(module, "synthetic", "The synthetic world", "; data sets in nuScenes format do not need it")


def _embree(triangles: np.ndarray) -> EmbreeScene:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(triangles, dtype=np.float32))
    return scene


def _ground() -> Mesh:
    """The plane z = 0, far beyond everything."""
    x = 900.0
    corners = np.array([[-x, -x, 0.0], [x, -x, 0.0], [x, x, 0.0], [-x, x, 0.0]])
    return Mesh(triangles=corners[[[0, 1, 2], [0, 2, 3]]], color=np.zeros((2, 3)), material=np.full(2, GROUND))
