"""The left side: the four steps from a folder to an answer."""

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

from gliomark.client.clinical import age_and_sex, parse_age
from gliomark.client.language import localise
from gliomark.client.state import State, Task
from gliomark.client.widgets import Segments, button, column, framed, label, row, scrolled
from gliomark.study import READER_FINDING, GliomarkError


class Step(QWidget):
    """One numbered step: a heading and what belongs to it."""

    def __init__(self, number: int, *parts: Any) -> None:
        super().__init__()
        self.number = QLabel(str(number))
        self.number.setObjectName("number")
        self.number.setFixedSize(24, 24)
        self.number.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.heading = label("heading")
        head = row(self.number, self.heading, spacing=10)
        head.setStretch(1, 1)
        self.setLayout(column(framed("card", column(head, *parts, spacing=9))))
        self._digit = str(number)

    def done(self, is_done: bool) -> None:
        self.number.setText("✓" if is_done else self._digit)
        self.number.setProperty("done", is_done)
        self.number.style().polish(self.number)


class Steps(QWidget):
    """Asks for folder, table, finding and prediction; holds what the user has entered."""

    folder_chosen = Signal(object, str)
    predict_asked = Signal()
    cancel_asked = Signal()
    recent_forgotten = Signal()
    entered = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = State()
        self._table: Path | None = None
        self._table_problem = ""
        self._filled_for = ""
        self.patient = self._make_patient()
        self.clinical = self._make_clinical()
        self.finding = self._make_finding()
        self.prediction = self._make_prediction()
        inner = QWidget()
        inner.setLayout(column(self.patient, self.clinical, self.finding, None, spacing=10))
        # the last step stays in sight on a low screen
        self._scrolled = scrolled(inner)
        self._scrolled.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        whole = column(self._scrolled, self.prediction, None, spacing=10)
        whole.setContentsMargins(12, 12, 12, 12)
        self.setLayout(whole)
        self.setMinimumWidth(330)

    # ---- making -----------------------------------------------------------------------------------------

    def _make_patient(self) -> Step:
        self.choose = button(self.choose_folder, picture="folder")
        self.recent = button(lambda: None, picture="recent")
        self.recent.setMenu(QMenu(self.recent))
        self.model = QComboBox()
        self.model.activated.connect(lambda _: self._send_again())
        self.named = label("level")
        self.named.setStyleSheet("font-size: 17px")
        self.about, self.doubt = label("soft"), label("warn")
        self.preparing = QProgressBar()
        self.preparing.setTextVisible(False)
        self.give_up = button(self.cancel_asked.emit)
        choosing = row(self.choose, self.recent)
        choosing.setStretch(0, 1)
        return Step(1, self.named, self.about, self.doubt, self.preparing, self.give_up, choosing, self.model)

    def _make_clinical(self) -> Step:
        self.choose_table = button(self.ask_table, picture="table")
        self.age = QLineEdit()
        self.age.setFixedWidth(84)
        self.age.textEdited.connect(lambda _: self._typed())
        self.years = label("soft", wrap=False)
        self.age_word, self.sex_word = label("soft", wrap=False), label("soft", wrap=False)
        for word in (self.age_word, self.sex_word):
            word.setMinimumWidth(44)
        self.sex = Segments((0, 1, None))
        self.sex.changed.connect(self._typed)
        self.source = label("faint")
        self.table_problem = label("warn")
        self.without = QCheckBox()
        self.without.toggled.connect(lambda _: self.entered.emit())
        sex = row(self.sex_word, self.sex)
        sex.setStretch(1, 1)
        age = row(self.age_word, self.age, self.years, None)
        return Step(2, self.choose_table, age, sex, self.source, self.table_problem, self.without)

    def _make_finding(self) -> Step:
        self.enhancing = Segments(("yes", "no", None))
        self.enhancing.changed.connect(self.entered.emit)
        self.finding_note = label("faint")
        return Step(3, self.enhancing, self.finding_note)

    def _make_prediction(self) -> Step:
        self.predict = button(self.predict_asked.emit, "primary")
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress_word = label("soft")
        self.cancel = button(self.cancel_asked.emit)
        self.missing = label("faint")
        return Step(4, self.predict, self.progress, self.progress_word, self.cancel, self.missing)

    # ---- what was entered -------------------------------------------------------------------------------

    @property
    def request(self) -> dict[str, Any]:
        """What a prediction needs besides the images, as the server takes it. Raises GliomarkError for a bad age."""
        age, sex = parse_age(self.age.text()), self.sex.value
        without = self.without.isChecked() and (age is None or sex is None)
        return {"age": age, "sex": sex, "enhancing": self.enhancing.value, "without_clinical": without}

    def hindrance(self) -> str:
        """Why there can be no prediction yet, in a sentence; empty where there can."""
        if not self._state.ready:
            return self.tr("Choose the patient's folder first.") if not self._state.task else ""
        try:
            asked = self.request
        except GliomarkError as error:
            return localise(error.message)
        unknown = asked["age"] is None or asked["sex"] is None
        if unknown and not asked["without_clinical"]:
            return self.tr("Enter age and sex in step 2, or tick “predict without them”.")
        return ""

    def choose_folder(self) -> None:
        start = str(self._state.folder.parent) if self._state.folder else ""
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("The patient's folder, or a sequence's folder in it"), start
        )
        if chosen:
            self.choose_path(Path(chosen))

    def choose_path(self, path: Path) -> None:
        """A folder for step 1, or a table for step 2."""
        if path.suffix.lower() in (".csv", ".txt", ".tsv", ".xlsx"):
            self.use_table(path)
        else:
            self.folder_chosen.emit(path, self.model.currentData() or "")

    def _send_again(self) -> None:
        """Another model was chosen: it prepares the images in its own way."""
        if self._state.folder is not None:
            self.choose_path(self._state.folder)

    def ask_table(self) -> None:
        start = self._table or self._state.folder
        chosen, _ = QFileDialog.getOpenFileName(
            self,
            self.tr("Table with the columns id, age, sex"),
            str(start.parent if start else ""),
            self.tr("Tables (*.csv *.txt *.tsv *.xlsx);;All files (*)"),
        )
        if chosen:
            self.use_table(Path(chosen))

    def use_table(self, path: Path) -> None:
        """Take age and sex from a table, now or when the patient's id is known."""
        self._table, self._filled_for = path, ""
        self._fill()
        self.entered.emit()

    def _typed(self) -> None:
        self._table, self._table_problem = None, ""
        self.entered.emit()

    def _fill(self) -> None:
        """Age and sex of the patient shown, once per patient and table."""
        patient = self._state.patient_id if self._state.study is not None else ""
        if self._table is None or not patient or patient == self._filled_for:
            return
        self._filled_for, self._table_problem = patient, ""
        self.age.clear()
        self.sex.choose(None)
        try:
            found = age_and_sex(self._table, patient)
        except GliomarkError as error:
            self._table_problem = localise(error.message)
            return
        self.age.setText("" if found.age is None else f"{found.age:g}")
        self.sex.choose(found.sex)

    def _new_patient(self) -> None:
        """Nothing of the last patient may be taken for the next one's; a table serves them all."""
        self._filled_for, self._table_problem = "", ""
        self.age.clear()
        self.sex.choose(None)
        self.enhancing.choose(None)
        self.without.setChecked(False)

    # ---- drawing ----------------------------------------------------------------------------------------

    def render_state(self, state: State, recent: Sequence[Path] = ()) -> None:
        """Everything from the state; recent: folders to choose again."""
        if state.folder != self._state.folder and state.folder is not None:
            self._new_patient()
        if state.models != self._state.models:
            self._list_models(state)
        self._state = state
        self._fill()
        self._render_patient(state, recent)
        self._render_clinical(state)
        self._render_finding()
        self._render_prediction(state)
        self._scrolled.updateGeometry()

    def reread(self) -> None:
        """Say the table's problem in the language of now."""
        if self._table_problem:
            self._filled_for = ""

    def _list_models(self, state: State) -> None:
        self.model.blockSignals(True)
        self.model.clear()
        for model in state.models:
            self.model.addItem(model["title"], model["name"])
        self.model.blockSignals(False)

    def _render_patient(self, state: State, recent: Sequence[Path]) -> None:
        step, task = self.patient, state.task
        step.heading.setText(self.tr("The patient's images"))
        step.done(state.ready)
        opening = task is not None and task.doing != "predicting"
        self.named.setText(state.patient_id)
        self.named.setVisible(bool(state.patient_id))
        self.about.setText(self._about(state))
        instead = state.stand_ins().items()
        self.doubt.setText(
            "\n".join(
                self.tr("{} is missing; {} is shown in its place. No marker is predicted.").format(*pair)
                for pair in instead
            )
        )
        self.doubt.setVisible(bool(instead))
        self.preparing.setVisible(opening)
        _show_progress(self.preparing, task)
        self.give_up.setText(self.tr("Cancel"))
        self.give_up.setVisible(opening)
        self.choose.setText(self.tr("Choose folder…") if not state.folder else self.tr("Another patient…"))
        self.choose.setVisible(not opening)
        self.choose.setEnabled(task is None)
        self.recent.setToolTip(self.tr("Folders opened lately"))
        self.recent.setAccessibleName(self.tr("Folders opened lately"))
        self.recent.setVisible(not opening and bool(recent))
        self.recent.setEnabled(task is None)
        self._list_recent(recent)
        self.model.setVisible(len(state.models) > 1 and not opening)
        self.model.setAccessibleName(self.tr("Model"))

    def _list_recent(self, recent: Sequence[Path]) -> None:
        menu = self.recent.menu()
        menu.clear()
        for path in recent:
            menu.addAction(f"{path.name}   ({path.parent})", lambda path=path: self.choose_path(path))
        menu.addSeparator()
        menu.addAction(self.tr("Clear this list"), self.recent_forgotten.emit)

    def _about(self, state: State) -> str:
        if state.task is not None and state.task.doing != "predicting":
            return {
                "waiting": self.tr("Waiting for the server to start"),
                "packing": self.tr("Collecting the files"),
                "uploading": self.tr("Sending the images"),
                "preparing": _step_word(
                    state.task, self.tr("The server reads, aligns and prepares the images")
                ),
            }[state.task.doing]
        if state.ready and state.study is not None:
            shown = ", ".join(state.study["sequences"])
            return self.tr("{} · {} slices").format(shown, state.study["shape"][0])
        return self.tr("Drop the patient's folder here, or choose it. Picking its T1c folder is enough.")

    def _render_clinical(self, state: State) -> None:
        step = self.clinical
        step.heading.setText(self.tr("Age and sex"))
        self.choose_table.setText(self.tr("From a table…"))
        self.age_word.setText(self.tr("Age"))
        self.years.setText(self.tr("years"))
        self.age.setAccessibleName(self.tr("Age in years"))
        self.sex_word.setText(self.tr("Sex"))
        self.sex.name(self.tr("Sex"), self.tr("male"), self.tr("female"), self.tr("unknown"))
        self.source.setText(self.tr("From {}").format(self._table.name) if self._table else "")
        self.source.setVisible(self._table is not None and not self._table_problem)
        self.table_problem.setText(self._table_problem)
        self.table_problem.setVisible(bool(self._table_problem))
        self.without.setText(self.tr("Predict without them (not tested)"))
        known = bool(self.age.text().strip()) and self.sex.value is not None
        self.without.setVisible(not known and state.ready)
        step.done(known)

    def _render_finding(self) -> None:
        self.finding.heading.setText(self.tr("Is there an enhancing focus?"))
        self.enhancing.name(self.tr("Enhancing focus"), self.tr("yes"), self.tr("no"), self.tr("not stated"))
        rule = self.tr(
            "What you state decides IDH: yes means wild type, no means mutant. Not stated: the model decides."
        )
        self.finding_note.setText(f"{rule} {localise(READER_FINDING.in_short())}")
        self.finding.done(self.enhancing.value is not None)

    def _render_prediction(self, state: State) -> None:
        step, hindrance = self.prediction, self.hindrance()
        running = state.task is not None and state.task.doing == "predicting"
        step.heading.setText(self.tr("Prediction"))
        step.done(state.job is not None and not running)
        self.predict.setText(self.tr("Predict"))
        self.predict.setVisible(not running)
        self.predict.setEnabled(not hindrance and state.task is None)
        self.progress.setVisible(running)
        _show_progress(self.progress, state.task)
        self.progress_word.setText(_step_word(state.task, self.tr("waiting")) if running else "")
        self.progress_word.setVisible(running)
        self.cancel.setText(self.tr("Cancel"))
        self.cancel.setVisible(running)
        self.missing.setText(hindrance)
        self.missing.setVisible(bool(hindrance) and not running)


def _show_progress(bar: QProgressBar, task: Task | None) -> None:
    if task is None or task.progress is None:
        bar.setRange(0, 0)
        return
    bar.setRange(0, 1000)
    bar.setValue(int(1000 * task.progress))


def _step_word(task: Task | None, otherwise: str) -> str:
    return localise(task.step) if task is not None and task.step else otherwise
