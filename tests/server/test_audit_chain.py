"""The hash chain of the audit log: lines changed, removed, moved or added directly in the database are detected."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from tests.server.conftest import create_test_database
from tests.server.test_migrations import LAYOUTS, create_older_database

from gliomark.errors import GliomarkError
from gliomark.server.audit_chain import FIRST_PREVIOUS_SHA256
from gliomark.server.database import Database
from gliomark.server.run import open_database

COUNT = 12
COLUMNS = "number, at, who, action, subject, detail, previous_sha256, sha256"


@dataclass(frozen=True)
class Log:
    """A database with an audit log, and direct access to it."""

    records: Database
    folder: Path
    url: str

    def attack(self, *lines: str) -> None:
        """Change the log like an owner of the database, who first drops the triggers."""
        if self.url:
            import psycopg

            plain = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(plain) as connection:
                connection.execute("ALTER TABLE audit DISABLE TRIGGER ALL")
                for line in lines:
                    connection.execute(line)
            return
        connection = sqlite3.connect(self.folder / "gliomark.db", isolation_level=None)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for line in lines:
            connection.execute(line)
        connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    """A log with twelve typical lines."""
    url = create_test_database() if request.param == "postgresql" else ""
    if request.param == "postgresql" and not url:
        pytest.skip("no PostgreSQL is named in GLIOMARK_TEST_DATABASE")
    records = open_database(tmp_path, url)
    for number in range(1, COUNT + 1):
        records.add_audit_entry(
            "Dr. 王", "study viewed", f"study {number}", score=0.1 * number, kinds=["T1", None]
        )
    return Log(records, tmp_path, url)


def verify_log(log: Log, expect: str = "") -> str:
    """Return the message code of the verification and the numbers in the message."""
    try:
        log.records.verify_audit_chain(expect)
    except GliomarkError as error:
        message: Any = error.message
        names = ("number", "one", "other", "first", "last", "original")
        return " ".join(
            [message.code, *(f"{message.parameters[n]}" for n in names if n in message.parameters)]
        )
    return "intact"


def test_an_untouched_log_is_intact(log) -> None:
    verdict = log.records.verify_audit_chain()
    head = log.records.read_audit_head()
    assert verdict.line_count == COUNT and verdict.head == head and head.number == COUNT
    assert log.records.list_audit_lines()[-1].previous_sha256 == FIRST_PREVIOUS_SHA256
    noted = log.records.list_audit_lines()[4]
    assert log.records.verify_audit_chain(noted.sha256).expected_number == noted.number == COUNT - 4


def test_the_hash_covers_the_documented_content(log) -> None:
    """The hash is computed here independently, from the columns alone."""
    import hashlib

    row = log.records.list_audit_lines()[0]
    content = (
        f'{{"action":"study viewed","at":"{row.at:%Y-%m-%dT%H:%M:%S.%f}Z","detail":{{"kinds":["T1",null],"score":'
        f'{json.dumps(0.1 * COUNT)}}},"number":12,"previous_sha256":"{row.previous_sha256}","subject":"study 12",'
        '"who":"Dr. \\u738b"}'
    )
    assert hashlib.sha256(content.encode()).hexdigest() == row.sha256


SWAP = (
    "UPDATE audit SET number = -number WHERE number IN ({0}, {1})",
    ("UPDATE audit SET number = {0} + {1} + number WHERE number IN (-{0}, -{1})"),
)
SHIFT_DOWN = (
    "UPDATE audit SET number = -number WHERE number > {0}",
    "UPDATE audit SET number = -number - 1 WHERE number < 0",
)
SHIFT_UP = (
    "UPDATE audit SET number = -number WHERE number >= {0}",
    "UPDATE audit SET number = -number + 1 WHERE number < 0",
)
FALSE_LINE = (
    f"INSERT INTO audit ({COLUMNS}) SELECT {{0}}, at, 'nobody', action, subject, detail, previous_sha256, sha256 "
    "FROM audit WHERE number = {1}"
)
COPY = f"INSERT INTO audit ({COLUMNS}) SELECT {{0}}, {COLUMNS[8:]} FROM audit WHERE number = {{1}}"


def format_lines(lines: tuple[str, ...], *numbers: int) -> tuple[str, ...]:
    return tuple(line.format(*numbers) for line in lines)


TAMPERED = {
    **{
        f"{column} of line {number} altered": (
            (f"UPDATE audit SET {column} = {value} WHERE number = {number}",),
            f"audit-altered {number}",
        )
        for number in (1, 7, COUNT)
        for column, value in {
            "at": "'2020-01-01 00:00:00.000000+00:00'",
            "who": "'nobody'",
            "action": "'study deleted'",
            "subject": "'another'",
            "detail": "'{}'",
            "previous_sha256": f"'{'f' * 64}'",
            "sha256": f"'{'0' * 63}1'",
        }.items()
    },
    "one number in the detail altered": (
        ("""UPDATE audit SET detail = '{"score": 0.4, "kinds": ["T1", null]}' WHERE number = 5""",),
        "audit-altered 5",
    ),
    "a second altered": (
        ("UPDATE audit SET at = '2026-11-26 00:00:00.000001+00:00' WHERE number = 9",),
        "audit-altered 9",
    ),
    "two lines altered: the first is named": (
        ("UPDATE audit SET who = 'x' WHERE number IN (4, 8)",),
        "audit-altered 4",
    ),
    "hashed anew, its followers not": (
        (f"UPDATE audit SET sha256 = '{'a' * 64}' WHERE number = 6",),
        "audit-altered 6",
    ),
    "first removed": (("DELETE FROM audit WHERE number = 1",), "audit-missing 1"),
    "middle removed": (("DELETE FROM audit WHERE number = 6",), "audit-missing 6"),
    "last removed": ((f"DELETE FROM audit WHERE number = {COUNT}",), f"audit-missing {COUNT}"),
    "several removed": (("DELETE FROM audit WHERE number IN (3, 4, 5)",), "audit-missing-lines 3 5"),
    "tail cut off": (("DELETE FROM audit WHERE number > 8",), "audit-missing-lines 9 12"),
    "all removed": (("DELETE FROM audit",), "audit-missing-lines 1 12"),
    "removed, the others moved up": (
        ("DELETE FROM audit WHERE number = 6", *format_lines(SHIFT_DOWN, 6)),
        "audit-missing 6",
    ),
    "two removed, the others moved up": (
        ("DELETE FROM audit WHERE number = 1", *format_lines(SHIFT_DOWN, 1)),
        "audit-missing 1",
    ),
    "neighbours swapped": (format_lines(SWAP, 4, 5), "audit-swapped 4 5"),
    "far lines swapped": (format_lines(SWAP, 2, 11), "audit-swapped 2 11"),
    "first and last swapped": (format_lines(SWAP, 1, COUNT), f"audit-swapped 1 {COUNT}"),
    "inserted in the middle": (
        (*format_lines(SHIFT_UP, 5), *format_lines((FALSE_LINE,), 5, 4)),
        "audit-inserted 5",
    ),
    "inserted at the start": (
        (*format_lines(SHIFT_UP, 1), *format_lines((FALSE_LINE,), 1, 2)),
        "audit-inserted 1",
    ),
    "inserted at the end": (format_lines((FALSE_LINE,), COUNT + 1, COUNT), f"audit-inserted {COUNT + 1}"),
    "a copy inserted": ((*format_lines(SHIFT_UP, 5), *format_lines((COPY,), 5, 2)), "audit-inserted 5"),
    "a copy at the end": (format_lines((COPY,), COUNT + 1, COUNT), f"audit-inserted {COUNT + 1}"),
    "numbered anew": (
        ("UPDATE audit SET number = number + 100",),
        "audit-renumbered 101 1",
    ),
    "one numbered anew": (("UPDATE audit SET number = 99 WHERE number = 3",), "audit-missing 3"),
    "the last numbered anew": (
        (f"UPDATE audit SET number = 99 WHERE number = {COUNT}",),
        f"audit-renumbered 99 {COUNT}",
    ),
    "head set back": (("UPDATE audit_head SET number = 9",), "audit-inserted 10"),
    "head altered": (("UPDATE audit_head SET sha256 = 'x'",), f"audit-altered {COUNT}"),
    "head removed": (("DELETE FROM audit_head",), "audit-head-row-gone"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_verification_reports_the_first_altered_line(log, name) -> None:
    lines, expected = TAMPERED[name]
    log.attack(*lines)
    assert verify_log(log) == expected


@pytest.mark.parametrize(
    "line",
    [
        "UPDATE audit SET at = 'never' WHERE number = 3",
        "UPDATE audit SET at = 7 WHERE number = 3",
        "UPDATE audit SET detail = 'no json' WHERE number = 3",
        "UPDATE audit SET detail = x'ff00' WHERE number = 3",
        "UPDATE audit SET who = x'ff00' WHERE number = 3",
        "UPDATE audit SET who = CAST(x'ff00' AS TEXT) WHERE number = 3",
        "UPDATE audit SET at = CAST(x'ff00' AS TEXT) WHERE number = 3",
        "UPDATE audit SET detail = '' WHERE number = 3",
    ],
)
def test_an_unreadable_value_counts_as_altered(tmp_path, line) -> None:
    """SQLite accepts any value in any column."""
    log = Log(open_database(tmp_path, ""), tmp_path, "")
    for number in range(5):
        log.records.add_audit_entry("me", "study viewed", str(number))
    log.attack(line)
    assert verify_log(log) == "audit-altered 3"


def rewrite_chain(log: Log, start: int) -> None:
    """Change a line and recompute all later hashes and the head, as an owner of the database can."""
    from gliomark.server import audit_chain

    rows = sorted(log.records.list_audit_lines(), key=lambda row: row.number)
    head = audit_chain.ChainHead(start - 1, rows[start - 2].sha256)
    lines = []
    for row in rows[start - 1 :]:
        made = audit_chain.create_next_line(
            head, row.at, "somebody else", row.action, row.subject, row.detail
        )
        lines.append(
            f"UPDATE audit SET who = 'somebody else', previous_sha256 = '{made.previous_sha256}', sha256 = "
            f"'{made.sha256}' WHERE number = {made.number}"
        )
        head = audit_chain.ChainHead(made.number, made.sha256)
    log.attack(*lines, f"UPDATE audit_head SET sha256 = '{head.sha256}'")


def test_a_rewritten_chain_is_detected_only_by_a_recorded_head(log) -> None:
    noted, earlier = log.records.read_audit_head().sha256, log.records.list_audit_lines()[-3].sha256
    rewrite_chain(log, 5)
    assert verify_log(log) == "intact"  # not detectable within the database
    assert verify_log(log, noted) == "audit-head-gone"
    assert verify_log(log, earlier) == "intact"  # a line before the changed one


def test_a_truncated_chain_is_detected_only_by_a_recorded_head(log) -> None:
    noted = log.records.read_audit_head().sha256
    kept = log.records.list_audit_lines()[4]
    log.attack(
        f"DELETE FROM audit WHERE number > {kept.number}",
        f"UPDATE audit_head SET number = {kept.number}, sha256 = '{kept.sha256}'",
    )
    assert verify_log(log) == "intact" and verify_log(log, kept.sha256) == "intact"
    assert verify_log(log, noted) == "audit-head-gone"


def test_a_restored_older_copy_is_detected_only_by_a_recorded_head(tmp_path) -> None:
    log = Log(open_database(tmp_path, ""), tmp_path, "")
    log.records.add_audit_entry("me", "study viewed", "one")
    log.records.engine.dispose()
    shutil.copy(tmp_path / "gliomark.db", tmp_path / "older.db")
    log.records.add_audit_entry("me", "study deleted", "one")
    noted = log.records.read_audit_head().sha256
    assert verify_log(log, noted) == "intact"
    log.records.engine.dispose()
    for left in tmp_path.glob("gliomark.db*"):
        left.unlink()
    (tmp_path / "older.db").rename(tmp_path / "gliomark.db")
    assert verify_log(log) == "intact" and verify_log(log, noted) == "audit-head-gone"


def test_an_empty_log_is_intact_but_has_no_head(tmp_path) -> None:
    log = Log(open_database(tmp_path, ""), tmp_path, "")
    assert log.records.verify_audit_chain().line_count == 0 and log.records.read_audit_head().number == 0
    assert verify_log(log, "a" * 64) == "audit-head-gone"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_lines_of_an_earlier_version_are_chained_once(layout, tmp_path) -> None:
    """Also with gaps in the numbers, as PostgreSQL leaves them, and with a line written by hand."""
    url = create_test_database() or f"sqlite:///{tmp_path / 'gliomark.db'}"
    create_older_database(url, layout)
    engine = create_engine(url)
    more = (
        "INSERT INTO audit (number, at, who, action, subject, detail) "
        "VALUES ({}, '{}', 'Dr. 王', 'truth told', 'j', '{}')"
    )
    with engine.begin() as connection:
        for number, at in (
            (3, "2026-01-02 03:04:06.000100"),
            (4, "2026-01-02"),
            *((n, "2026-02-01 00:00:00") for n in range(10, 1500)),
        ):
            connection.exec_driver_sql(more.format(number, at, '{"marker": "idh", "score": 0.1}'))
    engine.dispose()
    records = open_database(tmp_path, "" if url.startswith("sqlite") else url)
    assert records.verify_audit_chain().line_count == 3 + 1490 and records.read_audit_head().number == 1499
    records.add_audit_entry("me", "study viewed", "s")
    verdict = records.verify_audit_chain()
    assert (verdict.line_count, verdict.head.number) == (1494, 1500)
    log = Log(records, tmp_path, "" if url.startswith("sqlite") else url)
    log.attack("UPDATE audit SET who = 'x' WHERE number = 4")
    assert verify_log(log) == "audit-altered 4"


def test_concurrent_threads_write_one_chain(log) -> None:
    def write(writer: int) -> None:
        for line in range(10):
            log.records.add_audit_entry(f"writer {writer}", "study viewed", str(line))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(write, range(20)))
    assert log.records.verify_audit_chain().line_count == COUNT + 200
    assert sorted(row.number for row in log.records.list_audit_lines()) == list(range(1, COUNT + 201))


WRITER = """
import sys
from pathlib import Path
from gliomark.server.run import open_database
records = open_database(Path(sys.argv[1]), sys.argv[2])
for line in range(40):
    records.add_audit_entry(sys.argv[3], "study viewed", str(line))
