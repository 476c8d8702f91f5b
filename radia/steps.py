"""One function per arrow of the pipeline: load from the workspace, call the domain function, write, tell the ledger.

The commands and the Dagster assets call these and nothing else, so a step does the same wherever it is started. A step
whose inputs (digests of files, settings and code) are those of its last run is not done again; a step that was killed
left nothing visible and starts anew. No computation belongs here.
"""

from __future__ import annotations

import getpass
import json
import math
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from radia import __version__, digests
from radia.errors import EmptyInbox, QualityBlocked, SnapshotError
from radia.findings import FINDINGS, training_targets
from radia.ledger import Ledger, file_digests, open_ledger, verify_artefacts
from radia.settings import LabelSettings, Settings, load_settings, workspace
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from radia.fit import FitResult
    from radia.intake import Receipt
    from radia.predict import Predictions
    from radia.snapshot import Snapshot
    from radia.trace import Tree

    Mask = NDArray[np.bool_]

CHUNK = 256
"""Images read from the shards at a time."""

Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much is done and how much there is."""


def silent(_step: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Run:
    """Where a step works, with what settings, and on whose behalf."""

    workspace: Workspace
    settings: Settings
    actor: str
    progress: Progress = silent
    tags: dict[str, str] = field(default_factory=dict)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger that every step appends to."""
        return open_ledger(self.workspace)

    def ticker(self, step: str) -> Callable[[int, int], None]:
        """The progress callback of one step."""
        return lambda done, total: self.progress(step, done, total)


@dataclass(frozen=True)
class Outcome:
    """What a step took and gave, by digest, and what a person wants to know of it."""

    step: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    summary: dict[str, Any]
    reused: bool = False


def open_run(
    *,
    data: Path | None = None,
    params: Path | None = None,
    progress: Progress = silent,
    tags: dict[str, str] | None = None,
) -> Run:
    """A run in the site's data folder with the settings in force."""
    site = workspace(data)
    site.root.mkdir(parents=True, exist_ok=True)
    return Run(site, load_settings(params), _actor(), progress, tags or {})


# --- from the landing zone to snapshots -----------------------------------------------------------------------------


def intake(run: Run, inbox: Path | None, *, labels: Path | None = None, reports: Path | None = None) -> list[Outcome]:
    """Takes what is new in `inbox/<site>/…` into landing batches, and keeps tables of labels or reports beside them.

    Nothing new is no error once a batch has been received. Raises EmptyInbox when nothing ever was.
    """
    from radia import intake as domain
    from radia.labels import read_label_table

    landing = run.workspace.landing
    if labels is not None:
        read_label_table(labels)
        _keep_table(labels, landing / "tables", "labels")
    if reports is not None:
        from radia.reports import read_report_table

        read_report_table(reports)
        _keep_table(reports, landing / "tables", "reports")
    if inbox is not None:
        try:
            domain.take_folder(inbox, landing, today=datetime.now(UTC).date())
        except EmptyInbox:
            if not domain.receipts(landing):
                raise
    received = domain.receipts(landing)
    if not received:
        raise EmptyInbox(f"nothing was received yet: put DICOM files under {run.workspace.root}/inbox/<site>/")
    return [_received(run, landing, receipt) for receipt in received]


def deidentify(run: Run) -> list[Outcome]:
    """Cleans every landing batch; refused files are copied to quarantine with their reasons."""
    return [_deidentify_batch(run, batch) for batch in batches(run.workspace)]


def images(run: Run) -> list[Outcome]:
    """Turns the clean DICOM of every batch into shards and manifest rows."""
    return [_images_of_batch(run, batch) for batch in clean_batches(run.workspace)]


def labels(run: Run) -> Outcome:
    """Joins the tables of labels and reports to the studies by the accession's pseudonym."""
    from radia.dicom.pseudonyms import Pseudonymizer, load_key
    from radia.labels import link_tables
    from radia.manifest import load

    site = run.workspace
    tables = sorted((site.landing / "tables").glob("*.csv"))
    target = site.labels / "given.parquet"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        linked = link_tables(tables, Pseudonymizer(load_key(site.key_file)), load(site.manifest))
        _write_parquet(linked.frame, target)
        return {"labels": digests.of_file(target)}, linked.counts

    inputs = {path.name: path.name.split(".")[0] for path in tables} | _manifest_inputs(site)
    return _once(run, "labels", inputs=inputs, produces=[target], work=work)


