"""Anatomy of a synthetic head as a function of position.

The brain is the MNI152 template distributed with nilearn (nothing is downloaded), deformed by smooth random fields
into an individual one. A head is a function of points, not of a grid: for straight, oblique or moved images it is
evaluated at points ``(3, n)`` in the person's LPS coordinates (mm). Head coordinates are RAS coordinates of the atlas
in mm (x to the right, y anterior, z superior).
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

from gliomark.phantom.appearance import TumourAppearance

FloatArray = NDArray[np.float32]
BodySide = Literal["left", "right"]
HeadRegion = Literal["head", "brain"]

# Centre of the head in LPS mm: midway between vertex and skull base, and between nose and occiput.
HEAD_CENTRE_LPS = (0.0, 3.0, 13.0)

# --- space: smooth random fields and the atlas ------------------------------------------------------

# All smooth random fields of a head, with the spacing of their knots in mm.
_KNOT_SPACINGS_MM: Mapping[str, float] = {
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
    """A smooth random field with unit standard deviation: cubic B-spline with normal knots, 320 mm wide."""

    HALF_BOX_MM = 160.0
    # Mean standard deviation of a cubic B-spline with independent unit knots in three dimensions.
    STANDARD_DEVIATION = 0.479**1.5

    def __init__(self, knot_spacing_mm: float, rng: np.random.Generator) -> None:
        self.knot_spacing_mm = knot_spacing_mm
        self.knot_count = int(2 * self.HALF_BOX_MM / knot_spacing_mm) + 4
        knots = rng.standard_normal((self.knot_count,) * 3, dtype=np.float32)
        self.knots = knots / np.float32(self.STANDARD_DEVIATION)

    def evaluate_on_lattice(self, z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        """Evaluate the field on the lattice of three axes (mm): ``(z, y, x)``."""
        planes = np.tensordot(self._compute_basis(z), self.knots, axes=1)
        values: FloatArray = self._compute_basis(y) @ planes @ self._compute_basis(x).T
        return values

    def _compute_basis(self, coordinates: FloatArray) -> FloatArray:
        """Compute the weights of all knots along one axis: ``(position, knot)``."""
        knot_distances = np.abs(
            (coordinates[:, None] + self.HALF_BOX_MM) / self.knot_spacing_mm + 1 - np.arange(self.knot_count)
        )
        near = 2 / 3 - knot_distances**2 + knot_distances**3 / 2
        result: FloatArray = np.where(
            knot_distances < 1, near, np.clip(2 - knot_distances, 0, None) ** 3 / 6
        ).astype(np.float32)
        return result


class Lattice:
    """Several maps on one regular lattice, interpolated together."""

    def __init__(self, maps: FloatArray, origin_mm: NDArray[np.float64], spacing_mm: float) -> None:
        """maps: ``(map, x, y, z)``; origin_mm: position of the first node; spacing_mm: between nodes."""
        self.shape, self.origin, self.spacing = (
            maps.shape[1:],
            origin_mm.astype(np.float32),
            np.float32(spacing_mm),
        )
        self.nodes = np.ascontiguousarray(np.moveaxis(maps, 0, -1)).reshape(-1, len(maps))

    def interpolate(self, points: FloatArray, chunk_size: int = 6000) -> FloatArray:
        """Interpolate all maps linearly at points ``(3, n)``, constant outside the lattice: ``(map, n)``."""
        found = np.empty((self.nodes.shape[1], points.shape[1]), np.float32)
        for start in range(0, points.shape[1], chunk_size):  # a chunk fits the processor's cache
            found[:, start : start + chunk_size] = self._interpolate_chunk(
                points[:, start : start + chunk_size]
            ).T
        return found

    def _interpolate_chunk(self, points: FloatArray) -> FloatArray:
        """Interpolate all maps at one chunk of points: ``(n, map)``."""
        last = np.array(self.shape, np.float32)[:, None] - np.float32(1.001)
        lattice_position = np.clip((points - self.origin[:, None]) / self.spacing, 0, last)
        node = lattice_position.astype(np.int32)
        share = lattice_position - node
        start = (node[0] * self.shape[1] + node[1]) * self.shape[2] + node[2]
        corner_weights = np.stack([1 - share, share])
        found = np.zeros((points.shape[1], self.nodes.shape[1]), np.float32)
        for x, y, z in np.ndindex(2, 2, 2):
            corner = self.nodes.take(start + ((x * self.shape[1] + y) * self.shape[2] + z), axis=0)
            corner *= (corner_weights[x, 0] * corner_weights[y, 1] * corner_weights[z, 2])[:, None]
            found += corner
        return found


def _create_random_fields(rng: np.random.Generator, spacing_mm: float = 2.0) -> Lattice:
    """Create all smooth random fields of a head, over the range of possible head positions."""
    low, high = np.array([-108.0, -134.0, -108.0]), np.array([108.0, 134.0, 122.0])
    x, y, z = (np.arange(low[axis], high[axis], spacing_mm, dtype=np.float32) for axis in range(3))
    maps = [SmoothField(knot_mm, rng).evaluate_on_lattice(x, y, z) for knot_mm in _KNOT_SPACINGS_MM.values()]
    return Lattice(np.stack(maps), low, spacing_mm)


@dataclass(frozen=True, eq=False)
class _AtlasMap:
    """A map of the atlas ``(x, y, z)`` in RAS: position of the first voxel and voxel size in mm."""

    values: FloatArray
    origin_mm: NDArray[np.float64]
    voxel_mm: float

    def interpolate(self, head_points: FloatArray) -> FloatArray:
        """Interpolate the map linearly at head coordinates ``(3, n)``."""
        voxels = [(head_points[axis] - self.origin_mm[axis]) / self.voxel_mm for axis in range(3)]
        found: FloatArray = ndimage.map_coordinates(self.values, voxels, order=1, mode="nearest")
        return found


@dataclass(frozen=True, eq=False)
class _Atlas:
    """The MNI152 atlas.

    tissue: fractions (0 to 1) of grey matter, white matter and brain. surface_distance: mm from the brain's smoothed
    surface, negative inside. tumour_candidates: head coordinates ``(n, 3)`` deep in the right white matter, possible
    centres of a tumour.
    """

    tissue: Lattice
    surface_distance: _AtlasMap
    tumour_candidates: NDArray[np.float64]


@lru_cache(maxsize=1)
def _load_atlas() -> _Atlas:
    """Load the atlas distributed with nilearn, once."""
    from nilearn import datasets  # slow to import, needed only for phantoms

    images = (
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    )
    origin = images[2].affine[:3, 3]
    maps = np.stack([np.asarray(image.dataobj, np.float32) for image in images])
    surface_distance = _compute_surface_distance(_AtlasMap(maps[2], origin, 1.0))
    tumour_candidates = np.argwhere(maps[1] > 0.9) + origin
    # away from the midline, the base of the brain, the cerebellum and the skull
    x, y, z = tumour_candidates.T
    tumour_candidates = tumour_candidates[(x > 22) & (z > 0) & (z < 48) & (y > -75) & (y < 50)]
    tumour_candidates = tumour_candidates[
        surface_distance.interpolate(tumour_candidates.T.astype(np.float32)) < -15
    ]
    return _Atlas(Lattice(maps, origin, 1.0), surface_distance, tumour_candidates)


def _compute_surface_distance(brain: _AtlasMap, closing_mm: float = 14.0, padding_mm: int = 36) -> _AtlasMap:
    """Compute the signed distance (mm) from the brain's surface with closed sulci (the skull does not follow them)."""
    step = 3  # a smooth surface needs no finer grid
    coarse = np.pad(brain.values[::step, ::step, ::step] > 0.5, padding_mm // step)
    grown = ndimage.distance_transform_edt(~coarse) * step < closing_mm
    closed = ndimage.distance_transform_edt(grown) * step > closing_mm
    signed = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    smooth = ndimage.gaussian_filter(signed.astype(np.float32) * step, 1.3)
    return _AtlasMap(smooth, brain.origin_mm - padding_mm, float(step))


# --- the head ---------------------------------------------------------------------------------------


class HeadAnatomy:
    """Random parameters of one person, sampled once."""

    def __init__(
        self,
        appearance: TumourAppearance | None,
        age: float,
        max_tilt_degrees: float,
        side: BodySide | None,
        rng: np.random.Generator,
    ) -> None:
        """Sample a head.

        appearance: of the tumour, None without a lesion; age: in years; max_tilt_degrees: maximum rotation of the
        head at rest; side: of the tumour, None for random.
        """
        self.appearance, self.atlas = appearance, _load_atlas()
        degrees = rng.uniform(-1, 1, 3) * [1, 0.6, 0.5] * max_tilt_degrees
        tilt = Rotation.from_euler("zxy", degrees, degrees=True)
        # The brain of the atlas (1.9 l) is larger than average.
        scale = rng.normal(0.95, 0.025, 3).clip(0.9, 1.02)
        # LPS mm to head coordinates: rotation, scaling and change of sign of x and y
        self.lps_to_head = (np.diag([-1, -1, 1] / scale) @ tilt.as_matrix().T).astype(np.float32)
        age_factor = np.clip((age - 30) / 50, 0, 1)
        self.atrophy = float(0.6 + 0.7 * age_factor + rng.normal(0, 0.1))
        self.ventricle_widening = float(np.clip(0.22 * age_factor + rng.normal(0.02, 0.06), -0.08, 0.32))
        self.csf_mm, self.skull_mm, self.scalp_mm = rng.uniform([1.5, 5.0, 4.5], [2.8, 7.0, 8.0])
        self.frontal_sinus_size = float(rng.uniform(0.4, 1.2))
        # x of the atlas is positive on the right; candidates are mirrored for a left-sided tumour
        tumour_side = rng.choice(["left", "right"]) if side is None else side
        start = rng.permutation(self.atlas.tumour_candidates)[0] * [-1 if tumour_side == "left" else 1, 1, 1]
        self.tumour_centre_lps = np.linalg.solve(self.lps_to_head, start).astype(np.float32)
        self.tumour_side_sign = np.float32(np.sign(start[0]))
        axes = Rotation.random(rng=rng).as_matrix()
        self.tumour_axes = (axes / rng.uniform([0.8, 0.8, 0.8], [1.25, 1.25, 1.0])).T.astype(np.float32)
        self.random_fields = _create_random_fields(rng)

    def is_possibly_inside_plane(
        self, points: FloatArray, shape: tuple[int, int], region: HeadRegion = "head", step: int = 4
    ) -> NDArray[np.bool_]:
        """Whether points ``(3, row x column)`` of a plane may be in a region, from every ``step``-th pixel."""
        is_possibly_inside = self.is_possibly_inside if region == "head" else self.is_possibly_brain
        few = points.reshape(3, *shape)[:, ::step, ::step]
        near = is_possibly_inside(few.reshape(3, -1)).reshape(few.shape[1:])
        near = ndimage.binary_dilation(near)
        whole = near.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]
        mask: NDArray[np.bool_] = whole.ravel()
        return mask

    def is_possibly_inside(self, points: FloatArray) -> NDArray[np.bool_]:
        """Whether each of the points ``(3, n)`` may be inside the head; fast, without false negatives."""
        head_points = np.tensordot(self.lps_to_head, points, axes=1)
        face = (np.abs(head_points[0]) < 90) & (np.abs(head_points[1] + 3) < 122) & (head_points[2] < 0)
        mask: NDArray[np.bool_] = face | (self.atlas.surface_distance.interpolate(head_points) < 31)
        return mask

    def is_possibly_brain(self, points: FloatArray) -> NDArray[np.bool_]:
        """Whether each of the points ``(3, n)`` may be in the brain; fast, without false negatives."""
        bends = dict(zip(_KNOT_SPACINGS_MM, self.random_fields.interpolate(points), strict=True))
        mask: NDArray[np.bool_] = (
            self.atlas.surface_distance.interpolate(_compute_head_points(self, points, bends)) < 2
        )
        return mask


