"""A synthetic patient: a head with a glioma in T1, T1C, T2 and FLAIR, drawn from a seed.

The brain is the MNI152 average inside nilearn's wheel (nothing is fetched), bent into another person by
smooth random fields; skull, scalp, face and tumour are painted around and into it, tissue over tissue,
with an own grey value per sequence. Head coordinates ``q`` below are the atlas's millimetres in RAS
(x to the RIGHT, y to the front, z to the head); the images are LPS, so ``x_left = -q[0]``.

No number of it is a measurement of a patient: phantoms test software, they do not train for the clinic.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliomark.study import Clinical, GliomarkError, MRSequence, Series, Study

Floats = NDArray[np.float32]
Side = Literal["left", "right"]

# Grey value of each tissue in T1, T1C, T2, FLAIR, in the manner of 1.5 T spin echo.
_SIGNAL: Mapping[str, tuple[float, float, float, float]] = {
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


@dataclass(frozen=True)
class PhantomSettings:
    """How the phantom is imaged, and what may be asked of it.

    spacing_mm: (row, column) step within a slice; slice_mm: step between slices; matrix: rows = columns;
    slices: how many, centred on the head; noise: Rician sigma as a share of white matter on T1;
    lean_degrees: largest rotation of the head; side: the patient's side of the tumour, None for chance;
    sublayers: layers averaged into one thick slice.
    """

    spacing_mm: tuple[float, float] = (0.94, 0.94)
    slice_mm: float = 5.5
    matrix: int = 256
    slices: int = 27
    noise: float = 0.03
    lean_degrees: float = 6.0
    side: Side | None = None
    sublayers: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        sizes = (*self.spacing_mm, self.slice_mm, self.matrix, self.slices, self.sublayers)
        if min(sizes) <= 0 or self.noise < 0 or self.lean_degrees < 0:
            raise GliomarkError(f"The phantom's sizes must be positive, not {self}: correct the settings.")
        if self.side not in ("left", "right", None):
            raise GliomarkError(f"The phantom's side is {self.side!r}: give 'left', 'right' or None.")


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic patient with what only a phantom knows.

    core: the tumour without its oedema; brain: brain with its inner CSF; both Series of 0 and 1 on the
    grid of the images. ``study.lesion`` is the FLAIR abnormality: core and oedema together.
    """

    study: Study
    clinical: Clinical
    core: Series
    brain: Series


@dataclass(frozen=True)
class Look:
    """What the tumour looks like; millimetres, and shares from 0 to 1.

    core_mm: mean radius; oedema_mm: reach of the oedema along white matter; enhancement: share of the
    living tumour that takes contrast; necrotic: dead share of the radius; mismatch: T2-FLAIR mismatch.
    """

    core_mm: float
    oedema_mm: float
    enhancement: float
    necrotic: float
    mismatch: bool


def phantom_study(seed: int, settings: PhantomSettings = PhantomSettings()) -> tuple[Study, Clinical]:
    """Synthetic patient ``PHANTOM-<seed>``: four aligned series ``(slice, row, column)``, mask, csv row."""
    phantom = make_phantom(seed, settings)
    return phantom.study, phantom.clinical


def make_phantom(seed: int, settings: PhantomSettings = PhantomSettings()) -> Phantom:
    """The synthetic patient of ``phantom_study`` together with its true core and brain."""
    # One stream of chance per concern: a change in how noise is drawn leaves the clinical row alone.
    chance = [np.random.default_rng([seed, concern]) for concern in range(4)]
    clinical = draw_clinical(f"PHANTOM-{seed:04d}", chance[0])
    look = draw_look(clinical, chance[1])
    grid = _Grid(settings)
    head = _Head(grid, settings, look, clinical.age or 50.0, chance[2])
    layers = [_paint_slice(head, number) for number in range(settings.slices)]
    truth = {name: np.stack([layer.truth[name] for layer in layers]) for name in ("lesion", "core", "brain")}
    signal = np.stack([layer.signal for layer in layers], axis=1)
    source = Path(clinical.patient_id)
    series = {
        sequence: grid.series(_scan(image, grid, settings, chance[3]), source / sequence.value)
        for sequence, image in zip(MRSequence, signal, strict=True)
    }
    masks = {name: grid.series(_outline(cover), source / name) for name, cover in truth.items()}
    study = Study(
        patient_id=clinical.patient_id,
        series=series,
        source=source,
        kind="volumes",
        aligned=True,
        lesion=masks["lesion"],
        notes=("Synthetic patient: not a person.",),
    )
    return Phantom(study, clinical, masks["core"], masks["brain"])


