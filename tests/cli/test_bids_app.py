"""``gliomark-bids``: a BIDS tree in, a BIDS derivative out, in the contract of BIDS Apps."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.conftest import find_program
from tests.pipeline.conftest import CommandResult, KeptReaderPool, Volume, draw_patient, write_volumes

from gliomark import cli
from gliomark.batch.bids_app import _describe_columns
from gliomark.cli.bids_app import expand_labels

DESCRIPTION = {
    "Name": "Synthetic glioma",
    "BIDSVersion": "1.10.0",
    "DatasetType": "raw",
    "License": "CC0",
    "Authors": ["gliomark contributors"],
}
SUFFIXES = {"T1C": "ce-gadolinium_T1w", "FLAIR": "FLAIR"}
SUBJECTS = {"sub-01": "", "sub-02": "ses-preop", "sub-03": ""}
RunBIDS = Callable[..., CommandResult]


def write_bids(root: Path, subjects: dict[str, str], images: dict[str, Volume]) -> Path:
    """Write a raw BIDS data set; subjects: session by subject, "" for none."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    (root / "README").write_text("Synthetic images for tests.")
    for number, (subject, session) in enumerate(subjects.items()):
        anat = root / subject / session / "anat"
        drawn = write_volumes(root / "drawn", images if number == 0 else draw_patient(number))
        anat.mkdir(parents=True)
        stem = f"{subject}_{session}" if session else subject
        for name, suffix in SUFFIXES.items():
            (drawn / f"某人 {name}.nii.gz").rename(anat / f"{stem}_{suffix}.nii.gz")
            (anat / f"{stem}_{suffix}.json").write_text(json.dumps({"Manufacturer": "none"}))
        shutil.rmtree(drawn)
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, drawn_images: dict[str, Volume]) -> Path:
    """Two participants with age and sex, one of them with a session, and a third without age."""
    root = write_bids(tmp_path_factory.mktemp("bids") / "raw", SUBJECTS, drawn_images)
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t50\tM\nsub-02\t61.5\tF\nsub-03\tn/a\tF\n"
    )
    return root