@dataclass(frozen=True, eq=False)
class PointAnatomy:
    """Anatomy at each point; all arrays are ``(n,)``, distances in mm, fractions 0 to 1.

    head_points: deformed head coordinates ``(3, n)``; brain_distance: from the brain's surface; skin_distance: from
    the head's surface; tumour_distance: from the surface of the core (all negative inside); random_fields: by name.
    """

    head_points: FloatArray
    brain_distance: FloatArray
    skin_distance: FloatArray
    tumour_distance: FloatArray
    grey_matter: FloatArray
    white_matter: FloatArray
    brain: FloatArray
    random_fields: Mapping[str, FloatArray]


def locate_points(head: HeadAnatomy, points: FloatArray) -> PointAnatomy:
    """Compute the anatomy of a head at points ``(3, n)`` in LPS mm."""
    random_fields = dict(zip(_KNOT_SPACINGS_MM, head.random_fields.interpolate(points), strict=True))
    head_points = _compute_head_points(head, points, random_fields)
    outside = head.atlas.surface_distance.interpolate(head_points)
    tumour, push = _compute_tumour_distance(head, points, random_fields, outside)
    inner = head_points - _apply_matrix(head.lps_to_head, push)
    for axis, name in enumerate("xyz"):
        inner[axis] += 1.3 * random_fields[f"fold {name}"] * np.clip(-outside / 6, 0, 1)
    # moving the atlas's sample points towards the midline widens the ventricles
    near = np.exp(-0.5 * (((inner.T - np.array([0, -15, 15], np.float32)) / 24) ** 2).sum(-1))
    inner[0] *= 1 - head.ventricle_widening * near
    grey, white, brain = _compute_tissue_shares(head, inner, outside, random_fields)
    return PointAnatomy(
        head_points,
        outside,
        _compute_skin_distance(head, head_points, outside, random_fields),
        tumour,
        grey,
        white,
        brain,
        random_fields,
    )


