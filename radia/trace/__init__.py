"""Lineage: from a model to the images behind it, and from an image or a patient to the models that saw them.

The ledger says which step made what from what, by digest; the Parquet files whose digests it holds say which images a
batch or a snapshot has. Nothing here writes, and nothing identifies: ids are pseudonyms, sources are digests. How a
trace looks as text and JSON is here too (as a page: `radia.trace_page`); what MLflow knows is given as a value.
"""

from __future__ import annotations

from radia.trace.along import CANDIDATE, events_behind, withdrawn_patients
from radia.trace.questions import (
    models_that_saw,
    names_of_patient,
    trace_batch,
    trace_event,
    trace_image,
    trace_model,
    trace_patient,
    trace_person,
)
from radia.trace.text import SHOWN, one_line, render_text, to_json, write_json
from radia.trace.tree import Tree

__all__ = [
    "CANDIDATE",
    "SHOWN",
    "Tree",
    "events_behind",
    "models_that_saw",
    "names_of_patient",
    "one_line",
    "render_text",
    "to_json",
    "trace_batch",
    "trace_event",
    "trace_image",
    "trace_model",
    "trace_patient",
    "trace_person",
    "withdrawn_patients",
    "write_json",
]
