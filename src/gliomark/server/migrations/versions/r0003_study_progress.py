"""Step and progress of preparing a study."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("studies", sa.Column("step", sa.String(), nullable=False, server_default=""))
    op.add_column("studies", sa.Column("progress", sa.Double(), nullable=False, server_default="0"))
    op.execute("UPDATE studies SET progress = 1 WHERE state = 'ready'")
