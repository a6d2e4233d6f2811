"""Folders: links, pipes, devices, loops, permissions, names, depth, numbers, archives beside the images."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.battery.case import Case, Scene, answered, refused
from tests.battery.ground import PATIENT
from tests.battery.kit import (
    Change,
    link,
    patient,
    pipe,
    put,
    rename,
    same_answer,
    take_away,
)

DOOR = "predict"
FLAIR = "FLAIR.nii.gz"


def folder(name: str, kind: str, *changes: Change, says: tuple[str, ...], form: str = "volumes") -> Case:
    return refused(DOOR, f"folder {name}", kind, patient(form, *changes), *says)


def only(*names: str | bytes) -> Callable[[Scene], None]:
    """A patient's folder that holds nothing but these empty folders."""

    def make(scene: Scene) -> None:
        (scene.folder / PATIENT).mkdir()
        for name in names:
            os.makedirs(os.path.join(os.fsencode(scene.folder / PATIENT), os.fsencode(name)))

    return make


def unix_socket(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        here = os.getcwd()
        os.chdir(folder)  # a socket's path may be no longer than 108 bytes
        socket.socket(socket.AF_UNIX).bind(name)
        os.chdir(here)

    return change


def deep(levels: int) -> Change:
    def change(folder: Path) -> None:
        here = os.getcwd()
        os.chdir(folder)
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
        os.chdir(here)

    return change


def many(count: int, suffix: str = ".txt") -> Change:
    def change(folder: Path) -> None:
        (folder / "more").mkdir()
        for number in range(count):
            (folder / "more" / f"{number}{suffix}").touch()

    return change


def bytes_name(name: bytes, content: bytes = b"x") -> Change:
    def change(folder: Path) -> None:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(content)

    return change


def zip_of(entries: dict[str, bytes], link_to: str = "") -> bytes:
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
    folder("whose FLAIR is a link to /etc/passwd", "link", link(FLAIR, "/etc/passwd"), says=MISSING),
    folder("whose FLAIR is a link to the image elsewhere", "link", link(FLAIR, "../flair.nii.gz", away=True),
           says=MISSING),
    folder("whose FLAIR is a link to itself", "loop", link(FLAIR, FLAIR), says=MISSING),
    folder("whose FLAIR is a link to nothing", "link", link(FLAIR, "nothing"), says=MISSING),
    folder("whose FLAIR is a link to /dev/zero", "device", link(FLAIR, "/dev/zero"), says=MISSING),
    folder("whose FLAIR is a pipe", "pipe", pipe(FLAIR), says=MISSING),
    folder("whose FLAIR is a socket", "device", unix_socket("FLAIR.nii"), take_away(FLAIR), says=MISSING),
    folder("whose pictures' folder is a link", "link", link("FLAIR", "../away", away=True), says=MISSING,
           form="pictures"),
    folder("with a pipe among the slices", "pipe", pipe("FLAIR/009.png"), says=("picture-names-differ",),
           form="pictures"),
    folder("with a link among the slices", "link", link("FLAIR/009.png", "010.png"),
           says=("picture-names-differ",), form="pictures"),
    folder("whose slice is a link to a device", "device", link("FLAIR/009.png", "/dev/urandom"),
           says=("picture-names-differ",), form="pictures"),
    folder("of DICOM with a folder that leads back", "loop", take_away("FLAIR"), link("FLAIR", "."), says=MISSING,
           form="classic"),
    folder("whose volumes are folders", "another kind", take_away("*.gz"), put("T1C.nii.gz/a.txt", "x"),
           put("FLAIR.nii.gz/a.txt", "x"), says=("folder-no-images",)),
    refused(DOOR, "folder that is empty", "missing part", only(), "folder-empty"),
    refused(DOOR, "folder of empty folders", "missing part", only("T1C", "FLAIR", "a/b/c"), "folder-no-images",
            "picture-folder-empty"),
    refused(DOOR, "folder that is not there", "missing part", lambda scene: None, "folder-missing"),
    refused(DOOR, "folder that is a file", "another kind", lambda scene: (scene.folder / PATIENT).touch(),
            "folder-is-file"),
    refused(DOOR, "folder that is a pipe", "pipe", lambda scene: os.mkfifo(scene.folder / PATIENT), "folder-is-file",
            "folder-unlisted", "folder-no-images"),
    refused(DOOR, "folder that is a link to itself", "loop",
            lambda scene: (scene.folder / PATIENT).symlink_to(PATIENT), "folder-missing", "folder-unlisted"),
    refused(DOOR, "folder with 255 bytes in its name that is not there", "names", lambda scene: None,
            "folder-missing", words=f"predict {'x' * 255} --out out --without-clinical"),
    refused(DOOR, "folder with 5000 bytes in its name", "names", lambda scene: None,
            "folder-missing", "check the path", words=f"predict {'x' * 5000} --out out --without-clinical"),
]  # fmt: skip

