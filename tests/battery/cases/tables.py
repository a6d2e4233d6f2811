"""Clinical tables: csv and xlsx files that are huge, truncated, badly encoded or malicious, and unusual valid ones."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable, Sequence

from openpyxl import Workbook
from tests.battery.cases_and_results import Case, CaseFolders, expect_answer, expect_refusal
from tests.battery.changes import compare_with_healthy_answer, copy_patient, run_all, write_case_file
from tests.battery.healthy_inputs import PATIENT

DOOR = "predict with table"
WORKBOOK = f"predict {PATIENT} --out out --clinical clinical.xlsx"
Content = bytes | str | Callable[[], bytes]
GOOD = f"id,age,sex\n{PATIENT},50,M\n"


def create_csv_case(name: str, kind: str, content: Content, *says: str) -> Case:
    return expect_refusal(
        DOOR,
        f"csv {name}",
        kind,
        run_all(copy_patient("volumes"), write_case_file("clinical.csv", content)),
        *says,
    )


def create_xlsx_case(name: str, kind: str, content: Content, *says: str) -> Case:
    make = run_all(copy_patient("volumes"), write_case_file("clinical.xlsx", content))
    return expect_refusal(DOOR, f"xlsx {name}", kind, make, *says, arguments=WORKBOOK)


def create_table(age: str, sex: str, patient_id: str = PATIENT) -> str:
    return f"id,age,sex\n{patient_id},{age},{sex}\nP002,61,F\nP003,47,M\n"


def create_workbook(rows: Sequence[Sequence[object]] = (("id", "age", "sex"), (PATIENT, 50, "M"))) -> bytes:
    book, content = Workbook(), io.BytesIO()
    for one in rows:
        book.active.append(list(one))
    book.save(content)
    return content.getvalue()


def repack_workbook(change: Callable[[str, bytes], bytes], *more: tuple[str, bytes]) -> Callable[[], bytes]:
    """Change parts of the valid workbook and add further ones."""

    def make() -> bytes:
        new = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(create_workbook())) as old,
            zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
        ):
            for name in old.namelist():
                packed.writestr(name, change(name, old.read(name)))
            for name, content in more:
                packed.writestr(name, content)
        return new.getvalue()

    return make


def change_part(part: str, change_bytes: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    return repack_workbook(lambda name, content: change_bytes(content) if part in name else content)


def add_entity_bomb(content: bytes) -> bytes:
    """Insert a "billion laughs" entity expansion into the sheet."""
    names = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 11))
    text = content.decode().removeprefix('<?xml version="1.0"?>')
    text = re.sub(r"^<\?xml[^>]*\?>", "", text)
    doctype = f'<!DOCTYPE x [<!ENTITY l0 "lol">{names}]>'
    return f'<?xml version="1.0"?>{doctype}{text.replace("<v>50</v>", "<v>&l10;</v>")}'.encode()


def add_external_entity(content: bytes) -> bytes:
    text = re.sub(r"^<\?xml[^>]*\?>", "", content.decode())
    doctype = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    return f'<?xml version="1.0"?>{doctype}{text.replace("<v>50</v>", "<v>&e;</v>")}'.encode()


CSV = [
    create_csv_case("of nothing", "missing part", b"", "table-no-id", "no id column"),
    create_csv_case("of a header alone", "missing part", "id,age,sex\n", "row-missing"),
    create_csv_case("of zeros", "another format", bytes(5000), "table-encoding"),
    create_csv_case(
        "with a zero byte in a cell", "another format", GOOD.replace("50", "5\0" + "0"), "table-encoding"
    ),
    create_csv_case(
        "of chance",
        "noise",
        lambda: bytes((n * 7919 + n // 3) % 251 + 4 for n in range(9000)),
        "table-encoding",
        "table-not-csv",
        "table-no-id",
        "table-row-too-long",
    ),
    create_csv_case(
        "of one line of 50 MB",
        "huge",
        lambda: b"id," + b"x" * (50 << 20),
        "table-not-csv",
        "table-no-id",
        "row-missing",
    ),
    create_csv_case(
        "with a cell of 50 MB",
        "huge",
        lambda: GOOD.encode() + b"P9," + b"5" * (50 << 20) + b",M\n",
        "table-not-csv",
        "table-huge",
    ),
    create_csv_case("of 210 MB", "huge", lambda: GOOD.encode() + bytes(210 << 20), "table-huge"),
    create_csv_case(
        "of 100 000 columns of one name",
        "huge",
        lambda: (",".join(["id"] * 100_000) + "\n" + ",".join(["1"] * 100_000) + "\n").encode(),
        "table-column-twice",
        "table-several-ids",
        "table-id-twice",
        "table-huge",
    ),
    create_csv_case(
        "with a quote that never ends",
        "truncation",
        'id,age,sex\n"P001,50,M\n' + "x,1,F\n" * 999,
        "table-not-csv",
        "row-missing",
        "table-no-id",
    ),
    create_csv_case(
        "with more cells than columns", "header lie", f"id,age,sex\n{PATIENT},49,5,M\n", "table-row-too-long"
    ),
    create_csv_case("in UTF-32", "another format", GOOD.encode("utf-32-be"), "table-encoding"),
    create_csv_case("in UTF-16 cut in a letter", "truncation", GOOD.encode("utf-16")[:-1], "table-encoding"),
    create_csv_case(
        "in UTF-8 and Latin 1 at once",
        "another format",
        b"id,age,sex,name\n" + f"{PATIENT},50,M,".encode() + b"caf\xe9\xff\xfe \xe5\xbc\xa0\n",
        "table-encoding",
    ),
    create_csv_case(
        "that is a web page",
        "another format",
        "<html><table><tr><td>id</td></tr></table></html>",
        "table-web-page",
    ),
    create_csv_case(
        "that is an old workbook", "another format", b"\xd0\xcf\x11\xe0" + bytes(600), "table-old-workbook"
    ),
    create_csv_case(
        "that is JSON 100 000 deep", "nested", "[" * 100_000, "table-no-id", "row-missing", "table-not-csv"
    ),
    create_csv_case(
        "with the id twice", "duplicates", f"id,age,sex\n{PATIENT},50,M\n{PATIENT},61,M\n", "row-repeated"
    ),
    create_csv_case(
        "with two columns of ages",
        "duplicates",
        f"id,age,age,sex\n{PATIENT},50,51,M\n",
        "table-column-twice",
        "table-two-meanings",
        "table-id-twice",
    ),
    create_csv_case(
        "without the patient",
        "missing part",
        create_table("50", "M", "P0001"),
        "row-missing-similar",
        "row-missing",
    ),
    create_csv_case("without an id", "missing part", "age,sex\n50,M\n", "table-no-id"),
    *[
        create_csv_case(
            f"with the age {shown or age!r}",
            "impossible value",
            create_table(age, "M"),
            "age-refused",
            "age-missing",
        )
        for age, shown in (
            ("NaN", ""),
            ("inf", ""),
            ("-5", ""),
            ("1e308", ""),
            ("9" * 5000, "of 5000 digits"),
            ("=1+1", ""),
            ("=cmd|'/c calc'!A1", ""),
            ("", ""),
            ("2020-01-01", ""),
            ("0x32", ""),
            ("5 0", ""),
            ("\u202e05", "turned"),
        )
    ],
    *[
        create_csv_case(
            f"with the sex {sex!r}", "impossible value", create_table("50", sex), "sex-refused", "sex-missing"
        )
        for sex in ("NaN", "3", "-1", "M/F", "=A1", "")
    ],
]

XLSX = [
    create_xlsx_case("of no zip", "another format", b"PK\x03\x04" + bytes(500), "table-damaged-workbook"),
    create_xlsx_case(
        "cut in the middle", "truncation", lambda: create_workbook()[:2000], "table-damaged-workbook"
    ),
    create_xlsx_case(
        "cut at its end", "truncation", lambda: create_workbook()[:-30], "table-damaged-workbook"
    ),
    create_xlsx_case(
        "with a sheet of broken XML",
        "truncation",
        change_part("sheet1", lambda c: c[:300]),
        "table-damaged-workbook",
    ),
    create_xlsx_case(
        "with a billion laughs",
        "bomb",
        change_part("sheet1", add_entity_bomb),
        "table-damaged-workbook",
        "table-huge",
    ),
    create_xlsx_case(
        "that names /etc/passwd",
        "names another file",
        change_part("sheet1", add_external_entity),
        "table-damaged-workbook",
        "age-refused",
        "age-missing",
    ),
    create_xlsx_case(
        "with a sheet of 210 MB",
        "bomb",
        change_part("sheet1", lambda c: c + b" " * (210 << 20)),
        "table-huge",
    ),
    create_xlsx_case(
        "with pictures of 210 MB",
        "bomb",
        repack_workbook(lambda _, c: c, ("xl/media/a", bytes(210 << 20))),
        "table-huge",
    ),
    create_xlsx_case(
        "with 10 001 parts",
        "bomb",
        repack_workbook(lambda _, c: c, *[(f"xl/x{n}", b"") for n in range(10_001)]),
        "table-huge",
    ),
    create_xlsx_case(
        "with a cell at XFD1048576",
        "bomb",
        change_part(
            "sheet1",
            lambda c: c.replace(
                b"</sheetData>",
                (b'<row r="1048576"><c r="XFD1048576" t="str"><v>x</v></c></row></sheetData>'),
            ),
        ),
        "table-huge",
    ),
    create_xlsx_case(
        "of formulas without results",
        "impossible value",
        lambda: create_workbook((("id", "age", "sex"), (PATIENT, "=1+1", "M"))),
        "age-refused",
    ),
    create_xlsx_case(
        "with an error in a cell",
        "impossible value",
        lambda: create_workbook((("id", "age", "sex"), (PATIENT, "#DIV/0!", "M"))),
        "age-refused",
        "age-missing",
    ),
    create_xlsx_case(
        "of no sheets",
        "missing part",
        change_part(
            "workbook.xml", lambda c: re.sub(rb"<sheets>.*</sheets>", b"<sheets></sheets>", c, flags=re.S)
        ),
        "table-damaged-workbook",
        "table-no-id",
    ),
    create_xlsx_case(
        "that is a folder", "another kind", lambda: b"", "table-no-id", "table-unopenable", "no id column"
    ),
]


def create_table_path_case(name: str, make_table: Callable[[CaseFolders], object], *says: str) -> Case:
    return expect_refusal(
        DOOR, f"table that is {name}", "another kind", run_all(copy_patient("volumes"), make_table), *says
    )


KINDS = [
    create_table_path_case(
        "a folder", lambda scene: (scene.folder / "clinical.csv").mkdir(), "table-unopenable"
    ),
    create_table_path_case("not there", lambda scene: None, "table-unopenable"),
    create_table_path_case(
        "a device", lambda scene: (scene.folder / "clinical.csv").symlink_to("/dev/zero"), "table-no-file"
    ),
    create_table_path_case("a pipe", lambda scene: make_fifo(scene), "table-no-file"),
    create_table_path_case(
        "a link to itself",
        lambda scene: (scene.folder / "clinical.csv").symlink_to("clinical.csv"),
        "table-unopenable",
    ),
]


def make_fifo(scene: CaseFolders) -> None:

    os.mkfifo(scene.folder / "clinical.csv")


def create_healthy_case(name: str, content: Content, words: str = "") -> Case:
    file = "clinical.xlsx" if words else "clinical.csv"
    make = run_all(copy_patient("volumes"), write_case_file(file, content))
    return expect_answer(
        DOOR,
        f"table {name}",
        "odd but healthy",
        make,
        compare_with_healthy_answer("volumes", tolerance=0.4),
        words,
    )


ODD = [
    create_healthy_case(
        "in GB18030 with Chinese names", f"住院号,年龄,性别\n{PATIENT},50岁,男\n".encode("gb18030")
    ),
    create_healthy_case("in UTF-16 with tabs", f"id\tage\tsex\n{PATIENT}\t50\tM\n".encode("utf-16")),
    create_healthy_case("with sep=; and decimal commas", f"sep=;\nid;age;sex\n{PATIENT};49,5;M\n"),
    create_healthy_case("with a formula beside it", f"id,age,sex,note\n{PATIENT},50,M,=1+1\n"),
    create_healthy_case(
        "of 20 000 rows",
        "id,age,sex\n" + "".join(f"Q{n},50,M\n" for n in range(20_000)) + f"{PATIENT},50,M\n",
    ),
    create_healthy_case("as a workbook", lambda: create_workbook(), WORKBOOK),
    create_healthy_case(
        "as a workbook with XML 100 000 deep behind its cells",
        change_part(
            "sheet1",
            lambda c: c.replace(b"</sheetData>", b"</sheetData>" + b"<x>" * 100_000 + b"</x>" * 100_000),
        ),
        WORKBOOK,
    ),
    create_healthy_case(
        "as a workbook with titles",
        lambda: create_workbook((("Our patients",), (), ("id", "age", "sex"), (PATIENT, 50, "M"))),
        WORKBOOK,
    ),
]

CASES = [*CSV, *XLSX, *KINDS, *ODD]
