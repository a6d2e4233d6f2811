"""MONAI Label's own client against a running server: what its plug-in for 3D Slicer does, call by call.

``monailabel`` requires hundreds of megabytes of other packages, of which its client uses none. To run these tests:
``pip install --no-deps monailabel==0.8.5``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.server.conftest import LiveClient
from tests.server.monai_label_calls import encode_form, read_nifti, write_nifti

monai_client = pytest.importorskip(
    "monailabel.client.client", reason="needs MONAI Label's client: pip install --no-deps monailabel==0.8.5"
)


def create_client(server: LiveClient, folder: Path, token: str = "") -> Any:
    """Return MONAI Label's client, logged in with a token as 3D Slicer does it."""
    client = monai_client.MONAILabelClient(str(server.base_url).rstrip("/"), tmpdir=str(folder))
    if client.auth_enabled():
        client.update_auth(client.auth_token("user", token))
        assert client.auth_valid_token()
    return client


def check_round_trip(client: Any, server: LiveClient, study: dict[str, Any], folder: Path) -> None:
    """Fetch a study, run inference, correct the outline and read it back through both interfaces."""
    info = client.info()
    assert info["name"] == "gliomark" and list(info["models"]) == ["tiny"]
    sample = client.next_sample("first", {})
    assert sample["id"] == study["id"]
    image_file, result = client.infer("tiny", sample["id"], {"age": 50, "sex": "male"})
    job_url = f"/api/predictions/{result['prediction']}"
    assert Path(image_file).read_bytes() == server.get(f"{job_url}/segmentation.nii.gz").content
    assert result["result"] == server.get(f"{job_url}/prediction.json").json()
    mask, affine = read_nifti(Path(image_file).read_bytes())
    original = nib.load(next(folder.glob("*T1C*")))
    assert np.array_equal(affine, original.affine) and mask.shape == original.shape and mask.sum() > 1000
    corrected = mask.copy()
    corrected[mask.shape[0] // 2 :] = 0
    label_file = Path(image_file).parent / "label.nii.gz"
    label_file.write_bytes(write_nifti(corrected, affine))
    saved = client.save_label(sample["id"], str(label_file), params={"label_info": [{"name": "lesion"}]})
    assert saved["image"] == saved["label"] == study["id"]
    assert saved["lesion_volume_ml"] == pytest.approx(corrected.sum() * 6 / 1000)
    final = client.download_label(sample["id"], "final")
    assert np.array_equal(read_nifti(Path(final).read_bytes())[0], corrected)
    again = server.predict_and_wait(study["id"], outline="corrected")
    read_back, _ = read_nifti(server.get(f"/api/predictions/{again['id']}/segmentation.nii.gz").content)
    assert np.array_equal(read_back, corrected)  # Dice 1.0
    kept = client.download_label(sample["id"], "original")
    assert Path(kept).read_bytes() == Path(image_file).read_bytes()
    assert client.datastore()["objects"][study["id"]]["labels"].keys() == {"final", "original"}
    assert client.info()["datastore"] == {"total": 1, "completed": 1, "label_tags": {"final": 1}}
    assert client.next_sample("random", {}) == {}


def test_the_client_gets_the_servers_outline_and_stores_a_corrected_one(
    live_server, fine_study, fine_folder, tmp_path
) -> None:
    check_round_trip(create_client(live_server, tmp_path), live_server, fine_study, fine_folder)
    live_server.delete(f"/api/studies/{fine_study['id']}/mask.png").raise_for_status()


def test_the_client_shows_why_a_call_is_refused(live_server, tmp_path) -> None:
    client = create_client(live_server, tmp_path)
    file = tmp_path / "volume.nii.gz"
    file.write_bytes(b"no volume")
    calls = [
        ("monai-not-offered", lambda: client.train_start("tiny", {})),
        ("monai-not-offered", lambda: client.create_session(str(file))),
        ("monai-not-offered", client.train_status),
        ("no-such-study", lambda: client.infer("tiny", "unknown", {})),
        ("monai-strategy", lambda: client.next_sample("best", {})),
    ]
    for code, call in calls:
        with pytest.raises(monai_client.MONAILabelClientException) as caught:
            call()
        assert code in caught.value.msg
    assert client.train_status(check_if_running=True) is False


def test_the_table_of_calls_has_the_clients_bytes(tmp_path) -> None:
    file = tmp_path / "label.nii.gz"
    file.write_bytes(bytes(range(256)))
    fields = {"params": json.dumps({"client_id": None})}
    utils = monai_client.MONAILabelUtils
    assert encode_form(fields, {"label": (str(file), file.read_bytes())}) == utils.encode_multipart_formdata(
        fields, {"label": str(file)}
    )
    assert encode_form(fields, {}) == utils.encode_multipart_formdata(fields, {})


def test_a_client_that_has_logged_in_can_go_on_after_every_call(live_server, fine_study, tmp_path) -> None:
    """After a form the client repeats its content length with every later call, which has no body.

    The last test of this module: from here on the server requires a token.
    """
    token = live_server.server.database.add_token("Dr. Wang", "admin")
    with pytest.raises(monai_client.MONAILabelClientException) as caught:
        create_client(live_server, tmp_path, "wrong")
    assert "token-unknown" in caught.value.msg
    client = create_client(live_server, tmp_path, token)
    image_file, _ = client.infer("tiny", fine_study["id"], {})
    assert client.info()["datastore"]["total"] == 1 and client.auth_valid_token()
    assert (
        Path(client.download_label(fine_study["id"], "original")).read_bytes()
        == Path(image_file).read_bytes()
    )
    assert client.next_sample("first", {})["id"] == fine_study["id"]
    assert list(client.datastore()["objects"]) == [fine_study["id"]]
