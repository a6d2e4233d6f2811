"""Patient folders with links, pipes, devices, loops, missing permissions, unusual names, many files, and archives."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.battery.cases_and_results import Case, CaseFolders, expect_answer, expect_refusal
from tests.battery.changes import (
    FolderChange,
    compare_with_healthy_answer,
    copy_patient,
    delete_files,
    link_file,
    make_fifo,
    rename_file,
    write_file,
)
from tests.battery.healthy_inputs import PATIENT

DOOR = "predict"
FLAIR = "FLAIR.nii.gz"


def create_folder_case(
    name: str, kind: str, *changes: FolderChange, says: tuple[str, ...], form: str = "volumes"
) -> Case:
    return expect_refusal(DOOR, f"folder {name}", kind, copy_patient(form, *changes), *says)


def create_only_folders(*names: str | bytes) -> Callable[[CaseFolders], None]:
    """Create a patient folder with only these empty subfolders."""

    def make(scene: CaseFolders) -> None:
        (scene.folder / PATIENT).mkdir()
        for name in names:
            os.makedirs(os.path.join(os.fsencode(scene.folder / PATIENT), os.fsencode(name)))

    return make


def create_unix_socket(name: str) -> FolderChange:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        working_folder = os.getcwd()
        os.chdir(folder)  # the path of a socket is limited to 108 bytes
        socket.socket(socket.AF_UNIX).bind(name)
        os.chdir(working_folder)

    return change


def create_deep_folders(levels: int) -> FolderChange:
    def change(folder: Path) -> None:
        working_folder = os.getcwd()
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        os.chdir(working_folder)

    return change


def create_many_files(count: int, suffix: str = ".txt") -> FolderChange:
    def change(folder: Path) -> None:
        (folder / "more").mkdir()
        for number in range(count):
            (folder / "more" / f"{number}{suffix}").touch()

    return change


def create_undecodable_name(name: bytes, content: bytes = b"x") -> FolderChange:
    def change(folder: Path) -> None:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(content)

    return change


def create_zip(entries: dict[str, bytes], link_to: str = "") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if link_to:
            entry = zipfile.ZipInfo("T1C.nii.gz")
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, link_to)
    return packed.getvalue()


MISSING = ("sequence-missing",)
NOTHING = ("folder-links", "folder-no-images", "folder-empty")

SPECIAL = [
    create_folder_case(
        "whose FLAIR is a link to /etc/passwd", "link", link_file(FLAIR, "/etc/passwd"), says=MISSING
    ),
    create_folder_case(
        "whose FLAIR is a link to the image elsewhere",
        "link",
        link_file(FLAIR, "../flair.nii.gz", keep_original=True),
        says=MISSING,
    ),
    create_folder_case("whose FLAIR is a link to itself", "loop", link_file(FLAIR, FLAIR), says=MISSING),
    create_folder_case("whose FLAIR is a link to nothing", "link", link_file(FLAIR, "nothing"), says=MISSING),
    create_folder_case(
        "whose FLAIR is a link to /dev/zero", "device", link_file(FLAIR, "/dev/zero"), says=MISSING
    ),
    create_folder_case("whose FLAIR is a pipe", "pipe", make_fifo(FLAIR), says=MISSING),
    create_folder_case(
        "whose FLAIR is a socket",
        "device",
        create_unix_socket("FLAIR.nii"),
        delete_files(FLAIR),
        says=MISSING,
    ),
    create_folder_case(
        "whose pictures' folder is a link",
        "link",
        link_file("FLAIR", "../away", keep_original=True),
        says=MISSING,
        form="pictures",
    ),
    create_folder_case(
        "with a pipe among the slices",
        "pipe",
        make_fifo("FLAIR/009.png"),
        says=("picture-names-differ",),
        form="pictures",
    ),
    create_folder_case(
        "with a link among the slices",
        "link",
        link_file("FLAIR/009.png", "010.png"),
        says=("picture-names-differ",),
        form="pictures",
    ),
    create_folder_case(
        "whose slice is a link to a device",
        "device",
        link_file("FLAIR/009.png", "/dev/urandom"),
        says=("picture-names-differ",),
        form="pictures",
    ),
    create_folder_case(
        "of DICOM with a folder that leads back",
        "loop",
        delete_files("FLAIR"),
        link_file("FLAIR", "."),
        says=MISSING,
        form="classic",
    ),
    create_folder_case(
        "whose volumes are folders",
        "another kind",
        delete_files("*.gz"),
        write_file("T1C.nii.gz/a.txt", "x"),
        write_file("FLAIR.nii.gz/a.txt", "x"),
        says=("folder-no-images",),
    ),
    expect_refusal(DOOR, "folder that is empty", "missing part", create_only_folders(), "folder-empty"),
    expect_refusal(
        DOOR,
        "folder of empty folders",
        "missing part",
        create_only_folders("T1C", "FLAIR", "a/b/c"),
        "folder-no-images",
        "picture-folder-empty",
    ),
    expect_refusal(DOOR, "folder that is not there", "missing part", lambda scene: None, "folder-missing"),
    expect_refusal(
        DOOR,
        "folder that is a file",
        "another kind",
        lambda scene: (scene.folder / PATIENT).touch(),
        "folder-is-file",
    ),
    expect_refusal(
        DOOR,
        "folder that is a pipe",
        "pipe",
        lambda scene: os.mkfifo(scene.folder / PATIENT),
        "folder-is-file",
        "folder-unlisted",
        "folder-no-images",
    ),
    expect_refusal(
        DOOR,
        "folder that is a link to itself",
        "loop",
        lambda scene: (scene.folder / PATIENT).symlink_to(PATIENT),
        "folder-missing",
        "folder-unlisted",
    ),
    expect_refusal(
        DOOR,
        "folder with 255 bytes in its name that is not there",
        "names",
        lambda scene: None,
        "folder-missing",
        arguments=f"predict {'x' * 255} --out out --allow-missing-clinical",
    ),
    expect_refusal(
        DOOR,
        "folder with 5000 bytes in its name",
        "names",
        lambda scene: None,
        "folder-missing",
        "check the path",
        arguments=f"predict {'x' * 5000} --out out --allow-missing-clinical",
    ),
]

ARCHIVES = [
    create_folder_case(
        "of a zip that leads out",
        "zip slip",
        delete_files("*"),
        write_file("export.zip", lambda: create_zip({"../../evil.dcm": bytes(400), "/evil.dcm": bytes(400)})),
        says=(*NOTHING, "archive-unreadable", "dicom"),
    ),
    create_folder_case(
        "of a zip bomb",
        "bomb",
        delete_files("*"),
        write_file("export.zip", lambda: create_zip({f"{n}.dcm": bytes(1 << 28) for n in range(24)})),
        says=("archive-huge", *NOTHING, "archive-unreadable"),
    ),
    create_folder_case(
        "of a damaged zip",
        "truncation",
        delete_files("*"),
        write_file("export.zip", lambda: create_zip({"a.dcm": bytes(4000)})[:-40]),
        says=(*NOTHING, "archive-unreadable"),
    ),
    create_folder_case(
        "of a zip with a link",
        "link",
        delete_files("*"),
        write_file("export.zip", lambda: create_zip({}, "/etc/passwd")),
        says=(*NOTHING, "archive-unreadable", "dicom"),
    ),
    create_folder_case(
        "of a file that calls itself DICOM and zip",
        "polyglot",
        delete_files("*"),
        write_file("a.dcm", lambda: bytes(128) + b"DICM" + create_zip({"x": b"y"})),
        says=("dicom", *NOTHING),
    ),
]


def create_healthy_case(name: str, *changes: FolderChange, form: str = "volumes") -> Case:
    return expect_answer(
        DOOR,
        f"folder {name}",
        "odd but healthy",
        copy_patient(form, *changes),
        compare_with_healthy_answer(form),
    )


def link_patient_folder(scene: CaseFolders) -> None:
    copy_patient("volumes")(scene)
    (scene.folder / PATIENT).rename(scene.folder / "elsewhere")
    (scene.folder / PATIENT).symlink_to("elsewhere")


ODD = [
    create_healthy_case("with 10 000 more files", create_many_files(10_000)),
    create_healthy_case(
        "with 2000 more files that begin like DICOM", create_many_files(2_000, ".dcm"), form="volumes"
    ),
    create_healthy_case("200 levels deep", create_deep_folders(200)),
    create_healthy_case("1500 levels deep", create_deep_folders(1500)),
    create_healthy_case(
        "with bytes that are no text in a name", create_undecodable_name(b"caf\xe9 \xff.txt")
    ),
    create_healthy_case("with a line end in a name", write_file("notes\r\nT1C: x.txt", "x")),
    create_healthy_case("with a name of 255 bytes", write_file("x" * 251 + ".txt", "x")),
    create_healthy_case(
        "with names of Windows",
        write_file("CON.txt", "x"),
        write_file("a:b.txt", "x"),
        write_file("aux", "x"),
        write_file("x\\y.txt", "x"),
    ),
    create_healthy_case("with a pipe nobody needs", make_fifo("notes")),
    create_healthy_case("with a loop nobody needs", link_file("more", ".")),
    create_healthy_case(
        "of DICOM beside a pipe and a link to a device",
        make_fifo("x.dcm"),
        link_file("y.dcm", "/dev/zero"),
        form="classic",
    ),
    create_healthy_case("with a right-to-left mark in a name", rename_file(FLAIR, "\u202eflair.nii.gz")),
    expect_answer(
        DOOR,
        "folder that is a link",
        "odd but healthy",
        link_patient_folder,
        compare_with_healthy_answer("volumes"),
    ),
]

CASES = [*SPECIAL, *ARCHIVES, *ODD]
