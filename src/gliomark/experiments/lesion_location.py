"""Location of the lesion on synthetic patients whose true location follows from their own anatomy.

Every phantom is a deformed MNI152 brain, so that the true position in MNI152 is known for each of its points. The
skull-stripped T1C is stored with axes in random order and direction, turned by a random angle, prepared, and located on
the reader's mask of the tumour's core. Some of the patients with wrong orientation or parts of the brain show which are
refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from gliomark.experiments.result_files import create_run_record, write_result_files
from gliomark.geometry import Affine, apply_affine, invert_affine
from gliomark.lesion_location import LesionLocation, RegionShare, Side
from gliomark.location.atlas import AREAS, Atlas, load_atlas
from gliomark.location.locate import SIDES, compute_lesion_points, locate_lesion, measure_region_shares
from gliomark.location.template_registration import register_to_template
from gliomark.phantom.anatomy import HeadAnatomy, locate_points
from gliomark.phantom.patient import PhantomSettings, create_patient_id, sample_person
from gliomark.phantom.planned_slices import create_planned_phantom
from gliomark.preprocessing import prepare
from gliomark.study import MRSequence, Series, SliceStack, Study

EXPERIMENT_NAME = "lesion_location"
SEQUENCE = MRSequence.T1C
SETTINGS = PhantomSettings(sublayers=1)
SLICE_COUNT, END_AREA_MM2 = 24, 900.0
REFUSED_PATIENTS = 3  # the first ones are also measured in wrong forms
MAX_TURN_DEGREES = 10.0
NEAR_MM = 40.0  # distances that matter, for which the error is averaged
POINT_STEP = 3  # every third row and column of the brain is compared


@dataclass(frozen=True)
class LocatedPatient:
    """One synthetic patient: true and found location, and the errors.

    shared_regions: sum over the regions of the smaller of true and found share, 1 if all agree. volume_ml: of the
    lesion that is located, true_volume_ml: of the reader's mask as stored. error_mm: mean over the lesion of the
    distance between true and found position in MNI152. distance_error_mm: mean absolute error of the distances to
    areas that are truly within 40 mm. seconds: processor time of registration and atlas.
    """

    seed: int
    true_side: str
    side: str
    true_region: str
    region: str
    centre_region: str
    shared_regions: float
    true_volume_ml: float
    volume_ml: float
    error_mm: float
    distance_error_mm: float
    brain_overlap: float
    seconds: float


def run_lesion_location(
    patient_count: int, first_seed: int, output_folder: Path, notify: Callable[[str], None]
) -> Path:
    """Write ``lesion_location.csv``, that of the refusals, and the run record; the path of the first.

    patient_count: number of synthetic patients, with consecutive seeds from ``first_seed``.
    """
    # one thread: reproducible order of summation, and processor time that can be compared
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    patients, refusals = [], list[dict[str, object]]()
    for seed in range(first_seed, first_seed + patient_count):
        study, stack, head, to_rest = create_turned_patient(seed)
        patients.append(locate_patient(seed, study, stack, head, to_rest))
        if seed < first_seed + REFUSED_PATIENTS:
            refusals += measure_refusals(seed, study, stack)
        one = patients[-1]
        notify(
            f"{len(patients)}/{patient_count}: {one.side}, {one.region}; truth: {one.true_side}, {one.true_region}"
        )
    table = pd.DataFrame(map(asdict, patients))
    record = create_run_record(
        EXPERIMENT_NAME, patients=patient_count, first_seed=first_seed, max_turn_degrees=MAX_TURN_DEGREES
    )
    return write_result_files(
        output_folder, EXPERIMENT_NAME, {"": table, "_refusals": pd.DataFrame(refusals)}, record
    )


def create_turned_patient(seed: int) -> tuple[Study, SliceStack, HeadAnatomy, Affine]:
    """Create a phantom, stored and turned at random.

    Returns
    -------
    tuple
        The study, its prepared stack, the head, and the transform ``(4, 4)`` from LPS mm to the head at rest.
    """
    phantom = create_planned_phantom(seed, (SEQUENCE,), SLICE_COUNT, END_AREA_MM2, SETTINGS)
    head = sample_person(seed, create_patient_id(seed, SETTINGS), SETTINGS).head
    rng = np.random.default_rng([seed, 77])
    turn = np.eye(4)
    degrees = rng.uniform(-MAX_TURN_DEGREES, MAX_TURN_DEGREES, 3)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    order, flips = rng.permutation(3), rng.random(3) < 0.5
    study = replace(
        phantom.study,
        series={name: store_series(one, turn, order, flips) for name, one in phantom.study.series.items()},
        lesion=store_series(phantom.study.lesion or phantom.core, turn, order, flips),
    )
    return study, prepare(study, (SEQUENCE,)), head, invert_affine(turn)


def store_series(series: Series, turn: Affine, order: NDArray[np.int64], flips: NDArray[np.bool_]) -> Series:
    """Store a series with its axes in another order and direction, turned in space by ``turn`` ``(4, 4)``.

    order: of the axes ``(slice, row, column)``; flips: which of the new axes are reversed, boolean ``(3,)``.
    """
    image = series.image.transpose(order)
    # the affine counts axes the other way round: column, row, slice
    columns = series.affine[:, [2 - order[2], 2 - order[1], 2 - order[0], 3]].copy()
    for axis in np.flatnonzero(flips).tolist():
        image = np.flip(image, axis)
        columns[:, 3] += columns[:, 2 - axis] * (image.shape[axis] - 1)
        columns[:, 2 - axis] *= -1
    names = tuple(f"{number + 1:03d}" for number in range(len(image)))
    return replace(series, image=np.ascontiguousarray(image), affine=turn @ columns, slice_names=names)


def locate_patient(
    seed: int, study: Study, stack: SliceStack, head: HeadAnatomy, to_rest: Affine
) -> LocatedPatient:
    """Locate the lesion of the reader's mask and compare it with the truth. to_rest: ``(4, 4)``."""
    atlas, lesion = load_atlas(), stack.reader_mask
    start = time.process_time()
    found = locate_lesion(study, stack, lesion)
    seconds = time.process_time() - start
    registration = register_to_template(stack, lesion)
    points = compute_lesion_points(stack, lesion)
    true_points = compute_true_points(head, apply_affine(to_rest, points))
    true_regions = measure_region_shares(atlas, true_points)
    true_location = LesionLocation(left_share=float((true_points[0] < 0).mean()), regions=true_regions)
    centre = compute_true_points(head, head.tumour_centre_lps[:, None].astype(np.float64))
    errors = np.linalg.norm(apply_affine(registration.to_mni, points) - true_points, axis=0)
    series = study.lesion or study.series[SEQUENCE]
    return LocatedPatient(
        seed=seed,
        true_side=str(true_location.side),
        side=str(found.side),
        true_region=_find_main_region(true_regions),
        region=_find_main_region(found.regions),
        centre_region=_find_main_region(measure_region_shares(atlas, centre)),
        shared_regions=_compare_shares(true_regions, found.regions),
        true_volume_ml=float((series.image > 0.5).sum() * abs(np.linalg.det(series.affine[:3, :3])) / 1000),
        volume_ml=float(lesion.sum() * stack.voxel_volume_ml * sum(one.share for one in found.regions)),
        error_mm=float(errors.mean()),
        distance_error_mm=_compare_distances(
            found, _measure_true_distances(atlas, stack, head, to_rest, points)
        ),
        brain_overlap=found.brain_overlap or 0.0,
        seconds=seconds,
    )


