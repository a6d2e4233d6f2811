"""The right side: the answer, marker by marker, with what it rests on and what it is worth."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QMenu, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from gliomark.client.language import current_language, localise
from gliomark.client.state import Json, State
from gliomark.client.theme import ACCENT, FAINT, LINE, SOFT, TEXT, icon
from gliomark.client.widgets import button, column, framed, label, row, scrolled
from gliomark.messages import level_in_words, percent

UNDETERMINED = "undetermined"


class ProbabilityBar(QWidget):
    """0 to 100 %, filled to the probability, a line at the threshold, a bracket above from lowest to highest slice."""

    def __init__(self) -> None:
        super().__init__()
        self.probability: float | None = None
        self.threshold = 0.0
        self.range: tuple[float, float] | None = None
        self.words = ""
        self.pale = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(200, 44)

    def show_values(self, probability: float | None, threshold: float, words: str, pale: bool) -> None:
        """words: beside the threshold's line; pale: where the bar decides nothing."""
        self.probability, self.threshold, self.words, self.pale = probability, threshold, words, pale
        self.setVisible(probability is not None)
        self.update()

    def show_range(self, extremes: tuple[float, float] | None) -> None:
        self.range = extremes
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        wide = float(self.width())
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(LINE)
        painter.drawRoundedRect(QRectF(0, 8, wide, 12), 4, 4)
        painter.setBrush(FAINT if self.pale else ACCENT)
        painter.drawRoundedRect(QRectF(0, 8, wide * (self.probability or 0), 12), 4, 4)
        x = min(max(wide * self.threshold, 1), wide - 1)
        painter.setPen(QPen(TEXT, 2))
        painter.drawLine(int(x), 4, int(x), 24)
        self._bracket(painter)
        self._write(painter, x)

    def _bracket(self, painter: QPainter) -> None:
        """Open towards the bar below."""
        if self.range is None or self.range[0] == self.range[1]:
            return
        low, high = (round((self.width() - 1) * share) + 0.5 for share in self.range)
        painter.setPen(QPen(SOFT, 1))
        painter.drawPolyline([QPointF(*at) for at in ((low, 6), (low, 1.5), (high, 1.5), (high, 6))])

    def _write(self, painter: QPainter, x: float) -> None:
        font = self.font()
        font.setPixelSize(12)
        painter.setFont(font)
        painter.setPen(FAINT)
        wide = painter.fontMetrics().horizontalAdvance(self.words)
        left = min(max(x - wide / 2, 0), self.width() - wide)
        painter.drawText(int(left), 39, self.words)


