"""The ledger of RADIA 0.1 (its format 1): events, mentions, format, and the triggers that refuse changes."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "ledger_0001", None, None, None

TABLES = ("ledger_events", "ledger_mentions", "ledger_format")


def upgrade() -> None:
    """Makes the tables of a new ledger."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "ledger_events",
        sa.Column("sequence", number, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("once", sa.Text, nullable=True, unique=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=True),
    )
    op.create_index("ledger_events_action", "ledger_events", ["action", "sequence"])
    op.create_index("ledger_events_actor", "ledger_events", ["actor", "sequence"])
    op.create_table(
        "ledger_mentions",
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("sequence", number, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("term", sa.Text, nullable=False),
    )
    op.create_index("ledger_mentions_term", "ledger_mentions", ["term", "action", "sequence"])
    op.create_table("ledger_format", sa.Column("version", sa.Integer, primary_key=True))
    op.execute("INSERT INTO ledger_format (version) VALUES (1)")
    for statement in _sqlite() if op.get_bind().dialect.name == "sqlite" else _postgresql():
        op.execute(statement)


def _sqlite() -> list[str]:
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    guards = [
        f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} {refuse}"
        for table in TABLES
        for verb in ("UPDATE", "DELETE")
    ]
    taken = "(SELECT 1 FROM ledger_events WHERE sequence = NEW.sequence OR once = NEW.once)"
    replaced = f"CREATE TRIGGER ledger_events_replace BEFORE INSERT ON ledger_events WHEN EXISTS {taken} {refuse}"
    return [*guards, replaced]


def _postgresql() -> list[str]:
    refuse = "EXECUTE FUNCTION ledger_refuse()"
    function = (
        "CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RAISE EXCEPTION ''the ledger is append-only''; END'"
    )
    guards = [
        f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} FOR EACH ROW {refuse}"
        for table in TABLES
        for verb in ("UPDATE", "DELETE")
    ]
    cuts = [
        f"CREATE TRIGGER {table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {refuse}" for table in TABLES
    ]
    return [function, *guards, *cuts]
