"""Language of the user interface: English (source texts) or Chinese, switchable at run time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QTranslator

from gliomark.messages import Language, render_message

translate = QCoreApplication.translate
LANGUAGE_PROPERTY = "gliomark language"
TRANSLATIONS_FOLDER = Path(__file__).with_name("translations")


def get_system_language() -> Language:
    """Return Chinese on a Chinese system, otherwise English."""
    return "zh" if QLocale.system().language() == QLocale.Language.Chinese else "en"


def get_current_language() -> Language:
    """Return the language set by ``use_language``; English before the first call."""
    app = QCoreApplication.instance()
    return "zh" if app is not None and app.property(LANGUAGE_PROPERTY) == "zh" else "en"


def translate_message(text: str) -> str:
    """Translate a message into the user's language; other text is returned unchanged."""
    return render_message(text, get_current_language())


def format_local_time(created: str) -> str:
    """Format a time of the server (ISO 8601, UTC if without a time zone) as date and time of this computer."""
    at = datetime.fromisoformat(created)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone().strftime("%Y-%m-%d %H:%M")


def use_language(language: Language) -> None:
    """Switch the language; Qt notifies all widgets with a LanguageChange event.

    Raises
    ------
    RuntimeError
        If there is no QApplication.
    """
    app = QCoreApplication.instance()
    if app is None:
        raise RuntimeError("use_language needs a running application")
    app.setProperty(LANGUAGE_PROPERTY, language)
    for translator in app.findChildren(QTranslator):
        app.removeTranslator(translator)
        translator.deleteLater()
    if language == "zh":
        qt = Path(QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath))
        for file in (qt / "qtbase_zh_CN.qm", TRANSLATIONS_FOLDER / "gliomark_zh.qm"):
            translator = QTranslator(app)
            translator.load(str(file))
            app.installTranslator(translator)
