"""Dagster only: what runs when, and what a data engineer sees of it. The work itself is in `radia.steps`."""
