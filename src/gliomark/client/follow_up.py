"""Dialog with two examinations of a patient side by side, and the change of the lesion's size."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QComboBox, QDialog, QWidget

from gliomark.client.errors import ErrorMessage
from gliomark.client.examination import ExaminationColumn
from gliomark.client.http_client import HttpClient
from gliomark.client.language import translate
from gliomark.client.state import Json
from gliomark.client.theme import scale_to_text
from gliomark.client.widgets import create_button, create_column, create_label, create_row


class FollowUpDialog(QDialog):
    """Two examinations, the earlier on the left. studies: of the server's list.

    Without a date in the images of both, the one that the server received first is on the left.
    """

    def __init__(
        self, http_client: HttpClient, studies: Sequence[Json], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        first, second = sorted(studies, key=lambda study: str(study["created"]))
        self.columns = [ExaminationColumn(http_client, study["id"]) for study in (first, second)]
        for column in self.columns:
            column.loaded.connect(self._render)
            column.failed.connect(self._show_error)
        self.sequence_box = QComboBox()
        self.sequence_box.currentTextChanged.connect(self._show_sequence)
        self.change_label, self.note_label = create_label("heading"), create_label("warn")
        self.hint_label, self.error_label = create_label("faint"), create_label("warn")
        self.close_button = create_button(self.reject)
        self.close_button.setText(self.tr("Close"))
        self.setWindowTitle(self.tr("Two examinations"))
        self.sequence_box.setAccessibleName(self.tr("Sequence"))
        self.hint_label.setText(
            self.tr(
                "Both sizes are of the outlines of the last predictions. Check and correct the outlines before you"
                " judge a change: the difference of two outlines is part of it."
            )
        )
        self._views_layout = views = create_row(*self.columns, spacing=10)
        layout = create_column(
            create_row(self.sequence_box, None),
            views,
            self.change_label,
            self.note_label,
            self.hint_label,
            self.error_label,
            create_row(None, self.close_button),
            spacing=10,
        )
        layout.setStretch(1, 1)
        layout.setContentsMargins(16, 16, 16, 14)
        self.setLayout(layout)
        self.resize(scale_to_text(900), scale_to_text(640))
        self.error_label.hide()
        self._render()

    def _render(self) -> None:
        if not all(column.is_loaded for column in self.columns):
            return
        first, second = self.columns
        if first.date and second.date and first.date > second.date:
            self.columns.reverse()
            self._views_layout.addWidget(first)  # moves it to the right
        self._choose_sequence()
        obstacles = list_obstacles(self.columns)
        notes = obstacles + list_cautions(self.columns)
        self.note_label.setText("\n".join(notes))
        self.note_label.setVisible(bool(notes))
        lesions = [column.lesion for column in self.columns]
        self.change_label.setText("" if obstacles else describe_change(lesions))

    def _choose_sequence(self) -> None:
        """Show the last sequence that both have: the reference, on which the lesion is outlined."""
        names = [list(column.study["sequences"]) for column in self.columns if column.study is not None]
        shared = [name for name in names[0] if name in names[1]]
        # no slice of the others is fetched
        self.sequence_box.blockSignals(True)
        self.sequence_box.addItems(shared)
        self.sequence_box.setCurrentIndex(len(shared) - 1)
        self.sequence_box.blockSignals(False)
        self.sequence_box.setVisible(bool(shared))
        for column, own in zip(self.columns, names, strict=True):
            column.show_sequence(shared[-1] if shared else own[-1])

    def _show_sequence(self, sequence: str) -> None:
        for column in self.columns:
            column.show_sequence(sequence)

    def _show_error(self, error: ErrorMessage) -> None:
        self.error_label.setText(error.text)
        self.error_label.show()

    def done(self, result: int) -> None:
        """Abort all calls when the dialog is closed."""
        for column in self.columns:
            column.close_calls()
        super().done(result)


def list_obstacles(columns: Sequence[ExaminationColumn]) -> list[str]:
    """List in the user's language why the sizes of two loaded examinations cannot be compared."""
    found = []
    ids = [column.study["patient_id"] for column in columns if column.study is not None]
    if len(set(ids)) > 1:
        text = translate("follow-up", "The patient ids differ, {} and {}: check that it is the same patient.")
        found.append(text.format(*ids))
    jobs = [column.job for column in columns]
    if any(job is None for job in jobs):
        found.append(translate("follow-up", "Predict for both examinations to compare the lesion."))
        return found
    results = [job["result"] for job in jobs if job is not None]
    is_outlined_by_reader = all(job["outline_sha256"] for job in jobs if job is not None)
    if any(result["input"]["spacing_assumed"] for result in results):
        found.append(
            translate("follow-up", "Image files do not state the pixel size: sizes cannot be compared.")
        )
    if is_outlined_by_reader:
        return found
    if len({result["model"]["sha256"] for result in results}) > 1:
        found.append(
            translate("follow-up", "The predictions are of different models: predict again with the same.")
        )
    used = [", ".join(result["sequences"]["used"]) for result in results]
    if len(set(used)) > 1:
        text = translate(
            "follow-up",
            "The lesion was outlined on different sequences, {} and {}: sizes cannot be compared.",
        )
        found.append(text.format(*used))
    return found


def list_cautions(columns: Sequence[ExaminationColumn]) -> list[str]:
    """List in the user's language what is uncertain about the order of two loaded examinations."""
    first, second = (column.date for column in columns)
    if not (first and second):
        return [
            translate(
                "follow-up",
                "The date of an examination is not known: the one that was received first is on the left.",
            )
        ]
    if first == second:
        return [
            translate(
                "follow-up",
                "Both examinations are of the same date: check that they are not the same, and which was first.",
            )
        ]
    return []


def describe_change(lesions: Sequence[Json | None]) -> str:
    """Describe volume and longest diameter of two lesions, and their change, in the user's language."""
    volumes = [float(lesion["volume_ml"]) if lesion else 0.0 for lesion in lesions]
    first, second = volumes
    change = f"{second - first:+.1f} ml"
    if first > 0:
        change += f", {100 * (second / first - 1):+.0f} %"
    text = translate("follow-up", "Volume: {} → {} ({})").format(
        f"{first:.1f} ml", f"{second:.1f} ml", change
    )
    longest = [
        lesion["diameters"]["longest"]["mm"] if lesion and lesion.get("diameters") else None
        for lesion in lesions
    ]
    if None not in longest:
        template = translate("follow-up", "Longest diameter in a slice: {} → {}")
        text += "\n" + template.format(*(f"{value:.0f} mm" for value in longest))
    return text
