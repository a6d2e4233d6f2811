"""A synthetic head's grey value, tissue painted over tissue at any point asked for, and how a scanner stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.cohort.phantom.head import (
    CENTRE_LPS,
    Floats,
    Head,
    Lattice,
    Place,
    SmoothField,
    ellipsoid,
    folded,
    length,
    locate,
    within,
)
from gliomark.study import MRSequence

# Grey value of each tissue in T1, T1C, T2, FLAIR, in the manner of 1.5 T spin echo.
SIGNAL: Mapping[str, tuple[float, float, float, float]] = {
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


TRUTHS = ("brain", "core", "lesion")


def own_tissue(chance: np.random.Generator) -> dict[str, Floats]:
    """One person's grey value of each tissue, ``(sequence,)`` in the order of ``MRSequence``."""
    return {
        name: (np.array(values) * chance.normal(1, 0.03, 4)).astype(np.float32)
        for name, values in SIGNAL.items()
    }


class _Canvas:
    """Grey values ``(sequence, n)``, painted tissue over tissue."""

    def __init__(self, tissue: Mapping[str, Floats], sequences: tuple[MRSequence, ...], points: int) -> None:
        rows = [list(MRSequence).index(sequence) for sequence in sequences]
        self.tissue = {name: values[rows] for name, values in tissue.items()}
        self.signal = np.zeros((len(rows), points), np.float32)

    def paint(self, tissue: str, cover: Floats) -> None:
        """Lay a tissue over what is there; ``cover`` 0..1 ``(n,)``."""
        if cover.any():
            for image, value in zip(self.signal, self.tissue[tissue], strict=True):
                image += cover * (value - image)


@dataclass(frozen=True, eq=False)
class Painted:
    """Points of a head: signal ``(sequence, n)`` and the true shares ``(n,)`` of ``TRUTHS`` by name."""

    signal: Floats
    truth: Mapping[str, Floats]


def paint(
    head: Head,
    tissue: Mapping[str, Floats],
    sequences: tuple[MRSequence, ...],
    points: Floats,
    shape: tuple[int, int],
) -> Painted:
    """Signal and truth at a plane's points ``(3, row x column)`` of the head at rest, LPS mm."""
    inside = np.flatnonzero(head.roughly_within_plane(points, shape))
    place = locate(head, points[:, inside])
    canvas = _Canvas(tissue, sequences, len(inside))
    _paint_face(canvas, place)
    _paint_skull(canvas, place, head)
    _paint_brain(canvas, place)
    _paint_vessels(canvas, place)
    truth = {"brain": place.brain, **_paint_tumour(canvas, place, head)}
    # The finest texture: no tissue is of one grey.
    canvas.signal *= 1 + 0.02 * place.noise["texture"]
    everywhere = np.zeros((len(sequences) + len(TRUTHS), points.shape[1]), np.float32)
    everywhere[:, inside] = np.concatenate([canvas.signal, [truth[name] for name in TRUTHS]])
    return Painted(everywhere[: len(sequences)], dict(zip(TRUTHS, everywhere[len(sequences) :], strict=True)))


def _paint_face(canvas: _Canvas, place: Place) -> None:
    """Skin, fat and muscle, then eyes, nose and the hollows of the skull base."""
    q, pair, marble = place.q, folded(place.q), place.noise["marble"]
    head = within(place.skin)
    canvas.paint("muscle", head)
    canvas.paint("fat", head * np.clip(0.7 * marble + 0.6 * place.noise["veins"] - 0.25, 0, 0.9))
    # Fat under the skin, and the dark line of skin and air around it.
    canvas.paint("fat", head * within(-place.skin - 5.5 - place.noise["scalp"], 2))
    canvas.paint("skin", head * within(-place.skin - 1.6))
    base = within(ellipsoid(pair, (0, 28, -48), (46, 42, 20)), 3)
    canvas.paint("bone", base * np.clip(1 + marble, 0, 0.9))
    canvas.paint("marrow", within(ellipsoid(q, (0, -8, -50), (11, 9, 16)), 3))
    _paint_orbits(canvas, pair)
    # Turbinates: sheets that run from front to back, mucosa and air in turn.
    nose = within(ellipsoid(pair, (0, 56, -52), (17, 40, 26)), 2)
    canvas.paint("air", nose)
    canvas.paint("mucosa", nose * np.clip(1.6 * np.cos(pair[0] * 0.75 + 0.6 * marble) - 0.3, 0, 1))
    for centre, radii in (((31, 50, -66), (15, 19, 17)), ((7, 14, -44), (8, 12, 8))):
        cavity = ellipsoid(pair, centre, radii) + 1.5 * marble
        canvas.paint("mucosa", within(cavity - 1.5))
        canvas.paint("air", within(cavity))


