"""Dialog that fetches a patient's study from a PACS."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QDialog, QLineEdit, QProgressBar, QTreeWidget, QTreeWidgetItem, QWidget

from gliomark.client import errors
from gliomark.client.errors import ErrorMessage
from gliomark.client.pacs_fetch import PacsAccess, PacsFetch
from gliomark.client.settings import UserSettings
from gliomark.client.state import Json
from gliomark.client.theme import scale_to_text
from gliomark.client.widgets import create_button, create_column, create_label, create_row
from gliomark.files import FileWriteError, remove_path, scratch_folder

UID_ROLE = Qt.ItemDataRole.UserRole
MAX_NAME_LENGTH = 60  # of the folder, in letters


class FetchDialog(QDialog):
    """Accession number or patient id, and the PACS; accepted with the study's images in ``folder``.

    fetched_files: keeps the images until it is closed; if the dialog is not accepted, they are removed at once. The
    PACS is kept in the settings, the password is not.
    """

    def __init__(
        self, settings: UserSettings, fetched_files: ExitStack, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.folder: Path | None = None
        self._settings, self._fetched_files = settings, fetched_files
        self._scratch_folder: Path | None = None
        self._error: ErrorMessage | None = None
        self._fetch = PacsFetch(self)
        self._fetch.fetched.connect(self._accept_folder)
        self._fetch.choice_needed.connect(self._show_studies)
        self._fetch.failed.connect(self._show_error)
        access = settings.pacs
        self.accession_field, self.patient_field = QLineEdit(), QLineEdit()
        self.address_field, self.ae_title_field = QLineEdit(access.address), QLineEdit(access.ae_title)
        self.port_field, self.user_field = QLineEdit(access.receive_port), QLineEdit(access.user)
        self.password_field = QLineEdit()
        self.password_field.setEchoMode(QLineEdit.EchoMode.Password)
        self.address_field.setPlaceholderText("PACS@pacs.hospital.example:104")
        self.studies_table = QTreeWidget()
        self.studies_table.setRootIsDecorated(False)
        self.studies_table.itemSelectionChanged.connect(self._render)
        self.studies_table.itemDoubleClicked.connect(lambda *_: self._start())
        self.hint_label, self.choice_label = create_label("faint"), create_label("soft")
        self.error_label = create_label("warn")
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setRange(0, 0)
        self.fetch_button = create_button(self._start, "primary")
        self.fetch_button.setDefault(True)
        self.close_button = create_button(self.reject)
        self.close_button.setAutoDefault(False)  # Enter fetches
        self._rows = [
            (self.accession_field, create_label("soft")),
            (self.patient_field, create_label("soft")),
            (self.address_field, create_label("soft")),
            (self.ae_title_field, create_label("soft")),
            (self.port_field, create_label("soft")),
            (self.user_field, create_label("soft")),
            (self.password_field, create_label("soft")),
        ]
        self._lay_out()
        for field, _ in self._rows:
            field.textChanged.connect(self._clear_studies)
        self._translate()
        self._clear_studies()

    def _lay_out(self) -> None:
        rows = []
        for field, label in self._rows:
            label.setFixedWidth(scale_to_text(190))
            row = create_row(label, field)
            row.setStretch(1, 1)
            rows.append(row)
        layout = create_column(
            *rows[:2],
            10,
            *rows[2:],
            self.hint_label,
            self.choice_label,
            self.studies_table,
            self.error_label,
            self.progress_bar,
            create_row(None, self.close_button, self.fetch_button),
            spacing=10,
        )
        layout.setContentsMargins(16, 16, 16, 14)
        self.setLayout(layout)
        self._layout = layout
        self.setMinimumWidth(scale_to_text(560))
        self.studies_table.setMinimumHeight(scale_to_text(120))

    def _translate(self) -> None:
        self.setWindowTitle(self.tr("Fetch from the PACS"))
        names = (
            self.tr("Accession number"),
            self.tr("or patient id"),
            self.tr("PACS address"),
            self.tr("AE title of this computer"),
            self.tr("Port of this computer"),
            self.tr("User"),
            self.tr("Password"),
        )
        for (field, label), name in zip(self._rows, names, strict=True):
            label.setText(name)
            field.setAccessibleName(name)
        self.hint_label.setText(
            self.tr(
                "PACS: AET@host:port, or the address of a DICOMweb service. The port is needed only if the PACS does"
                " not support C-GET; user and password only for DICOMweb. Only MR images, masks and structure sets are"
                " fetched."
            )
        )
        self.choice_label.setText(self.tr("Several studies fit. Choose one."))
        headers = [
            self.tr("Date"),
            self.tr("Description"),
            self.tr("Accession number"),
            self.tr("Patient id"),
        ]
        self.studies_table.setHeaderLabels(headers)
        self.studies_table.setAccessibleName(self.tr("Several studies fit. Choose one."))
        self.fetch_button.setText(self.tr("Fetch"))
        self.close_button.setText(self.tr("Cancel"))

    @property
    def access(self) -> PacsAccess:
        """The PACS as entered."""
        fields = (self.address_field, self.ae_title_field, self.port_field, self.user_field)
        return PacsAccess(*(field.text().strip() for field in fields))

    def _start(self) -> None:
        if not self.fetch_button.isEnabled():
            return
        self._settings.pacs = self.access
        self._error = None
        query = {
            "--accession": self.accession_field.text().strip(),
            "--patient-id": self.patient_field.text().strip(),
            "--study-uid": self._selected_uid,
        }
        # the name is shown until the server has read the images
        name = query["--patient-id"] or query["--accession"]
        name = "".join(letter if letter.isalnum() else "-" for letter in name[:MAX_NAME_LENGTH])
        try:
            if self._scratch_folder is None:
                self._scratch_folder = self._fetched_files.enter_context(scratch_folder())
        except FileWriteError as error:
            self._show_error(ErrorMessage(errors.PLAIN_TEXT, (error.message,), None))
            return
        self._fetch.start(self.access, self.password_field.text(), query, self._scratch_folder / name)
        self._render()

    @property
    def _selected_uid(self) -> str:
        items = self.studies_table.selectedItems()
        return str(items[0].data(0, UID_ROLE)) if items else ""

    def _show_studies(self, studies: tuple[Json, ...]) -> None:
        self.studies_table.clear()
        item = None
        columns = ("date", "description", "accession_number", "patient_id")
        for study in studies:
            item = QTreeWidgetItem([study[column] for column in columns])
            item.setData(0, UID_ROLE, study["uid"])
            self.studies_table.addTopLevelItem(item)
        for column in range(self.studies_table.columnCount()):
            self.studies_table.resizeColumnToContents(column)
        is_one_patient = len({study["patient_id"] for study in studies}) == 1
        if item is not None and is_one_patient:  # accession numbers of two hospitals may be the same
            item.setSelected(True)  # the latest
        self._render()

    def _clear_studies(self) -> None:
        """Forget the studies found: what was asked for has changed."""
        self.studies_table.clear()
        self._render()

    def _show_error(self, error: ErrorMessage) -> None:
        self._error = error
        self._render()

    def _accept_folder(self, folder: Path) -> None:
        self.folder = folder
        self.accept()

    def _render(self) -> None:
        is_running, has_choice = self._fetch.is_running, self.studies_table.topLevelItemCount() > 0
        for field, _ in self._rows:
            field.setEnabled(not is_running)
        self.studies_table.setEnabled(not is_running)
        self.studies_table.setVisible(has_choice)
        self.choice_label.setVisible(has_choice)
        self.progress_bar.setVisible(is_running)
        self.error_label.setText(self._error.text if self._error else "")
        self.error_label.setVisible(self._error is not None and not is_running)
        asked = self.accession_field.text().strip() or self.patient_field.text().strip()
        has_password = not self.user_field.text().strip() or bool(self.password_field.text())
        is_complete = bool(asked and self.address_field.text().strip()) and has_password
        is_chosen = not has_choice or bool(self._selected_uid)
        self.fetch_button.setEnabled(is_complete and is_chosen and not is_running)
        height = self._layout.totalHeightForWidth(self.width())  # of wrapped texts and what is shown
        self.resize(self.width(), max(self.height(), height))

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802
        """Show all texts in the new language."""
        if event.type() == QEvent.Type.LanguageChange:
            self._translate()
            self._render()
        super().changeEvent(event)

    def done(self, result: int) -> None:
        """Stop fetching when the dialog is closed, and remove what was not fetched completely."""
        self._fetch.stop()
        if self.folder is None and self._scratch_folder is not None:
            remove_path(self._scratch_folder)
        super().done(result)
