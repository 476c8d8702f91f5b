"""params.yaml and the environment, typed. The only reader of either.

`params.yaml` is looked for in this order: the path given, `$RADIA_PARAMS`, `<data>/params.yaml`, `./params.yaml`, and
then the defaults below. Unknown names are errors: a misspelt parameter never falls back in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import date
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from radia.errors import SettingsError
from radia.findings import UncertaintyPolicy
from radia.workspace import Workspace

_RECIPES = Path(__file__).parent / "recipes"


class Section(BaseModel):
    """A section of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def digest(self) -> str:
        """SHA-256 of the values, for telling whether a step must run again."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class ReceiverSettings(Section):
    """The C-STORE receiver."""

    ae_title: str = Field("RADIA", min_length=1, max_length=16)
    host: str = "127.0.0.1"
    port: int = Field(11112, ge=0, le=65535)
    senders: dict[str, str] = Field(
        {}, description="calling AE titles that may associate, and the site each stands for"
    )
    hosts: tuple[str, ...] = Field(
        (), description="addresses or networks of senders; needed beyond 127.0.0.1 unless senders show a certificate"
    )
    window_seconds: float = Field(0, ge=0, description="one batch a site and window; 0: one an association")
    min_free_bytes: int = Field(2_000_000_000, ge=0, description="what must stay free on the landing zone's disk")
    max_associations: int = Field(10, ge=1)
    handshake_seconds: float = Field(10, gt=0, description="how long a sender may take to agree on TLS")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_authority: Path | None = Field(None, description="certificates that senders must show one of")


class PacsSettings(Section):
    """One PACS that is asked over DICOMweb."""

    site: str
    url: str = Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$", description="without a name or password in it")
    modalities: tuple[str, ...] = ("DX", "CR")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "PORT CHEST")
    authorization_variable: str | None = Field(None, description="environment variable with the Authorization header")
    requests_per_second: float = Field(10, gt=0)
    timeout_seconds: float = Field(60, gt=0)
    attempts: int = Field(5, ge=1)
    backoff_seconds: float = Field(1, ge=0, description="pause before the second attempt; each later one doubles")
    page_size: int = Field(500, ge=1)


class IntakeSettings(Section):
    """How files come in."""

    quiet_seconds: float = Field(0, ge=0, description="a site's folder is taken when nothing changed for so long")
    receiver: ReceiverSettings = ReceiverSettings()
    pacs: tuple[PacsSettings, ...] = ()
    first_day: date = Field(date(2020, 1, 1), description="the first that a backfill over days may ask a PACS for")
    overlap_days: int = Field(1, ge=0, description="asked for on both sides of a day: the clocks of hospitals differ")
    retries: int = Field(4, ge=0, description="of Dagster, where a PACS cannot be reached")
    retry_seconds: float = Field(60, ge=0, description="before the first of them; each later pause doubles")
    expected_hours: dict[str, float] = Field(
        {}, description="site: hours within which something new must come; Dagster shows a site that is late"
    )


class EmailSettings(Section):
    """A mail server (SMTP) and who is written to."""

    host: str = "localhost"
    port: int = Field(25, ge=1, le=65535)
    starttls: bool = False
    user: str | None = None
    password_variable: str | None = Field(None, description="environment variable with the password")
    sender: str = "radia@localhost"
    recipients: tuple[str, ...] = Field(min_length=1)


class NotifySettings(Section):
    """Who is told when a run fails. Nothing of a patient is in the notice."""

    webhook: str | None = Field(None, pattern="^https?://", description="address that gets the notice as JSON (POST)")
    webhook_variable: str | None = Field(None, description="environment variable with that address, where it is secret")
    email: EmailSettings | None = None
    page: str = Field("http://127.0.0.1:3000", description="Dagster's address, for links in the notice")
    timeout_seconds: float = Field(20, gt=0)


class PageSettings(Section):
    """Where people open Dagster and MLflow, for the links of traces.

    Empty: behind the proxy of `$RADIA_PUBLIC_URL` where it is set; else `notify.page`, and the server that
    `$MLFLOW_TRACKING_URI` names.
    """

    dagster: str = Field("", pattern="^(https?://.*)?$")
    mlflow: str = Field("", pattern="^(https?://.*)?$")


class DeidentifySettings(Section):
    """Options of DICOM PS3.15 annex E beyond the Basic Profile, and how burned-in text is looked for."""

    retain_safe_private: bool = False
    retain_uids: bool = False
    retain_device_identity: bool = False
    retain_institution_identity: bool = False
    retain_patient_characteristics: bool = True
    retain_full_dates: bool = False
    retain_modified_dates: bool = True
    clean_descriptors: bool = False
    clean_structured_content: bool = False
    clean_graphics: bool = False
    clean_pixels: bool = True
    workers: int = Field(0, ge=0, description="processes; 0: one per core")


class ImageSettings(Section):
    """How gray pixels become the square uint8 images that models see."""

    side: int = Field(384, ge=32, le=2048)
    shard_bytes: int = Field(2_000_000_000, gt=0)


class ScaleSettings(Section):
    """Where the work on single files is done: de-identification and images."""

    backend: Literal["processes", "ray"] = "processes"
    workers: int = Field(0, ge=0, description="processes, or Ray tasks at a time; 0: one per core")
    ray_address: str = Field("", description="of a Ray cluster that sees the data folder; empty: started here")


class QualitySettings(Section):
    """Bounds of the rules of data quality; the rules themselves are data in radia/quality_rules.yaml."""

    min_images: int = 20
    min_labelled_fraction: float = 0.5
    warn_refused_fraction: float = 0.05
    max_refused_fraction: float = 0.2
    min_side: int = Field(256, description="rows and columns of the radiograph as it came")
    max_side: int = 8192
    max_saturation: float = Field(0.6, description="part of the pixels at the darkest or brightest value")
    max_noise: float = Field(0.03, description="standard deviation of the finest detail, of the range of gray")
    max_prevalence_change: float = Field(0.15, description="beyond two standard errors")
    max_site_change: float = Field(0.25, description="of a site's share of the images, beyond two standard errors")
    max_measure_shift: float = Field(2.0, description="of a batch's median, in robust standard deviations")
    rules_file: str = Field("", description="a hospital's own rules, as in radia/quality_rules.yaml; read after those")


class SnapshotSettings(Section):
    """The split. A patient's side is a keyed hash of the pseudonym: it never changes when data is added."""

    validation_fraction: float = Field(0.15, gt=0, lt=0.5)
    test_fraction: float = Field(0.25, gt=0, lt=0.5)