def _outline(cover: Floats) -> Floats:
    """The largest piece of a true share, as 0 and 1, ``(slice, row, column)``; smooth as a reader draws."""
    pieces, count = ndimage.label(ndimage.gaussian_filter(cover, (0, 1, 1)) > 0.5)
    if count == 0:
        return np.zeros_like(cover)
    return (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).astype(np.float32)


# --- the patient: clinical row and the look of the tumour -------------------------------------------

# Share of the cohort, mean age and its deviation, mean ln(Ki-67 %) and its deviation, by grade and IDH
# mutation: rounded statistics of 326 glioma patients (../shared/tables/ipd-brain-ki67.csv).
_STRATA: Mapping[tuple[int, int], tuple[float, float, float, float, float]] = {
    (2, 1): (0.18, 39, 10, 1.3, 0.7),
    (3, 0): (0.04, 43, 12, 3.1, 0.7),
    (3, 1): (0.24, 40, 11, 2.6, 0.7),
    (4, 0): (0.43, 53, 11, 3.2, 0.6),
    (4, 1): (0.11, 42, 12, 3.5, 0.5),
}


def draw_clinical(patient_id: str, chance: np.random.Generator) -> Clinical:
    """A synthetic clinical row: age in years, sex, and ki67 (percent), idh_mutant, who_grade as text."""
    shares = np.array([stratum[0] for stratum in _STRATA.values()])
    grade, mutant = list(_STRATA)[chance.choice(len(shares), p=shares / shares.sum())]
    _, age, age_deviation, ki67, ki67_deviation = _STRATA[grade, mutant]
    columns = {
        "ki67": str(int(np.clip(np.exp(chance.normal(ki67, ki67_deviation)), 1, 90))),
        "idh_mutant": str(mutant),
        "who_grade": str(grade),
    }
    years = float(int(np.clip(chance.normal(age, age_deviation), 18, 85)))
    return Clinical(patient_id, years, int(chance.random() < 0.4), columns)


def draw_look(clinical: Clinical, chance: np.random.Generator) -> Look:
    """High grade, above all IDH wild type: ring and necrosis; mutant low grade: homogeneous, hardly any."""
    grade = int(clinical.columns["who_grade"])
    mutant = clinical.columns["idh_mutant"] == "1"
    aggressive = {2: 0.05, 3: 0.35, 4: 0.85}[grade] + (0.0 if mutant else 0.15)
    enhancement = aggressive + chance.normal(0, 0.08) if grade > 2 else chance.uniform(0, 0.08)
    return Look(
        core_mm=float(chance.uniform(14, 22) if grade == 4 else chance.uniform(16, 26)),
        oedema_mm=float(np.clip(3 + 17 * aggressive + chance.normal(0, 3), 2, 24)),
        enhancement=float(np.clip(enhancement, 0, 1)),
        necrotic=float(chance.uniform(0.5, 0.8) * (aggressive > 0.8)),
        mismatch=bool(grade < 4 and mutant and chance.random() < 0.5),
    )


# --- space: the pixel grid, smooth random fields and the atlas --------------------------------------


