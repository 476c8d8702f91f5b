"""How the ledger's tables became what they are (Alembic): a module of `versions` a released schema, never changed."""