def inbox_of(run: Run, given: str = "") -> Path | None:
    """The inbox given, or `inbox/` in the data folder, or None where there is none."""
    if given:
        return Path(given)
    usual = run.workspace.root / "inbox"
    return usual if usual.is_dir() else None


def table_of(run: Run, name: str, given: str = "", *, inbox: str = "") -> Path | None:
    """The table given, or, where the usual inbox is used, the one of this name in the data folder, or None."""
    if given:
        return Path(given)
    usual = run.workspace.root / name
    return usual if not inbox and usual.is_file() else None


def inbox_listing(run: Run, *, quiet_seconds: float = 30.0) -> str | None:
    """A digest of what lies in the usual inbox, or None while it is empty or was written to a moment ago."""
    inbox = inbox_of(run)
    files = sorted(path for path in inbox.rglob("*") if path.is_file()) if inbox else []
    states = [(path.relative_to(run.workspace.root).as_posix(), path.stat()) for path in files]
    newest = max((state.st_mtime for _, state in states), default=None)
    if newest is None or datetime.now(UTC).timestamp() - newest < quiet_seconds:
        return None
    return digests.of_json([[name, state.st_size, state.st_mtime_ns] for name, state in states])


def check(run: Run) -> Outcome:
    """Checks manifest and labels against the rules of data quality. `summary["blocking"]` says whether one blocks."""
    import pandas as pd

    from radia.image_quality import survey
    from radia.images import ImageStore
    from radia.manifest import load
    from radia.quality import check as judge

    site = run.workspace
    target = site.quality / "report.json"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        previous = _previous_snapshot(site)
        given = pd.read_parquet(site.labels / "given.parquet")
        manifest = load(site.manifest)
        pictures = survey(ImageStore(site.images).read, manifest, progress=run.ticker("check"))
        report = judge(
            manifest,
            given,
            settings=run.settings.quality,
            previous=previous,
            refused=_refused(site),
            pictures=pictures,
        )
        with written_whole(site.quality) as folder:
            folder.mkdir()
            (folder / "report.json").write_text(report.to_json())
            report.write_data_docs(folder / "site")
        failed = [result.name for result in report.results if not result.passed]
        return {"report": digests.of_file(target)}, {
            "rules": len(report.results),
            "failed": failed,
            "blocking": report.blocking,
        }

    inputs = _manifest_inputs(site) | _label_inputs(site) | {"settings": run.settings.quality.digest()}
    return _once(run, "check", inputs=inputs, produces=[target], work=work)


def snapshot(run: Run) -> Outcome:
    """Freezes manifest, labels, reads and split, and versions them with DVC. Raises QualityBlocked, SnapshotError."""
    import pandas as pd

    from radia import snapshot as domain
    from radia.labels import merge_reads
    from radia.manifest import load
    from radia.trace import withdrawn_patients

    site = run.workspace
    if check(run).summary["blocking"]:
        raise QualityBlocked(f"a critical rule of data quality failed: see {site.quality / 'site' / 'index.html'}")
    target = site.current_snapshot

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        given = pd.read_parquet(site.labels / "given.parquet")
        frozen = domain.freeze(
            load(site.manifest),
            merge_reads(given, _reads(site)),
            settings=run.settings.snapshot,
            folder=site.snapshots,
            withdrawn=withdrawn_patients(run.ledger),
        )
        md5 = domain.version(site.archive, frozen.digest)
        with written_whole(target) as partial:
            partial.write_text(json.dumps({"snapshot": frozen.digest}) + "\n")
        split = frozen.images["split"].value_counts().to_dict()
        return {"snapshot": frozen.digest, "dvc": md5}, {
            "images": len(frozen.images),
            "patients": int(frozen.images["patient"].nunique()),
            "split": {side: int(split.get(side, 0)) for side in ("train", "validation", "test")},
        }

    inputs = _manifest_inputs(site) | _label_inputs(site) | _read_inputs(site)
    inputs["withdrawn"] = digests.of_json(sorted(withdrawn_patients(run.ledger)))
    inputs["settings"] = run.settings.snapshot.digest()
    return _once(run, "snapshot", inputs=inputs, produces=[target], work=work)