class AgreementSettings(Section):
    """The check of labels from reports that comes before training: what `radia labels agree --out` wrote."""

    file: str = Field(description="relative to the data folder")
    kappa: float = Field(0.0, ge=0, le=1, description="the least Cohen's kappa of a finding")
    f1: float = Field(0.0, ge=0, le=1, description="the least F1 of a finding")
    kappa_by_finding: dict[str, float] = {}
    f1_by_finding: dict[str, float] = {}
    leave_out: tuple[str, ...] = Field((), description="findings whose labels from reports are not used: left blank")


class LabelSettings(Section):
    """What uncertain and blank labels are taken for in training."""

    uncertain: UncertaintyPolicy = UncertaintyPolicy.IGNORE
    uncertain_by_finding: dict[str, UncertaintyPolicy] = {
        "Atelectasis": UncertaintyPolicy.ONES,
        "Edema": UncertaintyPolicy.ONES,
    }
    blank_is_absent: bool = True
    probabilities: str = Field(
        "", description="of the policy soft, as `radia labels probabilities --out` wrote; empty: learnt from the reads"
    )
    agreement: AgreementSettings | None = None
    soft: float = Field(
        0.0, ge=0, le=1, description="part of a training target that is the probability of being present, not the label"
    )


class SuspectSettings(Section):
    """Search for wrong labels."""

    folds: int = Field(5, ge=2)
    weights: bool = Field(False, description="a training label weighs as much as it is likely to be right")


class ReadSettings(Section):
    """Blind reads: who stands behind a true label, how many are asked for, what noise is worth a warning."""

    readers: int = Field(2, ge=1, description="independent readers behind a true label, before any adjudicator")
    budget: int = Field(0, ge=0, description="studies a run queues when none waits; 0: only `radia reads queue` does")
    evaluation_share: float = Field(0.5, gt=0, le=1, description="of the budget, for the test side")
    validation_share: float = Field(0.0, ge=0, lt=1, description="of the budget, to judge epochs of a training by")
    repeat_share: float = Field(0.05, ge=0, lt=1, description="of the budget, read again by the same reader")
    max_noise_rate: float = Field(0.1, gt=0, le=1, description="part of the given labels that may be wrong unwarned")


