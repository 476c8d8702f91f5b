"""Steps from the landing zone to snapshots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radia import digests
from radia.errors import EmptyInbox, QualityBlocked, SnapshotError
from radia.steps.agreement import agreement_inputs, require_agreement, without_left_out
from radia.steps.run import Outcome, Run, Work, once, recorded
from radia.workspace import Workspace, written_whole

if TYPE_CHECKING:
    import pandas as pd

    from radia.intake import Receipt
    from radia.snapshot import Snapshot


def intake(
    run: Run,
    inbox: Path | None,
    *,
    labels: Path | None = None,
    reports: Path | None = None,
    quiet_seconds: float | None = None,
) -> list[Outcome]:
    """Takes what is new in `inbox/<site>/…` into landing batches, and keeps tables of labels or reports beside them.

    A site whose folder changed less than `quiet_seconds` ago (None: as the settings say) waits for the next time.
    Nothing new is no error once a batch has been received. Raises EmptyInbox when nothing ever was.
    """
    from radia import intake as domain
    from radia.labels import read_label_table

    landing = _private(run.workspace.landing)
    quiet = run.settings.intake.quiet_seconds if quiet_seconds is None else quiet_seconds
    if labels is not None:
        read_label_table(labels)
        _keep_table(labels, landing / "tables", "labels")
    if reports is not None:
        from radia.reports import read_report_table

        read_report_table(reports)
        _keep_table(reports, landing / "tables", "reports")
    today = datetime.now(UTC).date()
    domain.seal_abandoned(landing, today)
    if inbox is not None:
        try:
            domain.take_folder(inbox, landing, today=today, quiet_seconds=quiet)
        except EmptyInbox:
            if not domain.receipts(landing):
                raise
    received = all_received(run)
    if not received:
        wait = f", and wait until a site's folder was quiet for {quiet:.0f} s" if quiet else ""
        raise EmptyInbox(f"nothing was received yet: put DICOM files under {run.workspace.root}/inbox/<site>/{wait}")
    return received


def all_received(run: Run) -> list[Outcome]:
    """Every batch, however it came, oldest first; what the ledger does not know yet is told to it."""
    from radia.intake import receipts

    return received(run, receipts(run.workspace.landing))


def received(run: Run, receipts: Iterable[Receipt]) -> list[Outcome]:
    """The batches of these receipts; what the ledger does not know yet is told to it."""
    return [_received(run, run.workspace.landing, receipt) for receipt in receipts]


def deidentify(run: Run) -> list[Outcome]:
    """Cleans every landing batch; refused files are copied to quarantine with their reasons.

    Files of one SOP instance with different content, in whatever batches, are out of use afterwards.
    """
    from radia.contradictions import settle

    _private(run.workspace.quarantine)
    done = [_deidentify_batch(run, batch) for batch in batches(run.workspace)]
    settle(run.workspace, run.ledger, actor=run.actor)
    return done


def images(run: Run) -> list[Outcome]:
    """Turns the clean DICOM of every batch into shards and manifest rows."""
    return [_images_of_batch(run, batch) for batch in clean_batches(run.workspace)]


def repair_images(run: Run) -> list[str]:
    """Makes the batches with a damaged shard anew from their clean DICOM; which they were. Raises ShardDamaged."""
    from radia.images import repair_batch

    site = run.workspace
    made = [batch for batch in clean_batches(site) if (site.images / batch).is_dir()]
    scale = run.settings.scale
    return [batch for batch in made if repair_batch(site.clean / batch, site.images, batch=batch, scale=scale)]


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
        if linked.evidence is not None:
            _write_parquet(linked.evidence, site.labels / "evidence.parquet")
        return {"labels": digests.of_file(target)}, linked.counts

    inputs = {path.name: path.name.split(".")[0] for path in tables} | _manifest_inputs(site)
    return once(run, "labels", inputs=inputs, produces=[target], work=work)


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
        pictures = survey(
            ImageStore(site.images).read, manifest, kept=site.records / "pictures", progress=run.ticker("check")
        )
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

    inputs = _manifest_inputs(site) | label_inputs(site) | {"settings": run.settings.quality.digest()}
    return once(run, "check", inputs=inputs, produces=[target], work=work)


def snapshot(run: Run) -> Outcome:
    """Freezes manifest, labels, reads and split, and versions them with DVC. Raises QualityBlocked, SnapshotError."""
    import pandas as pd

    from radia import snapshot as domain
    from radia.contradictions import contradicted_images
    from radia.labels import merge_reads
    from radia.manifest import load
    from radia.trace import withdrawn_patients

    site = run.workspace
    require_agreement(run, pd.read_parquet(site.labels / "given.parquet"))
    if check(run).summary["blocking"]:
        raise QualityBlocked(f"a critical rule of data quality failed: see {site.quality / 'site' / 'index.html'}")
    target, contradicted = site.current_snapshot, contradicted_images(run.ledger)

    def work() -> tuple[dict[str, str], dict[str, Any]]:
        given, manifest = pd.read_parquet(site.labels / "given.parquet"), load(site.manifest)
        manifest = manifest[~manifest["image"].isin(contradicted)]
        reads = blind_reads(site)
        if reads is not None:
            reads = domain.outside_test(reads, manifest, run.settings.snapshot)
        frozen = domain.freeze(
            manifest,
            merge_reads(without_left_out(run, given), reads),
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

    inputs = _manifest_inputs(site) | label_inputs(site) | read_inputs(site)
    inputs["withdrawn"] = digests.of_json(sorted(withdrawn_patients(run.ledger)))
    inputs |= {"contradicted": digests.of_json(sorted(contradicted))} if contradicted else {}
    inputs["settings"] = run.settings.snapshot.digest()
    inputs |= agreement_inputs(run)
    done = once(run, "snapshot", inputs=inputs, produces=[target], work=work)
    _keep_anchor(run, done.outputs["snapshot"])
    return done


def _keep_anchor(run: Run, digest: str) -> None:
    """The ledger's head once it knows of the snapshot, kept with the data: again after a kill between the two."""
    from radia.ledger import Action
    from radia.snapshot import note_anchor

    if (event := run.ledger.last(Action.SNAPSHOT, term=digest)) is not None:
        note_anchor(run.workspace.archive, digest, str(event.anchor))


