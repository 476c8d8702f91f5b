"""The step that watches: each batch that the model in use has not been trained on is scored by it and compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.findings import FINDINGS
from radia.ledger import Action
from radia.steps.data import blind_reads, current_snapshot
from radia.steps.run import Outcome, Run, Work, once
from radia.workspace import written_whole

if TYPE_CHECKING:
    import pandas as pd

    from radia.model import Checkpoint
    from radia.monitoring import Sample
    from radia.registry import Version
    from radia.snapshot import Snapshot

CHUNK = 256
"""Images read from the shards at a time."""


@dataclass(frozen=True)
class Watch:
    """What the monitoring of a site says: one outcome a new batch, and whether to train again and why."""

    model: str
    batches: list[Outcome]
    proposal: dict[str, Any]

    @property
    def shifted(self) -> list[str]:
        """'batch: site: name' for everything that moved."""
        return [f"{one.summary['batch']}: {what}" for one in self.batches for what in one.summary["shifted"]]

    def as_json(self) -> dict[str, Any]:
        """{"model", "batches": [...], "shifted": [...], "proposal": {...}}."""
        batches = [one.summary for one in self.batches]
        return {"model": self.model, "batches": batches, "shifted": self.shifted, "proposal": self.proposal}


def monitor(run: Run) -> Watch:
    """Compares every batch that came after the training of the model in use with what it was trained on, by site.

    A model that was not trained here is held against the newest snapshot from before the batch; a batch for which
    there is neither is not compared. Writes `monitoring/<batch>/` and `monitoring/proposal.json`.
    """
    from radia import registry
    from radia.manifest import load
    from radia.model import read_checkpoint
    from radia.monitoring import propose

    used = registry.champion(run.workspace)
    if used is None:
        return Watch("", [], propose(**_NOTHING, settings=run.settings.monitor).as_json())
    folder = registry.checkpoint_folder(run.workspace, registry.CHAMPION_URI)
    checkpoint, manifest = read_checkpoint(folder), load(run.workspace.manifest)
    snapshots = _snapshots(run)
    done = []
    for batch in sorted(manifest["batch"].unique()):
        if (reference := _reference(snapshots, checkpoint, batch)) is not None:
            done.append(_watched(run, folder, manifest, reference, batch))
    shifted = [what for one in done for what in one.summary["shifted"]]
    trained = next((known for known in snapshots if known.digest == checkpoint.snapshot), None)
    proposal = propose(
        new_reads=_new_reads(run, trained),
        new_images=sum(one.summary["images"] for one in done),
        age_days=_days_in_use(used),
        shifted=shifted,
        settings=run.settings.monitor,
    ).as_json()
    with written_whole(run.workspace.monitoring / "proposal.json") as partial:
        partial.write_text(json.dumps(proposal, indent=1) + "\n")
    return Watch(used.uri.removeprefix("mlflow:"), done, proposal)


_NOTHING: dict[str, Any] = {"new_reads": 0, "new_images": 0, "age_days": 0.0, "shifted": ()}


def shift_since_training(run: Run, model: Path) -> dict[str, Any]:
    """The snapshot in use against the snapshot that a checkpoint was trained on, by site, as that model sees both.

    Empty, with a `why`, where the model was trained on no snapshot of this archive, or on this very one.
    """
    from radia.model import read_checkpoint
    from radia.monitoring import shift_by_site, shifted_in

    frozen, checkpoint = current_snapshot(run), read_checkpoint(model)
    trained = next((known for known in _snapshots(run) if known.digest == checkpoint.snapshot), None)
    if trained is None:
        return {"why": "the model in use was not trained on a snapshot of this archive", "shifted": []}
    if trained.digest == frozen.digest:
        return {"why": "the model in use was trained on this very snapshot", "shifted": []}
    fresh = frozen.images[~frozen.images["image"].isin(trained.images["image"])]
    by_site = shift_by_site(
        _sample(run, model, _unseen(trained), "shift"),
        _sample(run, model, fresh, "shift"),
        run.settings.monitor,
        seed=run.settings.seed,
    )
    return {"reference": trained.digest, "sites": by_site, "shifted": shifted_in(by_site)}


def _watched(run: Run, model: Path, manifest: pd.DataFrame, reference: Snapshot, batch: str) -> Outcome:
    from radia.evaluate.figures import draw_shift, png
    from radia.monitoring import shift_by_site, shifted_in

    rows = manifest[manifest["batch"] == batch]
    target = run.workspace.monitoring / batch

    def work() -> Work:
        by_site = shift_by_site(
            _sample(run, model, _unseen(reference), "monitor"),
            _sample(run, model, rows, "monitor"),
            run.settings.monitor,
            seed=run.settings.seed,
        )
        with written_whole(target) as folder:
            folder.mkdir()
            (folder / "shift.json").write_text(json.dumps(by_site, indent=1) + "\n")
            (folder / "shift.png").write_bytes(png(draw_shift(by_site, title=batch)))
        return {batch: digests.of_file(target / "shift.json")}, {
            "batch": batch,
            "images": len(rows),
            "shifted": shifted_in(by_site),
            "too_few": [site for site, entry in by_site.items() if "why" in entry],
        }

    inputs = {
        "model": digests.of_folder(model),
        "reference": reference.digest,
        "images": digests.of_json(sorted(rows["pixel_sha256"])),
        "settings": run.settings.monitor.digest(),
    }
    return once(run, "monitor", batch, inputs=inputs, produces=[target / "shift.json"], work=work)


def _snapshots(run: Run) -> list[Snapshot]:
    """The snapshots of the archive that still lie here, oldest first."""
    from radia.snapshot import Snapshot

    frozen = [event.outputs["snapshot"] for event in run.ledger.events(action=Action.SNAPSHOT)]
    folder = run.workspace.snapshots
    return [Snapshot(digest, folder / digest) for digest in dict.fromkeys(frozen) if (folder / digest).is_dir()]


def _reference(snapshots: list[Snapshot], checkpoint: Checkpoint, batch: str) -> Snapshot | None:
    """What a batch is held against; None where the model was trained on it, or there was nothing before it."""
    trained = next((known for known in snapshots if known.digest == checkpoint.snapshot), None)
    if trained is not None:
        return None if batch in trained.batches else trained
    return next((known for known in reversed(snapshots) if batch not in known.batches), None)


def _unseen(snapshot: Snapshot) -> pd.DataFrame:
    """A snapshot's images that no model learnt from: of what it learnt, a model is surer than of anything new."""
    return snapshot.images[snapshot.images["split"] != "train"]