class FinetuneSettings(Section):
    """The model and its training."""

    base: str = "mlflow:cxr@champion"
    backbone: Literal["densenet121", "densenet-slim", "convnext-tiny", "vit-b16"] = "densenet121"
    pooling: Literal["average", "pcam"] = Field("average", description="of a new network; a base has its own")
    epochs: int = Field(4, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field("auto", description="auto: bf16 where hardware has it")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    augment: bool = True
    side: int | None = Field(None, ge=32, le=1024, description="of the model's input; none: the base's own")
    warmup: float = Field(0.1, ge=0, lt=1, description="part of the steps in which the learning rate rises")
    calibrate: bool = Field(True, description="temperature of the logits, chosen on validation")
    threads: int = Field(0, ge=0, description="CPU threads; 0: all cores")
    micro_batch: int = Field(0, ge=0, description="images on the device at once, gradients accumulate; 0: the batch")
    compile: bool = Field(True, description="torch.compile, on a GPU only")
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of each layer, of that above it")
    average: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights; 0: none")
    probe_epochs: int = Field(0, ge=0, description="first epochs, in which only the head learns")
    margin_epochs: int = Field(0, ge=0, description="last epochs, in which the AUC margin is the loss")
    patience: int = Field(0, ge=0, description="epochs without improvement before the end; 0: all are run")
    tolerance: float = Field(0.0, ge=0, description="standard errors below the best up to which a later epoch is kept")
    finding_weights: dict[str, float] = Field({}, description="weight of a finding in the loss; 1 where none is given")
    tree: bool = Field(False, description="findings below others in CheXpert's tree are learnt where those are present")
    views: int = Field(1, ge=1, le=5, description="slightly moved copies of an image that the model averages over")
    folds: int = Field(1, ge=1, le=20, description="networks of an ensemble, each without a fold of patients; 1: none")
    balanced: bool = Field(False, description="every site is drawn as often as every other, and every patient of it")


class TrainSettings(Section):
    """Who trains: this process, several of this machine (a GPU each), or workers of Ray Train on many machines."""

    backend: Literal["processes", "ray"] = "processes"
    workers: int = Field(1, ge=0, description="that share each batch; 0: one a GPU")
    ray_address: str = Field("", description="of a Ray cluster that sees the data folder; empty: started here")
    restarts: int = Field(2, ge=0, description="how often all go on from the last epoch after one died")
    wait_seconds: int = Field(600, ge=1, description="after which a worker that is not heard of counts as lost")


class StandInSettings(Section):
    """The model that takes the base's place on a site that has none yet: a slim network trained on phantoms.

    For trying out, and for the embedded hospital; a hospital registers its CheXpert model instead.
    """

    images: int = Field(2000, ge=50)
    side: int = Field(128, ge=32)
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(4e-3, gt=0)
    augment: bool = False


class ExternalSettings(Section):
    """A set of images from elsewhere on which models are judged too."""

    images: str = Field(description="a collection and its folder: chexpert:DIR, nih:DIR, mimic:DIR, padchest:DIR")
    part: Literal["test", "validation"] = "test"
    readers: str = Field("", description="folder of CSVs, one a human reader: id and decisions")
    regions: str = Field("", description="boxes or masks; those of NIH and CheXlocalize are found in its folder")


class EvaluateSettings(Section):
    """Intervals, which findings are averaged, and what a model is judged on beside the held-out patients."""

    replicates: int = Field(1000, ge=100)
    min_positives: int = Field(3, ge=1, description="findings with fewer are marked and not averaged")
    min_group: int = Field(20, ge=2, description="subgroups of fewer images are not listed")
    intersections: bool = Field(True, description="subgroups by two attributes at once")
    external: dict[str, ExternalSettings] = Field({}, description="sets from elsewhere, by the name they are shown by")
    regions: str = Field("", description="a file of this site's boxes by accession number; relative to the data folder")


class GateSettings(Section):
    """Rules that a candidate must pass before a person is asked (a predetermined change-control plan)."""

    min_mean_auroc_gain: float = 0.0
    one_sided_level: float = Field(0.025, gt=0, lt=0.5, description="of the tests of superiority and non-inferiority")
    max_finding_auroc_loss: float = Field(0.05, ge=0)
    max_group_auroc_loss: float = Field(0.05, ge=0)
    max_mean_ece: float = Field(0.15, gt=0, le=1)
    min_test_studies: int = 30
    min_gold_reads: int = Field(0, ge=0)
    approvers: tuple[str, ...] = Field((), description="who may approve; empty: whoever MLflow lets write the tags")
    human_floor: bool = Field(False, description="the mean F1 of human readers must be reached")
    human_floor_margin: float = Field(0.0, ge=0)
    must_be_shown: tuple[str, ...] = Field(
        ("held-out images", "gold reads", "mean AUROC gain"),
        description="rules for which 'not enough evidence' blocks; a rule that fails always does",
    )


class MonitorSettings(Section):
    """When new images count as different from those that the model in use was made on, and when to train again."""

    min_images: int = Field(30, ge=4, description="a batch or a site with fewer is not compared")
    max_images: int = Field(1000, ge=50, description="at most so many of each side are compared, drawn by chance")
    permutations: int = Field(499, ge=99)
    level: float = Field(0.01, gt=0, lt=1, description="of the permutation tests, over all measures or findings")
    min_psi: float = Field(0.1, ge=0, description="population stability index beyond what chance gives")
    min_mmd: float = Field(0.005, ge=0, description="squared maximum mean discrepancy of the features (0 to 2)")
    retrain_reads: int = Field(200, ge=1, description="retraining is proposed from so many new reads on")
    retrain_images: int = Field(5000, ge=1, description="and from so many new images on")
    retrain_days: int = Field(365, ge=1, description="and when the model has been in use for longer")


class StoreSettings(Section):
    """The PACS that structured reports and images with heat maps are sent to (C-STORE)."""

    host: str
    port: int = Field(104, ge=1, le=65535)
    ae_title: str = Field(min_length=1, max_length=16, description="of the PACS")
    calling_ae_title: str = Field("RADIA", min_length=1, max_length=16)
    timeout_seconds: float = Field(30, gt=0)
    tls: bool = Field(False, description="the PACS shows a certificate for its host, which is checked")
    tls_authority: Path | None = Field(None, description="certificates it must show one of; none: the system's")
    tls_certificate: Path | None = Field(None, description="with tls_key: what is shown to the PACS")
    tls_key: Path | None = None


class WebSettings(Section):
    """The web app: who is let in, and how much one request may bring."""

    language: Literal["en", "fr"] = Field("en", description="where neither the person nor the browser asks for one")
    https: bool = Field(False, description="a proxy in front speaks TLS: cookies are sent over it alone")
    trusted_proxies: tuple[str, ...] = Field(
        (), description="addresses, networks or names of hosts whose headers say who a person is, and from where"
    )
    user_header: str = Field("X-Remote-User", min_length=1, description="that header; its name has an account here")
    idle_minutes: int = Field(60, ge=1, description="a session ends when nothing came for so long")
    session_hours: int = Field(12, ge=1, description="and after so long in any case")
    sign_in_attempts: int = Field(5, ge=1, description="wrong passwords of a name from one address, then it waits")
    sign_in_minutes: int = Field(15, ge=1, description="how long it waits")
    upload_mb: int = Field(128, ge=1, description="the most that one request may bring")
    pacs: StoreSettings | None = Field(None, description="where a lead may send reports to; none: nowhere")


class RetentionSettings(Section):
    """After how many days what may go goes, when `radia retention --remove` is said. Empty: it is kept for ever."""

    landing_days: int | None = Field(
        None, ge=1, description="files of landing batches that are archived; receipts stay"
    )
    quarantine_days: int | None = Field(None, ge=1, description="refused files; their reasons stay")
    log_days: int | None = Field(None, ge=1, description="logs of services and of runs")
    shard_days: int | None = Field(None, ge=1, description="versions of shards that no snapshot names any more")


class Settings(Section):
    """All of params.yaml."""

    seed: int = 0
    intake: IntakeSettings = IntakeSettings()
    notify: NotifySettings = NotifySettings()
    pages: PageSettings = PageSettings()
    deidentify: DeidentifySettings = DeidentifySettings()
    images: ImageSettings = ImageSettings()
    scale: ScaleSettings = ScaleSettings()
    quality: QualitySettings = QualitySettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    labels: LabelSettings = LabelSettings()
    suspects: SuspectSettings = SuspectSettings()
    reads: ReadSettings = ReadSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    train: TrainSettings = TrainSettings()
    stand_in: StandInSettings = StandInSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    monitor: MonitorSettings = MonitorSettings()
    web: WebSettings = WebSettings()
    retention: RetentionSettings = RetentionSettings()

    def listening_on(self, host: str | None, port: int | None) -> Settings:
        """The same settings with another address of the receiver; None leaves what is there."""
        wanted = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
        receiver = self.intake.receiver.model_copy(update=wanted)
        return self.model_copy(update={"intake": self.intake.model_copy(update={"receiver": receiver})})


def load_settings(path: Path | None = None) -> Settings:
    """The settings in force. Raises SettingsError, naming the parameter."""
    source = _params_file(path)
    if source is None:
        return Settings()
    try:
        values = yaml.safe_load(source.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{source} cannot be read as YAML: {type(error).__name__}") from error
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{source}: {name}: {first['msg']}") from error


def recipe_names() -> list[str]:
    """The trainings that stand in radia/recipes as params files."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """A recipe's params file."""
    return _RECIPES / f"{name}.yaml"


def workspace(root: Path | None = None) -> Workspace:
    """The site's data folder: the one given, `$RADIA_DATA`, or `data/`."""
    return Workspace(Path(root or os.environ.get("RADIA_DATA") or "data"))


def demo_workspace() -> Workspace:
    """`$RADIA_DATA`, or `data/demo`, which this process then works in: a demonstration stays apart from a site."""
    os.environ.setdefault("RADIA_DATA", "data/demo")
    return workspace()


def ledger_url(site: Workspace) -> str:
    """The ledger's database: `$RADIA_LEDGER_URL`, that of `$RADIA_DATABASE`, or SQLite in the data folder."""
    return os.environ.get("RADIA_LEDGER_URL") or database_url("ledger") or site.ledger_url


def database_url(name: str, *, role: str = "") -> str | None:
    """One database of the PostgreSQL server `$RADIA_DATABASE` (`postgresql://host:5432`), or None where none is named.

    A database and the role that owns it have the same name. The URL holds no password: libpq takes it from the file
    that `$PGPASSFILE` names. Raises SettingsError.
    """
    server = os.environ.get("RADIA_DATABASE")
    if not server:
        return None
    parts = urlsplit(server)
    secrets = {"user", "password", "sslpassword"} & parse_qs(parts.query, keep_blank_values=True).keys()
    if parts.scheme != "postgresql" or parts.username or parts.path.strip("/") or secrets:
        raise SettingsError(
            "RADIA_DATABASE is not of the form postgresql://host:port (users and databases are RADIA's, passwords are "
            "in the file that PGPASSFILE names: an address is seen by whoever lists processes)"
        )
    return urlunsplit(("postgresql+psycopg", f"{role or name}@{parts.netloc}", f"/{name}", parts.query, ""))


def addresses() -> dict[str, str]:
    """Where services listen that are elsewhere: `$RADIA_ADDRESSES`, as `mlflow=mlflow:5000 web=web:8000`.

    Raises SettingsError.
    """
    found = {}
    for entry in os.environ.get("RADIA_ADDRESSES", "").split():
        name, equals, address = entry.partition("=")
        if not (equals and re.fullmatch(r"[A-Za-z0-9._-]+:\d{1,5}", address)):
            raise SettingsError("RADIA_ADDRESSES is not of the form name=host:port name=host:port")
        found[name] = address
    return found


MEASURED = ("receiver", "dagster-code")
"""Services with a page of their own for Prometheus; the web app has one among its pages."""


def measures_address(service: str) -> tuple[str, int] | None:
    """Host and port of a service's page for Prometheus by `$RADIA_METRICS`; None where it names none.

    `receiver=9112 dagster-code=9113`: on 127.0.0.1; `receiver=0.0.0.0:9112`: for others too, on a network without a way
    out. Raises SettingsError.
    """
    found = {}
    for entry in os.environ.get("RADIA_METRICS", "").split():
        match = re.fullmatch(rf"({'|'.join(MEASURED)})=(?:([A-Za-z0-9._-]+):)?(\d{{1,5}})", entry)
        if match is None:
            names = " and ".join(MEASURED)
            raise SettingsError(f"RADIA_METRICS is not of the form NAME=PORT or NAME=HOST:PORT; names are {names}")
        found[match[1]] = (match[2] or "127.0.0.1", int(match[3]))
    return found.get(service)


def public_url() -> str:
    """The address under which people reach the proxy: `$RADIA_PUBLIC_URL`."""
    return os.environ.get("RADIA_PUBLIC_URL", "https://localhost:8443")


def behind_proxy() -> bool:
    """Whether people reach RADIA through the proxy: whether `$RADIA_PUBLIC_URL` is set."""
    return bool(os.environ.get("RADIA_PUBLIC_URL"))


def tls_files() -> tuple[Path, Path]:
    """The proxy's certificate and key: `$RADIA_TLS_CERTIFICATE_FILE`, `$RADIA_TLS_KEY_FILE`. Raises SettingsError."""
    found = []
    for name in ("RADIA_TLS_CERTIFICATE_FILE", "RADIA_TLS_KEY_FILE"):
        path = Path(os.environ.get(name, ""))
        if not path.is_file():
            raise SettingsError(f"{name} does not name a file: `radia secrets DIR` makes one to begin with")
        found.append(path.resolve())
    return found[0], found[1]


def log_lines() -> bool:
    """Whether logs are JSON lines (`$RADIA_LOG=json`), as services write them, or text for a person."""
    return os.environ.get("RADIA_LOG") == "json"


def secret(name: str) -> str | None:
    """A secret: what is in the file that `$<name>_FILE` names, or `$<name>`, or None. Raises SettingsError."""
    file = os.environ.get(f"{name}_FILE")
    if not file:
        return os.environ.get(name)
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise SettingsError(f"the file that {name}_FILE names cannot be read: {type(error).__name__}") from error


def open_secrets() -> None:
    """Puts secrets where libraries look for them and know no files: MLflow's user and password."""
    if (password := secret("MLFLOW_TRACKING_PASSWORD")) is not None:
        os.environ["MLFLOW_TRACKING_PASSWORD"] = password


def ledger_anchor_file(site: Workspace) -> Path:
    """Where the ledger's newest anchor is kept: `$RADIA_LEDGER_ANCHOR` (better on another disk), or the data folder."""
    return Path(os.environ.get("RADIA_LEDGER_ANCHOR") or site.ledger_anchor_file)


def mlflow_url(site: Workspace) -> str:
    """MLflow: `$MLFLOW_TRACKING_URI`, or SQLite in the data folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or site.mlflow_url


def mlflow_page() -> str:
    """Where people open MLflow: the server of `$MLFLOW_TRACKING_URI` (no user, no password), or that of `radia up`."""
    parts = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if parts.scheme not in ("http", "https"):
        return "http://127.0.0.1:5000"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def key_from_environment() -> bytes | None:
    """The pseudonymisation key in `$RADIA_KEY` or `$RADIA_KEY_FILE` (64 hex digits), or None. Raises SettingsError."""
    return _hex_key("RADIA_KEY")


def ledger_key_from_environment() -> bytes | None:
    """The ledger's key in `$RADIA_LEDGER_KEY` or its file (64 hex digits), or None. Raises SettingsError."""
    return _hex_key("RADIA_LEDGER_KEY")


QUIET = {
    "ANALYTICS": "false",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Variables of dependencies that turn off their telemetry and update checks."""


def quiet_dependencies() -> None:
    """Turns off the telemetry and update checks of every dependency, before it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _hex_key(name: str) -> bytes | None:
    text = secret(name)
    if not text:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not hexadecimal: expected 64 hex digits (openssl rand -hex 32)") from error
    if len(key) != 32:
        raise SettingsError(f"{name} holds {len(key)} bytes: expected 32 (openssl rand -hex 32)")
    return key


def _params_file(path: Path | None) -> Path | None:
    if path is not None:
        if not path.is_file():
            raise SettingsError(f"{path} does not exist")
        return path
    named = os.environ.get("RADIA_PARAMS")
    if named:
        return _params_file(Path(named))
    candidates = (workspace().root / "params.yaml", Path("params.yaml"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)