class MarkerCard(QWidget):
    """One marker's answer."""

    heat_asked = Signal(str)
    slice_asked = Signal(int)

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.title, self.level = label("heading"), label("level")
        self.question, self.percent = label("soft"), label("heading", wrap=False)
        self.tag = label("tag", wrap=False)
        self.bar = ProbabilityBar()
        self.range = label("faint")
        self.meaning, self.slices = label("faint"), label("soft")
        self.performance, self.origin = label("faint"), label("faint")
        self.warnings = label("warn")
        self.heat = button(lambda: self.heat_asked.emit(self.marker), checkable=True)
        self.slices.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.slices.linkActivated.connect(lambda link: self.slice_asked.emit(int(link)))
        self._lay_out()

    def _lay_out(self) -> None:
        head, asked = row(self.title, self.tag), row(self.question, self.percent)
        for line in (head, asked):
            line.setStretch(0, 1)
        parts = (
            *(head, self.level, asked, self.bar, self.range, self.warnings),
            *(self.slices, self.heat, self.meaning, self.origin, self.performance),
        )
        self.setLayout(column(framed("card", column(*parts, spacing=8))))

    def render_marker(self, answer: Json, state: State) -> None:
        probability, by_reader = answer["probability"], answer["decided_by"] != "model"
        unknown = answer["level"] == UNDETERMINED
        self.title.setText(localise(answer["title"]))
        level = level_in_words(answer["level"], answer.get("borderline", False), current_language())
        self.level.setText(level)
        self.level.setEnabled(not unknown)
        self.level.setStyleSheet(f"color: {(FAINT if unknown else TEXT).name()}")
        self.tag.setText(self.tr("from the reader's finding"))
        self.tag.setVisible(by_reader)
        self.percent.setText("" if probability is None else percent(probability))
        words = self.tr("threshold {}").format(percent(answer["threshold"] or 0.0))
        self.bar.show_values(probability, answer["threshold"] or 0.0, words, by_reader or unknown)
        self._render_range(answer.get("probability_range"))  # kept answers may be older than the field
        about = (self.percent.text(), words, self.range.text())
        self.bar.setAccessibleName(", ".join(text for text in about if text))
        self.question.setText(self._question(answer, by_reader, _positive(state, self.marker)))
        self.question.setVisible(bool(self.question.text()))
        self.origin.setText(self.tr("Threshold {}").format(localise(answer.get("threshold_origin", ""))))
        self.origin.setVisible(bool(answer.get("threshold_origin")))
        self.meaning.setText(localise(answer["label"]))
        self.warnings.setText("\n".join(map(localise, answer["warnings"])))
        self.warnings.setVisible(bool(answer["warnings"]))
        self._render_slices(answer, state)
        performance = localise(answer["performance"])
        if by_reader:
            self.performance.setText(self.tr("How reliable the finding is: {}").format(performance))
        else:
            self.performance.setText(self.tr("Validation: {}").format(performance))
        self.performance.setVisible(bool(performance))

    def _render_range(self, extremes: tuple[float, float] | None) -> None:
        words = why = ""
        if extremes is not None:
            low, high = map(percent, extremes)
            words = self.tr("Range over the lesion's slices: {} to {}").format(low, high)
            if low == high:
                words = self.tr("{} on each of the lesion's slices").format(low)
            why = self.tr("How much the answer depends on the choice of slice. Not a confidence interval.")
        self.bar.show_range(extremes)
        self.range.setText(words)
        self.range.setVisible(bool(words))
        for part in (self.bar, self.range):
            part.setToolTip(why)

    def _question(self, answer: Json, by_reader: bool, positive: str) -> str:
        """What the percentage is the probability of, so that nobody takes it for the level's."""
        if answer["probability"] is None:
            return ""
        if by_reader:
            return self.tr("For comparison, the model's probability of “{}”").format(positive)
        return self.tr("Probability of “{}”").format(positive)

    def _render_slices(self, answer: Json, state: State) -> None:
        names = list(state.study["slice_names"]) if state.study else []
        used = [name for name in answer["slices_used"] if name in names]
        links = ", ".join(
            f'<a href="{names.index(name)}" style="color: {ACCENT.name()}">{name}</a>' for name in used
        )
        by_model = answer["decided_by"] == "model"
        words = (
            self.tr("Slices the prediction is based on: {}")
            if by_model
            else self.tr("Slices behind the probability: {}")
        )
        self.slices.setText(words.format(links))
        self.slices.setVisible(bool(used))
        asked = state.heat == self.marker
        self.heat.setText(
            self.tr("Drawing Grad-CAM…") if asked and state.heat_pending
            else self.tr("Hide Grad-CAM") if asked else self.tr("Show Grad-CAM")
        )  # fmt: skip
        self.heat.setToolTip(self.tr("Which pixels of these slices speak for the positive class"))
        self.heat.setChecked(asked)
        self.heat.setVisible(bool(used))