def _sample(run: Run, model: Path, rows: pd.DataFrame, step: str) -> Sample:
    """Images as the model sees them; at most so many as are compared, drawn before anything is computed."""
    import numpy as np
    import pandas as pd

    from radia.image_quality import measure
    from radia.images import ImageStore
    from radia.manifest import load
    from radia.model import load_checkpoint
    from radia.monitoring import MEASURES, Sample
    from radia.predict import predict

    most = run.settings.monitor.max_images * max(rows["site"].nunique(), 1)
    rows = rows.sample(min(most, len(rows)), random_state=run.settings.seed).sort_values("image")
    known = load(run.workspace.manifest).set_index("image")
    store, tick = ImageStore(run.workspace.images), run.ticker(step)
    rows = rows[rows["image"].isin(known.index)].reset_index(drop=True)
    network, _ = load_checkpoint(model)
    seen, pictures = [], []
    for start in range(0, len(rows), CHUNK):
        pixels = store.read(list(rows["image"][start : start + CHUNK]))
        seen.append(predict(network, pixels))
        pictures.append(measure(pixels))
        tick(start + len(pixels), len(rows))
    pictured = pd.concat(pictures, ignore_index=True)[["structure", "noise"]]
    measures = known.loc[rows["image"]].reset_index(drop=True).join(pictured)
    return Sample(
        rows["patient"].to_numpy(str),
        rows["site"].to_numpy(str),
        measures[list(MEASURES)].astype(np.float64),
        np.concatenate([part.features for part in seen]).astype(np.float64),
        pd.DataFrame(np.concatenate([part.probabilities for part in seen]).astype(np.float64), columns=list(FINDINGS)),
    )


def _new_reads(run: Run, trained: Snapshot | None) -> int:
    """Studies with a decided read that the snapshot of the model in use does not hold as its label."""
    reads = blind_reads(run.workspace)
    if reads is None:
        return 0
    if trained is None:
        return len(reads)
    read = reads.set_index("study")
    findings = [finding for finding in FINDINGS if finding in read.columns]
    held = trained.labels.set_index("study").reindex(read.index)[findings]
    differs = read[findings].notna() & (read[findings] != held)
    return int(differs.any(axis=1).sum())


def _days_in_use(used: Version) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(used.created)).total_seconds() / 86_400