def current_snapshot(run: Run) -> Snapshot:
    """The snapshot in use, verified. Raises SnapshotError."""
    from radia.snapshot import load

    pointer = run.workspace.current_snapshot
    if not pointer.is_file():
        raise SnapshotError("there is no snapshot yet: run `radia snapshot`, or `radia run`")
    return load(run.workspace.snapshots, json.loads(pointer.read_text())["snapshot"])


# --- the model in use, suspects, training ---------------------------------------------------------------------------


class InMemory:
    """Images in an array, read by number like those of the archive."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        """The images of these numbers."""
        return self._images[[int(number) for number in ids]]


def base_model(run: Run) -> Outcome:
    """Puts the base model's checkpoint at `models/base`.

    Where no model is in use yet, the embedded stand-in is trained on phantoms and registered as the first one: the
    summary says so, because such a model is for trying out only.
    """
    from radia import registry

    site = run.workspace
    base = run.settings.finetune.base
    stood_in = False
    if base == registry.CHAMPION_URI and registry.champion(site) is None:
        _train_stand_in(run)
        stood_in = True
    folder = registry.checkpoint_folder(site, base) if base.startswith("mlflow:") else Path(base)
    target = site.models / "base"
    source = digests.of_folder(folder)

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        with written_whole(target) as partial:
            shutil.copytree(folder, partial)
        return {"checkpoint": digests.of_folder(target)}, {"base": base, "stand_in": stood_in}

    return _once(run, "base-model", inputs={"base": source}, produces=[target / "model.safetensors"], work=work)


def suspects(run: Run) -> Outcome:
    """Ranks the given labels of the snapshot by how likely they are wrong."""
    import pandas as pd

    from radia.suspects import find_suspects, out_of_fold

    site, frozen = run.workspace, current_snapshot(run)
    target = site.suspects / "suspects.parquet"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        features = _predict(run, site.models / "base", frozen, "suspects").features
        given = _given_by_image(frozen)
        probabilities = out_of_fold(
            features,
            given.to_numpy(),
            frozen.images["patient"].to_numpy(),
            folds=run.settings.suspects.folds,
            seed=run.settings.seed,
        )
        by_study = pd.DataFrame(probabilities, index=given.index, columns=list(FINDINGS)).groupby(level=0).mean()
        known = given.groupby(level=0).first().fillna(0.0)
        reads = _reads(site)
        ranked = find_suspects(
            known, by_study, reads=reads.set_index("study") if reads is not None else None, seed=run.settings.seed
        )
        with written_whole(site.suspects) as folder:
            folder.mkdir()
            ranked.to_parquet(folder / "suspects.parquet", index=False)
            by_study.rename_axis("study").reset_index().to_parquet(folder / "probabilities.parquet", index=False)
        likely = int((ranked["probability"] > 0.5).sum())
        return {"suspects": digests.of_file(target)}, {"labels": len(ranked), "likely_wrong": likely}

    inputs = {
        "snapshot": frozen.digest,
        "base": digests.of_folder(site.models / "base"),
        "settings": run.settings.suspects.digest(),
        **_read_inputs(site),
    }
    return _once(run, "suspects", inputs=inputs, produces=[target], work=work)


def finetune(run: Run) -> Outcome:
    """Fine-tunes the base on the snapshot's training side; thresholds come from its validation side."""
    from radia.fit import fit
    from radia.images import ImageStore
    from radia.model import describe, load_checkpoint, save_checkpoint

    site, frozen, settings = run.workspace, current_snapshot(run), run.settings
    target = site.models / "candidate"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        model, base = load_checkpoint(site.models / "base")
        targets, weights = _targets(frozen, settings.labels)
        side = frozen.images["split"].to_numpy()
        store = ImageStore(site.images)
        ids = frozen.images["image"].to_numpy()
        result = fit(
            model,
            images=store,
            ids=ids,
            targets=targets,
            weights=weights,
            train=side == "train",
            validation=side == "validation",
            settings=settings.finetune,
            seed=settings.seed,
            progress=run.ticker("finetune"),
            resume=site.models / f"resume-{frozen.digest[:12]}",
        )
        checkpoint = describe(
            result.model,
            thresholds=result.thresholds,
            snapshot=frozen.digest,
            source=base.source,
            licence=base.licence,
            training={**result.training, "history": result.history},
        )
        save_checkpoint(target, result.model, checkpoint)
        return {"checkpoint": digests.of_folder(target)}, _training_summary(result)

    inputs = {
        "snapshot": frozen.digest,
        "base": digests.of_folder(site.models / "base"),
        "settings": settings.finetune.digest(),
        "labels": settings.labels.digest(),
        "seed": str(settings.seed),
    }
    return _once(run, "finetune", inputs=inputs, produces=[target / "model.safetensors"], work=work)


