"""Synthetic patients and hospitals with a known answer, for tests and demonstrations."""

from gliomark.phantom.appearance import TumourAppearance, sample_clinical
from gliomark.phantom.patient import (
    Phantom,
    PhantomSettings,
    SyntheticPerson,
    as_series,
    create_phantom,
    create_phantom_study,
    create_reader_mask,
    render_volumes,
    sample_person,
    write_clinical_csv,
    write_nifti,
    write_pictures,
)

__all__ = [
    "Phantom",
    "PhantomSettings",
    "SyntheticPerson",
    "TumourAppearance",
    "as_series",
    "create_phantom",
    "create_phantom_study",
    "create_reader_mask",
    "render_volumes",
    "sample_clinical",
    "sample_person",
    "write_clinical_csv",
    "write_nifti",
    "write_pictures",
]
