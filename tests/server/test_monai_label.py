"""The interface of MONAI Label, called with the bytes that its clients send."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from tests.pipeline.conftest import drop_mask, write_dicom, write_volumes
from tests.server.conftest import SMALL_LIMITS, LiveClient
from tests.server.monai_label_calls import MonaiCalls, read_nifti, split_parts, write_nifti

from gliomark.io.dicom import find_dicom_files
from gliomark.server.label_files import compute_centroid
from gliomark.server.monai_label_images import choose_image_name, choose_label_name
from gliomark.study import MRSequence

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def calls(live_server: LiveClient) -> MonaiCalls:
    """The calls of MONAI Label's client to the server of this module."""
    return MonaiCalls(live_server)


@pytest.fixture(scope="module")
def image(calls: MonaiCalls, fine_study: dict[str, Any]) -> tuple[Array, Array]:
    """Values ``(column, row, slice)`` and affine of the served image."""
    response = calls.send("GET", f"/datastore/image?image={fine_study['id']}")
    assert response.headers["content-disposition"] == f'attachment; filename="{fine_study["id"]}.nii.gz"'
    return read_nifti(response.content)


@pytest.fixture(scope="module")
def inference(calls: MonaiCalls, fine_study: dict[str, Any]) -> dict[str, tuple[str, bytes]]:
    """The parts of the response of an inference."""
    response = calls.infer("tiny", fine_study["id"])
    assert response.status_code == 200, response.text
    return split_parts(response)


def test_the_server_describes_itself_as_the_clients_expect(calls) -> None:
    info = calls.send("GET", "/info/").json()
    assert info["labels"] == ["background", "lesion"]
    assert info["models"]["tiny"]["type"] == "segmentation" and info["models"]["tiny"]["dimension"] == 3
    assert info["models"]["tiny"]["labels"] == {"lesion": 1} and info["models"]["tiny"]["description"]
    assert list(info["strategies"]) == ["first", "random"] and info["trainers"] == info["scoring"] == {}
    assert "config" not in info  # 3D Slicer takes it for a server of an old version


def test_the_image_has_all_grey_values_and_the_geometry_of_the_uploaded_file(image, fine_folder) -> None:
    original = nib.load(next(fine_folder.glob("*T1C*")))
    assert np.array_equal(image[0], np.asarray(original.dataobj)) and np.array_equal(
        image[1], original.affine
    )


def test_inference_returns_the_servers_own_outline_and_result(
    calls, live_server, inference, image, fine_study
) -> None:
    head, content = inference["image"]
    params = json.loads(inference["params"][1])
    url = f"/api/predictions/{params['prediction']}"
    assert content == live_server.get(f"{url}/segmentation.nii.gz").content
    mask, affine = read_nifti(content)
    assert (
        np.array_equal(affine, image[1]) and mask.shape == image[0].shape and set(np.unique(mask)) == {0, 1}
    )
    assert f'filename="{params["prediction"]}.nii.gz"' in head
    assert "Content-Type: application/octet-stream" in head
    assert "Content-Type: application/json" in inference["params"][0]
    assert params["label_names"] == {"lesion": 1}
    assert params["result"] == live_server.get(f"{url}/prediction.json").json()
    centroid = np.argwhere(mask).mean(axis=0)
    assert params["centroids"]["lesion"] == pytest.approx([1, *centroid], abs=0.01)
    assert calls.download_label(fine_study["id"], "original").content == content


@pytest.mark.parametrize(
    ("params", "stated"),
    [
        ({}, (None, None)),
        ({"age": "", "sex": "not stated"}, (None, None)),
        ({"age": "53", "sex": "female"}, (53, 1)),
        ({"age": 53, "sex": 0, "outline": "model"}, (53, 0)),
    ],
)
def test_age_and_sex_of_the_options_are_used(calls, fine_study, params, stated) -> None:
    response = calls.infer("tiny", fine_study["id"], "&output=json", **params)
    result = response.json()["result"]
    assert (result["age"], result["sex"]) == stated and response.headers["content-type"] == "application/json"