"""


def test_concurrent_processes_write_one_chain(log) -> None:
    command = [sys.executable, "-c", WRITER, str(log.folder), log.url]
    running = [subprocess.Popen([*command, name]) for name in ("one", "two")]
    for line in range(40):
        log.records.add_audit_entry("three", "study viewed", str(line))
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert log.records.verify_audit_chain().line_count == COUNT + 120


def test_a_rolled_back_line_leaves_no_gap(log) -> None:
    from gliomark.server.database import append_audit_line

    for _ in range(3):
        with pytest.raises(RuntimeError, match="stopped"), log.records.write_transaction() as session:
            append_audit_line(session, "me", "in vain", "s", {})
            raise RuntimeError("stopped")
    log.records.add_audit_entry("me", "study viewed", "s")
    assert log.records.read_audit_head().number == COUNT + 1 and verify_log(log) == "intact"


def test_a_role_without_ownership_cannot_disable_the_triggers(tmp_path) -> None:
    """The roles recommended in docs/how-to/server.md, word for word, on PostgreSQL."""
    owner = create_test_database()
    if not owner:
        pytest.skip("no PostgreSQL is named in GLIOMARK_TEST_DATABASE")
    open_database(tmp_path, owner).engine.dispose()
    role = f"gliomark_server_{make_url(owner).database}"
    document = (Path(__file__).parents[2] / "docs" / "how-to" / "server.md").read_text("utf-8")
    grants = document.split("```sql\n")[1].split("```")[0].replace("gliomark_server", role)
    engine = create_engine(owner)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        for line in filter(str.strip, grants.split(";")):
            connection.exec_driver_sql(line)
    url = make_url(owner).set(username=role, password="x").render_as_string(hide_password=False)  # noqa: S106
    records = open_database(tmp_path, url)
    records.add_study("s", "P", "demo", "0", "me")
    records.delete_study("s", "me")
    assert records.verify_audit_chain().line_count == 2
    refused = "permission denied|must be owner"
    for line in (
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "DROP TRIGGER audit_no_change ON audit",
        "UPDATE audit SET who = 'x'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM audit_head",
        "DROP TABLE audit",
    ):
        with pytest.raises(SQLAlchemyError, match=refused), records.engine.begin() as connection:
            connection.exec_driver_sql(line)
    assert records.verify_audit_chain().line_count == 2
    records.engine.dispose()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {role}")
        connection.exec_driver_sql(f"DROP ROLE {role}")
