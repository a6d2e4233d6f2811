"""Pathology result of a marker: what was recorded, and a form for another entry."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QLineEdit, QSizePolicy, QWidget

from gliomark.client.language import format_local_time, get_current_language, translate_message
from gliomark.client.state import Json
from gliomark.client.widgets import create_button, create_column, create_label, create_row
from gliomark.messages import describe_level, message

MAXIMUM_NOTE_LENGTH = 2000  # of the server


class PathologyForm(QWidget):
    """A button, the form that it opens, and the recorded entries; ``entered`` carries level and note."""

    entered = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self._entries: Sequence[Json] = ()
        self._levels: tuple[str, ...] = ()
        self.toggle_button = create_button(self._show_form, is_checkable=True)
        self.entries_label = create_label("soft")
        self.level_box = QComboBox()
        self.level_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.level_box.currentIndexChanged.connect(lambda _: self._show_form())
        self.note_field = QLineEdit()
        self.note_field.setMaxLength(MAXIMUM_NOTE_LENGTH)
        self.record_button = create_button(self._record)
        self.setLayout(
            create_column(
                self.toggle_button,
                create_row(self.level_box, self.record_button),
                self.note_field,
                self.entries_label,
            )
        )
        self._show_form()

    def render_entries(self, entries: Sequence[Json], levels: tuple[str, ...]) -> None:
        """Show the entries, newest first. levels: the marker's levels; without any, nothing can be entered."""
        if entries and list(entries) != list(self._entries):
            self._clear_form()
        self._entries = entries
        title = translate_message(message("page-pathology"))
        lines = [self._format_entry(entry) for entry in entries]
        self.entries_label.setText("\n".join(lines if levels else [title, *lines]))
        self.entries_label.setVisible(bool(lines))
        self.toggle_button.setText(title)
        self.toggle_button.setVisible(bool(levels))
        self._fill_level_box(levels)
        self.level_box.setAccessibleName(title)
        note = translate_message(message("page-pathology-note"))
        self.note_field.setPlaceholderText(note)
        self.note_field.setAccessibleName(note)
        self.record_button.setText(translate_message(message("page-pathology-save")))
        self._show_form()

    def _format_entry(self, entry: Json) -> str:
        level = describe_level(entry["value"], False, get_current_language())
        date = format_local_time(entry["created"])
        text = translate_message(message("page-pathology-recorded", level=level, date=date))
        return f"{text} · {entry['note']}" if entry["note"] else text

    def _fill_level_box(self, levels: tuple[str, ...]) -> None:
        """Fill the box with the levels in the user's language; the chosen one stays chosen."""
        chosen = self.level_box.currentIndex() if levels == self._levels else 0
        self._levels = levels
        self.level_box.blockSignals(True)
        self.level_box.clear()
        self.level_box.addItem("–", "")
        for level in levels:
            self.level_box.addItem(describe_level(level, False, get_current_language()), level)
        self.level_box.setCurrentIndex(max(chosen, 0))
        self.level_box.blockSignals(False)

    def _show_form(self) -> None:
        is_open = self.toggle_button.isChecked() and bool(self._levels)
        for part in (self.level_box, self.note_field, self.record_button):
            part.setVisible(is_open)
        self.record_button.setEnabled(bool(self.level_box.currentData()))

    def _clear_form(self) -> None:
        self.toggle_button.setChecked(False)
        self.level_box.setCurrentIndex(0)
        self.note_field.clear()

    def _record(self) -> None:
        self.entered.emit(self.level_box.currentData(), self.note_field.text().strip())