def compute_true_points(head: HeadAnatomy, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the true positions in RAS mm of MNI152 of points ``(3, n)`` of the head at rest, LPS mm."""
    return locate_points(head, points.astype(np.float32)).head_points.astype(np.float64)


def _find_main_region(regions: tuple[RegionShare, ...]) -> str:
    """Find the region with the largest share on both sides together; empty after a refusal."""
    shares = _sum_shares(regions)
    return max(shares, key=lambda name: shares[name]) if shares else ""


def _sum_shares(regions: tuple[RegionShare, ...]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for one in regions:
        shares[one.region] = shares.get(one.region, 0.0) + one.share
    return shares


def _compare_shares(first: tuple[RegionShare, ...], second: tuple[RegionShare, ...]) -> float:
    one, other = _sum_shares(first), _sum_shares(second)
    return sum(min(share, other.get(name, 0.0)) for name, share in one.items())


def _measure_true_distances(
    atlas: Atlas, stack: SliceStack, head: HeadAnatomy, to_rest: Affine, lesion_points: NDArray[np.float64]
) -> dict[tuple[str, Side], float]:
    """Measure the distance of each area in the patient, from the brain voxels that truly belong to it."""
    sparse = np.zeros_like(stack.brain)
    sparse[:, ::POINT_STEP, ::POINT_STEP] = stack.brain[:, ::POINT_STEP, ::POINT_STEP]
    points = compute_lesion_points(stack, sparse)
    true_tree = cKDTree(compute_true_points(head, apply_affine(to_rest, points)).T)
    lesion_tree = cKDTree(lesion_points.T)
    distances = {}
    for area in AREAS:
        for side in SIDES:
            # for each voxel of the area, the voxel of the brain that is truly nearest to it
            gaps, nearest = true_tree.query(atlas.find_area(area, side).T)
            own = np.unique(nearest[gaps < POINT_STEP])
            if own.size:
                distances[area, side] = float(lesion_tree.query(points[:, own].T)[0].min())
    return distances


def _compare_distances(found: LesionLocation, truth: Mapping[tuple[str, Side], float]) -> float:
    errors = []
    for one in found.distances:
        sides: tuple[Side, ...] = SIDES if one.side is None else (one.side,)
        known = [truth[one.area, side] for side in sides if (one.area, side) in truth]
        if known and min(known) < NEAR_MM:
            errors.append(abs(one.distance_mm - min(known)))
    return float(np.mean(errors)) if errors else float("nan")


def measure_refusals(seed: int, study: Study, stack: SliceStack) -> Iterator[dict[str, object]]:
    """Yield for each wrong or incomplete form of a patient whether it is refused, and why."""
    for kind, changed in _create_wrong_forms(stack).items():
        lesion = changed.reader_mask
        if not lesion.any():
            continue
        registration = register_to_template(changed, lesion)
        refusal = locate_lesion(study, changed, lesion).refusal
        yield {
            "seed": seed,
            "kind": kind,
            "refused": refusal is not None,
            "reason": getattr(refusal, "code", ""),
            "brain_overlap": registration.brain_overlap,
            "similarity": registration.similarity,
            "turned_similarity": registration.turned_similarity,
        }


def _create_wrong_forms(stack: SliceStack) -> dict[str, SliceStack]:
    """Create the stack as it is, turned in two ways, and with half of its slices."""
    half = len(stack.brain) // 2

    def cut(keeps: slice, share: float) -> SliceStack:
        kept = np.zeros_like(stack.brain)
        kept[keeps] = True
        images = {name: np.where(kept, image, image.min()) for name, image in stack.images.items()}
        return replace(
            stack, images=images, brain=stack.brain & kept, lesion=stack.reader_mask & kept, examined=share
        )

    def flip(axis: int) -> SliceStack:
        images = {name: np.flip(image, axis).copy() for name, image in stack.images.items()}
        brain, lesion = (np.flip(mask, axis).copy() for mask in (stack.brain, stack.reader_mask))
        return replace(stack, images=images, brain=brain, lesion=lesion)

    return {
        "as it is": stack,
        "back to front": flip(1),
        "upside down": flip(0),
        "upper half": cut(slice(half, None), 1.0),
        "upper half, known to be incomplete": cut(slice(half, None), 0.5),
    }
