"""A synthetic head: where everything of one person lies, at any point asked for.

The brain is the MNI152 average inside nilearn's wheel (nothing is fetched), bent into another person by
smooth random fields. A head is a function of points, not of a grid: whoever images it, straight, oblique or
after a movement, asks for points ``(3, n)`` of the person's own LPS millimetres. Head coordinates ``q`` are
the atlas's millimetres in RAS (x to the RIGHT, y to the front, z to the head), so ``x_left = -q[0]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliomark.cohort.phantom.appearance import Look

Floats = NDArray[np.float32]
Side = Literal["left", "right"]

# The head's middle in LPS mm: half way from vertex to skull base, from nose to occiput.
CENTRE_LPS = (0.0, 3.0, 13.0)

# --- space: smooth random fields and the atlas ------------------------------------------------------

# Every smooth random field of a head, with the distance of its knots in millimetres.
_KNOTS_MM: Mapping[str, float] = {
    **{f"bend {axis}": 45.0 for axis in "xyz"},
    **{f"fold {axis}": 16.0 for axis in "xyz"},
    "bone": 28.0,
    "scalp": 40.0,
    "marble": 8.0,
    "veins": 4.5,
    "shape": 15.0,
    "detail": 6.0,
    "spread": 11.0,
    "grain": 5.0,
    "texture": 4.0,
}


class SmoothField:
    """A smooth random field, of unit deviation: cubic B-spline with normal knots, 320 mm wide."""

    HALF_BOX_MM = 160.0
    # A cubic B-spline of independent unit knots has this mean deviation in three dimensions.
    DEVIATION = 0.479**1.5

    def __init__(self, knot_mm: float, chance: np.random.Generator) -> None:
        self.knot_mm = knot_mm
        self.count = int(2 * self.HALF_BOX_MM / knot_mm) + 4
        knots = chance.standard_normal((self.count,) * 3, dtype=np.float32)
        self.knots = knots / np.float32(self.DEVIATION)

    def on_lattice(self, z: Floats, y: Floats, x: Floats) -> Floats:
        """The field where the three axes' millimetres cross: ``(z, y, x)``."""
        planes = np.tensordot(self._basis(z), self.knots, axes=1)
        values: Floats = self._basis(y) @ planes @ self._basis(x).T
        return values

    def _basis(self, axis: Floats) -> Floats:
        """Weight of every knot at every place of one axis: ``(place, knot)``."""
        far = np.abs((axis[:, None] + self.HALF_BOX_MM) / self.knot_mm + 1 - np.arange(self.count))
        near = 2 / 3 - far**2 + far**3 / 2
        return np.where(far < 1, near, np.clip(2 - far, 0, None) ** 3 / 6).astype(np.float32)


class Lattice:
    """Several maps on one even lattice, read together: one look-up of the eight corners serves them all."""

    def __init__(self, maps: Floats, first_mm: NDArray[np.float64], step_mm: float) -> None:
        """maps: ``(map, x, y, z)``; first_mm: the first node's place; step_mm: between nodes."""
        self.shape, self.first, self.step = maps.shape[1:], first_mm.astype(np.float32), np.float32(step_mm)
        self.nodes = np.ascontiguousarray(np.moveaxis(maps, 0, -1)).reshape(-1, len(maps))

    def at(self, points: Floats, chunk: int = 6000) -> Floats:
        """Every map at points ``(3, n)``, linear between nodes and constant beyond them: ``(map, n)``."""
        found = np.empty((self.nodes.shape[1], points.shape[1]), np.float32)
        for start in range(0, points.shape[1], chunk):  # what fits the processor's cache
            found[:, start : start + chunk] = self._few(points[:, start : start + chunk]).T
        return found

    def _few(self, points: Floats) -> Floats:
        """Every map at some points: ``(n, map)``."""
        last = np.array(self.shape, np.float32)[:, None] - np.float32(1.001)
        place = np.clip((points - self.first[:, None]) / self.step, 0, last)
        node = place.astype(np.int32)
        share = place - node
        start = (node[0] * self.shape[1] + node[1]) * self.shape[2] + node[2]
        sides = np.stack([1 - share, share])
        found = np.zeros((points.shape[1], self.nodes.shape[1]), np.float32)
        for x, y, z in np.ndindex(2, 2, 2):
            corner = self.nodes.take(start + ((x * self.shape[1] + y) * self.shape[2] + z), axis=0)
            corner *= (sides[x, 0] * sides[y, 1] * sides[z, 2])[:, None]
            found += corner
        return found


