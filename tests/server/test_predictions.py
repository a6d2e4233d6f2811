"""From upload to report over HTTP: the same results as the pipeline's."""

from __future__ import annotations

import gzip
import hashlib
import json
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tests.pipeline.conftest import PATIENT, write_pictures

import gliomark.reporting
from gliomark import load_model, predict, read_study
from gliomark.files import encode_png
from gliomark.geometry import LPS_TO_RAS
from gliomark.location import is_atlas_installed
from gliomark.messages import Message, from_message_record
from gliomark.pipeline import predict_prepared, prepare_study
from gliomark.server.worker import PREPARE_PROGRESS, STEP_MESSAGES
from gliomark.study import ClinicalData


@pytest.fixture(scope="module")
def pipeline_prediction(picture_folder: Path, tiny_weights: Path):
    """The pipeline's prediction for the same patient."""
    return predict(read_study(picture_folder), ClinicalData(PATIENT, 50.0, 0), load_model(tiny_weights))


@pytest.fixture(scope="module")
def finished_job(live_server, prepared_study) -> dict:
    return live_server.predict_and_wait(prepared_study["id"])


def read_grey_picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


def test_the_study_is_described_and_its_slices_are_shown(
    live_server, prepared_study, pipeline_prediction
) -> None:
    assert prepared_study["state"] == "ready" and prepared_study["patient_id"] == PATIENT
    assert prepared_study["slice_names"] == list(pipeline_prediction.stack.slice_names) and prepared_study[
        "shape"
    ] == list(pipeline_prediction.stack.brain.shape)
    for name, image in pipeline_prediction.stack.images.items():
        shown = read_grey_picture(
            live_server.get(f"/api/studies/{prepared_study['id']}/slices/{name}/7.png").content
        )
        low, high = prepared_study["grey"][name]["low"], prepared_study["grey"][name]["high"]
        assert shown.dtype == np.uint16
        np.testing.assert_allclose(low + shown / 65535 * (high - low), image[7], atol=(high - low) / 65535)
    assert live_server.get(f"/api/studies/{prepared_study['id']}/slices/T2/7.png").status_code == 404
    assert live_server.get(f"/api/studies/{prepared_study['id']}/slices/FLAIR/99.png").status_code == 404


def test_all_slices_are_one_image_in_the_patients_coordinates(
    live_server, prepared_study, pipeline_prediction
) -> None:
    url, stack = f"/api/studies/{prepared_study['id']}/volumes", pipeline_prediction.stack
    for name, image in stack.images.items():
        for _ in range(2):  # created, then read from the disk
            content = live_server.get(f"{url}/{name}.nii.gz").raise_for_status().content
        volume = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        assert volume.get_data_dtype() == np.uint16 and nib.aff2axcodes(volume.affine) == ("L", "P", "S")
        np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ stack.affine, atol=1e-4)
        shown, step = volume.get_fdata().transpose(2, 1, 0), float(np.ptp(image)) / 65535
        np.testing.assert_allclose(shown, image, atol=2 * step)
    refused = live_server.get(f"{url}/T2.nii.gz")
    assert refused.status_code == 404 and refused.json()["code"] == "no-such-sequence"
    assert live_server.get("/api/studies/x/volumes/T1C.nii.gz").status_code == 404


def test_studies_are_listed_with_the_newest_first(live_server, prepared_study, make_patient_folder) -> None:
    newer = live_server.upload(make_patient_folder(42)).json()
    listed = live_server.get("/api/studies").json()
    ids = [study["id"] for study in listed]
    assert ids[0] == newer["id"] and prepared_study["id"] in ids[1:]
    assert set(listed[0]) == {"id", "patient_id", "state", "model", "corrected", "created"}
    assert [study["id"] for study in live_server.get("/api/studies?limit=1").json()] == ids[:1]
    found = {
        part: [study["patient_id"] for study in live_server.get(f"/api/studies?patient_id={part}").json()]
        for part in ("P42", "p4", "%", "_", "none")
    }
    assert found == {"P42": ["P42"], "p4": ["P42"], "%": [], "_": [], "none": []}
    assert live_server.delete(f"/api/studies/{newer['id']}").status_code == 204
    assert newer["id"] not in [study["id"] for study in live_server.get("/api/studies").json()]


