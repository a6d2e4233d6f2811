"""Attribute values that decide the kind of a series: SOP classes, modalities, ImageType, AcquisitionContrast."""

from __future__ import annotations

from gliomark.study import MRSequence

SOP_CLASS_KINDS = {
    "1.2.840.10008.5.1.4.1.1.4": "",
    "1.2.840.10008.5.1.4.1.1.4.1": "",
    "1.2.840.10008.5.1.4.1.1.4.4": "",
    "1.2.840.10008.5.1.4.1.1.4.2": "spectroscopy",
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.481.3": "contours",
    "1.2.840.10008.1.3.10": "index",
}
SOP_CLASS_PREFIX_KINDS = (
    ("1.2.840.10008.5.1.4.1.1.7", "screenshot"),
    ("1.2.840.10008.5.1.4.1.1.88", "report"),
    ("1.2.840.10008.5.1.4.1.1.104", "report"),
    ("1.2.840.10008.5.1.4.1.1.11", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.66", "registration"),
    ("1.2.840.10008.5.1.4.1.1.481", "radiotherapy"),
)
MODALITY_KINDS = {"SR": "report", "PR": "presentation state", "KO": "report", "SEG": "segmentation",
    "DOC": "report",
               "RTSTRUCT": "contours", "OT": "screenshot", "SC": "screenshot", "REG": "registration"}  # fmt: skip
# Manufacturers' ImageType values of images that are not T1, T1C, T2 or FLAIR.
IMAGE_TYPE_KINDS = (
    ("localiser", {"LOCALIZER", "LOCALISER", "SCOUT", "SURVEY"}),
    ("ADC", {"ADC", "EADC", "ADC_MAP"}),
    ("DWI", {"DIFFUSION", "TRACEW", "FA", "TENSOR", "TENSOR_B0", "ISOTROPIC", "DIFFUSION_ANISO", "EXP",
             "CALC_BVALUE", "DWI"}),
    ("perfusion", {"PERFUSION", "ASL", "CBF", "CBV", "RCBV", "RCBF", "MTT", "TTP", "PBP", "GBP", "RELCBV",
                   "TMAX", "PERF"}),
    ("functional", {"FMRI", "MOSAIC", "BOLD", "T_MAP", "TMAP"}),
    ("phase", {"P", "PHASE", "PHASE MAP", "PHASE_MAP", "P_SE", "P_FFE", "P_IR", "I", "R", "R_IR", "R_SE",
               "R_FFE", "I_SE",
               "I_FFE", "I_IR", "REAL", "IMAGINARY", "VELOCITY", "VELOCITY MAP", "B0", "B0 MAP", "B1",
               "FIELD_MAP",
               "REAL_AND_IMAGINARY"}),
    ("angiography", {"TOF", "MRA", "ANGIO", "FLOW_ENCODED"}),
    ("T2*", {"SWI", "SUSCEPTIBILITY", "SWAN", "T2_STAR"}),
    ("derived", {"MIP", "MINIP", "MNIP", "PROJECTION IMAGE", "MIN_IP", "MAX_IP", "SUBTRACT", "SUBTRACTION",
                 "SUB", "T1 MAP",
                 "T2 MAP", "T2* MAP", "T1MAP", "T2MAP", "T1_MAP", "T2_MAP", "R2 MAP", "R2_MAP",
                 "T2_STAR_MAP", "MAP",
                 "SYNTHETIC", "SYNTH", "FUSED", "FUSION", "CPR", "CURVED", "CURVED_MPR", "VRT",
                 "3D RENDERING", "STDDEV",
                 "STD_DEV", "VOLREN", "SSD", "QMAP", "RADIAL", "MYOCARDIAL", "PROTON_DENSITY_MAP"}),
    ("MP2RAGE", {"UNI", "INV1", "INV2", "UNI-DEN", "UNIFORM"}),
    ("fat image", {"FAT", "F", "OPP_PHASE", "OUT_PHASE", "OP", "O", "FF", "FAT_FRACTION", "WATER_FRACTION",
                   "OPPOSED_PHASE"}),
    ("screenshot", {"SCREEN SAVE", "SCREEN_SAVE", "SCREENSHOT", "SCREEN CAPTURE", "VXTL STATE"}),
)  # fmt: skip
ACQUISITION_CONTRAST_SEQUENCES = {
    "T1": MRSequence.T1,
    "T2": MRSequence.T2,
    "FLUID_ATTENUATED": MRSequence.FLAIR,
}
ACQUISITION_CONTRAST_KINDS = {"DIFFUSION": "DWI", "PERFUSION": "perfusion", "PROTON_DENSITY": "PD", "STIR": "STIR",
    "T2_STAR": "T2*",
                   "TOF": "angiography", "FLOW_ENCODED": "angiography", "TAGGING": "tagging",
                   "TEMPERATURE": "phase",
                   "ELASTOGRAPHY": "elastography", "ASL": "perfusion", "MAGNETIZATION_TRANSFER": "unknown"}  # fmt: skip