# --- evaluation, gate, registration ---------------------------------------------------------------------------------


def evaluate(run: Run) -> Outcome:
    """Compares base and candidate on the snapshot's test side: metrics with intervals, figures, a page to read."""
    from radia import evaluate as domain
    from radia.gate import decide
    from radia.model import read_checkpoint

    site, frozen = run.workspace, current_snapshot(run)
    target = site.evaluation / "metrics.json"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        held_out = frozen.images["split"].to_numpy() == "test"
        if not held_out.any():
            raise SnapshotError("the snapshot has no test image: more patients are needed before a model can be judged")
        base = _predict(run, site.models / "base", frozen, "evaluate", only=held_out).probabilities
        candidate = _predict(run, site.models / "candidate", frozen, "evaluate", only=held_out).probabilities
        rows = frozen.images[held_out].reset_index(drop=True)
        result = domain.evaluate_candidate(
            _given_truth(frozen, run.settings.labels)[held_out],
            base.astype(float),
            candidate.astype(float),
            base_thresholds=read_checkpoint(site.models / "base").thresholds,
            candidate_thresholds=read_checkpoint(site.models / "candidate").thresholds,
            patients=rows["patient"].to_numpy(),
            groups=rows[["site", "sex", "age_band", "view", "manufacturer"]],
            settings=run.settings.evaluate,
            seed=run.settings.seed,
        )
        with written_whole(site.evaluation) as folder:
            folder.mkdir()
            (folder / "metrics.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
            _predictions_table(rows, base, candidate).to_parquet(folder / "predictions.parquet", index=False)
            domain.write_report(folder, result, decision=decide(result, run.settings.gate))
        return {"metrics": digests.of_file(target)}, domain.headline(result)

    inputs = {
        "snapshot": frozen.digest,
        "base": digests.of_folder(site.models / "base"),
        "candidate": digests.of_folder(site.models / "candidate"),
        "settings": run.settings.evaluate.digest(),
        "gate": run.settings.gate.digest(),
        **_read_inputs(site),
    }
    return _once(run, "evaluate", inputs=inputs, produces=[target], work=work)


def gate(run: Run) -> Outcome:
    """Judges the candidate's evaluation by the rules of params.yaml."""
    from radia.gate import decide

    site = run.workspace
    metrics, target = site.evaluation / "metrics.json", site.evaluation / "decision.json"

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        decision = decide(json.loads(metrics.read_text()), run.settings.gate)
        with written_whole(target) as partial:
            partial.write_text(decision.to_json())
        return {"decision": digests.of_file(target)}, {
            "passed": decision.passed,
            "rules": {rule.name: rule.outcome for rule in decision.rules},
        }

    inputs = {"metrics": digests.of_file(metrics), "settings": run.settings.gate.digest()}
    return _once(run, "gate", inputs=inputs, produces=[target], work=work)


def register(run: Run) -> Outcome:
    """Logs the run in MLflow and registers the candidate, which then waits for a person's approval."""
    from radia import card, registry
    from radia.images import ImageStore

    site, frozen = run.workspace, current_snapshot(run)
    metrics = json.loads((site.evaluation / "metrics.json").read_text())
    decision = json.loads((site.evaluation / "decision.json").read_text())
    verdict = "passed" if decision["passed"] else "not passed"
    evidence = {
        "snapshot": frozen.digest,
        "checkpoint": digests.of_folder(site.models / "candidate"),
        "metrics": digests.of_file(site.evaluation / "metrics.json"),
        "decision": digests.of_file(site.evaluation / "decision.json"),
    }

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        candidate = registry.log_candidate(
            site,
            run_name=f"retrain {frozen.digest[:12]}",
            params=_flat(run.settings.model_dump(mode="json")),
            metrics=registry.flat_metrics(metrics),
            artifacts=[site.evaluation, site.quality],
            checkpoint=site.models / "candidate",
            tags={**run.tags, **evidence, "dvc": recorded(site, "snapshot")[0].outputs["dvc"], "gate": verdict},
            card=card.model_card(metrics=metrics, decision=decision, snapshot=frozen, evidence=evidence),
            input_example=ImageStore(site.images).read(list(frozen.images["image"][:2])),
        )
        return {f"cxr-candidate/{candidate.version}": candidate.run_id}, {
            "model": "cxr-candidate",
            "version": candidate.version,
            "run": candidate.run_id,
            "gate": verdict,
        }

    return _once(run, "register", inputs=evidence, produces=[], work=work)


# --- what the steps share -------------------------------------------------------------------------------------------


def batches(site: Workspace) -> list[str]:
    """The landing batches, in the order of their names."""
    return sorted(path.parent.name for path in site.landing.glob("*/receipt.json"))


def clean_batches(site: Workspace) -> list[str]:
    """The de-identified batches."""
    return sorted(path.parent.name for path in site.clean.glob("*/outcomes.parquet"))


def _received(run: Run, landing: Path, receipt: Receipt) -> Outcome:
    path = landing / receipt.batch / "receipt.json"

    def work() -> Work:
        return {receipt.batch: digests.of_file(path)}, {
            "batch": receipt.batch,
            "site": receipt.site,
            "files": len(receipt.files),
            "bytes": receipt.bytes,
        }

    return _once(run, "intake", receipt.batch, inputs={"receipt": digests.of_file(path)}, produces=[path], work=work)


def _keep_table(table: Path, folder: Path, kind: str) -> None:
    digest = digests.of_file(table)
    kept = folder / f"{digest}.{kind}.csv"
    if not kept.is_file():
        with written_whole(kept) as partial:
            shutil.copyfile(table, partial)


def _deidentify_batch(run: Run, batch: str) -> Outcome:
    from radia.dicom.deidentify import deidentify_tree
    from radia.dicom.profile import table_sha256
    from radia.dicom.pseudonyms import Pseudonymizer, load_key

    site, settings = run.workspace, run.settings.deidentify
    key = load_key(site.key_file, create=not any(site.clean.glob("*/outcomes.parquet")))
    target = site.clean / batch / "outcomes.parquet"

    def work() -> Work:
        outcomes = deidentify_tree(
            site.landing / batch / "files",
            site.clean / batch,
            key=key,
            settings=settings,
            progress=run.ticker(f"clean {batch}"),
        )
        refused = outcomes[outcomes["outcome"] == "refused"]
        files = [site.landing / batch / "files" / sha256 for sha256 in refused["source_sha256"]]
        _quarantine(site.quarantine / batch / "deidentify", refused["source_sha256"], files, refused["reason"])
        return {batch: digests.of_file(target)}, {
            "batch": batch,
            "clean": int((outcomes["outcome"] == "clean").sum()),
            "refused": len(refused),
            "reasons": _counts(refused["reason"]),
        }

    inputs = {
        "receipt": digests.of_file(site.landing / batch / "receipt.json"),
        "settings": settings.digest(),
        "table": table_sha256(),
        "key": Pseudonymizer(key).fingerprint,
    }
    return _once(run, "deidentify", batch, inputs=inputs, produces=[target], work=work)


def _images_of_batch(run: Run, batch: str) -> Outcome:
    import pandas as pd

    from radia import manifest
    from radia.images import add_batch

    site, settings = run.workspace, run.settings.images
    cleaned, target = site.clean / batch / "outcomes.parquet", site.manifest / f"{batch}.parquet"

    def work() -> Work:
        outcomes = pd.read_parquet(cleaned)
        index = add_batch(
            site.clean / batch,
            site.images,
            batch=batch,
            side=settings.side,
            shard_bytes=settings.shard_bytes,
            progress=run.ticker(f"images {batch}"),
        )
        kept, refused = index[index["reason"].isna()], index[index["reason"].notna()]
        rows = manifest.build(site.clean / batch, outcomes, kept, batch=batch, site=batch.rsplit("-", 2)[0])
        manifest.write(rows, site.manifest, batch=batch)
        clean = outcomes[outcomes["outcome"] == "clean"].set_index("image").loc[refused["image"]]
        files = [site.clean / batch / name for name in clean["output"]]
        _quarantine(site.quarantine / batch / "images", clean["source_sha256"], files, refused["reason"])
        return {batch: digests.of_file(target)}, {
            "batch": batch,
            "images": len(rows),
            "refused": len(refused),
            "reasons": _counts(refused["reason"]),
        }

    inputs = {"outcomes": digests.of_file(cleaned), "settings": settings.digest()}
    produces = [target, site.images / batch / "index.parquet"]
    return _once(run, "images", batch, inputs=inputs, produces=produces, work=work)


Work = tuple[dict[str, str], dict[str, Any]]
"""Digests of what a step wrote, and what a person wants to know of it."""


def _once(
    run: Run,
    step: str,
    part: str = "",
    *,
    inputs: dict[str, str],
    produces: Sequence[Path],
    work: Callable[[], Work],
) -> Outcome:
    """Does the work unless its record says that it was done with these inputs, and what it made is still there."""
    record = run.workspace.records / f"{step}{'-' if part else ''}{part}.json"
    inputs = {**inputs, "radia": __version__}
    past = _read_record(record)
    if past is not None and past.inputs == inputs and all(path.exists() for path in produces):
        return replace(past, reused=True)
    run.progress(step, 0, 1)
    outputs, summary = work()
    outcome = Outcome(step, inputs, outputs, summary)
    run.ledger.append(
        step,
        actor=run.actor,
        inputs=inputs,
        outputs=outputs,
        parameters={"summary": _exact(summary), **run.tags},
        files=file_digests(run.workspace, (path for path in produces if path.is_file())),
        once=digests.of_json([step, part, inputs, outputs]),
    )
    with written_whole(record) as partial:
        partial.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    run.progress(step, 1, 1)
    return outcome


def recorded(site: Workspace, step: str) -> list[Outcome]:
    """What a step did last: one outcome, or one for each batch."""
    paths = [site.records / f"{step}.json", *sorted(site.records.glob(f"{step}-*.json"))]
    found = [past for path in paths if (past := _read_record(path)) is not None]
    return [past for past in found if past.step == step]


def _read_record(path: Path) -> Outcome | None:
    return Outcome(**json.loads(path.read_text())) if path.is_file() else None


def _reads(site: Workspace) -> pd.DataFrame | None:
    """Blind reads by study, the findings as columns; None while there are none."""
    import pandas as pd

    path = site.reads / "reads.parquet"
    return pd.read_parquet(path) if path.is_file() else None


def _read_inputs(site: Workspace) -> dict[str, str]:
    path = site.reads / "reads.parquet"
    return {"reads": digests.of_file(path)} if path.is_file() else {}


def _manifest_inputs(site: Workspace) -> dict[str, str]:
    return {f"manifest/{path.stem}": digests.of_file(path) for path in sorted(site.manifest.glob("*.parquet"))}


def _label_inputs(site: Workspace) -> dict[str, str]:
    return {f"labels/{path.stem}": digests.of_file(path) for path in sorted(site.labels.glob("*.parquet"))}


def _refused(site: Workspace) -> dict[str, int]:
    """How many files of each batch were refused, by de-identification or as no chest radiograph."""
    counts: dict[str, int] = {}
    for outcome in recorded(site, "deidentify") + recorded(site, "images"):
        batch = outcome.summary["batch"]
        counts[batch] = counts.get(batch, 0) + int(outcome.summary["refused"])
    return counts


def _previous_snapshot(site: Workspace) -> pd.DataFrame | None:
    """The snapshot in use, which what is new is compared with."""
    from radia.snapshot import load

    if not site.current_snapshot.is_file():
        return None
    return load(site.snapshots, json.loads(site.current_snapshot.read_text())["snapshot"]).table


def _given_by_image(frozen: Snapshot) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(frozen.labels_matrix(), index=frozen.images["study"], columns=list(FINDINGS))


def _predict(run: Run, checkpoint: Path, frozen: Snapshot, step: str, only: Mask | None = None) -> Predictions:
    from radia.images import ImageStore
    from radia.model import load_checkpoint
    from radia.predict import predict

    ids = frozen.images["image"].to_numpy()
    ids = ids if only is None else ids[only]
    store, tick = ImageStore(run.workspace.images), run.ticker(step)
    model, _ = load_checkpoint(checkpoint)

    def chunks() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(ids), CHUNK):
            yield store.read(list(ids[start : start + CHUNK]))
            tick(min(start + CHUNK, len(ids)), len(ids))

    return predict(model, chunks())


