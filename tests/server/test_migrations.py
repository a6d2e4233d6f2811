"""Databases of every earlier schema are upgraded to the current one, on SQLite and, if available, PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from tests.server.conftest import create_test_database

from gliomark.errors import GliomarkError
from gliomark.server.database import Base, Database, _configure_sqlite, connect_database
from gliomark.server.migrations import upgrade

MOMENT = "2026-01-02 03:04:05"
# exactly as the previous versions created them
FIRST = {
    "studies": "id VARCHAR(36) NOT NULL, patient_id VARCHAR NOT NULL, model VARCHAR NOT NULL, "
    "input_sha256 VARCHAR(64) NOT NULL, state VARCHAR NOT NULL, error VARCHAR, about JSON NOT NULL, "
    "corrected BOOLEAN NOT NULL, deleted BOOLEAN NOT NULL, owner VARCHAR NOT NULL, "
    "created {moment} NOT NULL, PRIMARY KEY (id)",
    "jobs": "id VARCHAR(36) NOT NULL, kind VARCHAR NOT NULL, study_id VARCHAR(36) NOT NULL, "
    "patient_id VARCHAR NOT NULL, request JSON NOT NULL, state VARCHAR NOT NULL, step VARCHAR NOT NULL, "
    "progress {double} NOT NULL, attempts INTEGER NOT NULL, error VARCHAR, result JSON, "
    "input_sha256 VARCHAR(64) NOT NULL, model_sha256 VARCHAR(64) NOT NULL, owner VARCHAR NOT NULL, "
    "created {moment} NOT NULL, seconds {double}, PRIMARY KEY (id), FOREIGN KEY(study_id) REFERENCES studies (id)",
    "truths": "id VARCHAR(36) NOT NULL, prediction_id VARCHAR(36) NOT NULL, marker VARCHAR NOT NULL, "
    "value VARCHAR NOT NULL, note VARCHAR NOT NULL, owner VARCHAR NOT NULL, created {moment} NOT NULL, "
    "PRIMARY KEY (id), FOREIGN KEY(prediction_id) REFERENCES jobs (id)",
    "tokens": "sha256 VARCHAR(64) NOT NULL, name VARCHAR NOT NULL, role VARCHAR NOT NULL, "
    "created {moment} NOT NULL, PRIMARY KEY (sha256), UNIQUE (name)",
    "audit": "number {serial} NOT NULL, at {moment} NOT NULL, who VARCHAR NOT NULL, action VARCHAR NOT NULL, "
    "subject VARCHAR NOT NULL, detail JSON NOT NULL, PRIMARY KEY (number)",
}
DELIVERIES = (
    "id VARCHAR(36) NOT NULL, prediction_id VARCHAR(36) NOT NULL, destination VARCHAR NOT NULL, "
    "state VARCHAR NOT NULL, tries INTEGER NOT NULL, due {moment} NOT NULL, PRIMARY KEY (id), "
    "FOREIGN KEY(prediction_id) REFERENCES jobs (id)"
)
CORRECTION = "correction VARCHAR(64) NOT NULL"
SECOND = FIRST | {
    "studies": FIRST["studies"].replace("corrected BOOLEAN NOT NULL", CORRECTION),
    "jobs": FIRST["jobs"].replace("owner", "outline_sha256 VARCHAR(64) NOT NULL, owner"),
    "deliveries": DELIVERIES,
}
THIRD = SECOND | {
    "studies": SECOND["studies"].replace("error", "step VARCHAR NOT NULL, progress {double} NOT NULL, error"),
}
LAYOUTS = {"0001": FIRST, "0002": SECOND, "0003": THIRD}
INDICES = {"jobs": ("state", "created"), "deliveries": ("state",)}
STUDY = {
    "id": "'s'", "patient_id": "'患者'", "model": "'demo'", "input_sha256": "'0'", "state": "'ready'", "about": "'{}'",
    "deleted": "false", "owner": "'me'", "created": f"'{MOMENT}'",
}  # fmt: skip
OWN = {
    "0001": {"corrected": "true"},
    "0002": {"correction": "'abc'"},
    "0003": {"correction": "'abc'", "step": "''", "progress": "1"},
}
JOB = {
    "id": "'j'", "kind": "'predict'", "study_id": "'s'", "patient_id": "'患者'", "request": "'{}'", "state": "'done'",
    "step": "''", "progress": "1", "attempts": "1", "result": "'{\"markers\": []}'", "input_sha256": "'0'",
    "model_sha256": "'1'", "owner": "'me'", "created": f"'{MOMENT}'",
}  # fmt: skip


def create_older_database(url: str, layout: str) -> None:
    """Create a database as an earlier version left it: a study, a prediction, its pathology result, a token, a log
    line."""
    engine = create_engine(url)
    sqlite = engine.dialect.name == "sqlite"
    types = {
        "moment": "DATETIME" if sqlite else "TIMESTAMP WITH TIME ZONE",
        "serial": "INTEGER" if sqlite else "SERIAL",
        "double": "DOUBLE" if sqlite else "DOUBLE PRECISION",
    }
    later = {"0001": {}, "0002": {"outline_sha256": "''"}, "0003": {"outline_sha256": "''"}}[layout]
    rows = {
        "studies": STUDY | OWN[layout],
        "jobs": JOB | later,
        "truths": dict(
            id="'t'", prediction_id="'j'", marker="'idh'", value="'mutant'", note="''", owner="'me'"
        )
        | {"created": f"'{MOMENT}'"},
        "tokens": dict(sha256="'f'", name="'Dr. Wang'", role="'admin'", created=f"'{MOMENT}'"),
        "audit": dict(at=f"'{MOMENT}'", who="'me'", action="'done'", subject="'j'", detail="'{}'"),
    }
    guards = (
        [
            f"CREATE TRIGGER audit_no_{verb} BEFORE {verb} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
            for verb in ("update", "delete")
        ]
        if sqlite
        else [
            "CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$",
            "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()",
        ]
    )
    if sqlite and layout != "0001":
        guards.append(
            "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS "
            "(SELECT 1 FROM audit WHERE number = NEW.number) "
            "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
        )
    with engine.begin() as connection:
        for table, columns in LAYOUTS[layout].items():
            connection.exec_driver_sql(f"CREATE TABLE {table} ({columns.format(**types)})")
            for column in INDICES.get(table, ()):
                connection.exec_driver_sql(f"CREATE INDEX ix_{table}_{column} ON {table} ({column})")
        for guard in guards:
            connection.exec_driver_sql(guard)
        for table, row in rows.items():
            values = ", ".join(row.values())
            connection.exec_driver_sql(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})")
    engine.dispose()


def create_database_url(folder: Path) -> str:
    return create_test_database() or f"sqlite:///{folder / 'gliomark.db'}"


def read_content(url: str) -> dict[str, tuple[list[str], list[tuple]]]:
    """Return the columns and rows of every table and, for SQLite, the SQL text of all objects."""
    engine = create_engine(url)
    with engine.connect() as connection:
        inspector = inspect(connection)
        found: dict[str, tuple[list[str], list[tuple]]] = {}
        for table in inspector.get_table_names():
            rows = [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))]
            found[table] = ([c["name"] for c in inspector.get_columns(table)], rows)
        if engine.dialect.name == "sqlite":
            objects = connection.execute(text("SELECT name, sql FROM sqlite_master ORDER BY name"))
            found["sqlite_master"] = ([], [tuple(row) for row in objects])
    engine.dispose()
    return found


def find_differences(engine: Engine) -> list[object]:
    """Return the differences between the database and the tables in ``database``, with indexes and foreign keys."""
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), Base.metadata)


def check_changes_are_refused(engine: Engine) -> None:
    statements = ["UPDATE audit SET who = 'nobody'", "DELETE FROM audit"]
    if engine.dialect.name == "sqlite":
        statements.append("INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE number = 1")
    else:
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(SQLAlchemyError, match="only grows"), engine.begin() as connection:
            connection.execute(text(statement))


def test_new_tables_match_the_models(tmp_path: Path) -> None:
    engine = connect_database(create_database_url(tmp_path))
    assert find_differences(engine) == []
    records = Database(engine)
    records.add_audit_entry("me", "tried", "s")
    check_changes_are_refused(engine)
    records.add_study("s", "P", "demo", "0", "me")
    assert [line.action for line in records.list_audit_lines()] == ["study uploaded", "tried"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_earlier_schema_is_upgraded(layout: str, tmp_path: Path) -> None:
    url = create_database_url(tmp_path)
    create_older_database(url, layout)
    engine = connect_database(url)
    assert find_differences(engine) == []
    records = Database(engine)
    study, job = records.find_study("s"), records.find_job("j")
    assert study is not None and job is not None
    assert (study.patient_id, study.state, study.progress) == ("患者", "ready", 1)
    assert study.correction == ("" if layout == "0001" else "abc")
    assert job.result == {"markers": []} and job.outline_sha256 == "" and job.created.year == 2026
    assert [(token.name, token.role) for token in records.list_tokens()] == [("Dr. Wang", "admin")]
    assert [(line.who, line.action) for line in records.list_audit_lines()] == [("me", "done")]
    check_changes_are_refused(engine)
    records.add_pathology(job, "idh", "wild type", "", "me")
    assert records.list_audit_lines()[0].number == 2
    engine.dispose()
    assert read_content(url)["truths"][1][0][:4] == ("t", "j", "idh", "mutant")
    before = read_content(url)
    connect_database(url).dispose()
    assert read_content(url) == before


def test_foreign_keys_are_kept(tmp_path: Path) -> None:
    """Foreign keys refer to the table that replaced the original one."""
    url = create_database_url(tmp_path)
    create_older_database(url, "0001")
    engine = connect_database(url)
    with pytest.raises(SQLAlchemyError, match="(?i)foreign key"), engine.begin() as connection:
        connection.execute(text("DELETE FROM studies"))


def test_a_newer_database_is_refused_and_unchanged(tmp_path: Path) -> None:
    url = create_database_url(tmp_path)
    engine = connect_database(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    before = read_content(url)
    with pytest.raises(GliomarkError, match="newer version of gliomark") as refused:
        connect_database(url)
    assert refused.value.message.code == "database-newer"  # type: ignore[attr-defined]
    assert read_content(url) == before


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE studies DROP COLUMN progress",
        "ALTER TABLE jobs ADD COLUMN priority INTEGER",
        "DROP TABLE truths",
        "ALTER TABLE studies RENAME COLUMN correction TO outline",
    ],
)
def test_unknown_tables_are_refused_and_unchanged(change: str, tmp_path: Path) -> None:
    url = create_database_url(tmp_path)
    create_older_database(url, "0003")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(change))
    engine.dispose()
    before = read_content(url)
    with pytest.raises(GliomarkError, match="another version of gliomark or by another program"):
        connect_database(url)
    assert read_content(url) == before


@pytest.mark.parametrize("layout", ["0001", "0002"])
def test_a_failed_upgrade_leaves_the_database_unchanged(layout: str, tmp_path: Path) -> None:
    url = create_database_url(tmp_path)
    create_older_database(url, layout)
    engine = create_engine(url)
    with engine.begin() as connection:  # objects that conflict with a later revision
        connection.execute(text("DROP TABLE tokens"))
        connection.execute(text("CREATE VIEW tokens AS SELECT 1 AS sha256"))
        if layout == "0001":
            connection.execute(text("CREATE VIEW deliveries AS SELECT 1 AS id"))
        else:
            connection.execute(text("ALTER TABLE studies ADD COLUMN progress FLOAT"))
    engine.dispose()
    before = read_content(url)
    with pytest.raises(GliomarkError, match="could not be upgraded to this version .* unchanged"):
        connect_database(url)
    assert read_content(url) == before


def run_concurrently(count: int, work: Callable[[], object]) -> list[BaseException]:
    """Run the same function in several threads at once and return the exceptions."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("layout", [None, "0001", "0003"])
def test_servers_starting_at_the_same_time_upgrade_once(
    layout: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_database_url(tmp_path)
    if layout:
        create_older_database(url, layout)
    barrier = threading.Barrier(6)
    open_exclusive_transaction = upgrade._open_exclusive_transaction

    def open_with_barrier(engine: Engine):
        barrier.wait(20)  # all threads have seen that an upgrade is needed
        return open_exclusive_transaction(engine)

    monkeypatch.setattr(upgrade, "_open_exclusive_transaction", open_with_barrier)

    assert not run_concurrently(6, lambda: connect_database(url).dispose())
    engine = connect_database(url)
    assert find_differences(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1


def test_programs_can_open_a_new_database_at_the_same_time(tmp_path: Path) -> None:
    """SQLite does not wait on its own if two programs change the journal mode at the same time."""
    for number in range(60):
        path = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE things (id INTEGER)")
        barrier = threading.Barrier(6)

        def open_database(path: Path = path, barrier: threading.Barrier = barrier) -> None:
            with closing(sqlite3.connect(path)) as connection:
                barrier.wait(20)
                _configure_sqlite(connection, None)

        assert not run_concurrently(6, open_database)
