"""The audit log as a hash chain; existing lines are chained once, in the order of their numbers.

The chain cannot detect changes made before this revision.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# imported, unlike other definitions, because the hash of a line never changes
from gliomark.server.audit_chain import FIRST_PREVIOUS_SHA256, compute_line_sha256, parse_stored_line
from gliomark.server.migrations.audit_protection import protect_audit_log, unprotect_audit_log

revision = "0004"
down_revision = "0003"

PAGE_LINES = 1000
AUDIT_TABLE = sa.table(
    "audit",
    *map(sa.column, ("number", "at", "who", "action", "subject", "detail", "previous_sha256", "sha256")),
)


def upgrade() -> None:
    """Add the hash columns and the table of the head, and chain the existing lines."""
    unprotect_audit_log()
    for name in ("previous_sha256", "sha256"):
        op.add_column("audit", sa.Column(name, sa.String(64), nullable=False, server_default=""))
    op.create_index("ix_audit_action", "audit", ["action"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    number, sha256 = _chain_existing_lines(op.get_bind())
    op.bulk_insert(head, [{"id": 1, "number": number, "sha256": sha256}])
    protect_audit_log()


def _chain_existing_lines(connection: sa.Connection) -> tuple[int, str]:
    """Set the hashes of every line; return the number and hash of the last one."""
    is_sqlite = connection.dialect.name == "sqlite"
    raw_columns = [
        sa.cast(AUDIT_TABLE.c[name], sa.LargeBinary) if is_sqlite else AUDIT_TABLE.c[name]
        for name in ("at", "who", "action", "subject", "detail")
    ]
    lines = sa.select(AUDIT_TABLE.c.number, *raw_columns).order_by(AUDIT_TABLE.c.number).limit(PAGE_LINES)
    update_statement = sa.update(AUDIT_TABLE).where(AUDIT_TABLE.c.number == sa.bindparam("line"))
    update_statement = update_statement.values(
        previous_sha256=sa.bindparam("before"), sha256=sa.bindparam("own")
    )
    number, sha256 = 0, FIRST_PREVIOUS_SHA256
    while page := connection.execute(lines.where(AUDIT_TABLE.c.number > number)).all():
        changes = []
        for row in page:
            line = parse_stored_line(*row, sha256)
            line_sha256 = compute_line_sha256(line)
            changes.append({"line": line.number, "before": sha256, "own": line_sha256})
            number, sha256 = line.number, line_sha256
        connection.execute(update_statement, changes)
    return number, sha256
