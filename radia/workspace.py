"""The one place that knows where things lie under a site's data folder. It makes folders and paths, nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from radia.errors import StorageFull


@dataclass(frozen=True)
class Workspace:
    """A site's data folder. `landing`, `quarantine` and `keys` hold patients' data or secrets; nothing else does."""

    root: Path

    # identified: never leaves these
    @property
    def landing(self) -> Path:
        """One folder a batch: the files as they came, named by their SHA-256, and `receipt.json`."""
        return self.root / "landing"

    @property
    def quarantine(self) -> Path:
        """One folder a batch: each refused file and `reasons.json`."""
        return self.root / "quarantine"

    @property
    def crosswalk(self) -> Path:
        """The encrypted way back from pseudonyms, for the holder of the key."""
        return self.landing / "crosswalk"

    @property
    def key_file(self) -> Path:
        """The pseudonymisation key, mode 0600."""
        return self.root / "keys" / "pseudonyms.key"

    # de-identified
    @property
    def clean(self) -> Path:
        """One folder a batch: clean DICOM and `outcomes.parquet`."""
        return self.root / "clean"

    @property
    def archive(self) -> Path:
        """What DVC versions: `images/` and `snapshots/`. The root of a DVC repository of its own."""
        return self.root / "archive"

    @property
    def images(self) -> Path:
        """One folder a batch: shards of pixels and their index."""
        return self.archive / "images"

    @property
    def snapshots(self) -> Path:
        """One folder a snapshot, named by its digest."""
        return self.archive / "snapshots"

    @property
    def manifest(self) -> Path:
        """One Parquet file a batch: a row an image."""
        return self.root / "manifest"

    @property
    def labels(self) -> Path:
        """One Parquet file a batch: given labels by study."""
        return self.root / "labels"

    @property
    def quality(self) -> Path:
        """`report.json` and the Data Docs site."""
        return self.root / "quality"

    @property
    def current_snapshot(self) -> Path:
        """JSON that names the snapshot in use by its digest."""
        return self.root / "snapshot.json"

    @property
    def suspects(self) -> Path:
        """`suspects.parquet`, the out-of-fold probabilities and the report page."""
        return self.root / "suspects"

    @property
    def reads(self) -> Path:
        """Blind reads: the tables below, and `reads.parquet`, what readers decided so far by study."""
        return self.root / "reads"

    @property
    def read_queue(self) -> Path:
        """Which studies are to be read, in which queue."""
        return self.reads / "queue.parquet"

    @property
    def read_designs(self) -> Path:
        """With what probability each draw could have chosen each study for evaluation."""
        return self.reads / "designs.parquet"

    @property
    def read_log(self) -> Path:
        """Every read that anybody made: a row a study, finding and reader."""
        return self.reads / "log.parquet"

    @property
    def gold_reads(self) -> Path:
        """What was decided of the evaluation queue, with sampling probabilities: all that estimates may use."""
        return self.reads / "gold.parquet"

    @property
    def models(self) -> Path:
        """Checkpoints: `base/`, `candidate/`."""
        return self.root / "models"

    @property
    def evaluation(self) -> Path:
        """`metrics.json`, figures, `report.html`, `decision.json`."""
        return self.root / "evaluation"

    @property
    def external(self) -> Path:
        """One folder a set from elsewhere: its images as models see them, and what models said of them."""
        return self.root / "external"

    @property
    def monitoring(self) -> Path:
        """One folder a batch: how it differs from what the model in use was made on; `proposal.json`."""
        return self.root / "monitoring"

    # records and services
    @property
    def records(self) -> Path:
        """What each step did last, by the digest of its inputs: how a run knows what need not be done again."""
        return self.root / "records"

    @property
    def ledger_url(self) -> str:
        """The ledger's database, unless the environment names another."""
        return f"sqlite:///{self.root.resolve() / 'ledger.db'}"

    @property
    def ledger_key_file(self) -> Path:
        """The key of the ledger's HMACs, mode 0600."""
        return self.root / "keys" / "ledger.key"

    @property
    def ledger_anchor_file(self) -> Path:
        """The ledger's newest anchor, unless the environment names a file on another disk."""
        return self.root / "ledger.anchor"

    @property
    def mlflow_url(self) -> str:
        """MLflow's tracking and registry database, unless the environment names another."""
        return f"sqlite:///{self.root.resolve() / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artefacts when no server keeps them."""
        return self.root / "mlartifacts"

    @property
    def web(self) -> Path:
        """The web app's accounts (`people.db`) and the key of its cookies. Mode 0700."""
        return self.root / "web"

    @property
    def dagster_home(self) -> Path:
        """Dagster's runs, events and schedules."""
        return self.root / "dagster"


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A temporary sibling of `target` that takes its place when the block ends well, and vanishes when it does not.

    The block writes a file at the given path or makes it a folder. A folder replaces an older one of the same name.
    No partial output is ever visible under `target`. Raises StorageFull where the disk has no room.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(mkdtemp(prefix=".partial-", dir=target.parent))
    partial = holder / target.name
    try:
        yield partial
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(partial, target)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            message = f"no room left on the disk that holds {target.parent.name}/: free some and run again"
            raise StorageFull(message) from error
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
