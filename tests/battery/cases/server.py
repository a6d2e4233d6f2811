"""Cases for the HTTP server: uploads, zips, masks, bodies, headers, tokens, ids in paths, later diagnoses."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from tests.battery.cases.dicom import create_deflated_bomb, insert_nested_sequence, set_tags
from tests.battery.cases.pictures import OTHER_FORMATS, compress_zeros, create_png
from tests.battery.cases.volumes import NIFTI_FIELDS, create_gzip_bomb
from tests.battery.cases_and_results import Case, expect_answer, expect_refusal
from tests.battery.changes import overwrite_bytes
from tests.battery.live_server import LiveServer, Reply

DOOR = "server"
Files = list[tuple[str, bytes]]


def read_healthy_files(live: LiveServer, form: str = "volumes") -> Files:
    folder = live.healthy_folder / form / "P001"
    return [
        (f"P001/{file.relative_to(folder).as_posix()}", file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


def create_upload_case(
    name: str, kind: str, change: Callable[[Files], Files], *says: str, form: str = "volumes", **fields: str
) -> Case:
    """Create a case that uploads the healthy patient with changes."""
    return expect_refusal(
        DOOR,
        f"upload {name}",
        kind,
        lambda live: live.upload(change(read_healthy_files(live, form)), **fields),
        *says,
    )


def replace_flair(
    content: bytes | Callable[[bytes], bytes], name: str = "P001/FLAIR.nii.gz"
) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        own = dict(files).pop("P001/FLAIR.nii.gz")
        made = content(own) if callable(content) else content
        return [*[one for one in files if "FLAIR" not in one[0]], (name, made)]

    return change


def add_file_named(name: str) -> Callable[[Files], Files]:
    return lambda files: [*files, (name, b"x")]


def change_every_file(how: Callable[[bytes], bytes], part: str = "FLAIR") -> Callable[[Files], Files]:
    return lambda files: [(name, how(content) if part in name else content) for name, content in files]


def create_zip(files: Files, link: str = "", is_encrypted: bool = False) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files:
            archive.writestr(name, content)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    content = packed.getvalue()
    if is_encrypted:
        at = content.find(b"PK\x01\x02")
        content = overwrite_bytes(at + 8, b"\x01\x00")(overwrite_bytes(6, b"\x01\x00")(content))
    return content


def create_zip_case(name: str, kind: str, make: Callable[[Files], bytes], *says: str) -> Case:
    """Create a case that uploads one zip file."""
    return expect_refusal(
        DOOR,
        f"zip {name}",
        kind,
        lambda live: live.upload([("P001.zip", make(read_healthy_files(live)))]),
        *says,
    )


BOMB_ENTRY = 1 << 28
NOT_READ = ("volume-damaged", "volume-short", "volume-header", "volume-analyze")

UPLOADS = [
    create_upload_case(
        "of a MetaImage of NDims 77000",
        "impossible dimensions",
        replace_flair(
            b"ObjectType = Image\nNDims = 77000\nDimSize = " + b"1 " * 30_000 + b"\nElementType = MET_CHAR\n"
            b"ElementDataFile = LOCAL\n",
            "P001/FLAIR.mha",
        ),
        "volume-header",
        "volume-header-endless",
    ),
    create_upload_case(
        "of a MetaImage with 77 kB of NDims",
        "impossible dimensions",
        replace_flair(b"ObjectType = Image\nNDims = " + b"9" * 77_000 + b"\n", "P001/FLAIR.mha"),
        "volume-header-endless",
    ),
    create_upload_case(
        "of a MetaImage that names /etc/passwd",
        "names another file",
        replace_flair(
            b"ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_CHAR\nElementDataFile = /etc/passwd\n",
            "P001/FLAIR.mhd",
        ),
        "volume-data-outside",
    ),
    create_upload_case(
        "of an NRRD that names the server's database",
        "names another file",
        replace_flair(
            b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 8 8 8\nencoding: raw\ndata file: ../../gliomark.db\n\n",
            "P001/FLAIR.nhdr",
        ),
        "volume-data-outside",
    ),
    create_upload_case(
        "of PostScript called .png",
        "another format",
        change_every_file(lambda c: OTHER_FORMATS["PostScript"], ".png"),
        "picture-damaged",
        form="pictures",
    ),
    create_upload_case(
        "of a picture of 30000 x 30000",
        "bomb",
        change_every_file(lambda c: create_png(100_000, 100_000, compress_zeros(1 << 20)), "FLAIR/009"),
        "picture-huge",
        form="pictures",
    ),
    create_upload_case(
        "of a NIfTI bomb of a gigabyte",
        "bomb",
        replace_flair(lambda c: create_gzip_bomb(1 << 30, gzip.decompress(c))),
        "volume-damaged",
    ),
    create_upload_case(
        "of a NIfTI that claims 32767 cubed",
        "impossible dimensions",
        replace_flair(
            lambda c: gzip.compress(
                overwrite_bytes(NIFTI_FIELDS["dim"][0], np.array([3, 32767, 32767, 32767], "<i2").tobytes())(
                    gzip.decompress(c)
                )
            )
        ),
        "volume-huge",
    ),
    create_upload_case("of a cut NIfTI", "truncation", replace_flair(lambda c: c[:900]), *NOT_READ),
    create_upload_case(
        "of DICOM with 10^9 frames",
        "bomb",
        change_every_file(set_tags(NumberOfFrames=10**9)),
        "dicom-frames",
        form="classic",
    ),
    create_upload_case(
        "of DICOM nested 10 000 deep",
        "nested",
        change_every_file(insert_nested_sequence(10_000)),
        "dicom-damaged",
        "sequence-missing",
        form="classic",
    ),
    create_upload_case(
        "of a deflated DICOM bomb",
        "bomb",
        change_every_file(lambda c: create_deflated_bomb(c), "FLAIR/009"),
        "dicom-damaged",
        "sequence-missing",
        "dicom-uneven",
        form="classic",
    ),
    create_upload_case(
        "of nothing but a text",
        "another format",
        lambda files: [("P001/a.txt", b"hello")],
        "folder-no-images",
    ),
    create_upload_case(
        "of an empty file",
        "missing part",
        lambda files: [("P001/T1C.nii.gz", b"")],
        *NOT_READ,
        "sequence-missing",
    ),
    create_upload_case(
        "of two patients",
        "mixed patients",
        lambda files: [*files, *[(name.replace("P001/", "P002/"), c) for name, c in files]],
        "upload-patients",
    ),
    create_upload_case(
        "without FLAIR",
        "missing part",
        lambda files: [one for one in files if "FLAIR" not in one[0]],
        "sequence-missing",
    ),
    create_upload_case(
        "of an unknown model", "impossible value", lambda files: files, "no-such-model", model="x" * 900
    ),
    create_upload_case(
        "with a field that is too long", "huge", lambda files: files, "form-field-long", patient_id="x" * 5000
    ),
    *[
        create_upload_case(
            f"with a file called {shown}",
            "names",
            add_file_named(name),
            "name-outside",
            "name-unfit",
            "name-twice",
        )
        for shown, name in {
            "../evil": "../../evil.dcm",
            "/etc/evil": "/etc/evil.dcm",
            "..\\evil": "..\\..\\evil.dcm",
            "a/../../b": "P001/a/../../../b",
            "300 bytes": "x" * 300 + ".dcm",
            "20 folders deep": "a/" * 20 + "b.dcm",
            "a pipe sign": "P001/a|b",
            "a star": "P001/*.dcm",
            "a question": "P001/a?.dcm",
            "the same twice": "P001/T1C.nii.gz",
            "a file's child": "P001/T1C.nii.gz/x",
        }.items()
    ],
]

ZIPS = [
    create_zip_case(
        "that leads out", "zip slip", lambda files: create_zip([*files, ("../../evil", b"x")]), "name-outside"
    ),
    create_zip_case(
        "with an absolute name",
        "zip slip",
        lambda files: create_zip([*files, ("/etc/evil", b"x")]),
        "name-outside",
    ),
    create_zip_case(
        "with a link", "link", lambda files: create_zip(files, "P001/FLAIR.nii.gz.lnk"), "zip-link"
    ),
    create_zip_case(
        "locked",
        "another format",
        lambda files: create_zip(files, is_encrypted=True),
        "zip-locked",
        "zip-unreadable",
    ),
    create_zip_case(
        "cut",
        "truncation",
        lambda files: create_zip(files)[:-60],
        "zip-unreadable",
        "folder-no-images",
        "zip-damaged",
    ),
    create_zip_case(
        "damaged",
        "noise",
        lambda files: overwrite_bytes(300, bytes(80))(create_zip(files)),
        "zip-damaged",
        "zip-unreadable",
    ),
    create_zip_case(
        "of 2.5 GB of zeros",
        "bomb",
        lambda files: create_zip([(f"{n}.dcm", bytes(BOMB_ENTRY)) for n in range(10)]),
        "zip-too-large",
        "unpacked-too-large",
    ),
    create_zip_case(
        "that states less than it holds",
        "bomb",
        lambda files: create_lying_zip(),
        "zip-unreadable",
        "zip-damaged",
        "unpacked-too-large",
        "folder-no-images",
        "dicom",
    ),
    create_zip_case(
        "of 21 000 files",
        "huge",
        lambda files: create_zip([(f"P001/{n}", b"") for n in range(21_000)]),
        "too-many-files",
        "zip-too-many",
    ),
    create_zip_case(
        "within a zip",
        "nested",
        lambda files: create_zip([("inner.zip", create_zip(files))]),
        "folder-no-images",
    ),
    create_zip_case(
        "of a zip and a picture at once",
        "polyglot",
        lambda files: OTHER_FORMATS["GIF"] + create_zip([("a", b"x")]),
        "folder-no-images",
    ),
]


def create_lying_zip() -> bytes:
    content = create_zip([("P001/a.dcm", bytes(BOMB_ENTRY))])
    small = (10).to_bytes(4, "little")
    at = content.find(b"PK\x01\x02")
    return overwrite_bytes(at + 24, small)(overwrite_bytes(22, small)(content))


def create_body_case(
    name: str, kind: str, content: bytes, *says: str, type: str = "multipart/form-data; boundary=x"
) -> Case:
    def send_body(live: LiveServer) -> Reply:
        return live.send_request("POST", "/api/studies", content=content, headers={"Content-Type": type})

    return expect_refusal(DOOR, f"body {name}", kind, send_body, *says)


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.dcm"\r\n\r\nhello\r\n'
BODY_CASES = [
    create_body_case("of nothing", "missing part", b"", "form-cut", "no-form", "upload-empty"),
    create_body_case("of chance", "noise", bytes(range(256)) * 40, "no-form"),
    create_body_case("cut in a part", "truncation", PART[:-9], "form-cut"),
    create_body_case("of no form", "another format", b"hello", "form-wanted", type="text/plain"),
    create_body_case(
        "of a form without a boundary", "missing part", PART, "form-wanted", type="multipart/form-data"
    ),
    create_body_case(
        "with a header of a megabyte",
        "huge",
        b"--x\r\nA: " + b"y" * (1 << 20) + b"\r\n\r\n",
        "form-cut",
        "no-form",
        "form-header",
    ),
    create_body_case(
        "with 100 000 parts",
        "huge",
        PART.replace(b'; filename="a.dcm"', b"").replace(b"files", b"f") * 20_000 + b"--x--\r\n",
        "form-fields",
        "form-cut",
        "no-form",
        "upload-empty",
    ),
    create_body_case(
        "with a name of no text",
        "names",
        PART.replace(b"a.dcm", b"\xff\xfe.dcm") + b"--x--\r\n",
        "no-form",
        "name-unfit",
    ),
    create_body_case(
        "with a zero byte in a name",
        "names",
        PART.replace(b"a.dcm", b"a\0.dcm") + b"--x--\r\n",
        "name-unfit",
        "no-form",
    ),
    create_body_case(
        "without files",
        "missing part",
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ndemo\r\n--x--\r\n',
        "upload-empty",
    ),
]


def create_json_case(name: str, kind: str, content: Any, *says: str) -> Case:
    """Create a case that requests a prediction of the healthy study with this body (bytes, or an object as JSON)."""

    def send_json(live: LiveServer) -> Reply:
        path = f"/api/studies/{live.get_healthy_study()}/predictions"
        sent = (
            {"content": content} if isinstance(content, bytes) else {"content": json.dumps(content).encode()}
        )
        return live.send_request("POST", path, headers={"Content-Type": "application/json"}, **sent)

    return expect_refusal(DOOR, f"JSON {name}", kind, send_json, *says)


JSON = [
    create_json_case("of nothing", "missing part", b"", "request-unfit"),
    create_json_case("cut", "truncation", b'{"age": 50, "se', "request-unfit"),
    create_json_case("50 000 deep", "nested", b"[" * 50_000, "request-unfit", "body-too-large", "400"),
    create_json_case(
        "30 000 deep that ends",
        "nested",
        b'{"age":' + b"[" * 15_000 + b"]" * 15_000 + b"}",
        "request-unfit",
        "body-too-large",
        "400",
    ),
    create_json_case("of a megabyte", "huge", b'{"age": ' + b"5" * (1 << 20) + b"}", "body-too-large"),
    *[
        create_json_case(
            f"with {shown}", "impossible value", body, "request-unfit", "age-or-sex-missing", "not-corrected"
        )
        for shown, body in {
            "an age of NaN": {"age": float("nan"), "sex": 0},
            "an infinite age": {"age": float("inf"), "sex": 0},
            "an age of -1": {"age": -1, "sex": 0},
            "an age of 500": {"age": 500, "sex": 0},
            "a text for an age": {"age": "fifty", "sex": 0},
            "a sex of 2": {"age": 50, "sex": 2},
            "a list for a sex": {"age": 50, "sex": [0]},
            "no age": {"sex": 0},
            "a huge number": {"age": 10**400, "sex": 0},
            "an unknown field": {"age": 50, "sex": 0, "x": 1},
            "an unknown fusion": {"age": 50, "sex": 0, "fusion": "most"},
            "a correction that is not there": {"age": 50, "sex": 0, "outline": "corrected"},
        }.items()
    ],
    create_json_case(
        "with a lone surrogate", "names", b'{"age": 50, "sex": 0, "fusion": "\\ud800"}', "request-unfit"
    ),
]


def create_mask_case(name: str, kind: str, make: Callable[[Image.Image], bytes], *says: str) -> Case:
    """Create a case that uploads a mask, made from a black image of the right size."""

    def send_mask(live: LiveServer) -> Reply:
        study = json.loads(live.send_request("GET", f"/api/studies/{live.get_healthy_study()}").text)
        count, rows, columns = study["shape"]
        content = make(Image.new("L", (columns, rows * count)))
        return live.send_request("PUT", f"/api/studies/{live.get_healthy_study()}/mask.png", content=content)

    return expect_refusal(DOOR, f"outline {name}", kind, send_mask, *says)


def encode_image(image: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


OUTLINES = [
    create_mask_case("of nothing", "missing part", lambda i: b"", "outline-unreadable"),
    create_mask_case("of chance", "noise", lambda i: bytes(range(256)), "outline-unreadable"),
    create_mask_case("cut", "truncation", lambda i: encode_image(i)[:90], "outline-unreadable"),
    create_mask_case(
        "of another size", "wrong grid", lambda i: encode_image(i.resize((40, 40))), "outline-size"
    ),
    create_mask_case(
        "turned", "wrong grid", lambda i: encode_image(i.transpose(Image.Transpose.ROTATE_90)), "outline-size"
    ),
    create_mask_case(
        "claiming 100000 x 100000",
        "bomb",
        lambda i: create_png(100_000, 100_000, compress_zeros(1 << 20)),
        "outline-size",
        "outline-unreadable",
    ),
    create_mask_case("in colour", "colour", lambda i: encode_image(i.convert("RGB")), "outline-kind"),
    create_mask_case("of 16 bits", "labels", lambda i: encode_image(i.convert("I;16")), "outline-kind"),
    create_mask_case("as JPEG", "another format", lambda i: encode_image(i, "JPEG"), "outline-unreadable"),
    create_mask_case(
        "as GIF", "another format", lambda i: encode_image(i, "GIF"), "outline-unreadable", "outline-kind"
    ),
    create_mask_case(
        "as PostScript", "another format", lambda i: OTHER_FORMATS["PostScript"], "outline-unreadable"
    ),
    create_mask_case("of 70 MB", "huge", lambda i: bytes(70 << 20), "body-too-large"),
]


def create_path_case(name: str, kind: str, method: str, url_path: str, *says: str, **words: Any) -> Case:
    return expect_refusal(
        DOOR, f"path {name}", kind, lambda live: live.send_request(method, url_path, **words), *says
    )


NOT_FOUND_MESSAGES = ("no-such-study", "no-such-prediction", "Not Found", "404", "request-unfit", "405")
PATHS = [
    *[
        create_path_case(f"of a study {shown}", "ids", "GET", f"/api/studies/{id}", *NOT_FOUND_MESSAGES)
        for shown, id in {
            "called by dots": "..%2f..%2fgliomark.db",
            "with a zero byte": "a%00b",
            "of 60 000 letters": "x" * 60_000,
            "of a right-to-left mark": "%E2%80%AE",
            "of bytes that are no text": "%ff%fe",
            "with a quote": "'%20OR%201=1--",
            "with a star": "*",
        }.items()
    ],
    create_path_case(
        "of a prediction called by dots",
        "ids",
        "GET",
        "/api/predictions/..%2f..%2fx/report.html",
        *NOT_FOUND_MESSAGES,
    ),
    create_path_case(
        "of a prediction with SQL",
        "ids",
        "GET",
        "/api/predictions/%27;DROP%20TABLE%20studies;--",
        *NOT_FOUND_MESSAGES,
    ),
    create_path_case(
        "of a slice -1", "ids", "GET", "/api/studies/x/slices/FLAIR/-1.png", *NOT_FOUND_MESSAGES
    ),
    create_path_case("to remove what is not there", "ids", "DELETE", "/api/studies/x", *NOT_FOUND_MESSAGES),
    create_path_case(
        "of a patient with a zero byte", "ids", "GET", "/api/predictions?patient_id=a%00b", "request-unfit"
    ),
    create_path_case(
        "of an unknown language",
        "impossible value",
        "GET",
        "/api/predictions/x/report.html?language=xx",
        "request-unfit",
    ),
    create_path_case(
        "with an unknown token",
        "tokens",
        "GET",
        "/api/studies/x",
        "token-unknown",
        headers={"Authorization": "Bearer " + "x" * 200},
    ),
    create_path_case(
        "with a token of bytes",
        "tokens",
        "GET",
        "/api/studies/x",
        "token-unknown",
        "400",
        headers={"Authorization": b"Bearer \xff\xfe"},
    ),
    create_path_case(
        "asked by another name",
        "headers",
        "GET",
        "/api/models",
        "this-machine-only",
        headers={"Host": "evil.example"},
    ),
    create_path_case(
        "asked from another site",
        "headers",
        "GET",
        "/api/models",
        "other-site",
        headers={"Origin": "http://evil.example"},
    ),
    create_path_case(
        "asked with a broken origin",
        "headers",
        "GET",
        "/api/models",
        "host-unfit",
        "other-site",
        headers={"Origin": "http://[::1"},
    ),
]


def create_truth_case(name: str, kind: str, truth_value: Any, *says: str) -> Case:
    def send_truth(live: LiveServer) -> Reply:
        return live.send_request(
            "POST",
            f"/api/predictions/{live.get_healthy_prediction()}/truth",
            content=json.dumps(truth_value).encode(),
            headers={"Content-Type": "application/json"},
        )

    return expect_refusal(DOOR, f"truth {name}", kind, send_truth, *says)


TRUTHS = [
    create_truth_case(
        "of an unknown marker", "impossible value", {"marker": "xyz", "value": "mutant"}, "no-such-marker"
    ),
    create_truth_case(
        "of an unknown level", "impossible value", {"marker": "idh", "value": "perhaps"}, "no-such-level"
    ),
    create_truth_case("of a list", "another kind", {"marker": ["idh"], "value": "mutant"}, "request-unfit"),
    create_truth_case(
        "of a note of 60 kB",
        "huge",
        {"marker": "idh", "value": "mutant", "note": "x" * 60_000},
        "request-unfit",
    ),
    create_truth_case(
        "of a zero byte", "names", {"marker": "idh", "value": "mutant", "note": "a\0b"}, "request-unfit"
    ),
]


def create_raw_request_case(name: str, kind: str, content: bytes, *says: str) -> Case:
    return expect_refusal(DOOR, f"raw {name}", kind, lambda live: live.send_bytes(content), *says)


HOST = b"Host: 127.0.0.1\r\n"
RAW = [
    create_raw_request_case("chance", "noise", bytes(range(256)) * 9, "400", "0 "),
    create_raw_request_case("half a request", "truncation", b"GET /api/health HT", "400", "0 "),
    create_raw_request_case(
        "a header of 10 MB",
        "huge",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * (10 << 20),
        "400",
        "431",
        "0 ",
    ),
    create_raw_request_case(
        "100 000 headers", "huge", b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100_000 + b"\r\n", "4", "0 "
    ),
    create_raw_request_case(
        "two lengths",
        "headers",
        b"POST /api/studies HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "400",
        "0 ",
    ),
    create_raw_request_case(
        "a length of -5",
        "headers",
        b"POST /api/studies HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\nx",
        "400",
        "0 ",
    ),
    create_raw_request_case(
        "a chunk of no number",
        "headers",
        b"POST /api/studies HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\nzz\r\n",
        "4",
        "0 ",
    ),
    create_raw_request_case(
        "TLS", "another format", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "400", "0 "
    ),
]


def compare_rough_answer(form: str) -> Callable[[Reply], str]:
    def find_error(reply: Reply) -> str:
        probability, expected = json.loads(reply.text)
        difference = abs(probability - expected[form]["idh"])
        return "" if difference < 0.4 else f"answered {probability}, expected {expected[form]['idh']}"

    return find_error


def upload_and_predict(live: LiveServer, files: Files) -> Reply:
    """Upload and predict; the probability, and the expected answers of all forms."""
    reply = live.upload(files)
    if reply.refused:
        return reply
    options = {"without_clinical": True}
    job = (
        live.post(f"/api/studies/{json.loads(reply.text)['id']}/predictions", json=options)
        .raise_for_status()
        .json()
    )
    done = live.wait_for_state(f"/api/predictions/{job['id']}", ("done", "failed"))
    if done["state"] == "failed":
        return Reply(200, str(done["error"]), True)
    answers = json.loads((live.healthy_folder / "answers.json").read_text())
    return Reply(200, json.dumps([done["result"]["markers"][0]["probability"], answers]), False)


def compare_answer(form: str) -> Callable[[Reply], str]:
    def find_error(reply: Reply) -> str:
        probability, answers = json.loads(reply.text)
        return (
            ""
            if abs(probability - answers[form]["idh"]) < 0.03
            else f"answered {probability}, expected {answers[form]['idh']}"
        )

    return find_error


ODD = [
    expect_answer(DOOR, f"upload of {name}", "odd but healthy", make, compare_answer(form))
    for name, form, make in (
        (
            "volumes after all this",
            "volumes",
            lambda live: upload_and_predict(live, read_healthy_files(live)),
        ),
        (
            "pictures as a zip",
            "pictures",
            lambda live: upload_and_predict(
                live, [("P001.zip", create_zip(read_healthy_files(live, "pictures")))]
            ),
        ),
        (
            "DICOM beside hidden files",
            "classic",
            lambda live: upload_and_predict(
                live,
                [
                    *read_healthy_files(live, "classic"),
                    ("P001/.DS_Store", b"\0" * 40),
                    ("__MACOSX/._a", b"x"),
                ],
            ),
        ),
        (
            "enhanced DICOM by one folder more",
            "enhanced",
            lambda live: upload_and_predict(
                live, [(f"disk/{name}", content) for name, content in read_healthy_files(live, "enhanced")]
            ),
        ),
        (
            "volumes with Chinese and a line of blanks in names",
            "volumes",
            lambda live: upload_and_predict(
                live,
                [
                    (name.replace("P001/", "P001/患者 一 "), content)
                    for name, content in read_healthy_files(live)
                ],
            ),
        ),
    )
]

CASES = [*UPLOADS, *ZIPS, *BODY_CASES, *JSON, *OUTLINES, *PATHS, *TRUTHS, *RAW, *ODD]
