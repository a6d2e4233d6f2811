"""Read the table of molecular results; ``table`` is the entry, the other modules parse headers and cells."""

from gliomark.cohort.labels.table import (
    LabelSettings,
    LabelTable,
    compute_age,
    read_labels,
    write_clinical_table,
)

__all__ = ["LabelSettings", "LabelTable", "compute_age", "read_labels", "write_clinical_table"]
