"""The measurement among poison, small: every kind is refused in a sentence, good patients are answered as alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.server.conftest import Live

from gliomark.experiments.bedside.poison import KINDS
from gliomark.experiments.bedside.server_poison import predict, send_good, send_poison
from gliomark.experiments.bedside.serving import files_of

pytestmark = pytest.mark.slow


def test_good_ones_among_poison(live: Live, pictures: Path) -> None:
    files = files_of(pictures)
    alone = predict(live, files)
    with ThreadPoolExecutor(6) as pool:
        good = [pool.submit(send_good, live, files, alone) for _ in range(3)]
        poison = [pool.submit(send_poison, live, kind, make(files)) for kind, make in KINDS.items()]
        sent = [one.result() for one in (*good, *poison)]
    assert not [one for one in sent if not one.right]
    assert len({one.said for one in sent if one.kind != "good"}) > 6, "each for its own reason"
    assert live.get("/api/health").json()["status"] == "ok"


@pytest.mark.parametrize("kind", KINDS)
def test_poison_is_made_of_what_is_sent(kind: str) -> None:
    made = KINDS[kind]({"P/T1C/1.png": bytes(100), "P/FLAIR/1.png": bytes(100)})
    assert made and sum(map(len, made.values())) < 4 << 20