def _compute_head_points(
    head: HeadAnatomy, points: FloatArray, random_fields: Mapping[str, FloatArray]
) -> FloatArray:
    """Compute the deformed head coordinates ``(3, n)`` of points ``(3, n)`` in LPS mm."""
    head_points = _apply_matrix(head.lps_to_head, points)
    for axis, (name, bend_mm) in enumerate({"x": 3.0, "y": 3.0, "z": 1.3}.items()):
        head_points[axis] += bend_mm * random_fields[f"bend {name}"]
    return head_points


def _compute_tissue_shares(
    head: HeadAnatomy,
    atlas_points: FloatArray,
    brain_distance: FloatArray,
    random_fields: Mapping[str, FloatArray],
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute fractions of grey matter, white matter and brain, ``(n,)`` each; 0 outside the skull."""
    cranial = brain_distance < 4
    shares = np.zeros((3, atlas_points.shape[1]), np.float32)
    shares[:, cranial] = head.atlas.tissue.interpolate(atlas_points[:, cranial])
    brain = shares[2]
    grey, white = shares[0] * brain, shares[1] * brain
    # the sulci of the averaged template are shallow; individual ones are wider, especially in old age
    fluid = (
        (brain - grey - white) * (1 + head.atrophy) - 0.04 + _compute_folia_csf(atlas_points, random_fields)
    )
    share = white / np.maximum(grey + white, 1e-3)
    sharp = 0.35 * share + 0.65 * share**2 * (3 - 2 * share)
    matter = brain - np.clip(fluid, 0, brain)
    return matter * (1 - sharp), matter * sharp, brain


def _compute_folia_csf(head_points: FloatArray, random_fields: Mapping[str, FloatArray]) -> FloatArray:
    """Compute the fluid fraction in the cerebellar fissures (arcs around the brain stem), missing in the template."""
    middle = np.array([0, -38, -18], np.float32)[:, None]
    arcs = compute_lengths(head_points - middle) + random_fields["detail"]
    cerebellum = compute_inside_share(
        compute_ellipsoid_distance(fold_to_right(head_points), (24, -64, -40), (32, 30, 26)), 6
    )
    result: FloatArray = 0.22 * cerebellum * np.clip(np.cos(arcs * (2 * np.pi / 4.6)), 0, 1)
    return result


def _apply_matrix(matrix: NDArray[np.float32], vectors: FloatArray) -> FloatArray:
    """Apply a 3x3 matrix to vectors ``(3, n)``."""
    return np.tensordot(matrix, vectors, axes=1).astype(np.float32, copy=False)


def compute_lengths(vectors: FloatArray) -> FloatArray:
    """Compute the length ``(n,)`` of vectors ``(3, n)``."""
    result: FloatArray = np.sqrt((vectors**2).sum(axis=0))
    return result


def _compute_tumour_distance(
    head: HeadAnatomy, points: FloatArray, random_fields: Mapping[str, FloatArray], brain_distance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Compute the distance (mm) from the irregular surface of the core, and the mass effect ``(3, n)`` in LPS mm.

    Without a lesion the distance is infinite and the displacement 0.
    """
    if head.appearance is None:
        return np.full_like(brain_distance, np.inf), np.zeros_like(points)
    centre_offset = points - head.tumour_centre_lps[:, None]
    distance = compute_lengths(_apply_matrix(head.tumour_axes, centre_offset))
    core_radius = np.float32(head.appearance.core_mm)
    edge = (
        distance
        - core_radius
        + 0.22 * core_radius * random_fields["shape"]
        + 0.08 * core_radius * random_fields["detail"]
    )
    # the mass effect is largest at the tumour's edge, decreases with distance and is 0 at the skull
    strength = 0.22 * core_radius * np.exp(-((distance / (2 * core_radius)) ** 2)) / (distance + 6)
    # the core, including its rim, ends below the skull
    return np.maximum(edge, brain_distance + 3), centre_offset * strength * np.clip(
        -brain_distance / 10, 0, 1
    )


def _compute_skin_distance(
    head: HeadAnatomy,
    head_points: FloatArray,
    brain_distance: FloatArray,
    random_fields: Mapping[str, FloatArray],
) -> FloatArray:
    """Compute the distance (mm) from the head's surface: scalp, face, neck, nose and ears."""
    scalp = brain_distance - (head.csf_mm + head.skull_mm + head.scalp_mm + 0.7 * random_fields["scalp"])
    folded_points = fold_to_right(head_points)
    surface = _compute_smooth_union(
        scalp, compute_ellipsoid_distance(head_points, (0, -3, -48), (71, 98, 95)), 14
    )
    # temples and cheeks fill the gap between eyes and temporal lobes
    surface = _compute_smooth_union(
        surface, compute_ellipsoid_distance(folded_points, (44, 42, -42), (25, 36, 50)), 14
    )
    surface = _compute_smooth_union(
        surface, compute_ellipsoid_distance(head_points, (0, 92, -52), (14, 20, 24)), 10
    )
    return _compute_smooth_union(
        surface, compute_ellipsoid_distance(folded_points, (77, -24, -38), (7, 13, 26)), 4
    )


def fold_to_right(head_points: FloatArray) -> FloatArray:
    """Fold head coordinates ``(3, n)`` onto the right half, for paired structures."""
    return np.concatenate([np.abs(head_points[:1]), head_points[1:]])


def compute_ellipsoid_distance(
    head_points: FloatArray, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> FloatArray:
    """Approximate the distance ``(n,)`` in mm of points ``(3, n)`` from an ellipsoid's surface, negative inside."""
    unit = [(head_points[axis] - np.float32(centre[axis])) / np.float32(radii[axis]) for axis in range(3)]
    result: FloatArray = (np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2) - 1) * np.float32(min(radii))
    return result


def _compute_smooth_union(
    first_distance: FloatArray, second_distance: FloatArray, blend_mm: float
) -> FloatArray:
    """Unite two signed distances, the edge rounded over ``blend_mm``."""
    near = np.clip(blend_mm - np.abs(first_distance - second_distance), 0, None)
    result: FloatArray = np.minimum(first_distance, second_distance) - near**2 / (4 * blend_mm)
    return result


def compute_inside_share(distance: NDArray[np.floating], edge_width_mm: float = 1.0) -> FloatArray:
    """Compute the fraction (0 to 1) inside a surface from signed distances in mm, over a soft edge; same shape."""
    result: FloatArray = np.clip(0.5 - distance / edge_width_mm, 0, 1).astype(np.float32, copy=False)
    return result
