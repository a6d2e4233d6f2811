"""The location of a lesion at a known position, in every orientation of the images, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gliomark.errors import ConfigurationError
from gliomark.lesion_location import LesionLocation, RegionShare
from gliomark.location import atlas as atlas_files
from gliomark.location import is_atlas_installed, locate_lesion
from gliomark.location.atlas import AREAS, load_atlas
from gliomark.location.locate import compute_lesion_points, measure_region_shares
from gliomark.pipeline import predict
from gliomark.study import ClinicalData, MRSequence

needs_atlas = pytest.mark.skipif(not is_atlas_installed(), reason="the extra atlas is not installed")
LEFT_FRONTAL, LEFT_FRONTAL_DISTANCES = (
    (-42.0, 22.0, 30.0),
    {"broca-area": (0.0, 3.0), "visual-cortex": (60.0, 90.0)},
)


@needs_atlas
@pytest.mark.parametrize(
    ("point", "region", "side"),
    [
        ((-38, -20, 56), "frontal-lobe", "left"),
        ((40, -32, 56), "parietal-lobe", "right"),
        ((-55, -30, 0), "temporal-lobe", "left"),
        ((10, -88, 4), "occipital-lobe", "right"),
        ((-38, 4, 0), "insula", "left"),
        ((5, 30, 22), "cingulate-gyrus", "right"),
        ((-12, -18, 8), "deep-grey-matter", "left"),
        ((20, -6, 14), "deep-grey-matter", "right"),  # the internal capsule
        ((30, 40, 10), "frontal-lobe", "right"),  # white matter
        ((1, -30, -32), "brain-stem", "right"),
        ((-22, -62, -36), "cerebellum", "left"),
        ((0, -38, 12), "corpus-callosum", None),
    ],
)
def test_regions_are_where_anatomy_has_them(
    point: tuple[int, int, int], region: str, side: str | None
) -> None:
    (found,) = measure_region_shares(load_atlas(), np.array([point], float).T)
    assert (found.region, found.side, found.share) == (region, side, 1.0)


@needs_atlas
@pytest.mark.parametrize(
    ("area", "centre"),
    [
        ("motor-cortex", (-36, -10, 48)),
        ("sensory-cortex", (-44, -25, 48)),
        ("broca-area", (-46, 23, 12)),
        ("wernicke-area", (-57, -37, 14)),
        ("visual-cortex", (-11, -80, 6)),
        ("basal-ganglia-internal-capsule", (-21, 2, 6)),
        ("brain-stem", (0, -31, -33)),
    ],
)
def test_areas_are_where_anatomy_has_them(area: str, centre: tuple[int, int, int]) -> None:
    assert area in AREAS
    middle = load_atlas().find_area(area, "left").mean(axis=1)
    np.testing.assert_allclose(middle, centre, atol=6)


@needs_atlas
@pytest.mark.parametrize(
    ("turn_degrees", "order", "flips"),
    [
        ((0, 0, 0), (0, 1, 2), (0,)),
        ((8, -6, 10), (2, 0, 1), (1, 2)),
        ((-15, 10, -12), (1, 2, 0), (0, 1, 2)),
    ],
)
def test_a_left_frontal_lesion_is_left_frontal_however_it_is_stored(
    make_patient, turn_degrees, order, flips
) -> None:
    study, stack = make_patient(LEFT_FRONTAL, turn_degrees, order, flips)
    found = locate_lesion(study, stack, stack.reader_mask)
    assert (found.refusal, found.side, found.regions[0].region) == (None, "left", "frontal-lobe")
    assert found.left_share == 1.0 and found.regions[0].share > 0.8
    assert sum(one.share for one in found.regions) == pytest.approx(1)
    distances = {one.area: one.distance_mm for one in found.distances}
    assert set(distances) == set(AREAS)
    for area, (low, high) in LEFT_FRONTAL_DISTANCES.items():
        assert low <= distances[area] <= high
    stored_ml = study.lesion.image.sum() * abs(np.linalg.det(study.lesion.affine[:3, :3])) / 1000
    assert stack.reader_mask.sum() * stack.voxel_volume_ml == pytest.approx(stored_ml, rel=0.02)


@needs_atlas
def test_a_lesion_across_the_midline_is_on_both_sides(make_patient) -> None:
    study, stack = make_patient((4.0, 36.0, 36.0))
    found = locate_lesion(study, stack, stack.reader_mask)
    assert found.side == "both" and 0.2 < found.left_share < 0.45
    assert {one.side for one in found.regions if one.region == "frontal-lobe"} == {"left", "right"}


@needs_atlas
def test_what_the_images_do_not_state_is_not_given(make_patient) -> None:
    study, stack = make_patient(LEFT_FRONTAL)
    pictures = replace(study, kind="pictures", spacing_assumed=True)
    found = locate_lesion(pictures, stack, stack.reader_mask)
    assert found.regions[0].region == "frontal-lobe" and found.regions[0].share > 0.8
    document = found.to_dict()
    assert document["side"] is None and document["left_share"] is None and document["distances"] == []
    assert all(one["side"] is None for one in document["regions"])
    assert [one.code for one in found.sentences] == [
        "location-image-right",
        "location-no-distances",
        "location-caution",
    ]
    series = {name: replace(one, is_oriented=False) for name, one in study.series.items()}
    unoriented = locate_lesion(replace(study, series=series), stack, stack.reader_mask)
    assert not unoriented.is_side_stated
    assert {one.area for one in unoriented.distances} == set(AREAS) - {"broca-area", "wernicke-area"}
    assert all(one.side is None for one in unoriented.distances)


@needs_atlas
def test_a_brain_that_does_not_match_the_atlas_is_refused(make_patient) -> None:
    study, stack = make_patient(LEFT_FRONTAL)
    image, brain = stack.images[MRSequence.T1C], stack.brain

    def refuse(**changes) -> str:
        found = locate_lesion(study, replace(stack, **changes), stack.reader_mask)
        assert (found.side, found.left_share, found.regions, found.distances) == (None, None, (), ())
        assert found.sentences == (found.refusal,)
        return found.refusal.code

    assert refuse(examined=0.5) == refuse(examined=None) == "location-brain-cut"
    turned = {MRSequence.T1C: np.flip(image, 1).copy()}
    assert refuse(images=turned, brain=np.flip(brain, 1).copy()) in (
        "location-turned",
        "location-not-registered",
    )
    slab = np.zeros_like(brain)
    slab[:, 60:180, 110:130] = True
    assert refuse(brain=slab) == "location-not-registered"


@pytest.mark.parametrize("file", ["ATLAS_FILE", "ATLAS_LABELS_FILE", "ATLAS_PACKAGE"])
def test_without_the_atlas_a_request_says_how_to_install_it(monkeypatch, file: str) -> None:
    monkeypatch.setattr(atlas_files, file, "absent_part")
    load_atlas.cache_clear()
    with pytest.raises(ConfigurationError, match=r"pip install \"gliomark\[atlas\]\""):
        load_atlas()
    with pytest.raises(ConfigurationError, match="atlas"):  # before anything is computed
        predict(None, ClinicalData("", None, None), None, locates_lesion=True)  # type: ignore[arg-type]
    load_atlas.cache_clear()


@pytest.mark.parametrize(
    ("left_share", "side"),
    [(1.0, "left"), (0.96, "left"), (0.95, "both"), (0.5, "both"), (0.05, "both"), (0.04, "right")],
)
def test_the_side_follows_from_the_shares(left_share: float, side: str) -> None:
    location = LesionLocation(left_share=left_share, regions=(RegionShare("insula", "left", 1.0),))
    assert location.side == location.to_dict()["side"] == side


@needs_atlas
def test_thick_slices_are_filled_in_layers(make_patient) -> None:
    _, stack = make_patient(LEFT_FRONTAL)
    thick = replace(stack, affine=stack.affine @ np.diag([1, 1, 3, 1.0]))
    points, few = (
        compute_lesion_points(thick, stack.reader_mask),
        compute_lesion_points(stack, stack.reader_mask),
    )
    assert points.shape[1] == 3 * few.shape[1]
    assert len(np.unique(np.diff(np.unique(points[2].round(3))).round(2))) == 1
