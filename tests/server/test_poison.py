"""The experiment with malformed uploads, small: each is refused with a message, and valid patients get the same
results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.server.conftest import LiveClient

from gliomark.experiments.robustness.invalid_uploads import INVALID_UPLOADS
from gliomark.experiments.robustness.server_invalid_uploads import (
    send_invalid_upload,
    send_valid_upload,
    upload_and_predict,
)
from gliomark.experiments.robustness.server_process import read_patient_files

pytestmark = pytest.mark.slow


def test_valid_uploads_among_malformed_ones_are_answered(
    live_server: LiveClient, picture_folder: Path
) -> None:
    files = read_patient_files(picture_folder)
    alone = upload_and_predict(live_server, files)
    with ThreadPoolExecutor(6) as pool:
        good = [pool.submit(send_valid_upload, live_server, files, alone) for _ in range(3)]
        poison = [
            pool.submit(send_invalid_upload, live_server, kind, make(files))
            for kind, make in INVALID_UPLOADS.items()
        ]
        sent = [one.result() for one in (*good, *poison)]
    assert not [one for one in sent if not one.right]
    assert len({one.reply_code for one in sent if one.kind != "good"}) > 6, "each for its own reason"
    assert live_server.get("/api/health").json()["status"] == "ok"


@pytest.mark.parametrize("kind", INVALID_UPLOADS)
def test_a_malformed_upload_is_made_of_a_valid_one(kind: str) -> None:
    made = INVALID_UPLOADS[kind]({"P/T1C/1.png": bytes(100), "P/FLAIR/1.png": bytes(100)})
    assert made and sum(map(len, made.values())) < 4 << 20
