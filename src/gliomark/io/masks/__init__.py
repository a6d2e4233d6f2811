"""Read, find, merge and compare lesion masks; ``patient_masks`` reads all masks of one patient."""

from gliomark.io.masks.dicom_segmentations import is_gliomark_result, read_segmentation
from gliomark.io.masks.mask_files import find_masks
from gliomark.io.masks.patient_masks import SeriesGrid, list_rater_names, read_masks, read_masks_on_grids
from gliomark.io.masks.rater_agreement import compute_agreement, compute_rater_agreement, unite_masks
from gliomark.io.masks.region_names import LesionMask
from gliomark.io.masks.structure_sets import read_structure_set

__all__ = [
    "LesionMask",
    "SeriesGrid",
    "compute_agreement",
    "compute_rater_agreement",
    "find_masks",
    "is_gliomark_result",
    "list_rater_names",
    "read_masks",
    "read_masks_on_grids",
    "read_segmentation",
    "read_structure_set",
    "unite_masks",
]