def test_the_result_equals_that_of_the_pipeline(live_server, finished_job, pipeline_prediction) -> None:
    assert finished_job["state"] == "done" and finished_job["progress"] == 1
    schema = json.loads(
        (Path(gliomark.reporting.__file__).parent / "prediction.schema.json").read_text("utf-8")
    )
    jsonschema.validate(finished_job["result"], schema)
    received = {m["marker"]: (m["probability"], m["level"]) for m in finished_job["result"]["markers"]}
    assert received == {m.marker: (round(m.probability, 6), m.level) for m in pipeline_prediction.markers}
    mask = read_grey_picture(
        live_server.get(f"/api/predictions/{finished_job['id']}/mask.png").content
    ).reshape(pipeline_prediction.stack.brain.shape)
    assert np.array_equal(mask > 0, pipeline_prediction.segmentation.mask) and mask.any()
    assert (
        live_server.get(f"/api/predictions/{finished_job['id']}/prediction.json").json()
        == finished_job["result"]
    )
    assert finished_job["id"] in [
        job["id"] for job in live_server.get("/api/predictions", params={"patient_id": PATIENT}).json()
    ]


def test_progress_of_a_prediction_is_streamed(live_server, prepared_study) -> None:
    job = live_server.post(
        f"/api/studies/{prepared_study['id']}/predictions", json={"age": 50, "sex": 0}
    ).json()
    with live_server.stream("GET", f"/api/predictions/{job['id']}/events") as events:
        events_seen = [json.loads(line[6:]) for line in events.iter_lines() if line]
    assert events_seen[-1]["state"] == "done" and [one["progress"] for one in events_seen] == sorted(
        one["progress"] for one in events_seen
    )
    with live_server.stream("GET", f"/api/studies/{prepared_study['id']}/events") as events:
        assert [json.loads(line[6:])["state"] for line in events.iter_lines() if line] == ["ready"]


def test_progress_of_preparation_is_streamed(live_server, picture_folder, tiny_weights) -> None:
    sent = live_server.upload(picture_folder).json()
    with live_server.stream("GET", f"/api/studies/{sent['id']}/events") as events:
        events_seen = [json.loads(line[6:]) for line in events.iter_lines() if line]
    assert events_seen[-1]["state"] == "ready" and {one["step"] for one in events_seen} <= {
        "",
        *STEP_MESSAGES.values(),
    }
    assert [one["progress"] for one in events_seen] == sorted(one["progress"] for one in events_seen)
    steps: list[str] = []
    prepare_study(read_study(picture_folder), load_model(tiny_weights), steps.append)
    assert steps == list(PREPARE_PROGRESS) and all(step in STEP_MESSAGES for step in steps)


@pytest.mark.parametrize(("language", "word"), [("en", "Volume"), ("zh", "体积")])
def test_the_report_is_an_html_page(live_server, finished_job, language, word) -> None:
    page = live_server.get(
        f"/api/predictions/{finished_job['id']}/report.html", params={"language": language}
    )
    assert page.status_code == 200 and word in page.text and PATIENT in page.text


def test_the_map_covers_the_deciding_slices_and_changes_no_later_result(
    live_server, prepared_study, finished_job
) -> None:
    heat = read_grey_picture(
        live_server.get(f"/api/predictions/{finished_job['id']}/heat/idh.png").content
    ).reshape(prepared_study["shape"])
    decided = [
        prepared_study["slice_names"].index(name)
        for name in finished_job["result"]["markers"][0]["slices_used"]
    ]
    assert set(np.flatnonzero(heat.any(axis=(1, 2)))) <= set(decided)
    again = [
        live_server.predict_and_wait(prepared_study["id"])["result"]["markers"] for _ in range(3)
    ]  # enough requests to reach both workers
    assert all(markers == finished_job["result"]["markers"] for markers in again)
    assert live_server.get(f"/api/predictions/{finished_job['id']}/heat/nothing.png").status_code == 404