def test_ohif_gets_an_uncompressed_nrrd_file(calls, inference, image, fine_study) -> None:
    """OHIF reads the part of type octet-stream after the first blank line, and in it 16-bit numbers."""
    params = {"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False}
    response = calls.infer("tiny", fine_study["id"], "&output=all", **params, restore_label_idx=False)
    _, content = split_parts(response)["image"]
    head, data = content.split(b"\n\n", 1)
    assert b"encoding: raw" in head and b"type: unsigned short" in head and b"endian: little" in head
    mask, _ = read_nifti(inference["image"][1])
    assert np.array_equal(np.frombuffer(data, "<u2").reshape(mask.shape, order="F"), mask)


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd"])
def test_the_outline_has_the_same_position_in_every_format(
    calls, inference, fine_study, tmp_path, extension
) -> None:
    file = tmp_path / f"label{extension}"
    response = calls.infer("tiny", fine_study["id"], "&output=image", result_extension=extension)
    assert response.headers["content-disposition"].endswith(f'{extension}"')
    file.write_bytes(response.content)
    expected_file = tmp_path / "expected.nii.gz"
    expected_file.write_bytes(inference["image"][1])
    label, expected = sitk.ReadImage(str(file)), sitk.ReadImage(str(expected_file))
    assert np.array_equal(sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(expected))
    for one, other in (
        (label.GetOrigin(), expected.GetOrigin()),
        (label.GetSpacing(), expected.GetSpacing()),
        (label.GetDirection(), expected.GetDirection()),
    ):
        assert one == pytest.approx(other, abs=1e-4)


def correct_outline(mask: Array) -> Array:
    """Return a mask with a lesion of other extent than the model's."""
    corrected = mask.copy()
    corrected[mask.shape[0] // 2 :] = 0
    return corrected


def reverse_first_axis(mask: Array, affine: Array) -> tuple[Array, Array]:
    """Return a mask as 3D Slicer 5.13 exports it for a left-handed image: 16 bits, the first axis reversed."""
    reversed_affine = affine @ np.diag([-1, 1, 1, 1])
    reversed_affine[:3, 3] += affine[:3, 0] * (mask.shape[0] - 1)
    return mask[::-1].astype(np.int16), reversed_affine


def halve_grid(values: Array, affine: Array) -> tuple[Array, Array]:
    return values[:, ::2, ::2].copy(), affine @ np.diag([1, 2, 2, 1])


def move_away(values: Array, affine: Array) -> tuple[Array, Array]:
    moved = affine.copy()
    moved[:3, 3] += 500
    return values, moved


@pytest.mark.parametrize(
    ("path", "store"),
    [
        ("/tmp/tmpab12.nii.gz", lambda mask, affine: (mask, affine)),
        ("C:\\Users\\wang\\Temp\\tmpab12.nii.gz", lambda mask, affine: reverse_first_axis(mask, affine)),
        ("label.nii.gz", lambda mask, affine: (mask * np.uint8(7), affine)),
    ],
    ids=["same grid", "as 3D Slicer stores it", "another value"],
)
def test_a_corrected_label_becomes_the_readers_outline(
    calls, live_server, inference, fine_study, path, store
) -> None:
    """The same as by ``PUT /api/studies/{id}/mask``; the model's outline is kept; deleted, it is gone."""
    study_id = fine_study["id"]
    mask, affine = read_nifti(inference["image"][1])
    corrected = correct_outline(mask)
    content = write_nifti(*store(corrected, affine))
    saved = calls.save_label(study_id, content, path)
    assert saved.status_code == 200, saved.text
    assert saved.json() == {
        "image": study_id,
        "label": study_id,
        "lesion_volume_ml": pytest.approx(corrected.sum() * 6 / 1000),
    }
    stored = live_server.get(f"/api/studies/{study_id}/mask.png").content
    assert live_server.put(
        f"/api/studies/{study_id}/mask", files=[("files", ("T1C.nii.gz", content))]
    ).is_success
    assert live_server.get(f"/api/studies/{study_id}/mask.png").content == stored
    for tag in ("final", ""):
        assert np.array_equal(read_nifti(calls.download_label(study_id, tag).content)[0], corrected)
    assert calls.download_label(study_id, "original").content == inference["image"][1]
    answered = split_parts(calls.infer("tiny", study_id, outline="corrected"))
    assert np.array_equal(read_nifti(answered["image"][1])[0], corrected)
    listed = calls.send("GET", "/datastore/?output=all").json()["objects"][study_id]["labels"]
    assert listed["final"]["info"]["params"]["label_names"] == {"lesion": 1} and "original" in listed
    assert calls.send("HEAD", f"/datastore/label?image={study_id}&tag=final").status_code == 200
    for _ in range(2):
        assert calls.send("DELETE", f"/datastore/label?id={study_id}&tag=final").json() == {}
    assert calls.download_label(study_id, "final").status_code == 404
    assert calls.send("HEAD", f"/datastore/label?image={study_id}&tag=final").status_code == 404


def test_a_label_on_the_served_image_of_pictures_is_stored(calls, live_server, prepared_study) -> None:
    study_id = prepared_study["id"]
    mask, affine = read_nifti(split_parts(calls.infer("tiny", study_id))["image"][1])
    saved = calls.save_label(study_id, write_nifti(mask, affine))
    assert saved.status_code == 200, saved.text
    final, final_affine = read_nifti(calls.download_label(study_id, "final").content)
    assert np.array_equal(final_affine, affine)
    overlap = 2 * (final * mask).sum() / (final.sum() + mask.sum())
    assert overlap > 0.9  # resampled between pixels of 2.5 and 1 mm
    assert calls.send("DELETE", f"/datastore/image?id={study_id}").status_code == 200


def test_an_empty_label_states_that_there_is_no_lesion(calls, image, fine_study) -> None:
    saved = calls.save_label(fine_study["id"], write_nifti(np.zeros(image[0].shape, np.uint8), image[1]))
    assert saved.status_code == 200 and saved.json()["lesion_volume_ml"] == 0
    assert calls.send("DELETE", f"/datastore/label?id={fine_study['id']}&tag=").status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda mask, affine: halve_grid(mask, affine), 422, "mask-other-grid"),
        (lambda mask, affine: move_away(mask, affine), 422, "mask-outside"),
        (lambda mask, affine: (mask + np.roll(mask, 40, 1) * 2, affine), 422, "mask-several-labels"),
        (lambda mask, affine: (mask - 0.5 * mask, affine), 422, "mask-fractions"),
        (lambda mask, affine: (-mask.astype(np.int16), affine), 422, "mask-labels"),
        (lambda mask, affine: (mask[0], affine), 422, None),
        (lambda mask, affine: (np.full(mask.shape, np.nan, np.float32), affine), 422, "mask-not-numbers"),
    ],
    ids=["other grid", "elsewhere", "two segments", "fractions", "negative", "one slice", "no numbers"],
)
def test_a_label_that_does_not_fit_is_refused(
    calls, live_server, inference, fine_study, change, status, code
) -> None:
    values, affine = change(*read_nifti(inference["image"][1]))
    refused = calls.save_label(fine_study["id"], write_nifti(values, affine))
    assert refused.status_code == status and refused.json()["code"] == (code or refused.json()["code"])
    assert str(live_server.server.store.data_folder) not in refused.text
    assert live_server.get(f"/api/studies/{fine_study['id']}").json()["corrected"] is False
    assert not list((live_server.server.store.data_folder / "uploads").glob("*"))


