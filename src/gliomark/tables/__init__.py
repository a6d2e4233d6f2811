"""Read tables of patients (csv, xlsx) and write csv; used by the command line, the server and the client.

``table_reader`` reads a file into a header and rows of text, ``column_names`` recognises the columns, ``age_sex``
parses age and sex, ``patient_ids`` finds similar ids, and ``clinical_table`` combines them. ``csv_writer`` writes csv
that a spreadsheet does not execute. Keep the imports light: the client imports this package too.
"""

from gliomark.tables.age_sex import CellError, parse_age
from gliomark.tables.cell_text import BLANK_VALUES
from gliomark.tables.clinical_table import ClinicalTable, check_clinical_row, read_clinical_table
from gliomark.tables.csv_writer import format_csv
from gliomark.tables.patient_ids import list_id_spellings
from gliomark.tables.table_reader import read_table

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
