"""One function per arrow of the pipeline: load from the workspace, call the domain function, write, tell the ledger.

The commands and the Dagster assets call these and nothing else, so a step does the same wherever it is started. A step
whose inputs (digests of files, settings and code) are those of its last run is not done again; a step that was killed
left nothing visible and starts anew. No computation belongs here.
"""

from radia.steps.data import (
    all_received,
    batches,
    check,
    current_snapshot,
    deidentify,
    images,
    inbox_listing,
    inbox_of,
    intake,
    labels,
    repair_images,
    snapshot,
    table_of,
)
from radia.steps.judging import explain
from radia.steps.lineage import (
    act_on_approvals,
    bundle,
    erase,
    promote,
    reidentify,
    reject,
    roll_back,
    trace,
    uses,
    verify,
    withdraw,
)
from radia.steps.models import evaluate, gate, register, suspects
from radia.steps.monitoring import Watch, monitor, shift_since_training
from radia.steps.network import fetch, fetch_day, receive
from radia.steps.noise import noise
from radia.steps.reads import (
    add_reads,
    export_label_studio,
    export_reads,
    import_label_studio,
    import_reads,
    plan_reads,
    queue_reads,
    reads_status,
)
from radia.steps.reproduction import reproduce, restore
from radia.steps.run import Outcome, Progress, Run, open_run, recorded, silent
from radia.steps.training import base_model, finetune, finetune_public

__all__ = [
    "Outcome",
    "Progress",
    "Run",
    "Watch",
    "act_on_approvals",
    "add_reads",
    "all_received",
    "base_model",
    "batches",
    "bundle",
    "check",
    "current_snapshot",
    "deidentify",
    "erase",
    "evaluate",
    "explain",
    "export_label_studio",
    "export_reads",
    "fetch",
    "fetch_day",
    "finetune",
    "finetune_public",
    "gate",
    "images",
    "import_label_studio",
    "import_reads",
    "inbox_listing",
    "inbox_of",
    "intake",
    "labels",
    "monitor",
    "noise",
    "open_run",
    "plan_reads",
    "promote",
    "queue_reads",
    "reads_status",
    "receive",
    "recorded",
    "register",
    "reidentify",
    "reject",
    "repair_images",
    "reproduce",
    "restore",
    "roll_back",
    "shift_since_training",
    "silent",
    "snapshot",
    "suspects",
    "table_of",
    "trace",
    "uses",
    "verify",
    "withdraw",
]