@pytest.mark.parametrize(
    ("content", "path", "status", "code"),
    [
        (b"no volume", "a.nii.gz", 422, "volume-damaged"),
        (b"", "a.nii.gz", 422, None),
        (gzip.compress(b"\x5c\x01" * 400), "a.nii.gz", 422, None),
        (b"NRRD0004\n", "a.nrrd", 422, None),
        (b"\0" * 1000, "label.bin", 422, "mask-kind"),
        (b"{}", "label.json", 422, "mask-kind"),
        (b"x", "", 422, "mask-kind"),
        (b"\0" * (SMALL_LIMITS.max_mask_bytes + 1), "a.nii.gz", 413, "body-too-large"),
    ],
)
def test_files_that_are_no_label_are_refused(
    calls, live_server, fine_study, content, path, status, code
) -> None:
    refused = calls.save_label(fine_study["id"], content, path)
    assert refused.status_code == status, refused.text
    assert refused.json()["code"] == code or (code is None and refused.json()["code"]), refused.text
    assert live_server.get(f"/api/studies/{fine_study['id']}").json()["corrected"] is False
    assert not list((live_server.server.store.data_folder / "uploads").glob("*"))


@pytest.mark.parametrize(
    "image_id",
    [
        "unknown",
        "../uploads",
        "../patient",
        "..",
        "/",
        "--",
        "..%2f..%2fstudies",
        "/etc/passwd",
        "1.2.3.4",
        "'; --",
        "%00",
        "T1C" * 60,
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        "GET /datastore/image?image={}",
        "HEAD /datastore/image?image={}",
        "GET /datastore/image/info?image={}",
        "GET /datastore/label?label={}&tag=final",
        "GET /datastore/label?label={}&tag=original",
        "GET /datastore/label/info?label={}&tag=final",
        "DELETE /datastore/image?id={}",
        "DELETE /datastore/label?id={}&tag=final",
    ],
)
def test_an_unknown_image_is_not_found(calls, call: str, image_id: str) -> None:
    method, path = call.split(" ", 1)
    response = calls.send(method, path.format(image_id))
    assert response.status_code == (422 if image_id == "%00" else 404)
    assert method == "HEAD" or response.json()["code"] in ("no-such-study", "request-unfit")


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/datastore/image", {}, 422, "request-unfit"),
        ("GET", "/datastore/image?image=", {}, 422, "request-unfit"),
        ("GET", "/datastore/label?tag=final", {}, 422, "request-unfit"),
        ("GET", "/datastore/label?label=ID&tag=second", {}, 404, "monai-tag"),
        ("GET", "/datastore/label?label=ID&tag=final", {}, 404, "not-corrected"),
        ("DELETE", "/datastore/label?id=ID&tag=original", {}, 422, "monai-tag"),
        ("GET", "/datastore/?output=train", {}, 501, "monai-not-offered"),
        ("GET", "/datastore/?output=paths", {}, 422, "request-unfit"),
        ("PUT", "/datastore/label", {}, 422, "request-unfit"),
        ("PUT", "/datastore/label?image=ID", {}, 415, "form-wanted"),
        ("PUT", "/datastore/label?image=ID", {"files": {"file": b"x"}}, 400, "form-without-file"),
        ("PUT", "/datastore/label?image=ID", {"data": {"label": "x"}, "files": {"a": b""}}, 400, None),
        ("PUT", "/datastore/image?image=a", {"files": {"label": b"x"}}, 400, "form-without-file"),
        ("PUT", "/datastore/image?image=a", {"files": {"file": ("x.txt", b"x")}}, 422, None),
        ("PUT", "/datastore/image?image=../a_FLAIR", {"files": {"file": ("x.nii.gz", b"x")}}, 400, "name-outside"),
        ("PUT", "/datastore/image?image=FLAIR%2f..%2f..%2fa", {"files": {"file": b"x"}}, 400, "name-outside"),
        ("POST", "/infer/tiny", {}, 422, "request-unfit"),
        ("POST", "/infer/other?image=ID", {}, 404, "no-such-model"),
        ("POST", "/infer/..%2ftiny?image=ID", {}, 404, None),
        ("POST", "/infer/tiny?image=unknown", {}, 404, "no-such-study"),
        ("POST", "/infer/tiny?image=ID&output=dicom", {}, 422, "request-unfit"),
        ("POST", "/infer/tiny?image=ID&output=dicom_seg", {}, 409, None),
        ("POST", "/infer/tiny?image=ID&session_id=s", {}, 501, "monai-needs-study"),
        ("POST", "/infer/tiny?image=ID", {"files": {"file": ("a.nii.gz", b"x")}}, 501, "monai-needs-study"),
        ("POST", "/infer/tiny?image=ID", {"files": {"label": ("a.nii.gz", b"x")}}, 501, "monai-needs-study"),
        ("POST", "/infer/tiny?image=ID", {"files": {"file": b"\0" * 100_000}}, 413, "body-too-large"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": "{"}}, 422, "monai-parameters"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": "[1]"}}, 422, "monai-parameters"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": "[" * 15_000}}, 422, "monai-parameters"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": '{"age": 53}'}}, 422, "age-or-sex-missing"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": '{"age": "old"}'}}, 422, "request-unfit"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": '{"sex": {"a": 1}}'}}, 422, "request-unfit"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": '{"outline": "corrected"}'}}, 409, "not-corrected"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": '{"result_extension": ".exe"}'}}, 422, "monai-extension"),
        ("POST", "/infer/tiny?image=ID", {"data": {"params": '{"result_extension": ["a"]}'}}, 422, "monai-extension"),
        ("POST", "/activelearning/epistemic", {"json": {}}, 404, "monai-strategy"),
        ("GET", "/train/?check_if_running=true", {}, 501, "monai-not-offered"),
        ("POST", "/train/tiny", {"json": {}}, 501, "monai-not-offered"),
        ("DELETE", "/train/", {}, 501, "monai-not-offered"),
        ("PUT", "/session/", {"files": {"files": b"x"}}, 501, "monai-not-offered"),
        ("GET", "/session/abc", {}, 501, "monai-not-offered"),
        ("POST", "/batch/infer/tiny", {"json": {}}, 501, "monai-not-offered"),
        ("POST", "/infer/wsi_v2/tiny", {"json": {}}, 501, "monai-not-offered"),
        ("POST", "/scoring/dice", {"json": {}}, 501, "monai-not-offered"),
        ("GET", "/model/tiny", {}, 501, "monai-not-offered"),
        ("GET", "/logs/", {}, 501, "monai-not-offered"),
        ("GET", "/datastore/dataset", {}, 501, "monai-not-offered"),
        ("PUT", "/datastore/label/info?label=ID&tag=final", {}, 501, "monai-not-offered"),
    ],
)  # fmt: skip
def test_wrong_calls_are_answered_with_one_sentence(
    live_server, fine_study, method, path, options, status, code
) -> None:
    response = live_server.request(method, path.replace("ID", fine_study["id"]), **options)
    document = response.json()
    assert response.status_code == status, response.text
    assert document.get("code") == code or code is None, response.text
    assert isinstance(document["detail"], str) and document["detail"]
    assert str(live_server.server.store.data_folder) not in response.text
    assert live_server.get(f"/api/studies/{fine_study['id']}").json()["corrected"] is False


