"""Database triggers that refuse to change or delete lines of the audit log; a revision may suspend them."""

from __future__ import annotations

from alembic import op

# INSERT OR REPLACE in SQLite can change a line without an UPDATE
_SQLITE_TRIGGERS = {
    "audit_no_update": "UPDATE ON audit",
    "audit_no_delete": "DELETE ON audit",
    "audit_no_replace": "INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)",
}
_POSTGRESQL_STATEMENTS = (
    "CREATE OR REPLACE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$",
    "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()",
)


def protect_audit_log() -> None:
    """Create the triggers: lines can only be added."""
    if op.get_context().dialect.name == "sqlite":
        for name, condition in _SQLITE_TRIGGERS.items():
            op.execute(
                f"CREATE TRIGGER {name} BEFORE {condition} "
                "BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
            )
    else:
        for statement in _POSTGRESQL_STATEMENTS:
            op.execute(statement)


def unprotect_audit_log() -> None:
    """Drop the triggers until ``protect_audit_log``, within the same revision."""
    if op.get_context().dialect.name == "sqlite":
        for name in _SQLITE_TRIGGERS:
            op.execute(f"DROP TRIGGER IF EXISTS {name}")
    else:
        op.execute("DROP TRIGGER IF EXISTS audit_no_change ON audit")