def test_a_corrected_outline_is_used_for_a_new_prediction(
    live_server, prepared_study, finished_job, picture_folder, tiny_weights
) -> None:
    url, model = f"/api/studies/{prepared_study['id']}", load_model(tiny_weights)
    assert live_server.get(f"{url}/mask.png").status_code == 404
    assert (
        live_server.post(f"{url}/predictions", json={"age": 50, "sex": 0, "outline": "corrected"}).status_code
        == 409
    )
    drawn = np.zeros(prepared_study["shape"], np.uint8)
    drawn[8:12, 100:130, 100:140] = 255
    buffer = BytesIO()
    Image.fromarray(drawn.reshape(-1, 240)).save(buffer, "PNG")
    kept = live_server.put(f"{url}/mask.png", content=buffer.getvalue())
    assert kept.json()["lesion_volume_ml"] == pytest.approx(
        4 * 30 * 40 * np.prod(prepared_study["spacing_mm"]) / 1000
    )
    assert np.array_equal(
        read_grey_picture(live_server.get(f"{url}/mask.png").content).reshape(prepared_study["shape"]), drawn
    )
    job = live_server.predict_and_wait(prepared_study["id"], outline="corrected", enhancing="yes")
    found = job["result"]
    prepared = prepare_study(read_study(picture_folder), model)
    expected = predict_prepared(
        prepared, ClinicalData(PATIENT, 50.0, 0), model, has_enhancing_focus=True, reader_mask=drawn > 0
    )
    assert [m["probability"] for m in found["markers"]] == [round(m.probability, 6) for m in expected.markers]
    assert (
        found["markers"][0]["decided_by"] == "reader's finding"
        and found["lesion"]["rule"] == "reader's outline"
    )
    kept_file = live_server.server.store.get_correction_path(prepared_study["id"], job["outline_sha256"])
    assert (
        hashlib.sha256(kept_file.read_bytes()).hexdigest() == job["outline_sha256"]
        and not finished_job["outline_sha256"]
    )
    audit_lines = [line for line in live_server.get("/api/audit").json() if line["subject"] == job["id"]]
    assert audit_lines[-1]["detail"]["outline_sha256"] == job["outline_sha256"]
    assert live_server.delete(f"{url}/mask.png").status_code == 204
    assert live_server.get(f"{url}/mask.png").status_code == 404
    assert (
        live_server.predict_and_wait(prepared_study["id"])["result"]["markers"]
        == finished_job["result"]["markers"]
    )


@pytest.mark.parametrize(
    ("content", "error_text"),
    [(b"no picture", "not a readable PNG"), (None, "must be 240 x"), ("RGB", "mode RGB")],
)
def test_an_invalid_outline_is_refused(live_server, prepared_study, content, error_text) -> None:
    if not isinstance(content, bytes):
        size = (240, 240 * prepared_study["shape"][0]) if content else (7, 7)
        buffer = BytesIO()
        Image.new(content or "L", size).save(buffer, "PNG")
        content = buffer.getvalue()
    refused = live_server.put(f"/api/studies/{prepared_study['id']}/mask.png", content=content)
    assert refused.status_code == 422 and error_text in refused.json()["detail"]
    assert live_server.get(f"/api/studies/{prepared_study['id']}").json()["corrected"] is False


def write_mask_pictures(picture_folder: Path, planes: np.ndarray) -> dict[str, bytes]:
    """Create mask pictures with the names of the slices, by file name."""
    names = sorted(file.name for file in (picture_folder / "T1C").iterdir())
    return {name: encode_png(plane) for name, plane in zip(names, planes, strict=True)}


@pytest.mark.parametrize("form", ["nifti", "pictures", "zip"])
def test_a_mask_of_another_program_becomes_the_outline(
    form: str, live_server, prepared_study, finished_job, picture_folder
) -> None:
    """The mask that a prediction gives as NIfTI, and the same as pictures, is read back to the voxel."""
    study_url, job_url = f"/api/studies/{prepared_study['id']}", f"/api/predictions/{finished_job['id']}"
    nifti = live_server.get(f"{job_url}/segmentation.nii.gz").content
    native = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(nifti)).dataobj).transpose(2, 1, 0)
    assert live_server.get(f"{job_url}/statistics.json").json()["voxels"] == native.sum() > 0
    contents = {"lesion.nii.gz": nifti}
    if form != "nifti":
        contents = write_mask_pictures(picture_folder, native * np.uint8(255))
    if form == "zip":
        buffer = BytesIO()
        with ZipFile(buffer, "w") as archive:
            for name, content in contents.items():
                archive.writestr(f"masks/{name}", content)
        contents = {"masks.zip": buffer.getvalue()}
    kept = live_server.put(f"{study_url}/mask", files=[("files", item) for item in contents.items()])
    assert kept.status_code == 200, kept.text
    mask = read_grey_picture(live_server.get(f"{study_url}/mask.png").content).reshape(
        prepared_study["shape"]
    )
    predicted = read_grey_picture(live_server.get(f"{job_url}/mask.png").content).reshape(mask.shape)
    overlap = 2 * ((mask > 0) & (predicted > 0)).sum() / ((mask > 0).sum() + (predicted > 0).sum())
    assert overlap > 0.9  # both were resampled between pixels of 2.5 and 1 mm
    volume_ml = (mask > 0).sum() * np.prod(prepared_study["spacing_mm"]) / 1000
    assert kept.json()["lesion_volume_ml"] == pytest.approx(volume_ml)
    assert live_server.delete(f"{study_url}/mask.png").status_code == 204