class _Grid:
    """The scanner's pixels in LPS millimetres: axes along x, y, z, each slice in ``sublayers`` layers."""

    # The head's middle: half way from vertex to skull base, from nose to occiput.
    CENTRE_LPS = (0.0, 3.0, 13.0)

    def __init__(self, settings: PhantomSettings) -> None:
        row_mm, column_mm = settings.spacing_mm
        steps = np.array([column_mm, row_mm, settings.slice_mm])
        counts = np.array([settings.matrix, settings.matrix, settings.slices])
        first = np.array(self.CENTRE_LPS) - steps * (counts - 1) / 2
        self.affine = np.diag([*steps, 1.0])
        self.affine[:3, 3] = first
        self.x, self.y, middle = (first[axis] + steps[axis] * np.arange(counts[axis]) for axis in range(3))
        # Layers fill nine tenths of the step: slices are scanned with a little gap.
        spread = ((np.arange(settings.sublayers) + 0.5) / settings.sublayers - 0.5) * 0.9 * settings.slice_mm
        self.z = middle[:, None] + spread[None, :]

    def points(self, number: int) -> Floats:
        """LPS millimetres of slice ``number``: ``(3, layer, row, column)``."""
        z, y, x = np.meshgrid(self.z[number], self.y, self.x, indexing="ij")
        return np.stack([x, y, z]).astype(np.float32)

    def series(self, image: NDArray[np.float32], source: Path) -> Series:
        """A Series ``(slice, row, column)`` on this grid."""
        names = tuple(f"{number + 1:03d}" for number in range(len(image)))
        return Series(image, self.affine.copy(), names, source)


class _Field:
    """A smooth random field over the grid, of unit deviation: cubic B-spline with normal knots."""

    HALF_BOX_MM = 160.0
    # A cubic B-spline of independent unit knots has this mean deviation in three dimensions.
    DEVIATION = 0.479**1.5

    def __init__(self, grid: _Grid, knot_mm: float, chance: np.random.Generator) -> None:
        count = int(2 * self.HALF_BOX_MM / knot_mm) + 4
        self.knots = chance.standard_normal((count, count, count), dtype=np.float32) / self.DEVIATION
        self.z, self.y, self.x = (self._basis(axis, knot_mm, count) for axis in (grid.z, grid.y, grid.x))

    def _basis(self, axis: NDArray[np.float64], knot_mm: float, count: int) -> Floats:
        """Weight of every knot at every place of one axis: ``(..., place, knot)``."""
        far = np.abs((axis[..., None] + self.HALF_BOX_MM) / knot_mm + 1 - np.arange(count))
        near = 2 / 3 - far**2 + far**3 / 2
        return np.where(far < 1, near, np.clip(2 - far, 0, None) ** 3 / 6).astype(np.float32)

    def __getitem__(self, number: int) -> Floats:
        """The field on slice ``number``: ``(layer, row, column)``."""
        planes = np.tensordot(self.z[number], self.knots, axes=1)
        return self.y @ planes @ self.x.T


@dataclass(frozen=True, eq=False)
class _Map:
    """A picture of the atlas ``(x, y, z)`` in RAS: first voxel's place and voxel size in millimetres."""

    values: Floats
    origin_mm: NDArray[np.float64]
    voxel_mm: float

    def at(self, q: Floats, where: NDArray[np.bool_] | None = None) -> Floats:
        """Values at head coordinates ``(3, ...)``, linear between voxels; 0 where not ``where``."""
        wanted = np.ones(q.shape[1:], bool) if where is None else where
        voxels = [(q[axis][wanted] - self.origin_mm[axis]) / self.voxel_mm for axis in range(3)]
        found = np.zeros(q.shape[1:], np.float32)
        found[wanted] = ndimage.map_coordinates(self.values, voxels, order=1, mode="nearest")
        return found


@dataclass(frozen=True, eq=False)
class _Atlas:
    """MNI152: tissue shares of 0..1, and where the brain's smoothed surface is.

    outside: millimetres from that surface, negative inside. seeds: head coordinates ``(n, 3)`` deep in
    the cerebrum's right white matter, where a tumour may start.
    """

    grey: _Map
    white: _Map
    brain: _Map
    outside: _Map
    seeds: NDArray[np.float64]


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    """The atlas of nilearn's wheel, read once."""
    from nilearn import datasets  # slow to import, and only phantoms need it

    grey, white, brain = (
        _Map(np.asarray(image.dataobj, np.float32), image.affine[:3, 3], 1.0)
        for image in (
            datasets.load_mni152_gm_template(resolution=1),
            datasets.load_mni152_wm_template(resolution=1),
            datasets.load_mni152_brain_mask(resolution=1),
        )
    )
    outside = _distance_from_surface(brain)
    seeds = np.argwhere(white.values > 0.9) + white.origin_mm
    # Away from the midline, the base of the brain and the cerebellum, and not under the skull.
    x, y, z = seeds.T
    seeds = seeds[(x > 22) & (z > 0) & (z < 48) & (y > -75) & (y < 50)]
    return _Atlas(grey, white, brain, outside, seeds[outside.at(seeds.T.astype(np.float32)) < -15])


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
    "texture": 4.0,
}