def create_zip(folder: Path) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return buffer.getvalue()


def test_an_uploaded_study_is_found_by_the_name_that_the_client_gave_it(
    calls, live_server, tmp_path, drawn_images
) -> None:
    """3D Slicer goes on with its own name and ignores the id in the response."""
    folder = write_volumes(tmp_path / "P", drop_mask(drawn_images))
    sent = calls.upload_image("/tmp/all.zip", create_zip(folder), "Patient 7")
    assert sent.status_code == 200, sent.text
    study_id = sent.json()["image"]
    answered = calls.infer("tiny", "Patient 7", "&output=json")  # waits until the study is prepared
    assert answered.status_code == 200, answered.text
    assert live_server.get(f"/api/predictions/{answered.json()['prediction']}").json()["study_id"] == study_id
    assert calls.send("GET", "/datastore/image/info?image=Patient+7").json()["PatientID"] == "Patient 7"
    for image_id in ("../Patient 7", "Patient 7/", "C:\\Patient 7"):
        assert calls.send("GET", "/datastore/image/info", params={"image": image_id}).status_code == 404
    assert calls.send("DELETE", "/datastore/image?id=Patient+7").status_code == 404  # only by its own id
    assert calls.send("DELETE", f"/datastore/image?id={study_id}").json() == {}
    assert live_server.get(f"/api/studies/{study_id}").status_code == 404
    assert calls.send("GET", "/datastore/image?image=Patient+7").status_code == 404


