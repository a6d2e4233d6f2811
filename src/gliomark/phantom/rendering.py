"""Render grey values of a synthetic head, one tissue over another, and simulate how a scanner stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.phantom.anatomy import (
    HEAD_CENTRE_LPS,
    FloatArray,
    HeadAnatomy,
    HeadRegion,
    Lattice,
    PointAnatomy,
    SmoothField,
    compute_ellipsoid_distance,
    compute_inside_share,
    compute_lengths,
    fold_to_right,
    locate_points,
)
from gliomark.study import MRSequence

# Grey values of each tissue in T1, T1C, T2 and FLAIR, as in 1.5 T spin echo.
TISSUE_SIGNALS: Mapping[str, tuple[float, float, float, float]] = {
    "air": (0, 0, 0, 0),
    "skin": (390, 480, 300, 330),
    "fat": (760, 780, 650, 600),
    "muscle": (270, 330, 170, 200),
    "bone": (45, 45, 40, 40),
    "marrow": (330, 360, 230, 230),
    "mucosa": (280, 620, 620, 520),
    "globe": (140, 145, 900, 130),
    "csf": (135, 135, 930, 55),
    "grey": (320, 338, 470, 405),
    "white": (435, 445, 345, 325),
    "dura": (220, 560, 150, 180),
    "vein": (190, 900, 90, 90),
    "oedema": (320, 330, 690, 690),
    "tumour": (275, 300, 690, 640),
    "mismatch": (250, 260, 790, 390),
    "rim": (330, 830, 560, 590),
    "necrosis": (190, 200, 830, 430),
}


TRUE_REGIONS = ("brain", "core", "lesion")


def sample_tissue_signals(rng: np.random.Generator) -> dict[str, FloatArray]:
    """Sample one person's grey values by tissue, ``(sequence,)`` in the order of ``MRSequence``."""
    return {
        name: (np.array(values) * rng.normal(1, 0.03, 4)).astype(np.float32)
        for name, values in TISSUE_SIGNALS.items()
    }


class _TissueCanvas:
    """Grey values ``(sequence, n)`` on which tissues are painted one over another."""

    def __init__(
        self, tissue_signals: Mapping[str, FloatArray], sequences: tuple[MRSequence, ...], point_count: int
    ) -> None:
        rows = [list(MRSequence).index(sequence) for sequence in sequences]
        self.tissue_signals = {name: values[rows] for name, values in tissue_signals.items()}
        self.signal = np.zeros((len(rows), point_count), np.float32)

    def paint_tissue(self, tissue_name: str, share: FloatArray) -> None:
        """Blend a tissue over the present signal. share: 0 to 1, ``(n,)``."""
        if share.any():
            for image, value in zip(self.signal, self.tissue_signals[tissue_name], strict=True):
                image += share * (value - image)


@dataclass(frozen=True, eq=False)
class RenderedPlane:
    """Rendered points of a head: signal ``(sequence, n)`` and true fractions ``(n,)`` by region of TRUE_REGIONS."""

    signal: FloatArray
    true_shares: Mapping[str, FloatArray]


def render_plane(
    head: HeadAnatomy,
    tissue_signals: Mapping[str, FloatArray],
    sequences: tuple[MRSequence, ...],
    points: FloatArray,
    shape: tuple[int, int],
    region: HeadRegion = "head",
) -> RenderedPlane:
    """Render the points ``(3, row x column)`` of a plane, in LPS mm of the head at rest.

    shape: (row, column). region: "brain" leaves out what lies outside the brain, which is several times faster.
    """
    inside = np.flatnonzero(head.is_possibly_inside_plane(points, shape, region))
    anatomy = locate_points(head, points[:, inside])
    canvas = _TissueCanvas(tissue_signals, sequences, len(inside))
    if region == "head":
        _paint_face(canvas, anatomy)
    _paint_skull(canvas, anatomy, head)
    _paint_brain(canvas, anatomy)
    _paint_vessels(canvas, anatomy)
    true_shares = {"brain": anatomy.brain, **_paint_tumour(canvas, anatomy, head)}
    # fine texture: no tissue is homogeneous
    canvas.signal *= 1 + 0.02 * anatomy.random_fields["texture"]
    everywhere = np.zeros((len(sequences) + len(TRUE_REGIONS), points.shape[1]), np.float32)
    everywhere[:, inside] = np.concatenate([canvas.signal, [true_shares[name] for name in TRUE_REGIONS]])
    return RenderedPlane(
        everywhere[: len(sequences)], dict(zip(TRUE_REGIONS, everywhere[len(sequences) :], strict=True))
    )


