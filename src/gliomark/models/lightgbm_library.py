"""Import LightGBM without the libraries for which it has adapters, which take seconds to import and are not used."""

from __future__ import annotations

import sys

ADAPTED_LIBRARIES = ("sklearn", "pandas", "dask", "matplotlib", "pyarrow")

_hidden = [name for name in ADAPTED_LIBRARIES if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment] # to LightGBM, it is not installed
try:
    import lightgbm
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["lightgbm"]