@pytest.fixture(scope="module")
def run_bids(reader_pool: KeptReaderPool) -> RunBIDS:
    """Return run("participant", ...), which runs the command line in this process."""

    def run(*arguments: object) -> CommandResult:
        output = {name: [] for name in ("stdout", "stderr")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gliomark.isolation.ReaderPool", lambda *_: reader_pool)
            patch.setattr(sys, "argv", ["gliomark-bids", *map(str, arguments)])
            patch.setattr(
                "typer.echo",
                lambda text="", err=False: output["stderr" if err else "stdout"].append(str(text)),
            )
            status: object = 0
            try:
                cli.run_bids()
            except SystemExit as end:
                status = end.code
        texts = ["\n".join(lines) for lines in output.values()]
        return CommandResult(status if isinstance(status, int) else 0, *texts)

    return run


@pytest.fixture(scope="module")
def derivative(
    raw: Path, run_bids: RunBIDS, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The derivative of all participants, both levels, in two runs of the participant level as on a cluster."""
    out = tmp_path_factory.mktemp("derivatives") / "gliomark"
    common = ("--model", tiny_weights, "--quiet")
    ended = run_bids(raw, out, "participant", "--participant-label", "01", "sub-02", *common)
    assert ended.status == 0, ended.stderr
    ended = run_bids(
        raw, out, "participant", "--participant_label", "03", "--allow-missing-clinical", *common
    )
    assert ended.status == 0, ended.stderr
    ended = run_bids(raw, out, "group")
    assert (ended.status, ended.stdout) == (0, str(out / "phenotype" / "gliomark.tsv")), ended.stderr
    return out


def list_files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_the_derivative_has_the_names_of_bids(derivative: Path) -> None:
    stems = {
        "sub-01": "sub-01/anat/sub-01_ce-gadolinium",
        "sub-02": "sub-02/ses-preop/anat/sub-02_ses-preop_ce-gadolinium",
        "sub-03": "sub-03/anat/sub-03_ce-gadolinium",
    }
    expected = {
        ".bidsignore",
        "README",
        "dataset_description.json",
        "phenotype/gliomark.json",
        "phenotype/gliomark.tsv",
    }
    for subject, stem in stems.items():
        expected |= {f"{stem}_desc-lesion_mask.nii.gz", f"{stem}_desc-lesion_mask.json"}
        expected |= {f"{subject}/{name}" for name in (".request.json", "prediction.json", "report.html")}
    assert list_files(derivative) == expected


def test_the_description_names_program_and_input(derivative: Path, raw: Path) -> None:
    description = read_json(derivative / "dataset_description.json")
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "gliomark" and description["GeneratedBy"][0]["Version"]
    assert description["DatasetLinks"] == {"raw": raw.as_uri()}


def test_each_mask_is_on_the_grid_of_its_source(derivative: Path, raw: Path) -> None:
    for subject, session in SUBJECTS.items():
        (mask_file,) = (derivative / subject / session / "anat").glob("*.nii.gz")
        sidecar = read_json(mask_file.with_name(mask_file.name.replace(".nii.gz", ".json")))
        assert sidecar["Type"] == "Lesion"
        (source,) = sidecar["Sources"]
        image, mask = nib.load(raw / source.removeprefix("bids:raw:")), nib.load(mask_file)
        assert source.endswith("_ce-gadolinium_T1w.nii.gz")
        assert mask.shape == image.shape and np.allclose(mask.affine, image.affine, atol=1e-4)
        count = int(np.count_nonzero(np.asarray(mask.dataobj)))
        assert sidecar["LesionStatistics"]["voxels"] == count > 0


def test_age_and_sex_are_those_of_the_participants_table(derivative: Path) -> None:
    documents = {subject: read_json(derivative / subject / "prediction.json") for subject in SUBJECTS}
    found = {subject: (one["age"], one["sex"]) for subject, one in documents.items()}
    assert found == {"sub-01": (50, 0), "sub-02": (61.5, 1), "sub-03": (None, 1)}


def test_the_group_level_collects_what_the_participants_have(derivative: Path) -> None:
    with (derivative / "phenotype/gliomark.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["participant_id"] for row in rows] == list(SUBJECTS)
    for row in rows:
        document = read_json(derivative / row["participant_id"] / "prediction.json")
        assert float(row["lesion_volume_ml"]) == document["lesion"]["volume_ml"]
        for marker in document["markers"]:
            assert row[f"{marker['marker']}_level"] == marker["level"]
    described = read_json(derivative / "phenotype/gliomark.json")
    assert set(described) == {"MeasurementToolMetadata", *rows[0]} - {"participant_id"}
    assert "what idh 标签 means" in described["idh_probability"]["Description"]


def test_missing_age_is_refused_without_the_option(
    raw: Path, run_bids: RunBIDS, tiny_weights: Path, tmp_path: Path
) -> None:
    ended = run_bids(
        raw, tmp_path / "out", "participant", "--participant-label", "03", "--model", tiny_weights
    )
    assert ended.status == 1 and "sub-03" in ended.stderr and "age" in ended.stderr
    assert not (tmp_path / "out" / "sub-03").exists()


def damage_nothing(raw: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        (
            lambda raw: (raw / "dataset_description.json").unlink(),
            ["participant"],
            "dataset_description.json",
        ),
        (damage_nothing, ["participant", "--participant-label", "09", "01"], "sub-09"),
        (lambda raw: (raw / "participants.tsv").unlink(), ["participant"], "participants.tsv"),
        (lambda raw: shutil.rmtree(raw / "sub-01"), ["participant"], "sub-*"),
        (damage_nothing, ["group"], "run the level 'participant' first"),
    ],
)
def test_what_a_person_can_mend_is_one_sentence(
    change: Callable[[Path], object],
    arguments: list[str],
    expected: str,
    run_bids: RunBIDS,
    tmp_path: Path,
    drawn_images: dict[str, Volume],
) -> None:
    raw = write_bids(tmp_path / "raw", {"sub-01": ""}, drawn_images)
    (raw / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t50\tM\n")
    change(raw)
    ended = run_bids(raw, tmp_path / "out", *arguments)
    assert ended.status == 1 and expected in ended.stderr and ended.stderr.count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("level", ["participant", "group"])
def test_the_input_and_foreign_data_sets_are_never_written_to(
    level: str, raw: Path, run_bids: RunBIDS, tiny_weights: Path, tmp_path: Path
) -> None:
    before = list_files(raw)
    shutil.copytree(raw, tmp_path / "other")
    for folder in (raw, tmp_path / "other"):
        ended = run_bids(raw, folder, level, "--model", tiny_weights)
        assert ended.status == 1 and "derivatives/gliomark" in ended.stderr
        assert list_files(folder) == before


def test_a_subjects_own_images_are_not_a_result(
    raw: Path, run_bids: RunBIDS, tiny_weights: Path, tmp_path: Path
) -> None:
    """Even without a description of the data set, a folder with images is not replaced."""
    out = tmp_path / "out"
    shutil.copytree(raw / "sub-01", out / "sub-01")
    before = list_files(out)
    ended = run_bids(raw, out, "participant", "--participant-label", "01", "--model", tiny_weights)
    assert ended.status == 1 and "sub-01_FLAIR" in ended.stderr
    assert {name for name in list_files(out) if name.startswith("sub-01")} == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("in out group", "in out group"),
        ("in out participant --participant-label 01", "in out participant --participant-label 01"),
        (
            "in out participant --participant_label 01 02 --quiet",
            "in out participant --participant-label 01 --participant-label 02 --quiet",
        ),
        ("--participant-label 01 -- in out group", "--participant-label 01 -- in out group"),
    ],
)
def test_labels_are_one_list(given: str, expected: str) -> None:
    assert expand_labels(given.split()) == expected.split()


def test_a_marker_whose_name_begins_another_s_has_its_own_columns() -> None:
    markers = [{"marker": name, "label": f"what {name} means"} for name in ("egfr", "egfr_amp")]
    described = _describe_columns(
        ["egfr_probability", "egfr_amp_probability", "egfr_amp_level"], [{"markers": markers}]
    )
    assert described["egfr_probability"]["Description"].endswith("(what egfr means)")
    assert described["egfr_amp_level"]["Description"].endswith("(what egfr_amp means)")


def test_the_validator_of_bids_finds_no_error(derivative: Path, raw: Path) -> None:
    validator = find_program("bids-validator-deno", "pip install bids-validator-deno")
    for folder in (raw, derivative):
        ended = subprocess.run(
            [validator, "--format", "json", folder], capture_output=True, text=True, timeout=300
        )
        issues = json.loads(ended.stdout)["issues"]["issues"]
        errors = [one for one in issues if one["severity"] == "error"]
        assert ended.returncode == 0 and not errors, errors
