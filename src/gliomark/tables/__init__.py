"""Tables of patients: the one reader of csv and xlsx for every door, and the one writer of csv.

``reading`` turns a file into a header and rows of text, ``headers`` knows how hospitals name their columns,
``age_sex`` what stands in two of them, ``ids`` which row was probably meant; ``clinical`` puts them together.
``writing`` writes csv in which nothing is run as a formula. Light on purpose: the client imports it too.
"""

from gliomark.tables.age_sex import CellError, parse_age
from gliomark.tables.clinical import ClinicalTable, check_clinical_row, read_clinical_table
from gliomark.tables.ids import list_id_spellings
from gliomark.tables.reading import read_table
from gliomark.tables.text import BLANK_VALUES
from gliomark.tables.writing import format_csv

__all__ = [
    "BLANK_VALUES",
    "CellError",
    "ClinicalTable",
    "check_clinical_row",
    "format_csv",
    "parse_age",
    "read_clinical_table",
    "read_table",
    "list_id_spellings",
]
