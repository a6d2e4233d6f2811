"""Which outline an answer rests on, and what is owed to archives.

An outline that was corrected before is kept as a file only; the data folder's own migration enters its hash.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gliomark.server.migrations.guard import protect_audit_log, unprotect_audit_log

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("studies", sa.Column("correction", sa.String(64), nullable=False, server_default=""))
    with op.batch_alter_table("studies") as studies:
        studies.drop_column("corrected")
    op.add_column("jobs", sa.Column("outline_sha256", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("prediction_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
    )
    unprotect_audit_log()  # the first tables of some knew nothing of INSERT OR REPLACE
    protect_audit_log()