def _fields(chance: np.random.Generator, step_mm: float = 2.0) -> Lattice:
    """All the smooth fields of a head, where a head can be."""
    low, high = np.array([-108.0, -134.0, -108.0]), np.array([108.0, 134.0, 122.0])
    x, y, z = (np.arange(low[axis], high[axis], step_mm, dtype=np.float32) for axis in range(3))
    maps = [SmoothField(knot_mm, chance).on_lattice(x, y, z) for knot_mm in _KNOTS_MM.values()]
    return Lattice(np.stack(maps), low, step_mm)


@dataclass(frozen=True, eq=False)
class _Map:
    """A picture of the atlas ``(x, y, z)`` in RAS: first voxel's place and voxel size in millimetres."""

    values: Floats
    origin_mm: NDArray[np.float64]
    voxel_mm: float

    def at(self, q: Floats) -> Floats:
        """Values at head coordinates ``(3, n)``, linear between voxels."""
        voxels = [(q[axis] - self.origin_mm[axis]) / self.voxel_mm for axis in range(3)]
        found: Floats = ndimage.map_coordinates(self.values, voxels, order=1, mode="nearest")
        return found


@dataclass(frozen=True, eq=False)
class _Atlas:
    """MNI152: tissue shares of 0..1, and where the brain's smoothed surface is.

    tissue: the maps of grey matter, white matter and brain. outside: millimetres from that surface, negative
    inside. seeds: head coordinates ``(n, 3)`` deep in the right white matter, where a tumour may start.
    """

    tissue: Lattice
    outside: _Map
    seeds: NDArray[np.float64]


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    """The atlas of nilearn's wheel, read once."""
    from nilearn import datasets  # slow to import, and only phantoms need it

    images = (
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    )
    origin = images[2].affine[:3, 3]
    maps = np.stack([np.asarray(image.dataobj, np.float32) for image in images])
    outside = _distance_from_surface(_Map(maps[2], origin, 1.0))
    seeds = np.argwhere(maps[1] > 0.9) + origin
    # Away from the midline, the base of the brain and the cerebellum, and not under the skull.
    x, y, z = seeds.T
    seeds = seeds[(x > 22) & (z > 0) & (z < 48) & (y > -75) & (y < 50)]
    seeds = seeds[outside.at(seeds.T.astype(np.float32)) < -15]
    return _Atlas(Lattice(maps, origin, 1.0), outside, seeds)