class _Head:
    """One person: all that is drawn from chance once, before any slice is painted."""

    def __init__(
        self, grid: _Grid, settings: PhantomSettings, look: Look, age: float, chance: np.random.Generator
    ) -> None:
        self.grid, self.look, self.atlas = grid, look, _atlas()
        self.tissue = {
            name: (np.array(values) * chance.normal(1, 0.03, 4)).astype(np.float32)
            for name, values in _SIGNAL.items()
        }
        degrees = chance.uniform(-1, 1, 3) * [1, 0.6, 0.5] * settings.lean_degrees
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
        side = settings.side or chance.choice(["left", "right"])
        start = chance.permutation(self.atlas.seeds)[0] * [-1 if side == "left" else 1, 1, 1]
        self.tumour_lps = np.linalg.solve(self.to_head, start).astype(np.float32)
        self.tumour_sign = np.float32(np.sign(start[0]))
        axes = Rotation.random(rng=chance).as_matrix()
        self.tumour_axes = (axes / chance.uniform([0.8, 0.8, 0.8], [1.25, 1.25, 1.0])).T.astype(np.float32)
        self.fields = {name: _Field(grid, knot_mm, chance) for name, knot_mm in _KNOTS_MM.items()}


@dataclass(frozen=True, eq=False)
class _Place:
    """What the painters know of each point of one slice; all arrays ``(layer, row, column)``, mm or 0..1.

    q: head coordinates ``(3, ...)`` bent to this person; outside: from the brain's surface; skin: from
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


def _place(head: _Head, number: int) -> _Place:
    """Where the points of slice ``number`` lie in this head."""
    points = head.grid.points(number)
    noise = {name: made[number] for name, made in head.fields.items()}
    q = _turn(head.to_head, points)
    for axis, (name, bend_mm) in enumerate({"x": 3.0, "y": 3.0, "z": 1.3}.items()):
        q[axis] += bend_mm * noise[f"bend {name}"]
    outside = head.atlas.outside.at(q)
    tumour, push = _tumour(head, points, noise, outside)
    inner = q - _turn(head.to_head, push)
    cranial = outside < 4
    for axis, name in enumerate("xyz"):
        inner[axis] += 1.3 * noise[f"fold {name}"] * np.clip(-outside / 6, 0, 1)
    # Drawing the atlas's sample points towards the midline widens the ventricles.
    near = np.exp(-0.5 * (((inner.T - np.array([0, -15, 15], np.float32)) / 24) ** 2).sum(-1).T)
    inner[0] *= 1 - head.ventricles * near
    brain = head.atlas.brain.at(inner, cranial)
    grey, white = head.atlas.grey.at(inner, cranial) * brain, head.atlas.white.at(inner, cranial) * brain
    # The average of many brains has shallow furrows; one brain has open ones, more so in old age.
    fluid = (brain - grey - white) * (1 + head.atrophy) - 0.04 + _folia(inner, noise)
    fluid = np.clip(fluid, 0, brain)
    share = white / np.maximum(grey + white, 1e-3)
    sharp = 0.35 * share + 0.65 * share**2 * (3 - 2 * share)
    matter = brain - fluid
    return _Place(
        q=q,
        outside=outside,
        skin=_skin(head, q, outside, noise),
        tumour=tumour,
        grey=matter * (1 - sharp),
        white=matter * sharp,
        brain=brain,
        noise=noise,
    )


def _folia(q: Floats, noise: Mapping[str, Floats]) -> Floats:
    """Share of fluid in the cerebellum's fine furrows, arcs around the brain stem, lost in the average."""
    middle = np.array([0, -38, -18], np.float32)[:, None, None, None]
    arcs = _length(q - middle) + noise["detail"]
    cerebellum = _within(_ellipsoid(_folded(q), (24, -64, -40), (32, 30, 26)), 6)
    return 0.22 * cerebellum * np.clip(np.cos(arcs * (2 * np.pi / 4.6)), 0, 1)


