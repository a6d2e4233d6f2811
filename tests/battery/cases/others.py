"""``explain``, ``cohort anonymise``, ``cohort build`` and many patients at once: bad ones among good ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

from pydicom import dcmread
from tests.battery.case import Case, Partly, Scene, answered, refused
from tests.battery.cases.dicom import ALL, LOST, edit, nested, private, tags
from tests.battery.cases.pictures import OTHERS, in_place
from tests.battery.cases.volumes import FLAIR, as_itk, gzip_bomb, header, line
from tests.battery.ground import PATIENT, read_answer
from tests.battery.kit import (
    Change,
    both,
    cut,
    instead_of_all,
    lay,
    link,
    noise,
    on,
    patient,
    pipe,
    put,
    take_away,
)

LABELS = f"id,age,sex,idh_mutant\n{PATIENT},50,M,1\n"
CLAIM = on(ALL, tags(NumberOfFrames=10**9))
NDIMS = as_itk(".mha", line(b"NDims", b"77000"))
BOMB = on(FLAIR, lambda content: gzip_bomb(1 << 30, b"x" * 400))
POSTSCRIPT = in_place("png", OTHERS["PostScript"])

# name, kind, form, change, what is said
BAD: tuple[tuple[str, str, str, Change, tuple[str, ...]], ...] = (
    ("a cut volume", "truncation", "volumes", on(FLAIR, cut(0.5)), ("volume-damaged", "volume-short")),
    ("a volume claiming 32767 cubed", "impossible dimensions", "volumes",
     on(FLAIR, header(dim=(3, 32767, 32767, 32767))), ("volume-huge",)),
    ("a MetaImage of NDims 77000", "impossible dimensions", "volumes", NDIMS, ("volume-header",)),
    ("a NIfTI bomb", "bomb", "volumes", BOMB, ("volume-damaged", "volume-short", "volume-header")),
    ("a volume that names /etc/passwd", "names another file", "volumes",
     as_itk(".mhd", line(b"ElementDataFile", b"/etc/passwd")), ("volume-data-outside",)),
    ("PostScript for a picture", "another format", "pictures", POSTSCRIPT, ("picture-damaged",)),
    ("a picture cut", "truncation", "pictures", on("FLAIR/009.png", cut(0.5)), ("picture-damaged",)),
    ("a pipe for a slice", "pipe", "pictures", pipe("FLAIR/009.png"), ("picture-names-differ",)),
    ("10^9 frames", "bomb", "classic", CLAIM, ("dicom-frames", *LOST)),
    ("sequences 10 000 deep", "nested", "classic", on(ALL, nested(10_000)), LOST),
    ("a tag that claims 4 GB", "length lie", "classic", on(ALL, private(10, 0xFFFFFFF0)), LOST),
    ("no FLAIR", "missing part", "volumes", take_away(FLAIR), ("sequence-missing",)),
)  # fmt: skip


def explained(name: str, kind: str, form: str, change: Change, says: tuple[str, ...]) -> Case:
    return refused("explain", f"patient with {name}", kind, patient(form, change), *says)


# ---- a hospital's export ----------------------------------------------------------------------------


def hospital(form: str, *changes: Change, labels: bytes | str = LABELS) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        folder = scene.folder / "hospital" / PATIENT
        shutil.copytree(scene.ground / form / PATIENT, folder)
        for change in changes:
            change(folder)
        lay("labels.csv", labels)(scene)

    return make


def built(name: str, kind: str, form: str, change: Change, says: tuple[str, ...]) -> Case:
    return refused("cohort build", f"patient with {name}", kind, hospital(form, change), *says, "No patient")


def labelled(name: str, kind: str, labels: bytes | str, *says: str) -> Case:
    return refused("cohort build", f"labels {name}", kind, hospital("volumes", labels=labels), *says)


def kept(scene: Scene) -> str:
    records = list((scene.folder / "cohort" / "patients").glob("*.json"))
    return "" if len(records) == 1 else f"{len(records)} patients were prepared, expected 1"


BUILDS = [
    labelled("of nothing", "missing part", "", "table-no-id"),
    labelled("of zeros", "another format", bytes(900), "table-encoding"),
    labelled("with a Ki-67 of 900", "impossible value", f"id,age,sex,ki67\n{PATIENT},50,M,900\n", "percent-above",
             "ki67"),
    labelled("with an IDH of perhaps", "impossible value", f"id,age,sex,idh\n{PATIENT},50,M,perhaps\n",
             "cell-refused", "cell-not-understood", "idh"),
    labelled("with an endless age", "NaN and inf", f"id,age,sex\n{PATIENT},inf,M\n", "age-not-number"),
    labelled("of another patient", "mixed patients", "id,age,sex\nX9,50,M\n", "row-missing", "No patient"),
    labelled("with two ages", "duplicates", f"id,age,age,sex\n{PATIENT},50,51,M\n", "table-column-twice",
             "table-two-meanings", "labels-two-meanings", "table-id-twice"),
    refused("cohort build", "hospital that is empty", "missing part", both(
        lambda scene: (scene.folder / "hospital").mkdir(), lay("labels.csv", LABELS)), "No patient"),
    refused("cohort build", "hospital that is a file", "another kind", both(
        lay("hospital", "x"), lay("labels.csv", LABELS)), "is not a folder"),
    refused("cohort build", "cohort inside the hospital", "another kind", hospital("volumes"), "lies inside",
            words="cohort build hospital --labels labels.csv --out hospital/cohort --sequences T1C,FLAIR --workers 0"),
    refused("cohort build", "cohort.json of chance", "noise", both(
        hospital("volumes"), lay("cohort/cohort.json", noise(1)(bytes(300)))), "cohort-record-damaged"),
    answered("cohort build", "volumes with a loop beside them", "odd but healthy",
             hospital("volumes", link("again", ".")), kept),
    answered("cohort build", "DICOM with strange files beside it", "odd but healthy",
             hospital("classic", put("notes.txt", "x"), put("x.dcm", "no DICOM"), pipe("pipe")), kept),
]  # fmt: skip


# ---- clean DICOM ------------------------------------------------------------------------------------


def anonymised(name: str, kind: str, change: Change, *says: str) -> Case:
    return refused(
        "cohort anonymise", f"files {name}", kind, patient("classic", take_away("T1C"), change), *says
    )


def no_name_left(scene: Scene) -> str:
    clean = [dcmread(file) for file in (scene.folder / "clean").rglob("*") if file.is_file()]
    named = [
        one
        for one in clean
        if "Phantom" in str(one.get("PatientName", "")) or one.get("PatientID") == PATIENT
    ]
    return "" if clean and not named else f"{len(clean)} files, {len(named)} of them with the name"


ANONYMISED = [
    anonymised("of texts", "another format", on(ALL, instead_of_all(b"hello\n" * 99)), "no DICOM", "not DICOM"),
    anonymised("of nothing", "truncation", on(ALL, cut(0.0)), "no DICOM", "not DICOM"),
    refused("cohort anonymise", "folder that is not there", "missing part", lambda scene: None, "is not a folder",
            "does not exist"),
    refused("cohort anonymise", "output inside the input", "another kind", patient("classic"), "inside", "itself",
            words=f"cohort anonymise {PATIENT} --out {PATIENT}/clean"),
    answered("cohort anonymise", "files with one that is cut", "odd but healthy",
             patient("classic", on("FLAIR/009.dcm", cut(200))), no_name_left),
    answered("cohort anonymise", "files with names in a nest of private tags", "odd but healthy",
             patient("classic", on(ALL, edit(lambda one: one.add_new(0x00291010, "LO", "Phantom^Seven")))),
             no_name_left),
]  # fmt: skip


# ---- many patients ----------------------------------------------------------------------------------


def many(*bad: tuple[str, Change]) -> Callable[[Scene], None]:
    """A healthy patient, the bad ones, and another healthy one."""

    def make(scene: Scene) -> None:
        root = scene.folder / "patients"
        shutil.copytree(scene.ground / "volumes" / PATIENT, root / "A01")
        for number, (form, change) in enumerate(bad):
            shutil.copytree(scene.ground / form / PATIENT, root / f"B{number:02d}")
            change(root / f"B{number:02d}")
        shutil.copytree(scene.ground / "volumes" / PATIENT, root / "C01")

    return make


def goods_are_answered(scene: Scene) -> str:
    """Beside the bad ones, which have no folder."""
    expected = json.loads((scene.ground / "answers.json").read_text())["volumes"]["idh"]
    out = scene.folder / "out"
    for name in ("A01", "C01"):
        if not (out / name).is_dir():
            return f"{name} was not answered"
        if abs(read_answer(out / name)["idh"] - expected) > 0.03:
            return f"{name} was answered wrongly"
    strange = {path.name for path in out.iterdir()} - {"A01", "C01", "predictions.csv"}
    return f"something is left: {sorted(strange)}" if strange else ""


FORMS = {name: (form, change) for name, _, form, change, _ in BAD}


def among(*bad: str, kind: str) -> Case:
    """Each bad one is named in a sentence, and the healthy ones are answered."""
    expects = Partly(tuple(f"B{number:02d}: " for number in range(len(bad))), goods_are_answered)
    make = many(*(FORMS[name] for name in bad))
    return Case("predict many", f"patients of whom some have {' and '.join(bad)}", kind, make, expects)


MANY = [
    among("a MetaImage of NDims 77000", "a NIfTI bomb", kind="bomb"),
    among("10^9 frames", "sequences 10 000 deep", "a tag that claims 4 GB", kind="nested"),
    among("PostScript for a picture", "a picture cut", "a pipe for a slice", kind="another format"),
    among("a cut volume", "a volume that names /etc/passwd", "no FLAIR", kind="truncation"),
]

CASES = [
    *[explained(*one) for one in BAD],
    *[built(*one) for one in BAD[:-1]],
    *BUILDS,
    *ANONYMISED,
    *MANY,
]
