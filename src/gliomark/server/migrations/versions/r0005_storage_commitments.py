"""Requests for storage commitment that archives have not answered yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(64), primary_key=True),
        sa.Column("prediction_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("archive", sa.String(), nullable=False),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.Column("wait_s", sa.Double(), nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
    )