def _paint_face(canvas: _TissueCanvas, anatomy: PointAnatomy) -> None:
    """Paint skin, fat and muscle, then eyes, nose and the cavities of the skull base."""
    head_points, folded_points, marble = (
        anatomy.head_points,
        fold_to_right(anatomy.head_points),
        anatomy.random_fields["marble"],
    )
    head = compute_inside_share(anatomy.skin_distance)
    canvas.paint_tissue("muscle", head)
    canvas.paint_tissue(
        "fat", head * np.clip(0.7 * marble + 0.6 * anatomy.random_fields["veins"] - 0.25, 0, 0.9)
    )
    # subcutaneous fat and skin
    canvas.paint_tissue(
        "fat", head * compute_inside_share(-anatomy.skin_distance - 5.5 - anatomy.random_fields["scalp"], 2)
    )
    canvas.paint_tissue("skin", head * compute_inside_share(-anatomy.skin_distance - 1.6))
    base = compute_inside_share(compute_ellipsoid_distance(folded_points, (0, 28, -48), (46, 42, 20)), 3)
    canvas.paint_tissue("bone", base * np.clip(1 + marble, 0, 0.9))
    canvas.paint_tissue(
        "marrow", compute_inside_share(compute_ellipsoid_distance(head_points, (0, -8, -50), (11, 9, 16)), 3)
    )
    _paint_orbits(canvas, folded_points)
    # turbinates: anteroposterior layers of mucosa and air
    nose = compute_inside_share(compute_ellipsoid_distance(folded_points, (0, 56, -52), (17, 40, 26)), 2)
    canvas.paint_tissue("air", nose)
    canvas.paint_tissue(
        "mucosa", nose * np.clip(1.6 * np.cos(folded_points[0] * 0.75 + 0.6 * marble) - 0.3, 0, 1)
    )
    for centre, radii in (((31, 50, -66), (15, 19, 17)), ((7, 14, -44), (8, 12, 8))):
        cavity = compute_ellipsoid_distance(folded_points, centre, radii) + 1.5 * marble
        canvas.paint_tissue("mucosa", compute_inside_share(cavity - 1.5))
        canvas.paint_tissue("air", compute_inside_share(cavity))


def _paint_orbits(canvas: _TissueCanvas, folded_points: FloatArray) -> None:
    """Paint orbital fat, eyeballs with lenses, optic nerves and eye muscles."""
    # position along the orbit's axis from its apex (0) to the eyeball (1)
    apex, eye = np.array([13, 22, -34], np.float32), np.array([32, 61, -37], np.float32)
    axis = ((eye - apex) / np.linalg.norm(eye - apex))[:, None]
    apex_offset = folded_points - apex[:, None]
    axial_distance = (axis * apex_offset).sum(axis=0)
    radial_distance = compute_lengths(apex_offset - axis * axial_distance)
    share = np.clip(axial_distance / 43, 0, 1)
    canvas.paint_tissue(
        "bone",
        compute_inside_share(
            np.maximum(radial_distance - 3.2 - 16.5 * share, np.abs(axial_distance - 25) - 27)
        ),
    )
    cone = compute_inside_share(
        np.maximum(radial_distance - 2 - 16 * share, np.abs(axial_distance - 27) - 27)
    )
    canvas.paint_tissue("fat", cone)
    canvas.paint_tissue("muscle", cone * compute_inside_share(np.abs(radial_distance - 1 - 11 * share) - 1.7))
    canvas.paint_tissue("white", cone * compute_inside_share(radial_distance - 2.2))
    canvas.paint_tissue(
        "skin", compute_inside_share(compute_ellipsoid_distance(folded_points, (32, 61, -37), (13, 13, 13)))
    )
    canvas.paint_tissue(
        "globe", compute_inside_share(compute_ellipsoid_distance(folded_points, (32, 61, -37), (12, 12, 12)))
    )
    canvas.paint_tissue(
        "muscle",
        compute_inside_share(compute_ellipsoid_distance(folded_points, (32, 70, -37), (4.5, 2.2, 4.5))),
    )


