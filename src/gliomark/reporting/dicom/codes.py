"""Codes of the DICOM results.

Marker levels use the private scheme only, so that no system mistakes a prediction for a pathology result.
"""

from __future__ import annotations

import re

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

PRIVATE_SCHEME = "99GLIOMARK"
CODING_SCHEMES = (
    CodingSchemeIdentificationItem(
        PRIVATE_SCHEME,
        name="gliomark: predictions from images",
        responsible_organization="gliomark contributors",
    ),
)
SEGMENT_CATEGORY = codes.SCT.MorphologicallyAbnormalStructure
LESION = codes.SCT.Lesion
BRAIN = codes.SCT.Brain
PRESENT = codes.SCT.Present
ABSENT = CodedConcept("2667000", "SCT", "Absent")
UNDETERMINED = codes.SCT.Undetermined
MRI_OF_BRAIN = codes.LN.BrainMRI
VOLUME, AREA = codes.SCT.Volume, codes.SCT.Area
LONG_AXIS, SHORT_AXIS = codes.SCT.LongAxis, codes.SCT.ShortAxis
LONGEST_3D = codes.IBSI.Maximum3DDiameterOfAMesh
SUM_OF_VOXELS = codes.DCM.SumOfSegmentedVoxelMethodForVolume
MINIMUM, MAXIMUM = codes.SCT.Minimum, codes.SCT.Maximum
MILLILITRE = CodedConcept("ml", "UCUM", "milliliter")
MILLIMETRE, SQUARE_MILLIMETRE = codes.UCUM.Millimeter, codes.UCUM.SquareMillimeter
NO_UNITS = codes.UCUM.NoUnits
LANGUAGE_CODES = {
    "en": CodedConcept("en", "RFC5646", "English"),
    "zh": CodedConcept("zh", "RFC5646", "Chinese"),
}


def create_private_code(value: str, meaning: str) -> CodedConcept:
    """Create a code of the private scheme; the meaning is cut to the 64 characters that DICOM allows."""
    return CodedConcept(
        re.sub(r"[\s\\]+", "-", value.strip()), PRIVATE_SCHEME, meaning.replace("\\", "/")[:64]
    )