def _turn(matrix: NDArray[np.float32], vectors: Floats) -> Floats:
    """A 3x3 matrix applied to vectors ``(3, ...)``."""
    return np.tensordot(matrix, vectors, axes=1).astype(np.float32, copy=False)


def _length(vectors: Floats) -> Floats:
    """Length of each vector of ``(3, ...)``."""
    return np.sqrt((vectors**2).sum(axis=0))


def _tumour(
    head: _Head, points: Floats, noise: Mapping[str, Floats], outside: Floats
) -> tuple[Floats, Floats]:
    """Millimetres from the core's irregular edge, and the push ``(3, ...)`` of the brain in LPS mm."""
    away = points - head.tumour_lps[:, None, None, None]
    distance = _length(_turn(head.tumour_axes, away))
    size = np.float32(head.look.core_mm)
    edge = distance - size + 0.22 * size * noise["shape"] + 0.08 * size * noise["detail"]
    # A swelling pushes most at its edge and fades with distance; the skull does not give way.
    strength = 0.22 * size * np.exp(-((distance / (2 * size)) ** 2)) / (distance + 6)
    # The core, and so its rim, ends under the skull.
    return np.maximum(edge, outside + 3), away * strength * np.clip(-outside / 10, 0, 1)


def _skin(head: _Head, q: Floats, outside: Floats, noise: Mapping[str, Floats]) -> Floats:
    """Millimetres from the head's surface: scalp over the skull, face, neck, nose and ears."""
    scalp = outside - (head.liquor_mm + head.skull_mm + head.scalp_mm + 0.7 * noise["scalp"])
    folded = _folded(q)
    surface = _blend(scalp, _ellipsoid(q, (0, -3, -48), (71, 98, 95)), 14)
    # Temples and cheeks fill the hollow between the eyes and the temporal lobes.
    surface = _blend(surface, _ellipsoid(folded, (44, 42, -42), (25, 36, 50)), 14)
    surface = _blend(surface, _ellipsoid(q, (0, 92, -52), (14, 20, 24)), 10)
    return _blend(surface, _ellipsoid(folded, (77, -24, -38), (7, 13, 26)), 4)


def _folded(q: Floats) -> Floats:
    """Head coordinates with the left half laid on the right one, for what comes in pairs."""
    return np.concatenate([np.abs(q[:1]), q[1:]])


def _ellipsoid(q: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """About the millimetres from an ellipsoid's surface, negative inside."""
    unit = [(q[axis] - np.float32(centre[axis])) / np.float32(radii[axis]) for axis in range(3)]
    return (np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2) - 1) * np.float32(min(radii))


def _blend(one: Floats, other: Floats, soft_mm: float) -> Floats:
    """Union of two distances, its seam rounded over ``soft_mm``."""
    near = np.clip(soft_mm - np.abs(one - other), 0, None)
    return np.minimum(one, other) - near**2 / (4 * soft_mm)


def _within(distance: NDArray[np.floating], soft_mm: float = 1.0) -> Floats:
    """Share 0..1 of a point that lies inside a surface, by its signed distance."""
    return np.clip(0.5 - distance / soft_mm, 0, 1).astype(np.float32, copy=False)


# --- painting: tissue over tissue -------------------------------------------------------------------


class _Canvas:
    """Grey values ``(sequence, layer, row, column)`` of one slice, painted tissue over tissue."""

    def __init__(self, head: _Head, shape: tuple[int, ...]) -> None:
        self.tissue = head.tissue
        self.signal = np.zeros((len(MRSequence), *shape), np.float32)

    def paint(self, tissue: str, cover: Floats) -> None:
        """Lay a tissue over what is there; ``cover`` 0..1 ``(layer, row, column)``."""
        if cover.any():
            for image, value in zip(self.signal, self.tissue[tissue], strict=True):
                image += cover * (value - image)


@dataclass(frozen=True, eq=False)
class _Slice:
    """One thick slice: signal ``(sequence, row, column)`` and true shares ``(row, column)`` by name."""

    signal: Floats
    truth: Mapping[str, Floats]


