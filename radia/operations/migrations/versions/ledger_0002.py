"""Format 2: events are also found by the people that their parameters name. No table changes; old events stay."""

from alembic import op

revision, down_revision, branch_labels, depends_on = "ledger_0002", "ledger_0001", None, None


def upgrade() -> None:
    """Names the format, so that an older RADIA refuses what this one writes."""
    op.execute(
        "INSERT INTO ledger_format (version) SELECT 2 WHERE NOT EXISTS (SELECT 1 FROM ledger_format WHERE version = 2)"
    )