def _quarantine(target: Path, sources: Iterable[str], files: Sequence[Path], reasons: Iterable[str]) -> None:
    """Copies of the files that a step refused, by the digest of their source, with `reasons.json`."""
    if not files:
        shutil.rmtree(target, ignore_errors=True)
        return
    with written_whole(target) as folder:
        folder.mkdir()
        for source, file in zip(sources, files, strict=True):
            shutil.copyfile(file, folder / source)
        (folder / "reasons.json").write_text(json.dumps(dict(zip(sources, reasons, strict=True)), indent=1) + "\n")


def _write_parquet(frame: pd.DataFrame, target: Path) -> None:
    with written_whole(target) as partial:
        frame.to_parquet(partial, index=False)


def _actor() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _counts(values: pd.Series[str]) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _exact(value: Any) -> Any:
    """JSON values as the ledger takes them: no number that is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _exact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _given_truth(frozen: Snapshot, settings: LabelSettings) -> NDArray[np.float64]:
    """Given labels as truth, [n_images, 14]: uncertain and blank as in training; NaN where the policy ignores."""
    import numpy as np

    targets, weights = _targets(frozen, settings)
    return np.where(weights > 0, targets, np.nan)


def _targets(frozen: Snapshot, settings: LabelSettings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return training_targets(
        frozen.labels_matrix(),
        settings.uncertain_by_finding,
        default=settings.uncertain,
        blank_is_absent=settings.blank_is_absent,
    )


def _predictions_table(rows: pd.DataFrame, base: NDArray[np.float32], candidate: NDArray[np.float32]) -> pd.DataFrame:
    import pandas as pd

    probabilities = {
        f"{model}/{finding}": values[:, k]
        for model, values in (("base", base), ("candidate", candidate))
        for k, finding in enumerate(FINDINGS)
    }
    return pd.DataFrame({"image": rows["image"], "study": rows["study"], **probabilities})


def _train_stand_in(run: Run) -> None:
    """Trains the embedded stand-in on phantoms and registers it as the model in use."""
    import numpy as np

    from radia import registry
    from radia.base_weights import RANDOM, resolve
    from radia.fit import fit
    from radia.model import describe, save_checkpoint
    from radia.synthetic.phantom import public_set

    wanted, seed = run.settings.stand_in, run.settings.seed
    public = public_set(wanted.images, wanted.side, seed, workers=2, progress=run.ticker("phantoms"))
    base = resolve(RANDOM, backbone="densenet-slim", side=wanted.side, seed=seed)
    validation = np.arange(wanted.images) % 10 == 0
    result = fit(
        base.model,
        images=InMemory(public.images),
        ids=[str(number) for number in range(wanted.images)],
        targets=public.labels.astype(np.float32),
        weights=np.ones_like(public.labels, dtype=np.float32),
        train=~validation,
        validation=validation,
        settings=run.settings.finetune.model_copy(
            update={"epochs": wanted.epochs, "learning_rate": wanted.learning_rate, "side": None}
        ),
        seed=seed,
        progress=run.ticker("stand-in"),
        resume=run.workspace.models / "resume-stand-in",
    )
    with TemporaryDirectory(dir=run.workspace.root) as folder:
        checkpoint = Path(folder) / "stand-in"
        described = describe(
            result.model,
            thresholds=result.thresholds,
            source="phantoms",
            training={**result.training, "history": result.history},
        )
        save_checkpoint(checkpoint, result.model, described)
        registry.register_champion(
            run.workspace, checkpoint, description="Stand-in trained on phantoms: for trying out, not for patients."
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _training_summary(result: FitResult) -> dict[str, Any]:
    best = result.history[result.best_epoch]
    return {
        "epochs": len(result.history) - 1,
        "best_epoch": result.best_epoch,
        "validation_auroc": best["validation_auroc"],
        "without_positives": list(result.untrained),
    }


# --- lineage --------------------------------------------------------------------------------------------------------


def trace(run: Run, kind: str, identifier: str) -> Tree:
    """The lineage of a model version, an image or a patient. Raises UnknownId."""
    from radia import registry
    from radia import trace as lineage

    if kind == "model":
        return lineage.trace_model(run.workspace, run.ledger, identifier, registry.find(run.workspace, identifier))
    if kind == "image":
        return lineage.trace_image(run.workspace, run.ledger, identifier)
    return lineage.trace_patient(run.workspace, run.ledger, identifier)


def verify(run: Run) -> dict[str, int]:
    """Re-checks the ledger's chain and every recorded file. Raises ChainBroken, naming the first bad one."""
    checked = run.ledger.verify()
    return {"events": checked.events, "artefacts": verify_artefacts(run.workspace, run.ledger)}
