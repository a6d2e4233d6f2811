"""Right panel: the prediction by marker, with the slices used, validation and warnings."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QMenu, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from gliomark.client.language import get_current_language, translate_message
from gliomark.client.pathology_form import PathologyForm
from gliomark.client.state import ClientState, Json
from gliomark.client.theme import ACCENT, BORDER, MUTED_TEXT, SECONDARY_TEXT, TEXT, load_icon, scale_to_text
from gliomark.client.widgets import (
    create_button,
    create_column,
    create_frame,
    create_label,
    create_row,
    create_scroll_area,
)
from gliomark.messages import describe_level, format_percent
from gliomark.study import CANNOT_TELL

UNDETERMINED = "undetermined"


class ProbabilityBar(QWidget):
    """Bar from 0 to 100 % with lines at the threshold or the limits, and a bracket over the range across slices."""

    def __init__(self) -> None:
        super().__init__()
        self.probability: float | None = None
        self.marks: tuple[float, ...] = ()
        self.probability_range: tuple[float, float] | None = None
        self.marks_text = ""
        self.is_muted = False
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Return the preferred size in pixels."""
        return QSize(200, 27 + scale_to_text(17))

    def show_values(
        self, probability: float | None, marks: tuple[float, ...], marks_text: str, is_muted: bool
    ) -> None:
        """Show probability and marks (0 to 1); the bar is hidden without a probability.

        marks: the threshold, or the limits of "cannot tell". marks_text: written below them. is_muted: whether the
        probability does not decide the level.
        """
        self.probability, self.marks, self.marks_text, self.is_muted = (
            probability,
            marks,
            marks_text,
            is_muted,
        )
        self.setVisible(probability is not None)
        self.update()

    def show_probability_range(self, probability_range: tuple[float, float] | None) -> None:
        """Show the lowest and highest probability (0 to 1) across the lesion slices; None hides the bracket."""
        self.probability_range = probability_range
        self.update()

    def paintEvent(self, _: QPaintEvent) -> None:  # noqa: N802
        """Paint bar, threshold and range."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        bar_width = float(self.width())
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(BORDER)
        painter.drawRoundedRect(QRectF(0, 8, bar_width, 12), 4, 4)
        painter.setBrush(MUTED_TEXT if self.is_muted else ACCENT)
        painter.drawRoundedRect(QRectF(0, 8, bar_width * (self.probability or 0), 12), 4, 4)
        marks_x = [int(min(max(bar_width * mark, 1), bar_width - 1)) for mark in self.marks]
        painter.setPen(QPen(TEXT, 2))
        for x in marks_x:
            painter.drawLine(x, 4, x, 24)
        self._draw_range_bracket(painter)
        if marks_x:
            painter.setPen(QPen(TEXT, 2))
            painter.drawLine(marks_x[0], 24, marks_x[-1], 24)
            self._draw_marks_text(painter, sum(marks_x) / len(marks_x))

    def _draw_range_bracket(self, painter: QPainter) -> None:
        """Draw the bracket of the range, open towards the bar below."""
        if self.probability_range is None or self.probability_range[0] == self.probability_range[1]:
            return
        low, high = (round((self.width() - 1) * share) + 0.5 for share in self.probability_range)
        painter.setPen(QPen(SECONDARY_TEXT, 1))
        painter.drawPolyline([QPointF(*point) for point in ((low, 6), (low, 1.5), (high, 1.5), (high, 6))])

    def _draw_marks_text(self, painter: QPainter, middle_x: float) -> None:
        font = self.font()
        font.setPixelSize(scale_to_text(12))
        painter.setFont(font)
        painter.setPen(MUTED_TEXT)
        text_width = painter.fontMetrics().horizontalAdvance(self.marks_text)
        left = min(max(middle_x - text_width / 2, 0), self.width() - text_width)
        painter.drawText(int(left), 24 + scale_to_text(15), self.marks_text)


class MarkerCard(QWidget):
    """The prediction of one marker."""

    heatmap_requested = Signal(str)
    slice_requested = Signal(int)
    pathology_entered = Signal(str, str, str)

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.title_label, self.level_label = create_label("heading"), create_label("level")
        self.question_label, self.percent_label = create_label("soft"), create_label("heading", wraps=False)
        self.reader_tag = create_label("tag", wraps=False)
        self.probability_bar = ProbabilityBar()
        self.range_label = create_label("faint")
        self.definition_label, self.slices_label = create_label("faint"), create_label("soft")
        self.performance_label, self.threshold_origin_label = create_label("faint"), create_label("faint")
        self.limits_label, self.calibration_label = create_label("faint"), create_label("faint")
        self.warnings_label = create_label("warn")
        self.heatmap_button = create_button(
            lambda: self.heatmap_requested.emit(self.marker), is_checkable=True
        )
        self.pathology_form = PathologyForm()
        self.pathology_form.entered.connect(partial(self.pathology_entered.emit, marker))
        self.slices_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.slices_label.linkActivated.connect(lambda link: self.slice_requested.emit(int(link)))
        self._lay_out()

    def _lay_out(self) -> None:
        title_row, question_row = (
            create_row(self.title_label, self.reader_tag),
            create_row(self.question_label, self.percent_label),
        )
        for line in (title_row, question_row):
            line.setStretch(0, 1)
        parts = (
            *(
                title_row,
                self.level_label,
                question_row,
                self.probability_bar,
                self.range_label,
                self.warnings_label,
            ),
            *(
                self.slices_label,
                self.heatmap_button,
                self.pathology_form,
                self.definition_label,
                self.threshold_origin_label,
                self.limits_label,
                self.calibration_label,
                self.performance_label,
            ),
        )
        self.setLayout(create_column(create_frame("card", create_column(*parts, spacing=8))))

    def render_marker(self, marker_prediction: Json, state: ClientState) -> None:
        """Update all texts from the marker's part of the prediction."""
        probability, is_decided_by_reader = (
            marker_prediction["probability"],
            marker_prediction["decided_by"] != "model",
        )
        is_undetermined = marker_prediction["level"] in (UNDETERMINED, CANNOT_TELL)
        self.title_label.setText(translate_message(marker_prediction["title"]))
        level = describe_level(
            marker_prediction["level"], marker_prediction.get("borderline", False), get_current_language()
        )
        self.level_label.setText(level)
        self.level_label.setEnabled(not is_undetermined)
        self.level_label.setStyleSheet(f"color: {(MUTED_TEXT if is_undetermined else TEXT).name()}")
        self.reader_tag.setText(self.tr("from the reader's finding"))
        self.reader_tag.setVisible(is_decided_by_reader)
        self.percent_label.setText("" if probability is None else format_percent(probability))
        marks, marks_text = self._find_marks(marker_prediction)
        self.probability_bar.show_values(
            probability, marks, marks_text, is_decided_by_reader or is_undetermined
        )
        self._render_probability_range(
            marker_prediction.get("probability_range"), len(marks) > 1
        )  # missing in older stored predictions
        accessible_texts = (self.percent_label.text(), marks_text, self.range_label.text())
        self.probability_bar.setAccessibleName(", ".join(text for text in accessible_texts if text))
        self.question_label.setText(
            self._format_question(
                marker_prediction, is_decided_by_reader, _translate_positive_level(state, self.marker)
            )
        )
        self.question_label.setVisible(bool(self.question_label.text()))
        self.threshold_origin_label.setText(
            self.tr("Threshold {}").format(translate_message(marker_prediction.get("threshold_origin", "")))
        )
        self.threshold_origin_label.setVisible(bool(marker_prediction.get("threshold_origin")))
        self._render_calibration(marker_prediction)
        self.definition_label.setText(translate_message(marker_prediction["label"]))
        self.warnings_label.setText("\n".join(map(translate_message, marker_prediction["warnings"])))
        self.warnings_label.setVisible(bool(marker_prediction["warnings"]))
        self._render_slices(marker_prediction, state)
        entries = [entry for entry in state.pathology if entry["marker"] == self.marker]
        self.pathology_form.render_entries(entries, state.find_levels(self.marker))
        performance = translate_message(marker_prediction["performance"])
        if is_decided_by_reader:
            self.performance_label.setText(
                self.tr("Accuracy of the reader's finding: {}").format(performance)
            )
        else:
            self.performance_label.setText(self.tr("Validation: {}").format(performance))
        self.performance_label.setVisible(bool(performance))

    def _find_marks(self, marker_prediction: Json) -> tuple[tuple[float, ...], str]:
        """Return the marks of the bar, the limits of "cannot tell" or the threshold, and their text."""
        limits = marker_prediction.get("limits")  # missing in older stored predictions
        if limits is not None:
            marks = (limits["negative_below"], limits["positive_above"])
            return marks, self.tr("cannot tell: {} to {}").format(*map(format_percent, marks))
        threshold = marker_prediction["threshold"]
        if threshold is None:
            return (), ""
        return (threshold,), self.tr("threshold {}").format(format_percent(threshold))

    def _render_calibration(self, marker_prediction: Json) -> None:
        for label, name in (
            (self.limits_label, "limits_in_words"),
            (self.calibration_label, "calibration_in_words"),
        ):
            text = translate_message(marker_prediction.get(name, ""))
            label.setText(text)
            label.setVisible(bool(text))

    def _render_probability_range(
        self, probability_range: tuple[float, float] | None, is_before_calibration: bool
    ) -> None:
        range_text = tool_tip = ""
        if probability_range is not None:
            low, high = map(format_percent, probability_range)
            range_text = self.tr("Range across lesion slices: {} to {}").format(low, high)
            if low == high:
                range_text = self.tr("{} on every lesion slice").format(low)
            if is_before_calibration:
                range_text = self.tr("{} (before calibration)").format(range_text)
            tool_tip = self.tr(
                "Shows how much the prediction depends on the choice of slices. Not a confidence interval."
            )
        # before calibration, the range is not on the scale of the bar
        self.probability_bar.show_probability_range(None if is_before_calibration else probability_range)
        self.range_label.setText(range_text)
        self.range_label.setVisible(bool(range_text))
        for part in (self.probability_bar, self.range_label):
            part.setToolTip(tool_tip)

    def _format_question(
        self, marker_prediction: Json, is_decided_by_reader: bool, positive_level: str
    ) -> str:
        """Return the label of the percentage: it names the positive level, which may differ from the level shown."""
        if marker_prediction["probability"] is None:
            return ""
        if is_decided_by_reader:
            return self.tr("For comparison, the model's probability of “{}”").format(positive_level)
        return self.tr("Probability of “{}”").format(positive_level)

    def _render_slices(self, marker_prediction: Json, state: ClientState) -> None:
        names = list(state.study["slice_names"]) if state.study else []
        used_slices = [name for name in marker_prediction["slices_used"] if name in names]
        links = ", ".join(
            f'<a href="{names.index(name)}" style="color: {ACCENT.name()}">{name}</a>' for name in used_slices
        )
        is_decided_by_model = marker_prediction["decided_by"] == "model"
        slices_text = (
            self.tr("Slices used for the prediction: {}")
            if is_decided_by_model
            else self.tr("Slices used for the probability: {}")
        )
        self.slices_label.setText(slices_text.format(links))
        self.slices_label.setVisible(bool(used_slices))
        is_heatmap_shown = state.heatmap_marker == self.marker
        self.heatmap_button.setText(
            self.tr("Computing Grad-CAM…")
            if is_heatmap_shown and state.is_heatmap_pending
            else self.tr("Hide Grad-CAM")
            if is_heatmap_shown
            else self.tr("Show Grad-CAM")
        )
        self.heatmap_button.setToolTip(
            self.tr("Pixels of these slices that raise the probability of the positive class")
        )
        self.heatmap_button.setChecked(is_heatmap_shown)
        self.heatmap_button.setVisible(bool(used_slices))