def test_a_single_volume_is_refused_with_the_sequence_that_is_missing(calls, fine_folder) -> None:
    """The model needs two; that the volume is a FLAIR is known from the name of the image."""
    content = next(fine_folder.glob("*FLAIR*")).read_bytes()
    sent = calls.upload_image("/tmp/tmpxy.nii.gz", content, "Head FLAIR")
    answered = calls.infer("tiny", sent.json()["image"])
    assert (sent.status_code, answered.status_code) == (200, 409)
    assert answered.json()["code"] == "sequence-missing"
    assert answered.json()["parameters"]["missing"] == "T1C", answered.text


def test_a_dicom_series_is_found_by_its_uid(calls, live_server, tmp_path, drawn_images) -> None:
    """OHIF names an image by its series and expects the outline on the grid of that series."""
    folder = write_dicom(tmp_path / "D", drop_mask(drawn_images))
    study = live_server.upload_and_prepare(folder)
    headers = {file.name: dcmread(file) for file in find_dicom_files(folder)}
    for name in ("T1C", "FLAIR"):
        uid = headers[f"{name}0.dcm"].SeriesInstanceUID
        image, affine = read_nifti(calls.send("GET", f"/datastore/image?image={uid}").content)
        for number in (0, 7):
            plane = image[:, :, number].T
            assert np.array_equal(plane, headers[f"{name}{number}.dcm"].pixel_array)
            position = (affine @ [0, 0, number, 1])[:3] * [-1, -1, 1]
            assert position == pytest.approx(headers[f"{name}{number}.dcm"].ImagePositionPatient)
    answered = calls.infer("tiny", uid, "&output=dicom_seg")
    segmentation = dcmread(BytesIO(answered.content))
    assert answered.headers["content-type"] == "application/dicom" and segmentation.Modality == "SEG"
    assert calls.send("DELETE", f"/datastore/image?id={study['id']}").status_code == 200
    assert calls.send("GET", f"/datastore/image?image={uid}").status_code == 404


