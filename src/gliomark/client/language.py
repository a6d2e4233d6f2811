"""English, which the code is written in, or Chinese, switched while the program runs."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QCoreApplication, QLibraryInfo, QLocale, QTranslator

from gliomark.messages import Language, render_message

translate = QCoreApplication.translate
LANGUAGE_PROPERTY = "gliomark language"
TRANSLATIONS_FOLDER = Path(__file__).with_name("translations")


def get_system_language() -> Language:
    """Chinese on a Chinese system, else English."""
    return "zh" if QLocale.system().language() == QLocale.Language.Chinese else "en"


def get_current_language() -> Language:
    """What ``use_language`` was last told, English before that."""
    app = QCoreApplication.instance()
    return "zh" if app is not None and app.property(LANGUAGE_PROPERTY) == "zh" else "en"


def translate_message(text: str) -> str:
    """A message, such as the server's, in the user's language; any other text as it came."""
    return render_message(text, get_current_language())


def use_language(language: Language) -> None:
    """Every text drawn from now on is in this language; widgets are told by a LanguageChange event."""
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
