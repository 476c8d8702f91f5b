"""One module a released schema of the ledger, in the order of their numbers."""
