"""The hash of the mask that a prediction used, and the deliveries to archives.

Masks corrected before this revision exist only as files; the migration of the data folder enters their hashes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gliomark.server.migrations.audit_protection import protect_audit_log, unprotect_audit_log

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table of deliveries."""
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
    unprotect_audit_log()  # early databases lack the trigger for INSERT OR REPLACE
    protect_audit_log()