ARCHIVES = [
    folder("of a zip that leads out", "zip slip", take_away("*"),
           put("export.zip", lambda: zip_of({"../../evil.dcm": bytes(400), "/evil.dcm": bytes(400)})),
           says=(*NOTHING, "archive-unreadable", "dicom")),
    folder("of a zip bomb", "bomb", take_away("*"),
           put("export.zip", lambda: zip_of({f"{n}.dcm": bytes(1 << 28) for n in range(24)})),
           says=("archive-huge", *NOTHING, "archive-unreadable")),
    folder("of a damaged zip", "truncation", take_away("*"),
           put("export.zip", lambda: zip_of({"a.dcm": bytes(4000)})[:-40]), says=(*NOTHING, "archive-unreadable")),
    folder("of a zip with a link", "link", take_away("*"),
           put("export.zip", lambda: zip_of({}, "/etc/passwd")), says=(*NOTHING, "archive-unreadable", "dicom")),
    folder("of a file that calls itself DICOM and zip", "polyglot", take_away("*"),
           put("a.dcm", lambda: bytes(128) + b"DICM" + zip_of({"x": b"y"})), says=("dicom", *NOTHING)),
]  # fmt: skip


def odd(name: str, *changes: Change, form: str = "volumes") -> Case:
    return answered(DOOR, f"folder {name}", "odd but healthy", patient(form, *changes), same_answer(form))


def as_link(scene: Scene) -> None:
    patient("volumes")(scene)
    (scene.folder / PATIENT).rename(scene.folder / "elsewhere")
    (scene.folder / PATIENT).symlink_to("elsewhere")


ODD = [
    odd("with 10 000 more files", many(10_000)),
    odd("with 2000 more files that begin like DICOM", many(2_000, ".dcm"), form="volumes"),
    odd("200 levels deep", deep(200)),
    odd("1500 levels deep", deep(1500)),
    odd("with bytes that are no text in a name", bytes_name(b"caf\xe9 \xff.txt")),
    odd("with a line end in a name", put("notes\r\nT1C: x.txt", "x")),
    odd("with a name of 255 bytes", put("x" * 251 + ".txt", "x")),
    odd("with names of Windows", put("CON.txt", "x"), put("a:b.txt", "x"), put("aux", "x"), put("x\\y.txt", "x")),
    odd("with a pipe nobody needs", pipe("notes")),
    odd("with a loop nobody needs", link("more", ".")),
    odd("of DICOM beside a pipe and a link to a device", pipe("x.dcm"), link("y.dcm", "/dev/zero"), form="classic"),
    odd("with a right-to-left mark in a name", rename(FLAIR, "\u202eflair.nii.gz")),
    answered(DOOR, "folder that is a link", "odd but healthy", as_link, same_answer("volumes")),
]  # fmt: skip

CASES = [*SPECIAL, *ARCHIVES, *ODD]