@pytest.mark.parametrize("strategy", ["first", "random"])
def test_the_next_sample_is_a_study_without_a_corrected_outline(
    calls, live_server, image, fine_study, strategy
) -> None:
    open_ids = {one["id"] for one in live_server.get("/api/studies").json() if one["state"] == "ready"}
    assert calls.next_sample(strategy).json()["id"] in open_ids
    for study_id in open_ids - {fine_study["id"]}:
        live_server.delete(f"/api/studies/{study_id}").raise_for_status()
    sample = calls.next_sample(strategy).json()
    assert sample["id"] == fine_study["id"] and sample["name"] == f"{fine_study['id']}.nii.gz"
    assert "path" not in sample
    calls.save_label(fine_study["id"], write_nifti(np.zeros(image[0].shape, np.uint8), image[1]))
    assert calls.next_sample(strategy).json() == {}
    assert calls.send("GET", "/info/").json()["datastore"] == {
        "total": 1,
        "completed": 1,
        "label_tags": {"final": 1},
    }
    calls.send("DELETE", f"/datastore/label?id={fine_study['id']}&tag=final")


@pytest.mark.parametrize(
    ("choose", "sent", "stored"),
    [
        (lambda sent: choose_image_name("Head FLAIR", sent), "/tmp/tmpt1_x.nii.gz", "Head FLAIR.nii.gz"),
        (lambda sent: choose_image_name("P7", sent), "C:\\data\\P7 t2.NRRD", "P7 t2.NRRD"),
        (lambda sent: choose_image_name("", sent), "T1C.nii", "T1C.nii"),
        (lambda sent: choose_label_name(MRSequence.T1C, sent), "/tmp/FLAIR.NII.GZ", "label_T1C.nii.gz"),
        (lambda sent: choose_label_name(MRSequence.FLAIR, sent), "a.seg.nrrd", "label_FLAIR.nrrd"),
        (lambda sent: choose_label_name(MRSequence.T1C, sent), "", "label_T1C"),
    ],
)
def test_files_are_stored_under_names_that_state_their_sequence(
    choose: Callable[[str], str], sent: str, stored: str
) -> None:
    assert choose(sent) == stored


def test_the_centroid_is_stated_as_column_row_slice() -> None:
    mask = np.zeros((4, 5, 6), np.uint8)
    assert compute_centroid(mask) == []
    mask[1, 2, 3] = mask[1, 2, 4] = 1
    assert compute_centroid(mask) == [3.5, 2.0, 1.0]