def _paint_orbits(canvas: _Canvas, pair: Floats) -> None:
    """Orbital fat, eyeballs with lenses, optic nerves and the muscles beside them."""
    # Along the orbit's axis from its apex (0) to the eyeball (1).
    apex, eye = np.array([13, 22, -34], np.float32), np.array([32, 61, -37], np.float32)
    axis = ((eye - apex) / np.linalg.norm(eye - apex))[:, None]
    away = pair - apex[:, None]
    ahead = (axis * away).sum(axis=0)
    aside = length(away - axis * ahead)
    share = np.clip(ahead / 43, 0, 1)
    canvas.paint("bone", within(np.maximum(aside - 3.2 - 16.5 * share, np.abs(ahead - 25) - 27)))
    cone = within(np.maximum(aside - 2 - 16 * share, np.abs(ahead - 27) - 27))
    canvas.paint("fat", cone)
    canvas.paint("muscle", cone * within(np.abs(aside - 1 - 11 * share) - 1.7))
    canvas.paint("white", cone * within(aside - 2.2))
    canvas.paint("skin", within(ellipsoid(pair, (32, 61, -37), (13, 13, 13))))
    canvas.paint("globe", within(ellipsoid(pair, (32, 61, -37), (12, 12, 12))))
    canvas.paint("muscle", within(ellipsoid(pair, (32, 70, -37), (4.5, 2.2, 4.5))))


def _paint_skull(canvas: _Canvas, place: Place, head: Head) -> None:
    """The skull's dark shell with marrow in its middle, air cells, and the fluid within."""
    q, pair = place.q, folded(place.q)
    # The fluid around the brain is thin where gyri touch the skull and deeper elsewhere.
    inner = place.outside - np.clip(head.liquor_mm + 0.9 * place.noise["bone"], 0.5, None)
    thick = head.skull_mm + 0.9 * place.noise["bone"]
    # Thin at the base, where orbit and nose lie close to the brain.
    thick = thick * np.clip(1 + (q[2] + 5) / 50, 0.45, 1)
    covered = within(place.skin)
    canvas.paint("bone", within(inner - thick) * covered)
    canvas.paint("marrow", 0.75 * within(np.abs(inner - thick / 2) - thick / 5) * covered * (thick > 3.5))
    frontal = ellipsoid(q, (0, 80, -6), (20 * head.sinus, 5, 15 * head.sinus)) + place.noise["marble"]
    canvas.paint("air", within(frontal))
    canvas.paint("csf", within(inner))
    petrous = ellipsoid(pair, (44, -26, -42), (24, 9, 11)) + 2 * place.noise["marble"]
    canvas.paint("bone", within(petrous) * (1 - place.brain))
    canvas.paint("air", within(ellipsoid(pair, (56, -36, -46), (9, 12, 14)) + 5 * place.noise["marble"]))


def _paint_brain(canvas: _Canvas, place: Place) -> None:
    """Cerebrospinal fluid, grey and white matter by their shares."""
    canvas.paint("csf", place.brain)
    solid = place.grey + place.white
    canvas.paint("grey", solid)
    canvas.paint("white", solid * place.white / np.maximum(solid, 1e-3))


def _paint_vessels(canvas: _Canvas, place: Place) -> None:
    """Falx, venous sinuses, veins in the furrows, choroid plexus and the arteries of the base."""
    q, pair, outside = place.q, folded(place.q), place.outside
    fluid = np.clip(1 - place.grey - place.white, 0, 1) * within(outside - 2.5)
    falx = within(pair[0] - 0.6) * (q[2] > -5) * ((q[2] > 30) | (np.abs(q[1] + 15) > 45))
    canvas.paint("dura", 0.8 * falx * fluid)
    sagittal = np.maximum(pair[0] - 5.5 + np.abs(outside), np.abs(outside) - 4)
    canvas.paint("vein", within(sagittal) * ((q[2] > 20) | (q[1] < -60)) * (q[2] > -15))
    transverse = np.maximum(np.abs(q[2] + 22) - 4, np.abs(outside - 0.5) - 2.5)
    canvas.paint("vein", within(transverse) * (q[1] < -45))
    # Veins run in the outer furrows, none through the ventricles.
    furrows = 0.7 * fluid * within(outside + 2) * within(-outside - 20)
    canvas.paint("vein", furrows * np.clip(2.5 * place.noise["veins"] - 3.2, 0, 1))
    plexus = within(ellipsoid(pair, (23, -42, 8), (5, 8, 8)), 4)
    canvas.paint("vein", 0.6 * fluid * plexus * np.clip(0.5 + place.noise["veins"], 0, 1))
    for centre, radii in (((15, 4, -34), (2.5, 3, 12)), ((0, -17, -34), (2, 2, 14))):
        canvas.paint("vein", within(ellipsoid(pair, centre, radii)))