def current_snapshot(run: Run) -> Snapshot:
    """The snapshot in use, verified. Raises SnapshotError."""
    from radia.snapshot import load

    pointer = run.workspace.current_snapshot
    if not pointer.is_file():
        raise SnapshotError("there is no snapshot yet: run `radia snapshot`, or `radia run`")
    return load(run.workspace.snapshots, json.loads(pointer.read_text())["snapshot"])


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


def inbox_listing(run: Run, *, quiet_seconds: float) -> str | None:
    """A digest of what lies in the usual inbox, but for sites that are still growing; None where nothing else is."""
    from radia.intake.folder import quiet_files

    inbox = inbox_of(run)
    if inbox is None:
        return None
    states = [(path.relative_to(inbox).as_posix(), path.stat()) for path in quiet_files(inbox, quiet_seconds)]
    return digests.of_json([[name, state.st_size, state.st_mtime_ns] for name, state in states]) if states else None


def batches(site: Workspace) -> list[str]:
    """The landing batches, in the order of their names."""
    return sorted(path.parent.name for path in site.landing.glob("*/receipt.json"))


def clean_batches(site: Workspace) -> list[str]:
    """The de-identified batches."""
    return sorted(path.parent.name for path in site.clean.glob("*/outcomes.parquet"))


def _private(folder: Path) -> Path:
    """A folder for patients' data, open to its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _received(run: Run, landing: Path, receipt: Receipt) -> Outcome:
    path = landing / receipt.batch / "receipt.json"

    def work() -> Work:
        return {receipt.batch: digests.of_file(path)}, {
            "batch": receipt.batch,
            "site": receipt.site,
            "files": len(receipt.files),
            "bytes": receipt.bytes,
        }

    return once(run, "intake", receipt.batch, inputs={"receipt": digests.of_file(path)}, produces=[path], work=work)


def _keep_table(table: Path, folder: Path, kind: str) -> None:
    digest = digests.of_file(table)
    kept = folder / f"{digest}.{kind}.csv"
    if not kept.is_file():
        with written_whole(kept) as partial:
            shutil.copyfile(table, partial)


def _deidentify_batch(run: Run, batch: str) -> Outcome:
    from radia.dicom.deidentify import check_key, deidentify_tree
    from radia.dicom.profile import table_sha256
    from radia.dicom.pseudonyms import Pseudonymizer, load_key

    site, settings = run.workspace, run.settings.deidentify
    key = load_key(site.key_file, create=not any(site.clean.glob("*/outcomes.parquet")))
    fingerprint = Pseudonymizer(key).fingerprint
    for archive in sorted(path for path in site.clean.glob("*") if path.is_dir()):
        check_key(archive, fingerprint)
    target = site.clean / batch / "outcomes.parquet"

    def work() -> Work:
        outcomes = deidentify_tree(
            site.landing / batch / "files",
            site.clean / batch,
            key=key,
            settings=settings,
            crosswalk=site.crosswalk,
            progress=run.ticker(f"clean {batch}"),
            scale=run.settings.scale,
        )
        refused = outcomes[outcomes["outcome"] == "refused"]
        read = refused[refused["source_sha256"] != ""]  # what could not be opened has no digest and stays where it is
        files = [site.landing / batch / "files" / sha256 for sha256 in read["source_sha256"]]
        _quarantine(site.quarantine / batch / "deidentify", read["source_sha256"], files, read["reason"])
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
        "key": fingerprint,
    }
    return once(run, "deidentify", batch, inputs=inputs, produces=[target], work=work)


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
            scale=run.settings.scale,
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
    return once(run, "images", batch, inputs=inputs, produces=produces, work=work)


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


def blind_reads(site: Workspace) -> pd.DataFrame | None:
    """What readers decided, by study, the findings as columns; None while they decided nothing."""
    import pandas as pd

    path = site.reads / "reads.parquet"
    return pd.read_parquet(path) if path.is_file() else None


def read_inputs(site: Workspace) -> dict[str, str]:
    """The digest of the reads, for the inputs of steps that use them."""
    path = site.reads / "reads.parquet"
    return {"reads": digests.of_file(path)} if path.is_file() else {}


def _manifest_inputs(site: Workspace) -> dict[str, str]:
    return {f"manifest/{path.stem}": digests.of_file(path) for path in sorted(site.manifest.glob("*.parquet"))}


def label_inputs(site: Workspace) -> dict[str, str]:
    """The digests of the labels as given, for the inputs of steps that use them."""
    return {f"labels/{path.stem}": digests.of_file(path) for path in sorted(site.labels.glob("*.parquet"))}


def _write_parquet(frame: pd.DataFrame, target: Path) -> None:
    with written_whole(target) as partial:
        frame.to_parquet(partial, index=False)


def _counts(values: pd.Series[str]) -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}
