"""Left panel: the four steps from the patient's folder to the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMenu,
    QProgressBar,
    QSizePolicy,
    QWidget,
)

from gliomark.client.clinical_data import parse_typed_age, read_age_and_sex
from gliomark.client.language import translate_message
from gliomark.client.state import ClientState, Json, Task
from gliomark.client.theme import scale_to_text
from gliomark.client.widgets import (
    SegmentedControl,
    create_button,
    create_column,
    create_frame,
    create_label,
    create_row,
    create_scroll_area,
    name_widget,
)
from gliomark.errors import GliomarkError
from gliomark.reader_finding_accuracy import READER_FINDING_ACCURACY


class StepCard(QWidget):
    """Card of one numbered step: a heading and its widgets."""

    def __init__(self, number: int, *parts: Any) -> None:
        super().__init__()
        self.number_label = QLabel(str(number))
        self.number_label.setObjectName("number")
        self.number_label.setFixedSize(scale_to_text(24), scale_to_text(24))
        self.number_label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.heading_label = create_label("heading")
        heading_row = create_row(self.number_label, self.heading_label, spacing=10)
        heading_row.setStretch(1, 1)
        self.setLayout(create_column(create_frame("card", create_column(heading_row, *parts, spacing=9))))
        self._number_text = str(number)

    def set_done(self, is_done: bool) -> None:
        """Show a check mark in place of the number, or the number again."""
        self.number_label.setText("✓" if is_done else self._number_text)
        self.number_label.setProperty("done", is_done)
        self.number_label.style().polish(self.number_label)


class InputPanel(QWidget):
    """Panel for images, age and sex, the reader's finding and the prediction; holds the user's input."""

    folder_chosen = Signal(object, str)
    prediction_requested = Signal()
    cancel_requested = Signal()
    clear_recent_requested = Signal()
    studies_requested = Signal()
    fetch_requested = Signal()
    input_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = ClientState()
        self._table_path: Path | None = None
        self._table_error = ""
        self._filled_patient_id = ""
        self._input_patient_key = ""
        self.patient_step = self._create_patient_step()
        self.clinical_step = self._create_clinical_step()
        self.finding_step = self._create_finding_step()
        self.prediction_step = self._create_prediction_step()
        inner = QWidget()
        inner.setLayout(
            create_column(self.patient_step, self.clinical_step, self.finding_step, None, spacing=10)
        )
        # outside the scroll area, the last step stays visible on a small screen
        self._scroll_area = create_scroll_area(inner)
        self._scroll_area.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        panel_layout = create_column(self._scroll_area, self.prediction_step, None, spacing=10)
        panel_layout.setContentsMargins(12, 12, 12, 12)
        self.setLayout(panel_layout)
        self.setMinimumWidth(max(330, scale_to_text(282)))

    # ---- widgets ----------------------------------------------------------------------------------------

    def _create_patient_step(self) -> StepCard:
        self.choose_folder_button = create_button(self.ask_for_folder, icon_name="folder")
        self.recent_button = create_button(lambda: None, "icon", "recent")
        self.recent_button.setMenu(QMenu(self.recent_button))
        self.studies_button = create_button(self.studies_requested.emit, "icon", "patients")
        self.fetch_button = create_button(self.fetch_requested.emit, "icon", "fetch")
        self.model_box = QComboBox()
        self.model_box.activated.connect(lambda _: self._reopen_folder())
        self.patient_label = create_label("level")
        self.patient_label.setStyleSheet(f"font-size: {scale_to_text(17)}px")
        # a long id is cut off rather than all other texts of the panel
        self.patient_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.status_label, self.substitute_label = create_label("soft"), create_label("warn")
        self.preparation_bar = QProgressBar()
        self.preparation_bar.setTextVisible(False)
        self.cancel_preparation_button = create_button(self.cancel_requested.emit)
        other_ways = create_row(self.recent_button, self.studies_button, self.fetch_button, None, spacing=6)
        return StepCard(
            1,
            self.patient_label,
            self.status_label,
            self.substitute_label,
            self.preparation_bar,
            self.cancel_preparation_button,
            self.choose_folder_button,
            other_ways,
            self.model_box,
        )

    def _create_clinical_step(self) -> StepCard:
        self.choose_table_button = create_button(self.ask_for_table, icon_name="table")
        self.age_field = QLineEdit()
        self.age_field.setFixedWidth(scale_to_text(84))
        self.age_field.textEdited.connect(lambda _: self._handle_typed())
        self.years_label = create_label("soft", wraps=False)
        self.age_label, self.sex_label = create_label("soft", wraps=False), create_label("soft", wraps=False)
        for word in (self.age_label, self.sex_label):
            word.setMinimumWidth(scale_to_text(44))
        self.sex_control = SegmentedControl((0, 1, None))
        self.sex_control.changed.connect(self._handle_typed)
        self.table_label = create_label("faint")
        self.table_error_label = create_label("warn")
        self.without_clinical_box = QCheckBox()
        self.without_clinical_box.toggled.connect(lambda _: self.input_changed.emit())
        sex = create_row(self.sex_label, self.sex_control)
        sex.setStretch(1, 1)
        age = create_row(self.age_label, self.age_field, self.years_label, None)
        return StepCard(
            2,
            self.choose_table_button,
            age,
            sex,
            self.table_label,
            self.table_error_label,
            self.without_clinical_box,
        )

    def _create_finding_step(self) -> StepCard:
        self.enhancing_control = SegmentedControl(("yes", "no", None))
        self.enhancing_control.changed.connect(self.input_changed.emit)
        self.finding_note_label = create_label("faint")
        return StepCard(3, self.enhancing_control, self.finding_note_label)

    def _create_prediction_step(self) -> StepCard:
        self.location_box = QCheckBox()
        self.location_box.toggled.connect(lambda _: self.input_changed.emit())
        self.predict_button = create_button(self.prediction_requested.emit, "primary")
        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(False)
        self.progress_label = create_label("soft")
        self.cancel_button = create_button(self.cancel_requested.emit)
        self.missing_input_label = create_label("faint")
        return StepCard(
            4,
            self.location_box,
            self.predict_button,
            self.progress_bar,
            self.progress_label,
            self.cancel_button,
            self.missing_input_label,
        )

    # ---- user input -------------------------------------------------------------------------------------

    @property
    def prediction_request(self) -> dict[str, Any]:
        """The user's input in the format of the server's prediction request.

        Raises
        ------
        InputError
            If the age is not valid.
        """
        age, sex = parse_typed_age(self.age_field.text()), self.sex_control.value
        without_clinical = self.without_clinical_box.isChecked() and (age is None or sex is None)
        request = {
            "age": age,
            "sex": sex,
            "enhancing": self.enhancing_control.value,
            "without_clinical": without_clinical,
        }
        # an older server refuses a field that it does not know
        is_located = self._state.can_locate_lesion and self.location_box.isChecked()
        return request | ({"location": True} if is_located else {})

    def explain_missing_input(self) -> str:
        """Return a message stating which input is missing for a prediction; empty if none is."""
        if not self._state.is_study_ready:
            return self.tr("Choose the patient's folder first.") if not self._state.task else ""
        try:
            request = self.prediction_request
        except GliomarkError as error:
            return translate_message(error.message)
        is_incomplete = request["age"] is None or request["sex"] is None
        if is_incomplete and not request["without_clinical"]:
            return self.tr("Enter age and sex in step 2, or tick “Age or sex unknown”.")
        return ""

    def ask_for_folder(self) -> None:
        """Let the user choose the patient's folder."""
        start = str(self._state.patient_folder.parent) if self._state.patient_folder else ""
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Folder of the patient, or of one sequence in it"), start
        )
        if chosen:
            self.open_path(Path(chosen))

    def open_path(self, path: Path) -> None:
        """Open a path: a table goes to step 2, anything else to step 1."""
        if path.suffix.lower() in (".csv", ".txt", ".tsv", ".xlsx"):
            self.set_table(path)
        else:
            self.folder_chosen.emit(path, self.model_box.currentData() or "")

    def _reopen_folder(self) -> None:
        """Send the folder again after another model was chosen, because image preparation depends on the model."""
        if self._state.patient_folder is not None:
            self.open_path(self._state.patient_folder)

    def ask_for_table(self) -> None:
        """Let the user choose a table with age and sex."""
        start = self._table_path or self._state.patient_folder
        chosen, _ = QFileDialog.getOpenFileName(
            self,
            self.tr("Table with the columns id, age, sex"),
            str(start.parent if start else ""),
            self.tr("Tables (*.csv *.txt *.tsv *.xlsx);;All files (*)"),
        )
        if chosen:
            self.set_table(Path(chosen))

    def restore_request(self, request: Json) -> None:
        """Show the input of an earlier prediction of the patient."""
        self._table_path, self._table_error = None, ""
        age = request.get("age")
        self.age_field.setText("" if age is None else f"{age:g}")
        self.sex_control.select_value(request.get("sex"))
        self.enhancing_control.select_value(request.get("enhancing"))
        self.without_clinical_box.setChecked(bool(request.get("without_clinical")))
        self.location_box.setChecked(bool(request.get("location")))
        self.input_changed.emit()

    def set_table(self, path: Path) -> None:
        """Read age and sex from a table, now or as soon as the patient id is known."""
        self._table_path, self._filled_patient_id = path, ""
        self._fill_age_and_sex()
        self.input_changed.emit()

    def _handle_typed(self) -> None:
        self._table_path, self._table_error = None, ""
        self.input_changed.emit()

    def _fill_age_and_sex(self) -> None:
        """Fill in age and sex from the table, once per patient and table."""
        patient_id = self._state.patient_id if self._state.study is not None else ""
        if self._table_path is None or not patient_id or patient_id == self._filled_patient_id:
            return
        self._filled_patient_id, self._table_error = patient_id, ""
        self.age_field.clear()
        self.sex_control.select_value(None)
        try:
            clinical = read_age_and_sex(self._table_path, patient_id)
        except GliomarkError as error:
            self._table_error = translate_message(error.message)
            return
        self.age_field.setText("" if clinical.age is None else f"{clinical.age:g}")
        self.sex_control.select_value(clinical.sex)

    def _clear_inputs_of_previous_patient(self, state: ClientState) -> None:
        """Clear the input when another patient is opened; the table, and what was typed before the first, is kept."""
        if state.patient_key in ("", self._input_patient_key):
            return
        has_previous_patient, self._input_patient_key = bool(self._input_patient_key), state.patient_key
        if not has_previous_patient:
            return
        self._filled_patient_id, self._table_error = "", ""
        self.age_field.clear()
        self.sex_control.select_value(None)
        self.enhancing_control.select_value(None)
        self.without_clinical_box.setChecked(False)

    # ---- rendering --------------------------------------------------------------------------------------

    def render_state(self, state: ClientState, recent_folders: Sequence[Path] = ()) -> None:
        """Update the panel. recent_folders: entries of the menu of recent folders."""
        self._clear_inputs_of_previous_patient(state)
        if state.models != self._state.models:
            self._fill_model_box(state)
        self._state = state
        self._fill_age_and_sex()
        self._render_patient(state, recent_folders)
        self._render_clinical(state)
        self._render_finding()
        self._render_prediction(state)
        self._scroll_area.updateGeometry()

    def refresh_table_error(self) -> None:
        """Read the table again so that its error message follows the language."""
        if self._table_error:
            self._filled_patient_id = ""

    def _fill_model_box(self, state: ClientState) -> None:
        self.model_box.blockSignals(True)
        self.model_box.clear()
        for model in state.models:
            self.model_box.addItem(model["title"], model["name"])
        self.model_box.blockSignals(False)

    def _render_patient(self, state: ClientState, recent_folders: Sequence[Path]) -> None:
        step, task = self.patient_step, state.task
        step.heading_label.setText(self.tr("The patient's images"))
        step.set_done(state.is_study_ready)
        is_opening = task is not None and task.kind != "predicting"
        can_choose = task is None or task.kind == "waiting"
        self.patient_label.setText(state.patient_id)
        self.patient_label.setToolTip(state.patient_id)
        self.patient_label.setVisible(bool(state.patient_id))
        self.status_label.setText(self._format_status(state))
        lines = [
            self.tr("{} is missing; {} is used in its place. No marker is predicted.").format(*pair)
            for pair in state.get_substitutes().items()
        ]
        lines += [translate_message(note) for note in state.list_network_notes()]
        self.substitute_label.setText("\n".join(lines))
        self.substitute_label.setVisible(bool(lines))
        self.preparation_bar.setVisible(is_opening or state.server_status == "starting")
        _show_progress(self.preparation_bar, task)
        self.cancel_preparation_button.setText(self.tr("Cancel"))
        self.cancel_preparation_button.setVisible(is_opening)
        self.choose_folder_button.setText(
            self.tr("Choose folder…") if not state.patient_key else self.tr("Another patient…")
        )
        self.choose_folder_button.setVisible(can_choose or not is_opening)
        self.choose_folder_button.setEnabled(can_choose)
        name_widget(self.recent_button, self.tr("Recent folders"))
        self.recent_button.setVisible((can_choose or not is_opening) and bool(recent_folders))
        self.recent_button.setEnabled(can_choose)
        self._fill_recent_menu(recent_folders)
        name_widget(self.studies_button, self.tr("Earlier patients…"))
        self.studies_button.setVisible(state.server_status == "ready" and not is_opening)
        self.studies_button.setEnabled(task is None)
        name_widget(self.fetch_button, self.tr("Fetch from the PACS…"))
        self.fetch_button.setVisible(not is_opening)
        self.fetch_button.setEnabled(can_choose)
        self.model_box.setVisible(len(state.models) > 1 and not is_opening)
        self.model_box.setAccessibleName(self.tr("Model"))

    def _fill_recent_menu(self, recent_folders: Sequence[Path]) -> None:
        menu = self.recent_button.menu()
        menu.clear()
        for path in recent_folders:
            menu.addAction(f"{path.name}   ({path.parent})", lambda path=path: self.open_path(path))
        menu.addSeparator()
        menu.addAction(self.tr("Clear list"), self.clear_recent_requested.emit)

    def _format_status(self, state: ClientState) -> str:
        is_starting = state.server_status == "starting"
        if is_starting and state.task is None and state.study is None:
            return self.tr(
                "The models are loading. You can already choose the patient's folder, and enter age and sex."
            )
        if state.task is not None and state.task.kind != "predicting":
            return {
                "waiting": self.tr(
                    "The models are loading. The images are sent as soon as the server is ready."
                )
                if is_starting
                else self.tr("Waiting for the server to start"),
                "packing": self.tr("Packing the files"),
                "uploading": self.tr("Uploading the images"),
                "preparing": _format_task_step(
                    state.task, self.tr("The server is reading, registering and preparing the images")
                ),
            }[state.task.kind]
        if state.is_study_ready and state.study is not None:
            sequences_text = ", ".join(state.study["sequences"])
            return self.tr("{} · {} slices").format(sequences_text, state.study["shape"][0])
        return self.tr("Drop the patient's folder here, or choose it. Choosing its T1c folder is enough.")

    def _render_clinical(self, state: ClientState) -> None:
        step = self.clinical_step
        step.heading_label.setText(self.tr("Age and sex"))
        self.choose_table_button.setText(self.tr("From a table…"))
        self.age_label.setText(self.tr("Age"))
        self.years_label.setText(self.tr("years"))
        self.age_field.setAccessibleName(self.tr("Age in years"))
        self.sex_label.setText(self.tr("Sex"))
        self.sex_control.set_texts(self.tr("Sex"), self.tr("male"), self.tr("female"), self.tr("unknown"))
        self.table_label.setText(self.tr("From {}").format(self._table_path.name) if self._table_path else "")
        self.table_label.setVisible(self._table_path is not None and not self._table_error)
        self.table_error_label.setText(self._table_error)
        self.table_error_label.setVisible(bool(self._table_error))
        self.without_clinical_box.setText(self.tr("Age or sex unknown (not validated)"))
        is_complete = bool(self.age_field.text().strip()) and self.sex_control.value is not None
        self.without_clinical_box.setVisible(not is_complete and state.is_study_ready)
        step.set_done(is_complete)

    def _render_finding(self) -> None:
        self.finding_step.heading_label.setText(self.tr("Is there an enhancing focus?"))
        self.enhancing_control.set_texts(
            self.tr("Enhancing focus"), self.tr("yes"), self.tr("no"), self.tr("not stated")
        )
        rule_text = self.tr(
            "Your finding decides IDH: yes means wild type, no means mutant. Not stated: the model decides."
        )
        self.finding_note_label.setText(
            f"{rule_text} {translate_message(READER_FINDING_ACCURACY.summarise())}"
        )
        self.finding_step.set_done(self.enhancing_control.value is not None)

    def _render_prediction(self, state: ClientState) -> None:
        step, missing_input = self.prediction_step, self.explain_missing_input()
        is_running = state.task is not None and state.task.kind == "predicting"
        step.heading_label.setText(self.tr("Prediction"))
        step.set_done(state.job is not None and not is_running)
        self.location_box.setText(self.tr("Location of the lesion"))
        self.location_box.setToolTip(
            self.tr(
                "Also state side, brain region and distances to eloquent areas, approximately, from an atlas"
            )
        )
        self.location_box.setVisible(state.can_locate_lesion and not is_running)
        self.predict_button.setText(self.tr("Predict"))
        self.predict_button.setVisible(not is_running)
        self.predict_button.setEnabled(not missing_input and state.task is None)
        self.progress_bar.setVisible(is_running)
        _show_progress(self.progress_bar, state.task)
        self.progress_label.setText(_format_task_step(state.task, self.tr("waiting")) if is_running else "")
        self.progress_label.setVisible(is_running)
        self.cancel_button.setText(self.tr("Cancel"))
        self.cancel_button.setVisible(is_running)
        self.missing_input_label.setText(missing_input)
        self.missing_input_label.setVisible(bool(missing_input) and not is_running)


def _show_progress(bar: QProgressBar, task: Task | None) -> None:
    if task is None or task.progress is None:
        bar.setRange(0, 0)
        return
    bar.setRange(0, 1000)
    bar.setValue(int(1000 * task.progress))


def _format_task_step(task: Task | None, default_text: str) -> str:
    return translate_message(task.step) if task is not None and task.step else default_text