def _paint_tumour(canvas: _Canvas, place: Place, head: Head) -> dict[str, Floats]:
    """Oedema along white matter, living tumour, enhancing rim, dead middle; returns their true shares."""
    look, noise = head.look, place.noise
    if look is None:
        return {"core": np.zeros_like(place.brain), "lesion": np.zeros_like(place.brain)}
    # It stays on its side of the falx, in brain, and leaves ventricles and wide furrows free.
    room = np.clip(place.grey + place.white, 0, 1) * within(-head.tumour_sign * place.q[0] + 2, 4)
    # What takes no contrast infiltrates: its edge is blurred.
    core = within(place.tumour, 2 + 4 * (1 - look.enhancement)) * np.clip(room * 2, 0, 1)
    reach = look.oedema_mm * (0.05 + 1.1 * place.white**1.5 + 0.35 * noise["spread"])
    oedema = within(place.tumour - np.clip(reach, 0, None), 3) * room
    canvas.paint("oedema", 0.92 * oedema * (1 - 0.25 * np.clip(noise["spread"], 0, 1)))
    canvas.paint("mismatch" if look.mismatch else "tumour", core * (0.9 + 0.1 * noise["detail"]).clip(0, 1))
    if look.mismatch:
        canvas.paint("tumour", core * within(-place.tumour - 2.5, 2))
    dead_mm = look.core_mm * (1 - look.necrotic) * (1 + 0.6 * noise["spread"]) + 1.5 * noise["detail"]
    dead = core * within(place.tumour + np.clip(dead_mm, 2.5, None), 1.5) * (look.necrotic > 0)
    # Contrast gathers near the edge of a dead middle, in patches where there is none.
    patch = np.clip(0.9 * (noise["detail"] + noise["spread"]) + 3.6 * look.enhancement - 1.6, 0, 1)
    canvas.paint("rim", core * patch * (0.15 + 0.85 * look.enhancement) * (1 - dead))
    canvas.paint("necrosis", dead * (0.93 + 0.07 * noise["spread"]).clip(0, 1))
    # The living tumour's grain, the same places bright in every sequence.
    grain = np.clip(noise["grain"], -2.2, 2.2) * core * (1 - dead)
    canvas.signal *= 1 + 0.32 * look.marbling * grain
    return {"core": core, "lesion": np.maximum(core, oedema)}


# --- the scanner ------------------------------------------------------------------------------------


def scan(signal: Floats, affine: NDArray[np.float64], noise: float, chance: np.random.Generator) -> Floats:
    """Signal ``(slice, row, column)`` as a scanner stores it: coil, blur, Rician noise, whole numbers.

    affine: the grid's, to the scanner's LPS mm; noise: Rician sigma as a share of white matter on T1.
    """
    shading = _Shading(chance)
    gain, sigma = chance.uniform(0.7, 1.6), noise * SIGNAL["white"][0]
    stored = np.empty_like(signal)
    for number, image in enumerate(signal):
        points = plane(affine, number, image.shape)
        sharp = ndimage.gaussian_filter(image * shading.at(points).reshape(image.shape), 0.45)
        grain = sigma * chance.standard_normal((2, *image.shape), np.float32)
        stored[number] = np.rint(gain * np.hypot(sharp + grain[0], grain[1]))
    return stored


class _Shading:
    """How strongly the coil sees a place of the scanner."""

    def __init__(self, chance: np.random.Generator, step_mm: float = 20.0) -> None:
        axis = np.arange(-160, 161, step_mm, dtype=np.float32)
        uneven = SmoothField(90.0, chance).on_lattice(axis, axis, axis)
        self.uneven = Lattice(uneven[None], np.full(3, -160.0), step_mm)

    def at(self, points: Floats) -> Floats:
        """The coil's share at LPS points ``(3, n)``."""
        radius = np.hypot(points[0] - CENTRE_LPS[0], points[1] - CENTRE_LPS[1])
        # Surface coils see the rim better than the middle, and nothing much below the head.
        coil = (0.92 + 0.25 * (radius / 100) ** 2) / (1 + np.exp(-(points[2] + 58) / 6))
        share: Floats = coil * np.exp(0.09 * self.uneven.at(points)[0])
        return share


def plane(affine: NDArray[np.float64], number: float, shape: tuple[int, ...]) -> Floats:
    """LPS millimetres of the pixels of slice ``number`` (may lie between slices): ``(3, row x column)``."""
    rows, columns = np.indices(shape).reshape(2, -1)
    index = np.stack([columns, rows, np.full(len(rows), number), np.ones(len(rows))])
    return (affine[:3] @ index).astype(np.float32)
