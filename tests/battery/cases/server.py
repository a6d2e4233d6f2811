"""The server's HTTP door: uploads, zips, outlines, bodies, headers, tokens, ids in paths, the later truth."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from tests.battery.case import Case, answered, refused
from tests.battery.cases.dicom import deflated_bomb, nested, tags
from tests.battery.cases.pictures import OTHERS, png, zeros
from tests.battery.cases.volumes import AT, gzip_bomb
from tests.battery.kit import overwrite
from tests.battery.live import Live, Reply

DOOR = "server"
Files = list[tuple[str, bytes]]


def healthy(live: Live, form: str = "volumes") -> Files:
    folder = live.ground / form / "P001"
    return [
        (f"P001/{file.relative_to(folder).as_posix()}", file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


def upload(
    name: str, kind: str, change: Callable[[Files], Files], *says: str, form: str = "volumes", **fields: str
) -> Case:
    """An upload of the healthy patient, changed."""
    return refused(
        DOOR, f"upload {name}", kind, lambda live: live.upload(change(healthy(live, form)), **fields), *says
    )


def with_flair(
    content: bytes | Callable[[bytes], bytes], name: str = "P001/FLAIR.nii.gz"
) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        own = dict(files).pop("P001/FLAIR.nii.gz")
        made = content(own) if callable(content) else content
        return [*[one for one in files if "FLAIR" not in one[0]], (name, made)]

    return change


def named(name: str) -> Callable[[Files], Files]:
    return lambda files: [*files, (name, b"x")]


def every(how: Callable[[bytes], bytes], part: str = "FLAIR") -> Callable[[Files], Files]:
    return lambda files: [(name, how(content) if part in name else content) for name, content in files]


def zipped(files: Files, link: str = "", locked: bool = False) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files:
            archive.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    content = packed.getvalue()
    if locked:
        at = content.find(b"PK\x01\x02")
        content = overwrite(at + 8, b"\x01\x00")(overwrite(6, b"\x01\x00")(content))
    return content


def packed(name: str, kind: str, make: Callable[[Files], bytes], *says: str) -> Case:
    """An upload of one zip."""
    return refused(
        DOOR, f"zip {name}", kind, lambda live: live.upload([("P001.zip", make(healthy(live)))]), *says
    )


BOMB_ENTRY = 1 << 28
NOT_READ = ("volume-damaged", "volume-short", "volume-header", "volume-analyze")

UPLOADS = [
    upload("of a MetaImage of NDims 77000", "impossible dimensions", with_flair(
        b"ObjectType = Image\nNDims = 77000\nDimSize = " + b"1 " * 30_000 + b"\nElementType = MET_CHAR\n"
        b"ElementDataFile = LOCAL\n", "P001/FLAIR.mha"), "volume-header", "volume-header-endless"),
    upload("of a MetaImage with 77 kB of NDims", "impossible dimensions", with_flair(
        b"ObjectType = Image\nNDims = " + b"9" * 77_000 + b"\n", "P001/FLAIR.mha"), "volume-header-endless"),
    upload("of a MetaImage that names /etc/passwd", "names another file", with_flair(
        b"ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_CHAR\nElementDataFile = /etc/passwd\n",
        "P001/FLAIR.mhd"), "volume-data-outside"),
    upload("of an NRRD that names the server's database", "names another file", with_flair(
        b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 8 8 8\nencoding: raw\ndata file: ../../gliomark.db\n\n",
        "P001/FLAIR.nhdr"), "volume-data-outside"),
    upload("of PostScript called .png", "another format", every(lambda c: OTHERS["PostScript"], ".png"),
           "picture-damaged", form="pictures"),
    upload("of a picture of 30000 x 30000", "bomb", every(
        lambda c: png(100_000, 100_000, zeros(1 << 20)), "FLAIR/009"), "picture-huge", form="pictures"),
    upload("of a NIfTI bomb of a gigabyte", "bomb", with_flair(lambda c: gzip_bomb(1 << 30, gzip.decompress(c))),
           "volume-damaged"),
    upload("of a NIfTI that claims 32767 cubed", "impossible dimensions", with_flair(lambda c: gzip.compress(
        overwrite(AT["dim"][0], np.array([3, 32767, 32767, 32767], "<i2").tobytes())(gzip.decompress(c)))),
        "volume-huge"),
    upload("of a cut NIfTI", "truncation", with_flair(lambda c: c[:900]), *NOT_READ),
    upload("of DICOM with 10^9 frames", "bomb", every(tags(NumberOfFrames=10**9)), "dicom-frames", form="classic"),
    upload("of DICOM nested 10 000 deep", "nested", every(nested(10_000)), "dicom-damaged", "sequence-missing",
           form="classic"),
    upload("of a deflated DICOM bomb", "bomb", every(lambda c: deflated_bomb(c), "FLAIR/009"), "dicom-damaged",
           "sequence-missing", "dicom-uneven", form="classic"),
    upload("of nothing but a text", "another format", lambda files: [("P001/a.txt", b"hello")], "folder-no-images"),
    upload("of an empty file", "missing part", lambda files: [("P001/T1C.nii.gz", b"")], *NOT_READ,
           "sequence-missing"),
    upload("of two patients", "mixed patients", lambda files: [
        *files, *[(name.replace("P001/", "P002/"), c) for name, c in files]], "upload-patients"),
    upload("without FLAIR", "missing part", lambda files: [one for one in files if "FLAIR" not in one[0]],
           "sequence-missing"),
    upload("of an unknown model", "impossible value", lambda files: files, "no-such-model", model="x" * 900),
    upload("with a field that is too long", "huge", lambda files: files, "form-field-long", patient_id="x" * 5000),
    *[upload(f"with a file called {shown}", "names", named(name), "name-outside", "name-unfit", "name-twice")
      for shown, name in {
          "../evil": "../../evil.dcm", "/etc/evil": "/etc/evil.dcm", "..\\evil": "..\\..\\evil.dcm",
          "a/../../b": "P001/a/../../../b", "300 bytes": "x" * 300 + ".dcm",
          "20 folders deep": "a/" * 20 + "b.dcm", "a pipe sign": "P001/a|b", "a star": "P001/*.dcm",
          "a question": "P001/a?.dcm", "the same twice": "P001/T1C.nii.gz",
          "a file's child": "P001/T1C.nii.gz/x"}.items()],
]  # fmt: skip

ZIPS = [
    packed("that leads out", "zip slip", lambda files: zipped([*files, ("../../evil", b"x")]), "name-outside"),
    packed("with an absolute name", "zip slip", lambda files: zipped([*files, ("/etc/evil", b"x")]), "name-outside"),
    packed("with a link", "link", lambda files: zipped(files, "P001/FLAIR.nii.gz.lnk"), "zip-link"),
    packed("locked", "another format", lambda files: zipped(files, locked=True), "zip-locked", "zip-unreadable"),
    packed("cut", "truncation", lambda files: zipped(files)[:-60], "zip-unreadable", "folder-no-images", "zip-damaged"),
    packed("damaged", "noise", lambda files: overwrite(300, bytes(80))(zipped(files)), "zip-damaged",
           "zip-unreadable"),
    packed("of 2.5 GB of zeros", "bomb", lambda files: zipped([(f"{n}.dcm", bytes(BOMB_ENTRY)) for n in range(10)]),
           "zip-too-large", "unpacked-too-large"),
    packed("that states less than it holds", "bomb", lambda files: lying_zip(), "zip-unreadable", "zip-damaged",
           "unpacked-too-large", "folder-no-images", "dicom"),
    packed("of 21 000 files", "huge", lambda files: zipped([(f"P001/{n}", b"") for n in range(21_000)]),
           "too-many-files", "zip-too-many"),
    packed("within a zip", "nested", lambda files: zipped([("inner.zip", zipped(files))]), "folder-no-images"),
    packed("of a zip and a picture at once", "polyglot", lambda files: OTHERS["GIF"] + zipped([("a", b"x")]),
           "folder-no-images"),
]  # fmt: skip


def lying_zip() -> bytes:
    content = zipped([("P001/a.dcm", bytes(BOMB_ENTRY))])
    small = (10).to_bytes(4, "little")
    at = content.find(b"PK\x01\x02")
    return overwrite(at + 24, small)(overwrite(22, small)(content))


def body(
    name: str, kind: str, content: bytes, *says: str, type: str = "multipart/form-data; boundary=x"
) -> Case:
    def attack(live: Live) -> Reply:
        return live.ask("POST", "/api/studies", content=content, headers={"Content-Type": type})

    return refused(DOOR, f"body {name}", kind, attack, *says)


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.dcm"\r\n\r\nhello\r\n'
BODIES = [
    body("of nothing", "missing part", b"", "form-cut", "no-form", "upload-empty"),
    body("of chance", "noise", bytes(range(256)) * 40, "no-form"),
    body("cut in a part", "truncation", PART[:-9], "form-cut"),
    body("of no form", "another format", b"hello", "form-wanted", type="text/plain"),
    body("of a form without a boundary", "missing part", PART, "form-wanted", type="multipart/form-data"),
    body("with a header of a megabyte", "huge", b"--x\r\nA: " + b"y" * (1 << 20) + b"\r\n\r\n", "form-cut", "no-form",
         "form-header"),
    body("with 100 000 parts", "huge", PART.replace(b"; filename=\"a.dcm\"", b"").replace(b"files", b"f") * 20_000
         + b"--x--\r\n", "form-fields", "form-cut", "no-form", "upload-empty"),
    body("with a name of no text", "names", PART.replace(b"a.dcm", b"\xff\xfe.dcm") + b"--x--\r\n", "no-form",
         "name-unfit"),
    body("with a zero byte in a name", "names", PART.replace(b"a.dcm", b"a\0.dcm") + b"--x--\r\n", "name-unfit",
         "no-form"),
    body("without files", "missing part",
         b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n--x--\r\n', "upload-empty"),
]  # fmt: skip


def on_study(name: str, kind: str, content: Any, *says: str) -> Case:
    """A body for a prediction of the good study, as it is or as JSON."""

    def attack(live: Live) -> Reply:
        path = f"/api/studies/{live.good_study()}/predictions"
        sent = (
            {"content": content} if isinstance(content, bytes) else {"content": json.dumps(content).encode()}
        )
        return live.ask("POST", path, headers={"Content-Type": "application/json"}, **sent)

    return refused(DOOR, f"JSON {name}", kind, attack, *says)


JSON = [
    on_study("of nothing", "missing part", b"", "request-unfit"),
    on_study("cut", "truncation", b'{"age": 50, "se', "request-unfit"),
    on_study("50 000 deep", "nested", b"[" * 50_000, "request-unfit", "body-too-large", "400"),
    on_study("30 000 deep that ends", "nested", b'{"age":' + b"[" * 15_000 + b"]" * 15_000 + b"}", "request-unfit",
             "body-too-large", "400"),
    on_study("of a megabyte", "huge", b'{"age": ' + b"5" * (1 << 20) + b"}", "body-too-large"),
    *[on_study(f"with {shown}", "impossible value", asked, "request-unfit", "age-or-sex-missing", "not-corrected")
      for shown, asked in {
          "an age of NaN": {"age": float("nan"), "sex": 0}, "an infinite age": {"age": float("inf"), "sex": 0},
          "an age of -1": {"age": -1, "sex": 0}, "an age of 500": {"age": 500, "sex": 0},
          "a text for an age": {"age": "fifty", "sex": 0}, "a sex of 2": {"age": 50, "sex": 2},
          "a list for a sex": {"age": 50, "sex": [0]}, "no age": {"sex": 0},
          "a huge number": {"age": 10**400, "sex": 0}, "an unknown field": {"age": 50, "sex": 0, "x": 1},
          "an unknown fusion": {"age": 50, "sex": 0, "fusion": "most"},
          "a correction that is not there": {"age": 50, "sex": 0, "outline": "corrected"}}.items()],
    on_study("with a lone surrogate", "names", b'{"age": 50, "sex": 0, "fusion": "\\ud800"}', "request-unfit"),
]  # fmt: skip


def outline(name: str, kind: str, make: Callable[[Image.Image], bytes], *says: str) -> Case:
    """An outline put back; made from a black one of the right size."""

    def attack(live: Live) -> Reply:
        study = json.loads(live.ask("GET", f"/api/studies/{live.good_study()}").text)
        count, rows, columns = study["shape"]
        content = make(Image.new("L", (columns, rows * count)))
        return live.ask("PUT", f"/api/studies/{live.good_study()}/mask.png", content=content)

    return refused(DOOR, f"outline {name}", kind, attack, *says)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


OUTLINES = [
    outline("of nothing", "missing part", lambda i: b"", "outline-unreadable"),
    outline("of chance", "noise", lambda i: bytes(range(256)), "outline-unreadable"),
    outline("cut", "truncation", lambda i: saved(i)[:90], "outline-unreadable"),
    outline("of another size", "wrong grid", lambda i: saved(i.resize((40, 40))), "outline-size"),
    outline("turned", "wrong grid", lambda i: saved(i.transpose(Image.Transpose.ROTATE_90)), "outline-size"),
    outline("claiming 100000 x 100000", "bomb", lambda i: png(100_000, 100_000, zeros(1 << 20)), "outline-size",
            "outline-unreadable"),
    outline("in colour", "colour", lambda i: saved(i.convert("RGB")), "outline-kind"),
    outline("of 16 bits", "labels", lambda i: saved(i.convert("I;16")), "outline-kind"),
    outline("as JPEG", "another format", lambda i: saved(i, "JPEG"), "outline-unreadable"),
    outline("as GIF", "another format", lambda i: saved(i, "GIF"), "outline-unreadable", "outline-kind"),
    outline("as PostScript", "another format", lambda i: OTHERS["PostScript"], "outline-unreadable"),
    outline("of 70 MB", "huge", lambda i: bytes(70 << 20), "body-too-large"),
]  # fmt: skip


def path(name: str, kind: str, method: str, place: str, *says: str, **words: Any) -> Case:
    return refused(DOOR, f"path {name}", kind, lambda live: live.ask(method, place, **words), *says)


NO = ("no-such-study", "no-such-prediction", "Not Found", "404", "request-unfit", "405")
PATHS = [
    *[path(f"of a study {shown}", "ids", "GET", f"/api/studies/{id}", *NO) for shown, id in {
        "called by dots": "..%2f..%2fgliomark.db", "with a zero byte": "a%00b", "of 60 000 letters": "x" * 60_000,
        "of a right-to-left mark": "%E2%80%AE", "of bytes that are no text": "%ff%fe", "with a quote": "'%20OR%201=1--",
        "with a star": "*"}.items()],
    path("of a prediction called by dots", "ids", "GET", "/api/predictions/..%2f..%2fx/report.html", *NO),
    path("of a prediction with SQL", "ids", "GET", "/api/predictions/%27;DROP%20TABLE%20studies;--", *NO),
    path("of a slice -1", "ids", "GET", "/api/studies/x/slices/FLAIR/-1.png", *NO),
    path("to remove what is not there", "ids", "DELETE", "/api/studies/x", *NO),
    path("of a patient with a zero byte", "ids", "GET", "/api/predictions?patient_id=a%00b", "request-unfit"),
    path("of an unknown language", "impossible value", "GET", "/api/predictions/x/report.html?language=xx",
         "request-unfit"),
    path("with an unknown token", "tokens", "GET", "/api/studies/x", "token-unknown",
         headers={"Authorization": "Bearer " + "x" * 200}),
    path("with a token of bytes", "tokens", "GET", "/api/studies/x", "token-unknown", "400",
         headers={"Authorization": b"Bearer \xff\xfe"}),
    path("asked by another name", "headers", "GET", "/api/models", "this-machine-only",
         headers={"Host": "evil.example"}),
    path("asked from another site", "headers", "GET", "/api/models", "other-site",
         headers={"Origin": "http://evil.example"}),
    path("asked with a broken origin", "headers", "GET", "/api/models", "host-unfit", "other-site",
         headers={"Origin": "http://[::1"}),
]  # fmt: skip


def truth(name: str, kind: str, told: Any, *says: str) -> Case:
    def attack(live: Live) -> Reply:
        return live.ask("POST", f"/api/predictions/{live.good_prediction()}/truth", content=json.dumps(told).encode(),
                        headers={"Content-Type": "application/json"})  # fmt: skip

    return refused(DOOR, f"truth {name}", kind, attack, *says)


TRUTHS = [
    truth("of an unknown marker", "impossible value", {"marker": "xyz", "value": "mutant"}, "no-such-marker"),
    truth("of an unknown level", "impossible value", {"marker": "idh", "value": "perhaps"}, "no-such-level"),
    truth("of a list", "another kind", {"marker": ["idh"], "value": "mutant"}, "request-unfit"),
    truth("of a note of 60 kB", "huge", {"marker": "idh", "value": "mutant", "note": "x" * 60_000}, "request-unfit"),
    truth("of a zero byte", "names", {"marker": "idh", "value": "mutant", "note": "a\0b"}, "request-unfit"),
]  # fmt: skip


def raw(name: str, kind: str, content: bytes, *says: str) -> Case:
    return refused(DOOR, f"raw {name}", kind, lambda live: live.raw(content), *says)


HOST = b"Host: 127.0.0.1\r\n"
RAW = [
    raw("chance", "noise", bytes(range(256)) * 9, "400", "0 "),
    raw("half a request", "truncation", b"GET /api/health HT", "400", "0 "),
    raw("a header of 10 MB", "huge", b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * (10 << 20), "400", "431", "0 "),
    raw("100 000 headers", "huge", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100_000 + b"\r\n", "4", "0 "),
    raw("two lengths", "headers", b"POST /api/studies HTTP/1.1\r\n" + HOST
        + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "400", "0 "),
    raw("a length of -5", "headers", b"POST /api/studies HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\nx", "400",
        "0 "),
    raw("a chunk of no number", "headers", b"POST /api/studies HTTP/1.1\r\n" + HOST
        + b"Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\nzz\r\n", "4", "0 "),
    raw("TLS", "another format", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "400", "0 "),
]  # fmt: skip


def same(form: str) -> Callable[[Reply], str]:
    def wrong(reply: Reply) -> str:
        told, expected = json.loads(reply.text)
        off = abs(told - expected[form]["idh"])
        return "" if off < 0.4 else f"answered {told}, expected {expected[form]['idh']}"

    return wrong


def predicted(live: Live, files: Files) -> Reply:
    """Uploaded and predicted; the probability, and what each form must be answered."""
    told = live.upload(files)
    if told.refused:
        return told
    asked = {"without_clinical": True}
    job = (
        live.post(f"/api/studies/{json.loads(told.text)['id']}/predictions", json=asked)
        .raise_for_status()
        .json()
    )
    done = live.until(f"/api/predictions/{job['id']}", ("done", "failed"))
    if done["state"] == "failed":
        return Reply(200, str(done["error"]), True)
    answers = json.loads((live.ground / "answers.json").read_text())
    return Reply(200, json.dumps([done["result"]["markers"][0]["probability"], answers]), False)


def near(form: str) -> Callable[[Reply], str]:
    def wrong(reply: Reply) -> str:
        told, answers = json.loads(reply.text)
        return (
            ""
            if abs(told - answers[form]["idh"]) < 0.03
            else f"answered {told}, expected {answers[form]['idh']}"
        )

    return wrong


ODD = [
    answered(DOOR, f"upload of {name}", "odd but healthy", make, near(form))
    for name, form, make in (
        ("volumes after all this", "volumes", lambda live: predicted(live, healthy(live))),
        ("pictures as a zip", "pictures", lambda live: predicted(
            live, [("P001.zip", zipped(healthy(live, "pictures")))])),
        ("DICOM beside hidden files", "classic", lambda live: predicted(
            live, [*healthy(live, "classic"), ("P001/.DS_Store", b"\0" * 40), ("__MACOSX/._a", b"x")])),
        ("enhanced DICOM by one folder more", "enhanced", lambda live: predicted(
            live, [(f"disk/{name}", content) for name, content in healthy(live, "enhanced")])),
        ("volumes with Chinese and a line of blanks in names", "volumes", lambda live: predicted(
            live, [(name.replace("P001/", "P001/患者 一 "), content) for name, content in healthy(live)])),
    )
]  # fmt: skip

CASES = [*UPLOADS, *ZIPS, *BODIES, *JSON, *OUTLINES, *PATHS, *TRUTHS, *RAW, *ODD]
