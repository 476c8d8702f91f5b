"""Intake batches as partitions: `<site>-<date>-<n>`, added as they arrive."""

import dagster as dg

batches = dg.DynamicPartitionsDefinition(name="batches")
