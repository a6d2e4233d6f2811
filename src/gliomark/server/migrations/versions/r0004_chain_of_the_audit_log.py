"""The audit log as a hash chain: the lines that are there are chained once, in the order of their numbers.

What was done to them before is not found by the chain: it proves what happens from here on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# the way a line is hashed can never change, so this import outlives other versions
from gliomark.server.audit_chain import START, digest, line_of
from gliomark.server.migrations.guard import guard_audit, release_audit

revision = "0004"
down_revision = "0003"

PAGE = 1000
AUDIT = sa.table(
    "audit",
    *map(sa.column, ("number", "at", "who", "action", "subject", "detail", "previous_sha256", "sha256")),
)


def upgrade() -> None:
    release_audit()
    for name in ("previous_sha256", "sha256"):
        op.add_column("audit", sa.Column(name, sa.String(64), nullable=False, server_default=""))
    op.create_index("ix_audit_action", "audit", ["action"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    number, sha256 = _chain(op.get_bind())
    op.bulk_insert(head, [{"id": 1, "number": number, "sha256": sha256}])
    guard_audit()


def _chain(connection: sa.Connection) -> tuple[int, str]:
    """Give every line its hashes; the last line's number and hash."""
    sqlite = connection.dialect.name == "sqlite"
    raw = [
        sa.cast(AUDIT.c[name], sa.LargeBinary) if sqlite else AUDIT.c[name]
        for name in ("at", "who", "action", "subject", "detail")
    ]
    lines = sa.select(AUDIT.c.number, *raw).order_by(AUDIT.c.number).limit(PAGE)
    change = sa.update(AUDIT).where(AUDIT.c.number == sa.bindparam("line"))
    change = change.values(previous_sha256=sa.bindparam("before"), sha256=sa.bindparam("own"))
    number, sha256 = 0, START
    while page := connection.execute(lines.where(AUDIT.c.number > number)).all():
        changes = []
        for row in page:
            line = line_of(*row, sha256)
            own = digest(line)
            changes.append({"line": line.number, "before": sha256, "own": own})
            number, sha256 = line.number, own
        connection.execute(change, changes)
    return number, sha256
