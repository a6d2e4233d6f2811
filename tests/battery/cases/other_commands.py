"""Cases for ``explain``, ``cohort anonymise``, ``cohort build``, and damaged patients among healthy ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

from pydicom import dcmread
from tests.battery.cases.dicom import (
    ALL,
    SERIES_LOST,
    edit_object,
    insert_nested_sequence,
    insert_private_element,
    set_tags,
)
from tests.battery.cases.pictures import OTHER_FORMATS, replace_slice
from tests.battery.cases.volumes import (
    FLAIR,
    create_gzip_bomb,
    save_with_itk,
    set_header_fields,
    set_header_line,
)
from tests.battery.cases_and_results import (
    Case,
    CaseFolders,
    ExpectedPartialRefusal,
    expect_answer,
    expect_refusal,
)
from tests.battery.changes import (
    FolderChange,
    change_files,
    copy_patient,
    corrupt_bytes,
    delete_files,
    link_file,
    make_fifo,
    replace_content,
    run_all,
    truncate_bytes,
    write_case_file,
    write_file,
)
from tests.battery.healthy_inputs import PATIENT, read_answer

LABELS = f"id,age,sex,idh_mutant\n{PATIENT},50,M,1\n"
CLAIM = change_files(ALL, set_tags(NumberOfFrames=10**9))
NDIMS = save_with_itk(".mha", set_header_line(b"NDims", b"77000"))
BOMB = change_files(FLAIR, lambda content: create_gzip_bomb(1 << 30, b"x" * 400))
POSTSCRIPT = replace_slice("png", OTHER_FORMATS["PostScript"])

# name, kind, form, change, expected messages
BAD: tuple[tuple[str, str, str, FolderChange, tuple[str, ...]], ...] = (
    (
        "a cut volume",
        "truncation",
        "volumes",
        change_files(FLAIR, truncate_bytes(0.5)),
        ("volume-damaged", "volume-short"),
    ),
    (
        "a volume claiming 32767 cubed",
        "impossible dimensions",
        "volumes",
        change_files(FLAIR, set_header_fields(dim=(3, 32767, 32767, 32767))),
        ("volume-huge",),
    ),
    ("a MetaImage of NDims 77000", "impossible dimensions", "volumes", NDIMS, ("volume-header",)),
    ("a NIfTI bomb", "bomb", "volumes", BOMB, ("volume-damaged", "volume-short", "volume-header")),
    (
        "a volume that names /etc/passwd",
        "names another file",
        "volumes",
        save_with_itk(".mhd", set_header_line(b"ElementDataFile", b"/etc/passwd")),
        ("volume-data-outside",),
    ),
    ("PostScript for a picture", "another format", "pictures", POSTSCRIPT, ("picture-damaged",)),
    (
        "a picture cut",
        "truncation",
        "pictures",
        change_files("FLAIR/009.png", truncate_bytes(0.5)),
        ("picture-damaged",),
    ),
    ("a pipe for a slice", "pipe", "pictures", make_fifo("FLAIR/009.png"), ("picture-names-differ",)),
    ("10^9 frames", "bomb", "classic", CLAIM, ("dicom-frames", *SERIES_LOST)),
    (
        "sequences 10 000 deep",
        "nested",
        "classic",
        change_files(ALL, insert_nested_sequence(10_000)),
        SERIES_LOST,
    ),
    (
        "a tag that claims 4 GB",
        "length lie",
        "classic",
        change_files(ALL, insert_private_element(10, 0xFFFFFFF0)),
        SERIES_LOST,
    ),
    ("no FLAIR", "missing part", "volumes", delete_files(FLAIR), ("sequence-missing",)),
)


def create_explain_case(name: str, kind: str, form: str, change: FolderChange, says: tuple[str, ...]) -> Case:
    return expect_refusal("explain", f"patient with {name}", kind, copy_patient(form, change), *says)


# ---- hospital export --------------------------------------------------------------------------------


def copy_hospital(
    form: str, *changes: FolderChange, labels: bytes | str = LABELS
) -> Callable[[CaseFolders], None]:
    def copy_and_change(scene: CaseFolders) -> None:
        folder = scene.folder / "hospital" / PATIENT
        shutil.copytree(scene.healthy_folder / form / PATIENT, folder)
        for change in changes:
            change(folder)
        write_case_file("labels.csv", labels)(scene)

    return copy_and_change


def create_build_case(name: str, kind: str, form: str, change: FolderChange, says: tuple[str, ...]) -> Case:
    return expect_refusal(
        "cohort build", f"patient with {name}", kind, copy_hospital(form, change), *says, "No patient"
    )


def create_labels_case(name: str, kind: str, labels: bytes | str, *says: str) -> Case:
    return expect_refusal(
        "cohort build", f"labels {name}", kind, copy_hospital("volumes", labels=labels), *says
    )


def check_one_patient_built(scene: CaseFolders) -> str:
    records = list((scene.folder / "cohort" / "patients").glob("*.json"))
    return "" if len(records) == 1 else f"{len(records)} patients were prepared, expected 1"


BUILDS = [
    create_labels_case("of nothing", "missing part", "", "table-no-id"),
    create_labels_case("of zeros", "another format", bytes(900), "table-encoding"),
    create_labels_case(
        "with a Ki-67 of 900",
        "impossible value",
        f"id,age,sex,ki67\n{PATIENT},50,M,900\n",
        "percent-above",
        "ki67",
    ),
    create_labels_case(
        "with an IDH of perhaps",
        "impossible value",
        f"id,age,sex,idh\n{PATIENT},50,M,perhaps\n",
        "cell-refused",
        "cell-not-understood",
        "idh",
    ),
    create_labels_case(
        "with an endless age", "NaN and inf", f"id,age,sex\n{PATIENT},inf,M\n", "age-not-number"
    ),
    create_labels_case(
        "of another patient", "mixed patients", "id,age,sex\nX9,50,M\n", "row-missing", "No patient"
    ),
    create_labels_case(
        "with two ages",
        "duplicates",
        f"id,age,age,sex\n{PATIENT},50,51,M\n",
        "table-column-twice",
        "table-two-meanings",
        "labels-two-meanings",
        "table-id-twice",
    ),
    expect_refusal(
        "cohort build",
        "hospital that is empty",
        "missing part",
        run_all(lambda scene: (scene.folder / "hospital").mkdir(), write_case_file("labels.csv", LABELS)),
        "No patient",
    ),
    expect_refusal(
        "cohort build",
        "hospital that is a file",
        "another kind",
        run_all(write_case_file("hospital", "x"), write_case_file("labels.csv", LABELS)),
        "is not a folder",
    ),
    expect_refusal(
        "cohort build",
        "cohort inside the hospital",
        "another kind",
        copy_hospital("volumes"),
        "lies inside",
        arguments="cohort build hospital --labels labels.csv --out hospital/cohort --sequences T1C,FLAIR --workers 0",
    ),
    expect_refusal(
        "cohort build",
        "cohort.json of chance",
        "noise",
        run_all(
            copy_hospital("volumes"), write_case_file("cohort/cohort.json", corrupt_bytes(1)(bytes(300)))
        ),
        "cohort-record-damaged",
    ),
    expect_answer(
        "cohort build",
        "volumes with a loop beside them",
        "odd but healthy",
        copy_hospital("volumes", link_file("again", ".")),
        check_one_patient_built,
    ),
    expect_answer(
        "cohort build",
        "DICOM with strange files beside it",
        "odd but healthy",
        copy_hospital(
            "classic", write_file("notes.txt", "x"), write_file("x.dcm", "no DICOM"), make_fifo("pipe")
        ),
        check_one_patient_built,
    ),
]


# ---- anonymisation ----------------------------------------------------------------------------------


def create_anonymise_case(name: str, kind: str, change: FolderChange, *says: str) -> Case:
    return expect_refusal(
        "cohort anonymise", f"files {name}", kind, copy_patient("classic", delete_files("T1C"), change), *says
    )


def check_names_removed(scene: CaseFolders) -> str:
    clean = [dcmread(file) for file in (scene.folder / "clean").rglob("*") if file.is_file()]
    named = [
        one
        for one in clean
        if "Phantom" in str(one.get("PatientName", "")) or one.get("PatientID") == PATIENT
    ]
    return "" if clean and not named else f"{len(clean)} files, {len(named)} of them with the name"


ANONYMISED = [
    create_anonymise_case(
        "of texts",
        "another format",
        change_files(ALL, replace_content(b"hello\n" * 99)),
        "no DICOM",
        "not DICOM",
    ),
    create_anonymise_case(
        "of nothing", "truncation", change_files(ALL, truncate_bytes(0.0)), "no DICOM", "not DICOM"
    ),
    expect_refusal(
        "cohort anonymise",
        "folder that is not there",
        "missing part",
        lambda scene: None,
        "is not a folder",
        "does not exist",
    ),
    expect_refusal(
        "cohort anonymise",
        "output inside the input",
        "another kind",
        copy_patient("classic"),
        "inside",
        "itself",
        arguments=f"cohort anonymise {PATIENT} --out {PATIENT}/clean",
    ),
    expect_answer(
        "cohort anonymise",
        "files with one that is cut",
        "odd but healthy",
        copy_patient("classic", change_files("FLAIR/009.dcm", truncate_bytes(200))),
        check_names_removed,
    ),
    expect_answer(
        "cohort anonymise",
        "files with names in a nest of private tags",
        "odd but healthy",
        copy_patient(
            "classic",
            change_files(ALL, edit_object(lambda one: one.add_new(0x00291010, "LO", "Phantom^Seven"))),
        ),
        check_names_removed,
    ),
]


# ---- many patients ----------------------------------------------------------------------------------


def copy_many_patients(*bad: tuple[str, FolderChange]) -> Callable[[CaseFolders], None]:
    """Write a healthy patient, the damaged ones, and another healthy one."""

    def make(scene: CaseFolders) -> None:
        root = scene.folder / "patients"
        shutil.copytree(scene.healthy_folder / "volumes" / PATIENT, root / "A01")
        for number, (form, change) in enumerate(bad):
            shutil.copytree(scene.healthy_folder / form / PATIENT, root / f"B{number:02d}")
            change(root / f"B{number:02d}")
        shutil.copytree(scene.healthy_folder / "volumes" / PATIENT, root / "C01")

    return make


def check_healthy_patients(scene: CaseFolders) -> str:
    """Check the answers of the healthy patients, and that the damaged ones have no folder."""
    expected = json.loads((scene.healthy_folder / "answers.json").read_text())["volumes"]["idh"]
    out = scene.folder / "out"
    for name in ("A01", "C01"):
        if not (out / name).is_dir():
            return f"{name} was not answered"
        if abs(read_answer(out / name)["idh"] - expected) > 0.03:
            return f"{name} was answered wrongly"
    unexpected = {path.name for path in out.iterdir()} - {"A01", "C01", "predictions.csv"}
    return f"something is left: {sorted(unexpected)}" if unexpected else ""


FORMS = {name: (form, change) for name, _, form, change, _ in BAD}


def create_mixed_patients_case(*bad: str, kind: str) -> Case:
    """Create a case in which a message must name each damaged patient and the healthy ones must be predicted."""
    expects = ExpectedPartialRefusal(
        tuple(f"B{number:02d}: " for number in range(len(bad))), check_healthy_patients
    )
    make = copy_many_patients(*(FORMS[name] for name in bad))
    return Case("predict many", f"patients of whom some have {' and '.join(bad)}", kind, make, expects)


MANY = [
    create_mixed_patients_case("a MetaImage of NDims 77000", "a NIfTI bomb", kind="bomb"),
    create_mixed_patients_case(
        "10^9 frames", "sequences 10 000 deep", "a tag that claims 4 GB", kind="nested"
    ),
    create_mixed_patients_case(
        "PostScript for a picture", "a picture cut", "a pipe for a slice", kind="another format"
    ),
    create_mixed_patients_case(
        "a cut volume", "a volume that names /etc/passwd", "no FLAIR", kind="truncation"
    ),
]

CASES = [
    *[create_explain_case(*one) for one in BAD],
    *[create_build_case(*one) for one in BAD[:-1]],
    *BUILDS,
    *ANONYMISED,
    *MANY,
]
