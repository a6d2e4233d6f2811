"""Tables of patients: the one reader of csv and xlsx for every door, and the one writer of csv.

``reading`` turns a file into a header and rows of text, ``headers`` knows how hospitals name their columns,
``age_sex`` what stands in two of them, ``ids`` which row was probably meant; ``clinical`` puts them together.
``writing`` writes csv in which nothing is run as a formula. Light on purpose: the client imports it too.
"""

from gliomark.tables.age_sex import CellError, parse_age
from gliomark.tables.clinical import ClinicalTable, check_row, read_clinical
from gliomark.tables.ids import spellings_of_id
from gliomark.tables.reading import read_records
from gliomark.tables.text import BLANKS
from gliomark.tables.writing import csv_text

__all__ = [
    "BLANKS",
    "CellError",
    "ClinicalTable",
    "check_row",
    "csv_text",
    "parse_age",
    "read_clinical",
    "read_records",
    "spellings_of_id",
]