def _distance_from_surface(brain: _Map, closing_mm: float = 14.0, room_mm: int = 36) -> _Map:
    """Signed distance (mm) from the brain's surface with furrows closed: the skull follows no furrow."""
    step = 3  # a smooth surface needs no finer grid
    coarse = np.pad(brain.values[::step, ::step, ::step] > 0.5, room_mm // step)
    grown = ndimage.distance_transform_edt(~coarse) * step < closing_mm
    closed = ndimage.distance_transform_edt(grown) * step > closing_mm
    signed = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    smooth = ndimage.gaussian_filter(signed.astype(np.float32) * step, 1.3)
    return _Map(smooth, brain.origin_mm - room_mm, float(step))


# --- the head: where everything lies ----------------------------------------------------------------


class Head:
    """One person: all that is drawn from chance once, before any point is asked for."""

    def __init__(
        self,
        look: Look | None,
        age: float,
        lean_degrees: float,
        side: Side | None,
        chance: np.random.Generator,
    ) -> None:
        """look: None without a lesion; lean_degrees: largest rotation of the head at rest; side: the tumour's."""
        self.look, self.atlas = look, _atlas()
        degrees = chance.uniform(-1, 1, 3) * [1, 0.6, 0.5] * lean_degrees
        lean = Rotation.from_euler("zxy", degrees, degrees=True)
        # The atlas's brain, 1.9 l, is larger than most people's.
        scale = chance.normal(0.95, 0.025, 3).clip(0.9, 1.02)
        # LPS millimetres to head coordinates: turn, size, and x and y change their sign.
        self.to_head = (np.diag([-1, -1, 1] / scale) @ lean.as_matrix().T).astype(np.float32)
        old = np.clip((age - 30) / 50, 0, 1)
        self.atrophy = float(0.6 + 0.7 * old + chance.normal(0, 0.1))
        self.ventricles = float(np.clip(0.22 * old + chance.normal(0.02, 0.06), -0.08, 0.32))
        self.liquor_mm, self.skull_mm, self.scalp_mm = chance.uniform([1.5, 5.0, 4.5], [2.8, 7.0, 8.0])
        self.sinus = float(chance.uniform(0.4, 1.2))
        # The atlas's x runs to the right, so its right half mirrored is the patient's left.
        chosen = chance.choice(["left", "right"]) if side is None else side
        start = chance.permutation(self.atlas.seeds)[0] * [-1 if chosen == "left" else 1, 1, 1]
        self.tumour_lps = np.linalg.solve(self.to_head, start).astype(np.float32)
        self.tumour_sign = np.float32(np.sign(start[0]))
        axes = Rotation.random(rng=chance).as_matrix()
        self.tumour_axes = (axes / chance.uniform([0.8, 0.8, 0.8], [1.25, 1.25, 1.0])).T.astype(np.float32)
        self.fields = _fields(chance)

    def roughly_within_plane(
        self, points: Floats, shape: tuple[int, int], coarse: int = 4
    ) -> NDArray[np.bool_]:
        """``roughly_within`` for a plane's points ``(3, row x column)``, looked at every few pixels."""
        few = points.reshape(3, *shape)[:, ::coarse, ::coarse]
        near = self.roughly_within(few.reshape(3, -1)).reshape(few.shape[1:])
        near = ndimage.binary_dilation(near)
        whole = near.repeat(coarse, axis=0).repeat(coarse, axis=1)[: shape[0], : shape[1]]
        return whole.ravel()

    def roughly_within(self, points: Floats) -> NDArray[np.bool_]:
        """Whether each of points ``(3, n)`` can belong to the head at all: a quick look that errs on the safe side."""
        q = np.tensordot(self.to_head, points, axes=1)
        face = (np.abs(q[0]) < 90) & (np.abs(q[1] + 3) < 122) & (q[2] < 0)
        return face | (self.atlas.outside.at(q) < 31)


@dataclass(frozen=True, eq=False)
class Place:
    """What the painters know of each point; all arrays ``(n,)``, millimetres or 0..1.

    q: head coordinates ``(3, n)`` bent to this person; outside: from the brain's surface; skin: from
    the head's surface (both negative inside); tumour: from the core's edge; noise: random fields.
    """

    q: Floats
    outside: Floats
    skin: Floats
    tumour: Floats
    grey: Floats
    white: Floats
    brain: Floats
    noise: Mapping[str, Floats]


def locate(head: Head, points: Floats) -> Place:
    """Where points ``(3, n)`` in LPS mm lie in this head."""
    noise = dict(zip(_KNOTS_MM, head.fields.at(points), strict=True))
    q = _turn(head.to_head, points)
    for axis, (name, bend_mm) in enumerate({"x": 3.0, "y": 3.0, "z": 1.3}.items()):
        q[axis] += bend_mm * noise[f"bend {name}"]
    outside = head.atlas.outside.at(q)
    tumour, push = _tumour(head, points, noise, outside)
    inner = q - _turn(head.to_head, push)
    for axis, name in enumerate("xyz"):
        inner[axis] += 1.3 * noise[f"fold {name}"] * np.clip(-outside / 6, 0, 1)
    # Drawing the atlas's sample points towards the midline widens the ventricles.
    near = np.exp(-0.5 * (((inner.T - np.array([0, -15, 15], np.float32)) / 24) ** 2).sum(-1))
    inner[0] *= 1 - head.ventricles * near
    grey, white, brain = _tissue(head, inner, outside, noise)
    return Place(q, outside, _skin(head, q, outside, noise), tumour, grey, white, brain, noise)


def _tissue(
    head: Head, inner: Floats, outside: Floats, noise: Mapping[str, Floats]
) -> tuple[Floats, Floats, Floats]:
    """Shares of grey matter, white matter and brain, ``(n,)`` each; nothing outside the skull."""
    cranial = outside < 4
    shares = np.zeros((3, inner.shape[1]), np.float32)
    shares[:, cranial] = head.atlas.tissue.at(inner[:, cranial])
    brain = shares[2]
    grey, white = shares[0] * brain, shares[1] * brain
    # The average of many brains has shallow furrows; one brain has open ones, more so in old age.
    fluid = (brain - grey - white) * (1 + head.atrophy) - 0.04 + _folia(inner, noise)
    share = white / np.maximum(grey + white, 1e-3)
    sharp = 0.35 * share + 0.65 * share**2 * (3 - 2 * share)
    matter = brain - np.clip(fluid, 0, brain)
    return matter * (1 - sharp), matter * sharp, brain


def _folia(q: Floats, noise: Mapping[str, Floats]) -> Floats:
    """Share of fluid in the cerebellum's fine furrows, arcs around the brain stem, lost in the average."""
    middle = np.array([0, -38, -18], np.float32)[:, None]
    arcs = length(q - middle) + noise["detail"]
    cerebellum = within(ellipsoid(folded(q), (24, -64, -40), (32, 30, 26)), 6)
    return 0.22 * cerebellum * np.clip(np.cos(arcs * (2 * np.pi / 4.6)), 0, 1)


def _turn(matrix: NDArray[np.float32], vectors: Floats) -> Floats:
    """A 3x3 matrix applied to vectors ``(3, n)``."""
    return np.tensordot(matrix, vectors, axes=1).astype(np.float32, copy=False)


def length(vectors: Floats) -> Floats:
    """Length of each vector of ``(3, n)``."""
    return np.sqrt((vectors**2).sum(axis=0))


def _tumour(
    head: Head, points: Floats, noise: Mapping[str, Floats], outside: Floats
) -> tuple[Floats, Floats]:
    """Millimetres from the core's irregular edge, and the push ``(3, n)`` of the brain in LPS mm.

    Without a lesion every point is infinitely far from one, and nothing is pushed.
    """
    if head.look is None:
        return np.full_like(outside, np.inf), np.zeros_like(points)
    away = points - head.tumour_lps[:, None]
    distance = length(_turn(head.tumour_axes, away))
    size = np.float32(head.look.core_mm)
    edge = distance - size + 0.22 * size * noise["shape"] + 0.08 * size * noise["detail"]
    # A swelling pushes most at its edge and fades with distance; the skull does not give way.
    strength = 0.22 * size * np.exp(-((distance / (2 * size)) ** 2)) / (distance + 6)
    # The core, and so its rim, ends under the skull.
    return np.maximum(edge, outside + 3), away * strength * np.clip(-outside / 10, 0, 1)


def _skin(head: Head, q: Floats, outside: Floats, noise: Mapping[str, Floats]) -> Floats:
    """Millimetres from the head's surface: scalp over the skull, face, neck, nose and ears."""
    scalp = outside - (head.liquor_mm + head.skull_mm + head.scalp_mm + 0.7 * noise["scalp"])
    pair = folded(q)
    surface = _blend(scalp, ellipsoid(q, (0, -3, -48), (71, 98, 95)), 14)
    # Temples and cheeks fill the hollow between the eyes and the temporal lobes.
    surface = _blend(surface, ellipsoid(pair, (44, 42, -42), (25, 36, 50)), 14)
    surface = _blend(surface, ellipsoid(q, (0, 92, -52), (14, 20, 24)), 10)
    return _blend(surface, ellipsoid(pair, (77, -24, -38), (7, 13, 26)), 4)


def folded(q: Floats) -> Floats:
    """Head coordinates with the left half laid on the right one, for what comes in pairs."""
    return np.concatenate([np.abs(q[:1]), q[1:]])


def ellipsoid(q: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """About the millimetres from an ellipsoid's surface, negative inside."""
    unit = [(q[axis] - np.float32(centre[axis])) / np.float32(radii[axis]) for axis in range(3)]
    return (np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2) - 1) * np.float32(min(radii))


def _blend(one: Floats, other: Floats, soft_mm: float) -> Floats:
    """Union of two distances, its seam rounded over ``soft_mm``."""
    near = np.clip(soft_mm - np.abs(one - other), 0, None)
    return np.minimum(one, other) - near**2 / (4 * soft_mm)


def within(distance: NDArray[np.floating], soft_mm: float = 1.0) -> Floats:
    """Share 0..1 of a point that lies inside a surface, by its signed distance."""
    return np.clip(0.5 - distance / soft_mm, 0, 1).astype(np.float32, copy=False)