def _paint_slice(head: _Head, number: int) -> _Slice:
    """All of one slice; its layers are averaged as a thick slice averages them."""
    place = _place(head, number)
    canvas = _Canvas(head, place.outside.shape)
    _paint_face(canvas, place)
    _paint_skull(canvas, place, head)
    _paint_brain(canvas, place)
    _paint_vessels(canvas, place)
    truth = {"brain": place.brain, **_paint_tumour(canvas, place, head)}
    # The finest texture: no tissue is of one grey.
    canvas.signal *= 1 + 0.02 * place.noise["texture"]
    return _Slice(canvas.signal.mean(1), {name: cover.mean(0) for name, cover in truth.items()})


def _paint_face(canvas: _Canvas, place: _Place) -> None:
    """Skin, fat and muscle, then eyes, nose and the hollows of the skull base."""
    q, pair, marble = place.q, _folded(place.q), place.noise["marble"]
    head = _within(place.skin)
    canvas.paint("muscle", head)
    canvas.paint("fat", head * np.clip(0.7 * marble + 0.6 * place.noise["veins"] - 0.25, 0, 0.9))
    # Fat under the skin, and the dark line of skin and air around it.
    canvas.paint("fat", head * _within(-place.skin - 5.5 - place.noise["scalp"], 2))
    canvas.paint("skin", head * _within(-place.skin - 1.6))
    base = _within(_ellipsoid(pair, (0, 28, -48), (46, 42, 20)), 3)
    canvas.paint("bone", base * np.clip(1 + marble, 0, 0.9))
    canvas.paint("marrow", _within(_ellipsoid(q, (0, -8, -50), (11, 9, 16)), 3))
    _paint_orbits(canvas, pair)
    # Turbinates: sheets that run from front to back, mucosa and air in turn.
    nose = _within(_ellipsoid(pair, (0, 56, -52), (17, 40, 26)), 2)
    canvas.paint("air", nose)
    canvas.paint("mucosa", nose * np.clip(1.6 * np.cos(pair[0] * 0.75 + 0.6 * marble) - 0.3, 0, 1))
    for centre, radii in (((31, 50, -66), (15, 19, 17)), ((7, 14, -44), (8, 12, 8))):
        cavity = _ellipsoid(pair, centre, radii) + 1.5 * marble
        canvas.paint("mucosa", _within(cavity - 1.5))
        canvas.paint("air", _within(cavity))


def _paint_orbits(canvas: _Canvas, pair: Floats) -> None:
    """Orbital fat, eyeballs with lenses, optic nerves and the muscles beside them."""
    # Along the orbit's axis from its apex (0) to the eyeball (1).
    apex, eye = np.array([13, 22, -34], np.float32), np.array([32, 61, -37], np.float32)
    axis = ((eye - apex) / np.linalg.norm(eye - apex))[:, None, None, None]
    away = pair - apex[:, None, None, None]
    ahead = (axis * away).sum(axis=0)
    aside = _length(away - axis * ahead)
    share = np.clip(ahead / 43, 0, 1)
    canvas.paint("bone", _within(np.maximum(aside - 3.2 - 16.5 * share, np.abs(ahead - 25) - 27)))
    cone = _within(np.maximum(aside - 2 - 16 * share, np.abs(ahead - 27) - 27))
    canvas.paint("fat", cone)
    canvas.paint("muscle", cone * _within(np.abs(aside - 1 - 11 * share) - 1.7))
    canvas.paint("white", cone * _within(aside - 2.2))
    canvas.paint("skin", _within(_ellipsoid(pair, (32, 61, -37), (13, 13, 13))))
    canvas.paint("globe", _within(_ellipsoid(pair, (32, 61, -37), (12, 12, 12))))
    canvas.paint("muscle", _within(_ellipsoid(pair, (32, 70, -37), (4.5, 2.2, 4.5))))