def _paint_skull(canvas: _TissueCanvas, anatomy: PointAnatomy, head: HeadAnatomy) -> None:
    """Paint the skull with marrow and air cells, and the fluid inside."""
    head_points, folded_points = anatomy.head_points, fold_to_right(anatomy.head_points)
    # the fluid layer is thin where gyri touch the skull and thicker elsewhere
    inner = anatomy.brain_distance - np.clip(head.csf_mm + 0.9 * anatomy.random_fields["bone"], 0.5, None)
    thick = head.skull_mm + 0.9 * anatomy.random_fields["bone"]
    # thin at the base, where orbit and nose are close to the brain
    thick = thick * np.clip(1 + (head_points[2] + 5) / 50, 0.45, 1)
    covered = compute_inside_share(anatomy.skin_distance)
    canvas.paint_tissue("bone", compute_inside_share(inner - thick) * covered)
    canvas.paint_tissue(
        "marrow", 0.75 * compute_inside_share(np.abs(inner - thick / 2) - thick / 5) * covered * (thick > 3.5)
    )
    frontal = (
        compute_ellipsoid_distance(
            head_points, (0, 80, -6), (20 * head.frontal_sinus_size, 5, 15 * head.frontal_sinus_size)
        )
        + anatomy.random_fields["marble"]
    )
    canvas.paint_tissue("air", compute_inside_share(frontal))
    canvas.paint_tissue("csf", compute_inside_share(inner))
    petrous = (
        compute_ellipsoid_distance(folded_points, (44, -26, -42), (24, 9, 11))
        + 2 * anatomy.random_fields["marble"]
    )
    canvas.paint_tissue("bone", compute_inside_share(petrous) * (1 - anatomy.brain))
    canvas.paint_tissue(
        "air",
        compute_inside_share(
            compute_ellipsoid_distance(folded_points, (56, -36, -46), (9, 12, 14))
            + 5 * anatomy.random_fields["marble"]
        ),
    )


def _paint_brain(canvas: _TissueCanvas, anatomy: PointAnatomy) -> None:
    """Paint cerebrospinal fluid, grey and white matter by their fractions."""
    canvas.paint_tissue("csf", anatomy.brain)
    solid = anatomy.grey_matter + anatomy.white_matter
    canvas.paint_tissue("grey", solid)
    canvas.paint_tissue("white", solid * anatomy.white_matter / np.maximum(solid, 1e-3))


def _paint_vessels(canvas: _TissueCanvas, anatomy: PointAnatomy) -> None:
    """Paint falx, venous sinuses, cortical veins, choroid plexus and basal arteries."""
    head_points, folded_points, outside = (
        anatomy.head_points,
        fold_to_right(anatomy.head_points),
        anatomy.brain_distance,
    )
    fluid = np.clip(1 - anatomy.grey_matter - anatomy.white_matter, 0, 1) * compute_inside_share(
        outside - 2.5
    )
    falx = (
        compute_inside_share(folded_points[0] - 0.6)
        * (head_points[2] > -5)
        * ((head_points[2] > 30) | (np.abs(head_points[1] + 15) > 45))
    )
    canvas.paint_tissue("dura", 0.8 * falx * fluid)
    sagittal = np.maximum(folded_points[0] - 5.5 + np.abs(outside), np.abs(outside) - 4)
    canvas.paint_tissue(
        "vein",
        compute_inside_share(sagittal)
        * ((head_points[2] > 20) | (head_points[1] < -60))
        * (head_points[2] > -15),
    )
    transverse = np.maximum(np.abs(head_points[2] + 22) - 4, np.abs(outside - 0.5) - 2.5)
    canvas.paint_tissue("vein", compute_inside_share(transverse) * (head_points[1] < -45))
    # veins in the outer sulci, not in the ventricles
    furrows = 0.7 * fluid * compute_inside_share(outside + 2) * compute_inside_share(-outside - 20)
    canvas.paint_tissue("vein", furrows * np.clip(2.5 * anatomy.random_fields["veins"] - 3.2, 0, 1))
    plexus = compute_inside_share(compute_ellipsoid_distance(folded_points, (23, -42, 8), (5, 8, 8)), 4)
    canvas.paint_tissue("vein", 0.6 * fluid * plexus * np.clip(0.5 + anatomy.random_fields["veins"], 0, 1))
    for centre, radii in (((15, 4, -34), (2.5, 3, 12)), ((0, -17, -34), (2, 2, 14))):
        canvas.paint_tissue(
            "vein", compute_inside_share(compute_ellipsoid_distance(folded_points, centre, radii))
        )