@pytest.mark.parametrize(
    ("files", "error_text"),
    [
        ({"notes.txt": b"no mask"}, "notes.txt is not a segmentation"),
        ({"lesion.nii.gz": b"no volume"}, "lesion.nii.gz"),
        ({"a.nii.gz": b"x", "b.nii.gz": b"y"}, "The 2 files are not one segmentation"),
        ({"slice 99.png": b"no picture"}, "is not named after a slice"),
    ],
)
def test_files_that_are_no_mask_are_refused(
    files: dict[str, bytes], error_text: str, live_server, prepared_study
) -> None:
    url = f"/api/studies/{prepared_study['id']}"
    refused = live_server.put(f"{url}/mask", files=[("files", item) for item in files.items()])
    assert refused.status_code == 422 and error_text in refused.json()["detail"]
    assert str(live_server.server.store.data_folder) not in refused.text
    assert live_server.get(url).json()["corrected"] is False
    assert not list((live_server.server.store.data_folder / "uploads").glob("*"))


def test_dicom_results_of_pictures_are_refused_and_leave_no_file(
    live_server, prepared_study, finished_job
) -> None:
    folder = live_server.server.store.get_prediction_folder(prepared_study["id"], finished_job["id"])
    before = sorted(folder.iterdir())
    assert prepared_study["has_dicom_images"] is False
    assert prepared_study["orientation_stated"] is False and prepared_study["spacing_assumed"] is True
    for name in ("dicom.zip", "structure_set.dcm"):
        refused = live_server.get(f"/api/predictions/{finished_job['id']}/{name}")
        assert refused.status_code == 409 and "are not DICOM" in refused.json()["detail"]
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("request_body", "status", "error_text"),
    [
        ({"age": 50}, 422, "Age or sex is missing"),
        ({"age": 500, "sex": 0}, 422, "age"),
        ({"age": 50, "sex": 3}, 422, "sex"),
        ({"age": 50, "sex": 0, "fusion": "most"}, 422, "fusion"),
        ({"age": 50, "sex": 0, "colour": "red"}, 422, "colour"),
        ({"age": 50, "sex": 0, "coverage": 0.4}, 422, "coverage"),
        ({"age": 50, "sex": 0, "coverage": 1}, 422, "coverage"),
        (
            {"age": 50, "sex": 0, "coverage": 0.8},
            422,
            "no marker of the model has a patient-level calibration",
        ),
        ({"age": 50, "sex": 0, "prevalence": 0.3}, 422, "prevalence"),
        ({"age": 50, "sex": 0, "prevalence": {"idh": 0}}, 422, "prevalence"),
        ({"age": 50, "sex": 0, "prevalence": {"": 0.3}}, 422, "prevalence"),
        ({"age": 50, "sex": 0, "prevalence": {"mgmt": 0.3}}, 422, "mgmt, which is not a marker of the model"),
        ({"age": 50, "sex": 0, "prevalence": {"idh": 0.3}}, 422, "idh cannot be corrected"),
    ],
)
def test_an_invalid_request_is_refused_in_one_sentence(
    live_server, prepared_study, request_body, status, error_text
) -> None:
    refused = live_server.post(f"/api/studies/{prepared_study['id']}/predictions", json=request_body)
    assert refused.status_code == status and error_text in refused.json()["detail"]


def test_without_the_atlas_a_request_for_the_location_is_refused(
    live_server, prepared_study, monkeypatch
) -> None:
    monkeypatch.setattr("gliomark.location.atlas.ATLAS_FILE", "absent.nii.gz")
    body = {"age": 50, "sex": 0, "location": True}
    refused = live_server.post(f"/api/studies/{prepared_study['id']}/predictions", json=body)
    assert refused.status_code == 422 and 'pip install "gliomark[atlas]"' in refused.json()["detail"]


def test_age_and_sex_may_be_declared_unknown(live_server, prepared_study) -> None:
    found = live_server.predict_and_wait(prepared_study["id"], age=None, sex=None, without_clinical=True)[
        "result"
    ]
    assert any("unknown" in warning for warning in found["warnings"])