def _paint_skull(canvas: _Canvas, place: _Place, head: _Head) -> None:
    """The skull's dark shell with marrow in its middle, air cells, and the fluid within."""
    q, pair = place.q, _folded(place.q)
    # The fluid around the brain is thin where gyri touch the skull and deeper elsewhere.
    inner = place.outside - np.clip(head.liquor_mm + 0.9 * place.noise["bone"], 0.5, None)
    thick = head.skull_mm + 0.9 * place.noise["bone"]
    # Thin at the base, where orbit and nose lie close to the brain.
    thick = thick * np.clip(1 + (q[2] + 5) / 50, 0.45, 1)
    covered = _within(place.skin)
    canvas.paint("bone", _within(inner - thick) * covered)
    canvas.paint("marrow", 0.75 * _within(np.abs(inner - thick / 2) - thick / 5) * covered * (thick > 3.5))
    frontal = _ellipsoid(q, (0, 80, -6), (20 * head.sinus, 5, 15 * head.sinus)) + place.noise["marble"]
    canvas.paint("air", _within(frontal))
    canvas.paint("csf", _within(inner))
    petrous = _ellipsoid(pair, (44, -26, -42), (24, 9, 11)) + 2 * place.noise["marble"]
    canvas.paint("bone", _within(petrous) * (1 - place.brain))
    canvas.paint("air", _within(_ellipsoid(pair, (56, -36, -46), (9, 12, 14)) + 5 * place.noise["marble"]))


def _paint_brain(canvas: _Canvas, place: _Place) -> None:
    """Cerebrospinal fluid, grey and white matter by their shares."""
    canvas.paint("csf", place.brain)
    solid = place.grey + place.white
    canvas.paint("grey", solid)
    canvas.paint("white", solid * place.white / np.maximum(solid, 1e-3))


def _paint_vessels(canvas: _Canvas, place: _Place) -> None:
    """Falx, venous sinuses, veins in the furrows, choroid plexus and the arteries of the base."""
    q, pair, outside = place.q, _folded(place.q), place.outside
    fluid = np.clip(1 - place.grey - place.white, 0, 1) * _within(outside - 2.5)
    falx = _within(pair[0] - 0.6) * (q[2] > -5) * ((q[2] > 30) | (np.abs(q[1] + 15) > 45))
    canvas.paint("dura", 0.8 * falx * fluid)
    sagittal = np.maximum(pair[0] - 5.5 + np.abs(outside), np.abs(outside) - 4)
    canvas.paint("vein", _within(sagittal) * ((q[2] > 20) | (q[1] < -60)) * (q[2] > -15))
    transverse = np.maximum(np.abs(q[2] + 22) - 4, np.abs(outside - 0.5) - 2.5)
    canvas.paint("vein", _within(transverse) * (q[1] < -45))
    # Veins run in the outer furrows, none through the ventricles.
    furrows = 0.7 * fluid * _within(outside + 2) * _within(-outside - 20)
    canvas.paint("vein", furrows * np.clip(2.5 * place.noise["veins"] - 3.2, 0, 1))
    plexus = _within(_ellipsoid(pair, (23, -42, 8), (5, 8, 8)), 4)
    canvas.paint("vein", 0.6 * fluid * plexus * np.clip(0.5 + place.noise["veins"], 0, 1))
    for centre, radii in (((15, 4, -34), (2.5, 3, 12)), ((0, -17, -34), (2, 2, 14))):
        canvas.paint("vein", _within(_ellipsoid(pair, centre, radii)))


def _paint_tumour(canvas: _Canvas, place: _Place, head: _Head) -> dict[str, Floats]:
    """Oedema along white matter, living tumour, enhancing rim, dead middle; returns their true shares."""
    look, noise = head.look, place.noise
    # It stays on its side of the falx, in brain, and leaves ventricles and wide furrows free.
    room = np.clip(place.grey + place.white, 0, 1) * _within(-head.tumour_sign * place.q[0] + 2, 4)
    # What takes no contrast infiltrates: its edge is blurred.
    core = _within(place.tumour, 2 + 4 * (1 - look.enhancement)) * np.clip(room * 2, 0, 1)
    reach = look.oedema_mm * (0.05 + 1.1 * place.white**1.5 + 0.35 * noise["spread"])
    oedema = _within(place.tumour - np.clip(reach, 0, None), 3) * room
    canvas.paint("oedema", 0.92 * oedema * (1 - 0.25 * np.clip(noise["spread"], 0, 1)))
    canvas.paint("mismatch" if look.mismatch else "tumour", core * (0.9 + 0.1 * noise["detail"]).clip(0, 1))
    if look.mismatch:
        canvas.paint("tumour", core * _within(-place.tumour - 2.5, 2))
    dead_mm = look.core_mm * (1 - look.necrotic) * (1 + 0.6 * noise["spread"]) + 1.5 * noise["detail"]
    dead = core * _within(place.tumour + np.clip(dead_mm, 2.5, None), 1.5) * (look.necrotic > 0)
    # Contrast gathers near the edge of a dead middle, in patches where there is none.
    patch = np.clip(1.5 * (noise["detail"] * 0.6 + noise["spread"] * 0.6) + 4 * look.enhancement - 2.0, 0, 1)
    canvas.paint("rim", core * patch * min(1.0, 0.4 + look.enhancement) * (1 - dead))
    canvas.paint("necrosis", dead * (0.93 + 0.07 * noise["spread"]).clip(0, 1))
    return {"core": core, "lesion": np.maximum(core, oedema)}


