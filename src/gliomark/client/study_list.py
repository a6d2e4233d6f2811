"""Dialog with the studies on the server, to reopen or remove one, or to compare two."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QLineEdit, QMessageBox, QTreeWidget, QTreeWidgetItem, QWidget

from gliomark.client.follow_up import FollowUpDialog
from gliomark.client.language import format_local_time, translate_message
from gliomark.client.session import Session
from gliomark.client.state import ClientState, Json
from gliomark.client.widgets import create_button, create_column, create_label, create_row
from gliomark.messages import message

ID_ROLE = Qt.ItemDataRole.UserRole


class StudyListDialog(QDialog):
    """The server's studies, newest first; accepted with the study to open in ``selected_id``."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._studies: tuple[Json, ...] = ()
        self.setWindowTitle(self.tr("Earlier patients"))
        self.resize(640, 460)
        self.search_field = QLineEdit()
        self.search_field.setClearButtonEnabled(True)
        self.search_field.setPlaceholderText(translate_message(message("page-find")))
        self.search_field.setAccessibleName(translate_message(message("page-find")))
        self.search_field.textChanged.connect(lambda text: session.list_studies(text.strip()))
        self.table = QTreeWidget()
        self.table.setHeaderLabels([self.tr("Patient"), self.tr("Received"), self.tr("State")])
        self.table.setRootIsDecorated(False)
        self.table.setSelectionMode(QTreeWidget.SelectionMode.ExtendedSelection)
        self.table.setAccessibleName(self.tr("Earlier patients"))
        self.table.itemSelectionChanged.connect(self._enable_buttons)
        self.table.itemDoubleClicked.connect(lambda *_: self._open_selected())
        self.message_label, self.error_label = create_label("soft"), create_label("warn")
        self.open_button = create_button(self._open_selected, "primary")
        self.remove_button = create_button(self._remove_selected)
        self.close_button = create_button(self.reject)
        self.compare_button = create_button(self._compare_selected)
        self.open_button.setText(self.tr("Open"))
        self.open_button.setDefault(True)
        for button in (self.remove_button, self.compare_button, self.close_button):
            button.setAutoDefault(False)  # Enter opens
        self.remove_button.setText(self.tr("Remove…"))
        self.compare_button.setText(self.tr("Compare two"))
        self.compare_button.setToolTip(self.tr("Select two examinations with Ctrl"))
        self.close_button.setText(self.tr("Close"))
        buttons = create_row(
            self.remove_button, self.compare_button, None, self.close_button, self.open_button
        )
        layout = create_column(
            self.search_field, self.table, self.message_label, self.error_label, buttons, spacing=10
        )
        layout.setContentsMargins(16, 16, 16, 14)
        self.setLayout(layout)
        session.state_changed.connect(self._render_state)
        session.list_studies()
        self._render_state(session.state)

    @property
    def selected_id(self) -> str:
        """Id of the selected study; empty without one or with several."""
        items = self.table.selectedItems()
        return str(items[0].data(0, ID_ROLE)) if len(items) == 1 else ""

    @property
    def _selected_studies(self) -> list[Json]:
        ids = {item.data(0, ID_ROLE) for item in self.table.selectedItems()}
        return [study for study in self._studies if study["id"] in ids]

    @property
    def _selected_study(self) -> Json | None:
        return next((study for study in self._studies if study["id"] == self.selected_id), None)

    def _render_state(self, state: ClientState) -> None:
        if state.studies != self._studies:
            self._fill_table(state.studies or ())
        self.error_label.setText(state.error.text if state.error else "")
        self.error_label.setVisible(state.error is not None)
        self.message_label.setText(translate_message(message("page-no-studies")))
        self.message_label.setVisible(state.studies == () and not self.search_field.text())
        self._enable_buttons()

    def _fill_table(self, studies: tuple[Json, ...]) -> None:
        ids = [study["id"] for study in studies]
        selected_id = self.selected_id if self.selected_id in ids else next(iter(ids), "")
        self._studies = studies
        self.table.clear()
        for study in self._studies:
            words = (study["patient_id"], format_local_time(study["created"]), self._describe_state(study))
            item = QTreeWidgetItem(words)
            item.setData(0, ID_ROLE, study["id"])
            self.table.addTopLevelItem(item)
            item.setSelected(study["id"] == selected_id)
        for column in range(self.table.columnCount()):
            self.table.resizeColumnToContents(column)

    def _describe_state(self, study: Json) -> str:
        if study["state"] == "ready":
            return self.tr("corrected outline") if study["corrected"] else ""
        return translate_message(message(f"page-study-{study['state']}"))

    def _enable_buttons(self) -> None:
        study = self._selected_study
        self.open_button.setEnabled(study is not None and study["state"] != "failed")
        self.remove_button.setEnabled(study is not None)
        states = [one["state"] for one in self._selected_studies]
        self.compare_button.setEnabled(states == ["ready", "ready"])

    def _open_selected(self) -> None:
        if self.open_button.isEnabled():
            self.accept()

    def _compare_selected(self) -> None:
        """Show the two selected studies side by side."""
        dialog = FollowUpDialog(self._session.http_client, self._selected_studies, self)
        dialog.exec()
        dialog.deleteLater()

    def _remove_selected(self) -> None:
        """Remove the selected study after a question."""
        study = self._selected_study
        if study is None:
            return
        question = self.tr(
            "Remove the images, outlines and predictions of {} from the server? This cannot be undone."
        ).format(study["patient_id"])
        if QMessageBox.question(self, "gliomark", question) == QMessageBox.StandardButton.Yes:
            self._session.remove_study(study["id"])