def test_a_refusal_has_a_sentence_and_its_code(live_server, prepared_study) -> None:
    """The client translates the message by its code; it never compares texts."""
    refusals = {
        "no-such-study": live_server.get("/api/studies/nothing"),
        "no-such-slice": live_server.get(f"/api/studies/{prepared_study['id']}/slices/T1C/999.png"),
        "age-or-sex-missing": live_server.post(
            f"/api/studies/{prepared_study['id']}/predictions", json={"age": 50}
        ),
        "no-such-prediction": live_server.get("/api/predictions/nothing"),
        "no-found-outline": live_server.get(f"/api/studies/{prepared_study['id']}/found.png"),
        "request-unfit": live_server.post(
            f"/api/studies/{prepared_study['id']}/predictions", json={"age": 500, "sex": 0}
        ),
    }
    for code, refused in refusals.items():
        body = refused.json()
        message = from_message_record({"text": body["detail"], **body})
        assert isinstance(message, Message) and message.code == code and message == body["detail"]


def test_a_result_contains_its_messages_as_data(live_server, finished_job) -> None:
    result = finished_job["result"]
    texts = [m["performance"] for m in result["markers"]] + [result["lesion"]["rule"], *result["notes"][:0]]
    known = {record["text"]: from_message_record(record) for record in result["messages"]}
    assert all(isinstance(known[text], Message) for text in texts)
    page = live_server.get(f"/api/predictions/{finished_job['id']}/report.html?language=zh").text
    assert "各序列合并为一个输入" in page and "交叉验证" in page and "cross-validation" not in page


def test_a_mask_among_the_images_is_offered_and_not_used(live_server, drawn_images, tmp_path) -> None:
    study = live_server.upload_and_prepare(write_pictures(tmp_path / "P77", drawn_images))
    assert study["found_outline"] == "mask" and not study["corrected"]
    offered = read_grey_picture(live_server.get(f"/api/studies/{study['id']}/found.png").content).reshape(
        study["shape"]
    )
    result = live_server.predict_and_wait(study["id"])["result"]
    used = sum(area is not None for area in result["lesion"]["areas_mm2"].values())
    assert set(np.unique(offered)) == {0, 255} and used and (offered > 0).any(axis=(1, 2)).sum() > 3
    assert any("mask" in note and "was not used" in note for note in result["notes"])
    kept = live_server.put(
        f"/api/studies/{study['id']}/mask.png",
        content=live_server.get(f"/api/studies/{study['id']}/found.png").content,
    )
    assert kept.status_code == 200
    corrected = live_server.predict_and_wait(study["id"], outline="corrected")["result"]
    assert corrected["lesion"]["rule"] == "reader's outline"
    assert not any("was not used" in note for note in corrected["notes"])


def test_pathology_can_be_added_later(live_server, finished_job) -> None:
    url = f"/api/predictions/{finished_job['id']}/truth"
    stored = live_server.post(url, json={"marker": "idh", "value": "mutant", "note": "R132H"})
    assert stored.status_code == 201 and stored.json()["value"] == "mutant"
    assert live_server.post(url, json={"marker": "mgmt", "value": "high"}).status_code == 422
    mistyped = live_server.post(url, json={"marker": "idh", "value": "mutnat"})
    assert mistyped.status_code == 422 and "use mutant or wild type" in mistyped.json()["detail"]
    later = live_server.post(url, json={"marker": "ki67", "value": "high"})
    assert live_server.get(url).json() == [later.json(), stored.json()]
    assert live_server.get("/api/predictions/nothing/truth").status_code == 404
    line = next(
        one
        for one in live_server.get("/api/audit").json()
        if one["action"] == "truth told" and one["detail"] == {"marker": "idh"}
    )
    assert line["subject"] == finished_job["id"]


def test_a_removed_study_is_deleted_and_its_result_is_kept(live_server, make_patient_folder) -> None:
    study = live_server.upload_and_prepare(make_patient_folder(1))
    job = live_server.predict_and_wait(study["id"])
    assert live_server.delete(f"/api/studies/{study['id']}").status_code == 204
    assert live_server.get(f"/api/studies/{study['id']}").status_code == 404
    assert not live_server.server.store.get_study_folder(study["id"]).exists()
    assert live_server.get(f"/api/predictions/{job['id']}").json()["result"] == job["result"]
    assert live_server.get(f"/api/predictions/{job['id']}/report.html").status_code == 410


def test_models_are_described(live_server) -> None:
    assert live_server.server.worker_pool.wait_for_models(300)
    (model,) = live_server.get("/api/models").json()
    assert model["name"] == "tiny" and model["sequences"] == ["T1C", "FLAIR"]
    assert [marker["positive"] for marker in model["markers"]] == ["mutant", "high"]
    assert model["can_locate_lesion"] is is_atlas_installed()
    assert live_server.get("/api/health").json()["status"] == "ok"