# --- the scanner ------------------------------------------------------------------------------------


def _scan(signal: Floats, grid: _Grid, settings: PhantomSettings, chance: np.random.Generator) -> Floats:
    """Signal ``(slice, row, column)`` as a scanner stores it: coil, blur, Rician noise, whole numbers."""
    shading = _Field(grid, 90.0, chance)
    gain, sigma = chance.uniform(0.7, 1.6), settings.noise * _SIGNAL["white"][0]
    stored = np.empty_like(signal)
    radius = np.hypot(grid.x[None, :] - grid.CENTRE_LPS[0], grid.y[:, None] - grid.CENTRE_LPS[1])
    for number, image in enumerate(signal):
        # Surface coils see the rim better than the middle, and nothing much below the head.
        coil = (0.92 + 0.25 * (radius / 100) ** 2) / (1 + np.exp(-(grid.z[number].mean() + 58) / 6))
        coil = coil * np.exp(0.09 * shading[number].mean(0))
        sharp = ndimage.gaussian_filter(image * coil, 0.45)
        noise = sigma * chance.standard_normal((2, *image.shape), np.float32)
        stored[number] = np.rint(gain * np.hypot(sharp + noise[0], noise[1]))
    return stored


# --- files ------------------------------------------------------------------------------------------


def write_pictures(study: Study, folder: Path) -> Path:
    """``folder/<patient id>/<sequence>/<slice>.png`` and ``mask/``: 8-bit grey; returns the patient's folder.

    Each series is windowed from 0 to its 99.7th percentile; the mask is 0 and 255.
    """
    patient = folder / study.patient_id
    for name, series in _named(study).items():
        top = 1.0 if name == "mask" else float(np.percentile(series.image, 99.7))
        grey = np.rint(np.clip(series.image / max(top, 1e-6), 0, 1) * 255).astype(np.uint8)
        place = _make_folder(patient / name)
        for slice_name, image in zip(series.slice_names, grey, strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(image), str(place / f"{slice_name}.png"))
    return patient


def write_nifti(study: Study, folder: Path) -> Path:
    """``folder/<patient id>/<sequence>.nii.gz`` and ``mask.nii.gz``; returns the patient's folder."""
    patient = _make_folder(folder / study.patient_id)
    for name, series in _named(study).items():
        # NIfTI counts (column, row, slice), and its x and y run to the right and the front.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine
        kind = np.uint8 if name == "mask" else np.int16
        image = nibabel.Nifti1Image(series.image.transpose(2, 1, 0).astype(kind), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, patient / f"{name}.nii.gz")
    return patient


def write_clinical(rows: Sequence[Clinical], path: Path) -> None:
    """The clinical table as UTF-8 csv: id, age, sex, then every further column; unknown is blank."""
    further = list(dict.fromkeys(column for row in rows for column in row.columns))
    _make_folder(path.parent)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "age", "sex", *further])
        for row in rows:
            age = "" if row.age is None else f"{row.age:g}"
            sex = "" if row.sex is None else row.sex
            table.writerow([row.patient_id, age, sex, *(row.columns.get(column, "") for column in further)])


def _named(study: Study) -> dict[str, Series]:
    """Every series of the study by the name its file gets, the mask last."""
    named = {sequence.value: series for sequence, series in study.series.items()}
    return named if study.lesion is None else {**named, "mask": study.lesion}


def _make_folder(folder: Path) -> Path:
    """Make a folder with its parents, or say why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        text = f"Cannot write phantoms to {folder} ({reason.strerror}): choose another folder."
        raise GliomarkError(text) from reason
    return folder
