"""What predicts imports none of the packages that only training, cohorts or other networks need."""

from __future__ import annotations

import subprocess
import sys

HEAVY_PACKAGES = (
    *("monai", "lightning", "matplotlib", "nilearn", "dask", "distributed", "h5py", "dicomanonymizer"),
    *("PySide6", "fastapi"),
)


def test_loading_the_shipped_model_imports_no_heavy_package() -> None:
    program = (
        "import sys, gliomark, gliomark.batch, gliomark.reporting\n"
        "gliomark.load_model('demo')\n"
        f"print(*(name for name in {HEAVY_PACKAGES!r} if name in sys.modules))\n"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert loaded.stdout.split() == []
