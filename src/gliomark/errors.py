"""Exceptions of gliomark, each with one sentence: what is wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Mapping


class GliomarkError(Exception):
    """Base class of the errors that a user can resolve."""

    @property
    def message(self) -> str:
        """The sentence; a ``messages.Message`` if it can be translated."""
        return self.args[0] if self.args else ""


class InputError(GliomarkError):
    """Images, masks, tables, stored records or arguments that describe a patient cannot be used."""


class WeightsError(GliomarkError):
    """A weights file, its card or its signature is not valid, or its networks give no finite numbers."""


class CohortError(GliomarkError):
    """A prepared cohort, its folds or the working folder of a training cannot be used."""


class ConfigurationError(GliomarkError):
    """An option, a setting of the server, or the installation does not allow what was requested."""


class ExperimentError(GliomarkError):
    """An experiment could not be carried out, for example because a server did not start."""


ERROR_KINDS: Mapping[str, type[GliomarkError]] = {
    kind.__name__: kind
    for kind in (GliomarkError, InputError, WeightsError, CohortError, ConfigurationError, ExperimentError)
}

# Exceptions that imaging libraries raise on malformed data; caught per patient so that a batch continues.
DATA_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