class Result(QWidget):
    """All of the answer, or what will be here."""

    heat_asked = Signal(str)
    slice_asked = Signal(int)
    save_asked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._shown = State(), ""
        self._cards: list[MarkerCard] = []
        self.heading, self.empty = label("heading"), label("soft")
        self.inputs, self.lesion = label("soft"), label()
        self.stale, self.warnings = label("warn"), label("warn")
        self.save = QToolButton()
        self.save.setIcon(icon("save"))
        self.save.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.save.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.save.setMenu(QMenu(self.save))
        self.notes = label("faint")
        self._column = column(spacing=10)
        head = row(self.heading, self.save)
        head.setStretch(0, 1)
        inner = QWidget()
        top = (head, self.empty, self.inputs, self.stale, self.lesion, self.warnings)
        whole = column(*top, self._column, self.notes, None, spacing=10)
        whole.setContentsMargins(12, 14, 12, 12)
        inner.setLayout(whole)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(inner))
        self.setMinimumWidth(300)

    def render_state(self, state: State, stale: bool) -> None:
        """stale: what the user entered is not any more what the answer was computed from."""
        self._state = state
        result, job = state.result, state.job
        self.heading.setText(self.tr("Answer"))
        self.empty.setText(self._empty(state))
        self.empty.setVisible(result is None)
        for part in (self.save, self.inputs, self.lesion, self.notes):
            part.setVisible(result is not None)
        self.stale.setVisible(stale and result is not None)
        self.stale.setText(self.tr("What you entered has changed since this answer; predict again."))
        self._list_cards(state)
        if result is None or job is None:
            self.warnings.setVisible(False)
            return
        self.inputs.setText(self._inputs(job))
        self.lesion.setText(self._lesion(result))
        self.warnings.setText("\n".join(map(localise, result["warnings"])))
        self.warnings.setVisible(bool(result["warnings"]))
        self.notes.setText(self._notes(result))
        self._list_documents()
        for card, answer in zip(self._cards, result["markers"], strict=True):
            card.render_marker(answer, state)

    def _list_cards(self, state: State) -> None:
        """A card per marker of the answer shown."""
        shown = state.job["id"] if state.job else ""
        if shown == self._shown:
            return
        self._shown = shown
        for card in self._cards:
            self._column.removeWidget(card)
            card.deleteLater()
        markers = state.result["markers"] if state.result else []
        self._cards = [MarkerCard(answer["marker"]) for answer in markers]
        for card in self._cards:
            card.heat_asked.connect(self._toggle_heat)
            card.slice_asked.connect(self.slice_asked)
            self._column.addWidget(card)

    def _toggle_heat(self, marker: str) -> None:
        self.heat_asked.emit("" if self._state.heat == marker else marker)

    def _list_documents(self) -> None:
        self.save.setText(self.tr("Save report"))
        menu = self.save.menu()
        menu.clear()
        kinds = (
            (self.tr("Web page (HTML)…"), "report.html"),
            (self.tr("PDF…"), "report.pdf"),
            (self.tr("DICOM results (zip)…"), "dicom.zip"),
        )
        for words, name in kinds:
            menu.addAction(words, partial(self.save_asked.emit, name))
        pictures = self._state.result is not None and self._state.result["input"]["kind"] == "pictures"
        menu.actions()[-1].setEnabled(not pictures)

    def _empty(self, state: State) -> str:
        if state.task is not None and state.task.doing == "predicting":
            return self.tr("Being computed. You can go on looking at the images.")
        return self.tr("What the model says about each marker appears here.")

    def _inputs(self, job: Json) -> str:
        """What the answer was computed from."""
        asked = job["request"]
        age, sex = asked.get("age"), asked.get("sex")
        finding = {"yes": self.tr("enhancing focus: yes"), "no": self.tr("enhancing focus: no")}
        own = asked.get("outline") == "corrected"
        parts = (
            self.tr("age unknown") if age is None else self.tr("{} years").format(f"{age:g}"),
            self.tr("sex unknown") if sex is None else (self.tr("male"), self.tr("female"))[sex],
            finding.get(asked.get("enhancing") or "", self.tr("enhancing focus: not stated")),
            self.tr("your own outline") if own else self.tr("the model's outline"),
        )
        return self.tr("From: {}").format(" · ".join(parts))

    def _lesion(self, result: Json) -> str:
        lesion = result["lesion"]
        if not lesion["found"]:
            return self.tr(
                "No lesion was outlined. If you see one, the model has missed it: draw it with the brush."
            )
        volume = f"{lesion['volume_ml']:.1f}"
        if result["input"]["spacing_assumed"]:
            return self.tr("Lesion: about {} ml (the pictures carry no millimetres)").format(volume)
        return self.tr("Lesion: {} ml").format(volume)

    def _notes(self, result: Json) -> str:
        model = result["model"]
        lines = [localise(note) for note in result["notes"]]
        lines.append(self.tr("Model: {} ({}…)").format(model["name"], model["sha256"][:12]))
        return "\n".join(lines)


def _positive(state: State, marker: str) -> str:
    """The marker's positive level in a word of the user's language."""
    name = state.study["model"] if state.study else ""
    known = [m for model in state.models if model["name"] == name for m in model["markers"]]
    words = (level_in_words(m["positive"], False, current_language()) for m in known if m["name"] == marker)
    return next(words, "+")
