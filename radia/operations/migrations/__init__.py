"""How the ledger's tables became what they are (Alembic): one module of `versions` a released schema, none ever changed."""
