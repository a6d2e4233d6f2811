"""A database brought to this version's layout when it is opened: all of it or nothing, by one server at a time."""

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

from gliomark.messages import message
from gliomark.study import GliomarkError

ADVISORY_LOCK_KEY = (
    0x676C696F  # of PostgreSQL, held while the layout changes; any number that nobody else takes
)
READ_ONLY_OPTION = "gliomark_reads"  # marks transactions that write nothing
# before layouts were numbered: columns by which one is known, the newest first
UNNUMBERED_LAYOUTS = {
    "0003": {"studies": {"correction", "step"}, "deliveries": {"due"}},
    "0002": {"studies": {"correction"}, "deliveries": {"due"}},
    "0001": {"studies": {"corrected"}, "jobs": {"seconds"}},
}


def upgrade_database(engine: Engine, metadata: MetaData) -> None:
    """Make the tables, or bring old ones to the newest revision. Raises GliomarkError for a database of a newer
    version, for others of the same names, and where it fails; the database is as it was then."""
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
        raise GliomarkError(message("database-not-upgraded", reason=reason)) from None


def _run_migrations(connection: Connection, script: ScriptDirectory) -> None:
    """Asked again what there is: another server may have been faster."""
    if _find_revision(connection, script) is None and (layout := _find_unnumbered_revision(connection)):
        MigrationContext.configure(connection).stamp(script, layout)
    environment = EnvironmentContext(
        Config(), script, fn=lambda revision, _: script._upgrade_revs("head", revision)
    )
    with environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


def _find_revision(connection: Connection, script: ScriptDirectory) -> str | None:
    """None where there is no number. Raises GliomarkError for one that this version does not know."""
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {one.revision for one in script.walk_revisions()}:
        raise GliomarkError(message("database-newer"))
    return current


def _find_unnumbered_revision(connection: Connection) -> str | None:
    """The revision that tables without a number have; None where there are none of ours. Raises GliomarkError for
    others of the same names."""
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
    raise GliomarkError(message("database-foreign"))


def _check_columns(connection: Connection, metadata: MetaData) -> None:
    """Raises GliomarkError for tables that would fail at every call."""
    inspector = inspect(connection)
    for name, table in metadata.tables.items():
        columns = (
            {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else set()
        )
        if columns != set(table.columns.keys()):
            raise GliomarkError(message("database-foreign"))


@contextmanager
def _open_exclusive_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction that no other server's can overtake. SQLite, where a table is altered by making it anew, must not
    take that for the removal of what others refer to."""
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
