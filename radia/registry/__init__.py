"""MLflow: runs, candidates that wait for a person, and the model in use. The only package that speaks to it.

Two registered models. The pipeline writes `cxr-candidate`; a person who may write `cxr` decides what is in use: its
aliases are `champion` (in use) and `previous` (in use before). A version's tags `snapshot`, `checkpoint`, `metrics` and
`decision` are digests of its evidence; `record_digest` covers everything that MLflow keeps of it, so that a metric, a
tag or an artefact changed afterwards is found out. Importing MLflow takes seconds: it happens inside functions.
"""

from radia.registry.cards import AGAINST_THE_GATE, CARD_LETTERS, CARD_ROOM, NOTE, REST_OF_CARD, note_on_card
from radia.registry.names import (
    CANDIDATE,
    CHAMPION,
    CHAMPION_URI,
    EVIDENCE,
    MODEL,
    PREVIOUS,
    Version,
    candidates,
    champion,
    find,
    has,
    versions,
)
from radia.registry.putting_in_use import (
    Approval,
    Promotion,
    approval_of,
    approvals,
    mark_acted,
    one_at_a_time,
    put_in_use,
    roll_back,
)
from radia.registry.records import Evidence, artefact, checkpoint_folder, evidence, is_changed_copy, record_digest
from radia.registry.registering import Candidate, log_candidate, register_champion
from radia.registry.runs import EXPERIMENT, Training, flat_metrics, open_training, tell_training

__all__ = [
    "AGAINST_THE_GATE",
    "CANDIDATE",
    "CARD_LETTERS",
    "CARD_ROOM",
    "CHAMPION",
    "CHAMPION_URI",
    "EVIDENCE",
    "EXPERIMENT",
    "MODEL",
    "NOTE",
    "PREVIOUS",
    "REST_OF_CARD",
    "Approval",
    "Candidate",
    "Evidence",
    "Promotion",
    "Training",
    "Version",
    "approval_of",
    "approvals",
    "artefact",
    "candidates",
    "champion",
    "checkpoint_folder",
    "evidence",
    "find",
    "flat_metrics",
    "has",
    "is_changed_copy",
    "log_candidate",
    "mark_acted",
    "note_on_card",
    "one_at_a_time",
    "open_training",
    "put_in_use",
    "record_digest",
    "register_champion",
    "roll_back",
    "tell_training",
    "versions",
]