def _paint_tumour(canvas: _TissueCanvas, anatomy: PointAnatomy, head: HeadAnatomy) -> dict[str, FloatArray]:
    """Paint oedema along white matter, viable tumour, enhancing rim and necrosis; return the true fractions."""
    appearance, random_fields = head.appearance, anatomy.random_fields
    if appearance is None:
        return {"core": np.zeros_like(anatomy.brain), "lesion": np.zeros_like(anatomy.brain)}
    # the tumour stays on its side of the falx and in brain tissue, outside ventricles and wide sulci
    allowed_region = np.clip(anatomy.grey_matter + anatomy.white_matter, 0, 1) * compute_inside_share(
        -head.tumour_side_sign * anatomy.head_points[0] + 2, 4
    )
    # non-enhancing tumour infiltrates: its edge is blurred
    core = compute_inside_share(anatomy.tumour_distance, 2 + 4 * (1 - appearance.enhancement)) * np.clip(
        allowed_region * 2, 0, 1
    )
    reach = appearance.oedema_mm * (0.05 + 1.1 * anatomy.white_matter**1.5 + 0.35 * random_fields["spread"])
    oedema = compute_inside_share(anatomy.tumour_distance - np.clip(reach, 0, None), 3) * allowed_region
    canvas.paint_tissue("oedema", 0.92 * oedema * (1 - 0.25 * np.clip(random_fields["spread"], 0, 1)))
    canvas.paint_tissue(
        "mismatch" if appearance.mismatch else "tumour",
        core * (0.9 + 0.1 * random_fields["detail"]).clip(0, 1),
    )
    if appearance.mismatch:
        canvas.paint_tissue("tumour", core * compute_inside_share(-anatomy.tumour_distance - 2.5, 2))
    necrosis_depth_mm = (
        appearance.core_mm * (1 - appearance.necrotic) * (1 + 0.6 * random_fields["spread"])
        + 1.5 * random_fields["detail"]
    )
    necrosis = (
        core
        * compute_inside_share(anatomy.tumour_distance + np.clip(necrosis_depth_mm, 2.5, None), 1.5)
        * (appearance.necrotic > 0)
    )
    # enhancement is a rim around necrosis, or patchy without necrosis
    patch = np.clip(
        0.9 * (random_fields["detail"] + random_fields["spread"]) + 3.6 * appearance.enhancement - 1.6, 0, 1
    )
    canvas.paint_tissue("rim", core * patch * (0.15 + 0.85 * appearance.enhancement) * (1 - necrosis))
    canvas.paint_tissue("necrosis", necrosis * (0.93 + 0.07 * random_fields["spread"]).clip(0, 1))
    # texture of the viable tumour, with the same pattern in every sequence
    grain = np.clip(random_fields["grain"], -2.2, 2.2) * core * (1 - necrosis)
    canvas.signal *= 1 + 0.32 * appearance.marbling * grain
    return {"core": core, "lesion": np.maximum(core, oedema)}


# --- the scanner ------------------------------------------------------------------------------------


def simulate_scan(
    signal: FloatArray, affine: NDArray[np.float64], noise_sigma: float, rng: np.random.Generator
) -> FloatArray:
    """Simulate how a scanner stores a signal ``(slice, row, column)``: coil shading, blur, Rician noise, integers.

    affine: of the grid, to the scanner's LPS mm; noise_sigma: sigma of the noise relative to white matter on T1.
    """
    shading = _CoilShading(rng)
    gain, sigma = rng.uniform(0.7, 1.6), noise_sigma * TISSUE_SIGNALS["white"][0]
    stored = np.empty_like(signal)
    for number, image in enumerate(signal):
        points = compute_plane_points(affine, number, image.shape)
        sharp = ndimage.gaussian_filter(image * shading.compute_gain(points).reshape(image.shape), 0.45)
        grain = sigma * rng.standard_normal((2, *image.shape), np.float32)
        stored[number] = np.rint(gain * np.hypot(sharp + grain[0], grain[1]))
    return stored


class _CoilShading:
    """Sensitivity of the coil by position in the scanner."""

    def __init__(self, rng: np.random.Generator, step_mm: float = 20.0) -> None:
        axis = np.arange(-160, 161, step_mm, dtype=np.float32)
        uneven = SmoothField(90.0, rng).evaluate_on_lattice(axis, axis, axis)
        self.inhomogeneity = Lattice(uneven[None], np.full(3, -160.0), step_mm)

    def compute_gain(self, points: FloatArray) -> FloatArray:
        """Compute the coil's gain ``(n,)`` at LPS points ``(3, n)``."""
        radius = np.hypot(points[0] - HEAD_CENTRE_LPS[0], points[1] - HEAD_CENTRE_LPS[1])
        # surface coils are more sensitive at the periphery and insensitive below the head
        coil = (0.92 + 0.25 * (radius / 100) ** 2) / (1 + np.exp(-(points[2] + 58) / 6))
        share: FloatArray = coil * np.exp(0.09 * self.inhomogeneity.interpolate(points)[0])
        return share


def compute_plane_points(
    affine: NDArray[np.float64], slice_position: float, shape: tuple[int, ...]
) -> FloatArray:
    """Compute LPS points ``(3, row x column)`` in mm of slice ``slice_position`` (may be between two slices)."""
    rows, columns = np.indices(shape).reshape(2, -1)
    index = np.stack([columns, rows, np.full(len(rows), slice_position), np.ones(len(rows))])
    result: FloatArray = (affine[:3] @ index).astype(np.float32)
    return result
