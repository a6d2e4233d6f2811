"""The results of a batch as they arrive: the table of patients, patients with the same id, and the progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gliomark.batch.finished_results import read_request
from gliomark.batch.options import BatchReport, BatchStep
from gliomark.batch.patient import BatchSettings, PatientResult
from gliomark.errors import InputError
from gliomark.files import FileWriteError, remove_path
from gliomark.messages import Message, message
from gliomark.reporting import (
    FailedPatient,
    encode_folder_name,
    read_predictions_table,
    write_table_rows,
)

TABLE_NAME = "predictions.csv"
MAX_TABLE_SHARE = 0.05  # of the time, for writing the table before the end
VISIBILITY_TIMEOUT_S = 10.0  # within which a result that another machine wrote must be visible here


class BatchResults:
    """Collects the results of patients in any order, and keeps ``predictions.csv`` up to date.

    If several folders have the same patient id, the first folder is predicted, in the order of the folders.

    Parameters
    ----------
    folders
        All patients of the batch.
    settings
        What is the same for all patients.
    notify
        Called with the path of each new report.
    writes_table
        Whether the table is written.

    Attributes
    ----------
    by_number
        Results by index of the folder.
    pending
        Indices of the folders that still have to be predicted.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        settings: BatchSettings,
        notify: Callable[[str], None],
        writes_table: bool = True,
    ) -> None:
        self.folders, self.settings, self.notify, self.writes_table = folders, settings, notify, writes_table
        self.by_number: dict[int, PatientResult] = {}
        self.pending = deque(range(len(folders)))
        self._number_by_id: dict[str, int] = {}
        self._shared_ids: set[str] = set()
        self._table_due_at = 0.0

    # ---- results ------------------------------------------------------------------------------------

    def add(self, result: PatientResult) -> None:
        """Add a patient's result; the table is written if it is due.

        Raises
        ------
        FileWriteError
            If the table cannot be written.
        """
        self.by_number[result.number] = result
        if result.patient_id is not None:
            self._resolve_shared_id(result.patient_id, result.number)
        if result.row is not None and not result.is_reused and self.by_number.get(result.number) is result:
            self.notify(str(self._get_result_folder(result) / "report.html"))
        if time.monotonic() >= self._table_due_at:
            self.write_table()

    def check_new_id(self, number: int, patient_id: str, folder: Path) -> None:
        """Check that no folder before this one has the same patient id.

        Raises
        ------
        InputError
            If one has.
        """
        if (other := self._number_by_id.get(patient_id, number)) < number:
            raise InputError(self._describe_shared_id(patient_id, folder, self.folders[other]))

    def check_visible(self, result: PatientResult) -> PatientResult:
        """Return the result, or a failure if another machine wrote it to a folder that is not shared."""
        deadline = time.monotonic() + VISIBILITY_TIMEOUT_S
        while result.row is not None and read_request(self._get_result_folder(result)) is None:
            if time.monotonic() > deadline:
                error_message = message("results-invisible", folder=self.settings.output_folder)
                return self._create_failure(result.number, error_message)
            time.sleep(0.2)
        return result

    def _resolve_shared_id(self, patient_id: str, number: int) -> None:
        """Give an id that several folders have to the first of them, and restore its results if necessary.

        On workers, folders with the same id may be predicted at the same time, and replace each other's results.
        """
        known = self._number_by_id.setdefault(patient_id, number)
        if known == number and patient_id not in self._shared_ids:
            return
        self._shared_ids.add(patient_id)
        first, other = sorted((known, number))
        self._number_by_id[patient_id] = first
        if other != first:
            refused = self.by_number.get(other)
            reason = self._describe_shared_id(patient_id, self.folders[other], self.folders[first])
            self.by_number[other] = self._create_failure(other, reason)
            if refused is not None and not refused.is_reused and self._is_on_disk(refused):
                remove_path(self._get_result_folder(refused))
        owner = self.by_number.get(first)
        if owner is not None and owner.row is not None and not self._is_on_disk(owner):
            del self.by_number[first]
            self.pending.append(first)

    def _is_on_disk(self, result: PatientResult) -> bool:
        """Whether the results in the output folder are those of this patient's folder."""
        if result.row is None:
            return False
        record = read_request(self._get_result_folder(result))
        return record is not None and record.key == result.key

    def _get_result_folder(self, result: PatientResult) -> Path:
        return self.settings.output_folder / encode_folder_name(result.patient_id or "")

    def _create_failure(self, number: int, reason: str) -> PatientResult:
        return PatientResult(number, failure=FailedPatient(self.folders[number].name, reason))

    @staticmethod
    def _describe_shared_id(patient_id: str, folder: Path, other: Path) -> Message:
        return message("patient-twice", folder=folder, patient=patient_id, other=str(other))

    def create_report(self) -> BatchReport:
        """Create the report of the batch."""
        results = [self.by_number[number] for number in sorted(self.by_number)]
        return BatchReport(
            tuple(one.failure for one in results if one.failure is not None),
            tuple(self._get_result_folder(one) for one in results if one.row is not None),
            sum(one.is_reused for one in results),
        )

    # ---- the table ----------------------------------------------------------------------------------

    def check_table(self) -> None:
        """Check that an existing table can be continued.

        Raises
        ------
        InputError
            If it cannot be read, or is a file of another program.
        """
        read_predictions_table(self.settings.output_folder / TABLE_NAME)

    @contextmanager
    def keep_table(self) -> Iterator[None]:
        """Write the table at exit, also after an interruption or an error."""
        try:
            yield
        except BaseException:
            with suppress(FileWriteError):  # the small table may still fit on a disk that is nearly full
                self.write_table()
            raise
        self.write_table()

    def write_table(self) -> None:
        """Write the table in the order of the folders, if one is wanted and a patient was predicted, now or earlier.

        Raises
        ------
        FileWriteError
            If it cannot be written.
        """
        started_at = time.monotonic()
        results = [self.by_number[number] for number in sorted(self.by_number)]
        table = self.settings.output_folder / TABLE_NAME
        if not (self.writes_table and results and (any(one.row for one in results) or table.exists())):
            return
        rows = [one.table_row for one in results]
        # a patient who failed before the images were read is listed by the folder's name, which may be another id
        read = [self.folders[one.number].name for one in results if one.patient_id is not None]
        write_table_rows(rows, table, outdated_failures=read)
        now = time.monotonic()
        self._table_due_at = now + (now - started_at) / MAX_TABLE_SHARE


class BatchProgress:
    """Progress of a batch on workers; the time left follows from the patients that this run predicted."""

    def __init__(self, results: BatchResults) -> None:
        self.results, self.started_at, self.done_before = results, time.monotonic(), len(results.by_number)

    def describe(self) -> BatchStep:
        """Describe how many patients are done and have failed, the rate, and the time left."""
        done, total = len(self.results.by_number), len(self.results.folders)
        failed = sum(one.failure is not None for one in self.results.by_number.values())
        minutes = (time.monotonic() - self.started_at) / 60
        rate = (done - self.done_before) / max(minutes, 1e-9)
        if done == self.done_before:
            return BatchStep(message("batch-start", done=done, total=total), done, total)
        left = format_duration(60 * (total - done) / rate)
        text = message("batch-progress", done=done, total=total, failed=failed, rate=rate, left=left)
        return BatchStep(text, done, total)


def format_duration(seconds: float) -> str:
    """Format a duration in s as hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
