"""Upgrade a database to the current schema when it is opened: in one transaction, by one server at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, MetaData, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from gliomark.errors import ConfigurationError
from gliomark.messages import message

# PostgreSQL advisory lock, held during an upgrade; an arbitrary number ("glio")
ADVISORY_LOCK_KEY = 0x676C696F
READ_ONLY_OPTION = "gliomark_reads"  # marks read-only transactions
# columns that identify a schema from before revisions were numbered, newest first
UNNUMBERED_LAYOUTS = {
    "0003": {"studies": {"correction", "step"}, "deliveries": {"due"}},
    "0002": {"studies": {"correction"}, "deliveries": {"due"}},
    "0001": {"studies": {"corrected"}, "jobs": {"seconds"}},
}


def upgrade_database(engine: Engine, metadata: MetaData) -> None:
    """Create the tables, or upgrade them to the newest revision; after an error the database is unchanged.

    Raises
    ------
    ConfigurationError
        If the database is of a newer version, holds foreign tables of the same names, or the upgrade fails.
    """
    script = ScriptDirectory(str(Path(__file__).parent))
    with engine.execution_options(**{READ_ONLY_OPTION: True}).connect() as connection:
        if _find_revision(connection, script) == script.get_current_head():
            return _check_columns(connection, metadata)
    try:
        with _open_exclusive_transaction(engine) as connection:
            _run_migrations(connection, script)
            _check_columns(connection, metadata)
    except (SQLAlchemyError, CommandError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigurationError(message("database-not-upgraded", reason=reason)) from None


def _run_migrations(connection: Connection, script: ScriptDirectory) -> None:
    """Run the missing revisions; the revision is read again, because another server may have upgraded meanwhile."""
    if _find_revision(connection, script) is None and (layout := _find_unnumbered_revision(connection)):
        MigrationContext.configure(connection).stamp(script, layout)
    environment = EnvironmentContext(
        Config(), script, fn=lambda revision, _: script._upgrade_revs("head", revision)
    )
    with environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


def _find_revision(connection: Connection, script: ScriptDirectory) -> str | None:
    """Return the database's revision number; None if it has none.

    Raises
    ------
    ConfigurationError
        If the revision is not known to this version.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {one.revision for one in script.walk_revisions()}:
        raise ConfigurationError(message("database-newer"))
    return current


def _find_unnumbered_revision(connection: Connection) -> str | None:
    """Return the revision of tables without a number; None if there are no such tables.

    Raises
    ------
    ConfigurationError
        If the tables are not gliomark's.
    """
    inspector = inspect(connection)
    columns = {
        table: {c["name"] for c in inspector.get_columns(table)} for table in inspector.get_table_names()
    }
    if not columns.keys() & {"studies", "jobs", "truths", "tokens", "audit", "deliveries"}:
        return None
    for revision, required_columns in UNNUMBERED_LAYOUTS.items():
        if all(
            columns_needed <= columns.get(table, set()) for table, columns_needed in required_columns.items()
        ):
            return revision
    raise ConfigurationError(message("database-foreign"))


def _check_columns(connection: Connection, metadata: MetaData) -> None:
    """Check that all tables have the expected columns.

    Raises
    ------
    ConfigurationError
        If they do not.
    """
    inspector = inspect(connection)
    for name, table in metadata.tables.items():
        columns = (
            {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else set()
        )
        if columns != set(table.columns.keys()):
            raise ConfigurationError(message("database-foreign"))


@contextmanager
def _open_exclusive_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction that excludes upgrades by other servers.

    In SQLite, foreign keys are not enforced meanwhile: recreating a table would count as deleting the referenced
    rows.
    """
    with engine.connect() as connection:
        is_sqlite = engine.dialect.name == "sqlite"
        dbapi_connection = connection.connection.dbapi_connection
        assert dbapi_connection is not None
        if is_sqlite:
            dbapi_connection.cursor().execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                if not is_sqlite:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK_KEY})"))
                yield connection
        finally:
            if is_sqlite:
                dbapi_connection.cursor().execute("PRAGMA foreign_keys=ON")