class ResultPanel(QWidget):
    """Panel with the prediction, or a placeholder before it."""

    heatmap_requested = Signal(str)
    slice_requested = Signal(int)
    pathology_entered = Signal(str, str, str)
    save_requested = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._shown_job_id = ClientState(), ""
        self._marker_cards: list[MarkerCard] = []
        self.heading_label, self.placeholder_label = create_label("heading"), create_label("soft")
        self.inputs_label, self.lesion_label = create_label("soft"), create_label()
        self.stale_label, self.warnings_label = create_label("warn"), create_label("warn")
        self.save_button = QToolButton()
        self.save_button.setIcon(load_icon("save"))
        self.save_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.save_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.save_button.setMenu(QMenu(self.save_button))
        self.notes_label = create_label("faint")
        self._cards_layout = create_column(spacing=10)
        head = create_row(self.heading_label, self.save_button)
        head.setStretch(0, 1)
        inner = QWidget()
        top = (
            head,
            self.placeholder_label,
            self.inputs_label,
            self.stale_label,
            self.lesion_label,
            self.warnings_label,
        )
        inner_layout = create_column(*top, self._cards_layout, self.notes_label, None, spacing=10)
        inner_layout.setContentsMargins(12, 14, 12, 12)
        inner.setLayout(inner_layout)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(create_scroll_area(inner))
        self.setMinimumWidth(max(300, scale_to_text(212)))

    def render_state(self, state: ClientState, is_stale: bool) -> None:
        """Update the panel. is_stale: whether the user's input has changed since the prediction."""
        self._state = state
        prediction, job = state.prediction, state.job
        self.heading_label.setText(self.tr("Prediction"))
        self.placeholder_label.setText(self._format_placeholder(state))
        self.placeholder_label.setVisible(prediction is None)
        for part in (self.save_button, self.inputs_label, self.lesion_label, self.notes_label):
            part.setVisible(prediction is not None)
        self.stale_label.setVisible(is_stale and prediction is not None)
        self.stale_label.setText(self.tr("The input has changed since this prediction. Predict again."))
        self._create_cards(state)
        if prediction is None or job is None:
            self.warnings_label.setVisible(False)
            return
        self.inputs_label.setText(self._format_inputs(job))
        lines = [self._format_lesion(prediction)]
        if location := prediction.get("location"):
            lines.append(translate_message(location["summary"]))
        self.lesion_label.setText("\n".join(lines))
        self.warnings_label.setText("\n".join(map(translate_message, prediction["warnings"])))
        self.warnings_label.setVisible(bool(prediction["warnings"]))
        self.notes_label.setText(self._format_notes(prediction))
        self._fill_save_menu()
        for card, marker_prediction in zip(self._marker_cards, prediction["markers"], strict=True):
            card.render_marker(marker_prediction, state)

    def _create_cards(self, state: ClientState) -> None:
        """Create a card for each marker of the prediction shown."""
        job_id = state.job["id"] if state.job else ""
        if job_id == self._shown_job_id:
            return
        self._shown_job_id = job_id
        for card in self._marker_cards:
            self._cards_layout.removeWidget(card)
            card.deleteLater()
        markers = state.prediction["markers"] if state.prediction else []
        self._marker_cards = [MarkerCard(answer["marker"]) for answer in markers]
        for card in self._marker_cards:
            card.heatmap_requested.connect(self._toggle_heatmap)
            card.slice_requested.connect(self.slice_requested)
            card.pathology_entered.connect(self.pathology_entered)
            self._cards_layout.addWidget(card)

    def _toggle_heatmap(self, marker: str) -> None:
        self.heatmap_requested.emit("" if self._state.heatmap_marker == marker else marker)

    def _fill_save_menu(self) -> None:
        self.save_button.setText(self.tr("Save report"))
        menu = self.save_button.menu()
        menu.clear()
        entries = (
            (self.tr("Web page (HTML)…"), "report.html"),
            (self.tr("PDF…"), "report.pdf"),
            (self.tr("DICOM results (zip)…"), "dicom.zip"),
            (self.tr("Outline as structure set (RTSTRUCT)…"), "structure_set.dcm"),
        )
        for entry_text, name in entries:
            action = menu.addAction(entry_text, partial(self.save_requested.emit, name))
            action.setEnabled(self._state.can_save_dicom or name.startswith("report."))

    def _format_placeholder(self, state: ClientState) -> str:
        if state.task is not None and state.task.kind == "predicting":
            return self.tr("The prediction is being computed. You can view the images meanwhile.")
        return self.tr("The predicted markers appear here.")

    def _format_inputs(self, job: Json) -> str:
        """Return a summary of the input of the prediction."""
        request = job["request"]
        age, sex = request.get("age"), request.get("sex")
        finding = {"yes": self.tr("enhancing focus: yes"), "no": self.tr("enhancing focus: no")}
        is_user_segmentation = request.get("outline") == "corrected"
        parts = (
            self.tr("age unknown") if age is None else self.tr("{} years").format(f"{age:g}"),
            self.tr("sex unknown") if sex is None else (self.tr("male"), self.tr("female"))[sex],
            finding.get(request.get("enhancing") or "", self.tr("enhancing focus: not stated")),
            self.tr("your outline") if is_user_segmentation else self.tr("the model's outline"),
        )
        return self.tr("Based on: {}").format(" · ".join(parts))

    def _format_lesion(self, prediction: Json) -> str:
        lesion = prediction["lesion"]
        if not lesion["found"]:
            return self.tr(
                "No lesion was outlined. If a lesion is visible, outline it with the brush and predict again."
            )
        size = f"{lesion['volume_ml']:.1f} ml"
        if diameters := lesion.get("diameters"):  # missing in the result of an older server
            size += f", {diameters['longest']['mm']:.0f} × {diameters['perpendicular']['mm']:.0f} mm"
        if prediction["input"]["spacing_assumed"]:
            return self.tr("Lesion: about {} (the pixel size of image files is unknown)").format(size)
        return self.tr("Lesion: {}").format(size)

    def _format_notes(self, prediction: Json) -> str:
        model = prediction["model"]
        lines = [translate_message(note) for note in prediction["notes"]]
        lines.append(self.tr("Model: {} ({}…)").format(model["name"], model["sha256"][:12]))
        return "\n".join(lines)


def _translate_positive_level(state: ClientState, marker: str) -> str:
    """Return the marker's positive level in the user's language."""
    levels = state.find_levels(marker)
    return describe_level(levels[0], False, get_current_language()) if levels else "+"
