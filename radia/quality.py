"""Judges a manifest and its labels by rules that are data (quality_rules.yaml), with Great Expectations.

What belongs here: the tables that rules look at, how a rule becomes an expectation, the report. What does not: measures
of pixels (radia/image_quality.py) and what happens when a rule blocks (the caller's). Columns that could identify are
judged with BOOLEAN_ONLY: of them the report says whether a rule holds, never a value or a count. Of the others it
gives counts and aggregates, never a list of values.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from radia.errors import SettingsError
from radia.findings import FINDINGS, PRESENT
from radia.image_quality import DEFECTS
from radia.settings import QualitySettings, quiet_dependencies

Severity = Literal["critical", "warning"]
MEASURES = ("exposure", "contrast", "saturation")
TABLES = ("manifest", "labels", "findings", "sites", "batches", "totals", "pictures")
PICTURE_COLUMNS = (*DEFECTS, "structure", "noise", "strokes", "upright", "same_picture")
RULES = Path(__file__).with_name("quality_rules.yaml")

OPEN_COLUMNS = frozenset(
    {
        *("site", "view", "sex", "age", "age_band", "manufacturer", "rows", "columns", "bits", "photometric"),
        *("transfer_syntax", *MEASURES, *FINDINGS, "labelled", "patients_with_this_picture"),
        *("patient_form", "study_form", "image_form", "source_sha256_form"),
        *(
            *PICTURE_COLUMNS,
            "in_manifest",
            "labels_given",
            "nothing_present",
            "finding",
            "images",
            "studies",
            "patients",
            "present",
        ),
        *("labelled_fraction", "refused", "refused_fraction", "prevalence", "previous_prevalence", "change"),
        *("share", "previous_share", *(f"{measure}_shift" for measure in MEASURES)),
    }
)
"""Columns whose counts and aggregates may stand in a report. A column that is not listed is treated as identifying."""

FORMS = {name: f"^{letter}[A-Z]{{16}}$" for name, letter in (("patient", "P"), ("study", "S"), ("image", "I"))} | {
    "source_sha256": "^[0-9a-f]{64}$"
}
"""What identifying columns look like; whether they do stands in a column of 0 and 1, <name>_form."""

FEW = 20
"""Batches of fewer images are not compared with the others."""


@dataclass(frozen=True)
class Rule:
    """One line of quality_rules.yaml."""

    name: str
    table: str
    expect: str
    args: dict[str, Any]
    severity: Severity
    says: str


@dataclass(frozen=True)
class RuleResult:
    """What came of one rule. `observed`: counts or an aggregate in words, never a patient's value."""

    name: str
    severity: Severity
    passed: bool
    observed: str
    description: str
    table: str = ""


@dataclass(frozen=True)
class QualityReport:
    """All rules' results, the failed and critical ones first, and aggregates for the page."""

    results: tuple[RuleResult, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def blocking(self) -> bool:
        """Whether a critical rule failed."""
        return bool(self.failed("critical"))

    def failed(self, severity: Severity) -> tuple[RuleResult, ...]:
        """The failed rules of one severity."""
        return tuple(result for result in self.results if not result.passed and result.severity == severity)

    def to_json(self) -> str:
        """The report as JSON: the same bytes for the same tables and settings."""
        content = {"blocking": self.blocking, "results": [asdict(result) for result in self.results], **self.facts}
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> QualityReport:
        """The report that to_json wrote."""
        content = json.loads(text)
        results = tuple(RuleResult(**result) for result in content.pop("results"))
        content.pop("blocking")
        return QualityReport(results, content)

    def write_data_docs(self, folder: Path) -> Path:
        """Writes `folder/index.html`, one page that needs no network, and returns its path."""
        from radia.quality_page import render

        folder.mkdir(parents=True, exist_ok=True)
        page = folder / "index.html"
        page.write_text(render(self), encoding="utf-8")
        return page


def check(
    manifest: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    settings: QualitySettings,
    previous: pd.DataFrame | None = None,
    refused: Mapping[str, int] | None = None,
    pictures: pd.DataFrame | None = None,
) -> QualityReport:
    """Judges all rules.

    manifest: one row an image (radia/manifest.py). labels: one row a study, `study` and the 14 findings.
    previous: the snapshot before: `Snapshot.table`, or its images or labels alone; rules that need what is not there
    hold. refused: number of refused files by batch. pictures: radia.image_quality.survey of the images.
    Raises SettingsError for a rule that cannot be understood.
    """
    rules = load_rules(settings)
    tables = rule_tables(manifest, labels, previous=previous, refused=refused, pictures=pictures)
    results = _judge(rules, tables)
    order = sorted(results, key=lambda result: (result.passed, result.severity != "critical"))
    return QualityReport(tuple(order), _facts(tables))


# --- rules ----------------------------------------------------------------------------------------------------------


def load_rules(settings: QualitySettings) -> tuple[Rule, ...]:
    """RADIA's rules, then the hospital's own, settings put in. Raises SettingsError, naming the rule."""
    lines = {line["name"]: line for line in _rule_lines(RULES)}
    if settings.rules_file:
        lines |= {line["name"]: line for line in _rule_lines(Path(settings.rules_file))}
    return tuple(rule for line in lines.values() if line["severity"] != "off" for rule in _rules_of(line, settings))


def _rule_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path.name} cannot be read as YAML: {type(error).__name__}") from error
    if not isinstance(lines, list):
        raise SettingsError(f"{path.name}: expected a list of rules")
    for number, line in enumerate(lines, start=1):
        _refuse_bad_line(line, f"{path.name}: rule {number}")
    return lines


def _refuse_bad_line(line: Any, where: str) -> None:
    if not isinstance(line, dict) or not isinstance(line.get("name"), str):
        raise SettingsError(f"{where} has no name")
    where = f"{where} ({line['name']})"
    if line.get("severity") == "off":
        return
    expected = {"name": str, "table": str, "expect": str, "args": dict, "severity": str, "says": str}
    for key, kind in expected.items():
        if not isinstance(line.get(key), kind):
            raise SettingsError(f"{where}: {key} is missing or is not a {kind.__name__}")
    unknown = set(line) - set(expected)
    if unknown:
        raise SettingsError(f"{where}: unknown {', '.join(sorted(map(str, unknown)))}")
    if line["table"] not in TABLES:
        raise SettingsError(f"{where}: no table {line['table']!r}; expected one of {', '.join(TABLES)}")
    if line["severity"] not in ("critical", "warning"):
        raise SettingsError(f"{where}: severity is critical, warning or off")


def _rules_of(line: dict[str, Any], settings: QualitySettings) -> Iterator[Rule]:
    """The rule of a line, or one a finding where its column is "$each_finding"."""
    if line["args"].get("column") == "$each_finding":
        for finding in FINDINGS:
            each = {**line, "name": f"{line['name']}: {finding}", "args": {**line["args"], "column": finding}}
            yield from _rules_of(each, settings)
        return
    args = {name: _with_settings(value, line["name"], settings) for name, value in line["args"].items()}
    yield Rule(line["name"], line["table"], line["expect"], args, line["severity"], line["says"])


def _with_settings(value: Any, rule: str, settings: QualitySettings) -> Any:
    if not (isinstance(value, str) and value.startswith("$")):
        return value
    if value[1:] not in QualitySettings.model_fields:
        raise SettingsError(f"rule {rule!r}: there is no setting quality.{value[1:]}")
    return getattr(settings, value[1:])


# --- the tables that rules look at ----------------------------------------------------------------------------------


def rule_tables(
    manifest: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    previous: pd.DataFrame | None = None,
    refused: Mapping[str, int] | None = None,
    pictures: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """The seven tables of quality_rules.yaml. Columns that the frames lack are blank in what is derived from them."""
    images = _with_derived(manifest, labels)
    studies = _label_facts(labels, manifest)
    return {
        "manifest": images,
        "labels": studies,
        "findings": _finding_facts(studies, previous),
        "sites": _site_facts(images, previous),
        "batches": _batch_facts(images, refused or {}),
        "totals": _totals(images, refused or {}),
        "pictures": pd.DataFrame(columns=list(PICTURE_COLUMNS)) if pictures is None else pictures,
    }


def _with_derived(manifest: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    labelled = _column(manifest, "study").isin(_column(labels, "study").dropna())
    picture, patient = _column(manifest, "perceptual_hash"), _column(manifest, "patient")
    pairs = pd.DataFrame({"picture": picture, "patient": patient}).dropna().drop_duplicates()
    patients = picture.map(pairs["picture"].value_counts())
    derived = manifest.assign(labelled=labelled.astype(float), patients_with_this_picture=patients.astype(float))
    for column, form in FORMS.items():
        derived[f"{column}_form"] = _has_form(_column(manifest, column), form)
    return derived


def _has_form(values: pd.Series[Any], form: str) -> NDArray[np.float64]:
    """1 where a text has a form, 0 where it has not, blank where there is none; by Arrow, a hundred times as fast."""
    import pyarrow as pa
    from pyarrow import compute

    texts = pa.array([None if value is None or value != value else str(value) for value in values], pa.large_string())
    return np.asarray(compute.match_substring_regex(texts, form).to_numpy(zero_copy_only=False), dtype=np.float64)


def _label_facts(labels: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    table = labels.copy()
    given = [finding for finding in FINDINGS if finding in labels.columns]
    others = [finding for finding in given if finding not in ("No Finding", "Support Devices")]
    in_manifest = _column(labels, "study").isin(_column(manifest, "study").dropna())
    table["in_manifest"] = in_manifest.astype(float)
    table["labels_given"] = labels[given].notna().sum(axis=1).astype(float)
    table["nothing_present"] = 1.0 - (labels[others] == PRESENT).any(axis=1).astype(float)
    return table


def _finding_facts(labels: pd.DataFrame, previous: pd.DataFrame | None) -> pd.DataFrame:
    before = None if previous is None else _one_row_a_study(previous)
    rows = []
    for finding in FINDINGS:
        values = _column(labels, finding)
        present, studies = int((values == PRESENT).sum()), len(values)
        row: dict[str, Any] = {
            "finding": finding,
            "studies": studies,
            "labelled": int(values.notna().sum()),
            "present": present,
        }
        row |= {"prevalence": present / studies if studies else np.nan, "previous_prevalence": np.nan, "change": np.nan}
        if before is not None and finding in before.columns and len(before) and studies:
            row["previous_prevalence"] = float((before[finding] == PRESENT).mean())
            row["change"] = _change(row["prevalence"], studies, row["previous_prevalence"], len(before))
        rows.append(row)
    return pd.DataFrame(rows)


def _one_row_a_study(previous: pd.DataFrame) -> pd.DataFrame:
    return previous.drop_duplicates("study") if "study" in previous.columns else previous


def _site_facts(images: pd.DataFrame, previous: pd.DataFrame | None) -> pd.DataFrame:
    now = _column(images, "site").value_counts()
    before = pd.Series(dtype=float)
    if previous is not None and "site" in previous.columns:
        before = previous["site"].value_counts()
    rows = []
    for site in sorted({*now.index, *before.index}, key=str):
        count = int(now.get(site, 0))
        row: dict[str, Any] = {"site": site, "images": count, "share": count / max(1, int(now.sum()))}
        row["previous_share"] = row["change"] = np.nan
        if before.sum():
            row["previous_share"] = float(before.get(site, 0) / before.sum())
            row["change"] = _change(row["share"], int(now.sum()), row["previous_share"], int(before.sum()))
        rows.append(row)
    return pd.DataFrame(rows, columns=["site", "images", "share", "previous_share", "change"])


def _change(now: float, n_now: int, before: float, n_before: int) -> float:
    """How much two proportions differ beyond two standard errors of their difference (0 where chance explains it)."""
    pooled = (now * n_now + before * n_before) / max(1, n_now + n_before)
    error = np.sqrt(pooled * (1 - pooled) * (1 / max(1, n_now) + 1 / n_before))
    return float(max(0.0, abs(now - before) - 2 * error))


def _batch_facts(images: pd.DataFrame, refused: Mapping[str, int]) -> pd.DataFrame:
    batch = _column(images, "batch")
    codes, known = pd.factorize(batch)
    given = codes >= 0
    kept = np.bincount(codes[given], minlength=len(known))
    sites = _column(images, "site").groupby(batch).agg(["first", "nunique"])
    table = pd.DataFrame({"batch": known, "images": kept})
    table["site"] = sites["first"].where(sites["nunique"] == 1).reindex(known).astype(object).to_numpy()
    for measure in MEASURES:
        numbers = pd.to_numeric(_column(images, measure), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        table[f"{measure}_shift"] = _shifts(numbers[given], codes[given], len(known))
    empty = pd.DataFrame({"batch": [name for name in refused if name not in set(known)], "images": 0})
    table = pd.concat([table, empty], ignore_index=True) if len(empty) else table
    table["refused"] = table["batch"].map(dict(refused)).fillna(0).astype(int)
    table["refused_fraction"] = table["refused"] / np.maximum(1, table["images"] + table["refused"])
    table["site"] = table["site"].where(table["site"].notna(), None)
    shifts = [f"{measure}_shift" for measure in MEASURES]
    columns = ["batch", "site", "images", "refused", "refused_fraction", *shifts]
    return table.sort_values("batch", key=lambda names: names.astype(str), ignore_index=True)[columns]


def _shifts(values: NDArray[np.float64], batches: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Distance of each batch's median from that of all other images, in robust standard deviations of those. [count]

    values, batches: [n], the batch of each as 0 .. count - 1; a value may be missing. Not a number for batches of FEW.
    """
    seen = np.isfinite(values)
    values, batches = values[seen], batches[seen]
    mine = np.bincount(batches, minlength=count)
    found = np.full(count, np.nan)
    enough = np.flatnonzero((mine >= FEW) & (len(values) - mine >= FEW))
    if len(enough):
        others = _Others(values, batches, enough)
        centre = others.median()
        spread = np.maximum(1.4826 * others.median_distance(centre), 1e-3)
        own = pd.Series(values).groupby(batches).median().reindex(enough).to_numpy()
        found[enough] = np.abs(own - centre) / spread
    return found


class _Others:
    """Order statistics of all values that are not of one batch, for many batches at once, from one sorted array.

    How many of the others lie below a bound is how many of all do, less how many of the batch do; so a value of any
    rank is found by bisection, and a thousand batches cost little more than one.
    """

    def __init__(self, values: NDArray[np.float64], batches: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        order = np.argsort(values, kind="stable")
        self._values = values[order]
        self._base = len(values) + 1
        self._keys = np.sort(batches[order] * self._base + np.arange(len(values)))
        self._start = np.searchsorted(self._keys, chosen * self._base)
        self._chosen = chosen
        size = len(values) - (np.searchsorted(self._keys, (chosen + 1) * self._base) - self._start)
        self._ranks = ((size - 1) // 2, size // 2)

    def median(self) -> NDArray[np.float64]:
        """Of each batch's others."""
        return np.asarray(np.mean([self._values[self._place(rank)] for rank in self._ranks], axis=0))

    def median_distance(self, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        """The median of each batch's others' distance from a centre, one a batch."""
        return np.asarray(np.mean([self._distance(centre, rank) for rank in self._ranks], axis=0))

    def _below(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many others stand before a place of the sorted array."""
        own = np.searchsorted(self._keys, self._chosen * self._base + places) - self._start
        return np.asarray(places - own)

    def _place(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of the other with so many others before it."""
        low, high = np.zeros_like(rank), np.full_like(rank, len(self._values) - 1)
        while (low < high).any():
            middle = (low + high) // 2
            enough = self._below(middle + 1) > rank
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return np.asarray(low)

    def _distance(self, centre: NDArray[np.float64], rank: NDArray[np.int64]) -> NDArray[np.float64]:
        low = np.zeros(len(rank))
        high = np.maximum(self._values[-1] - centre, centre - self._values[0])
        for _ in range(50):
            middle = (low + high) / 2
            last = np.searchsorted(self._values, centre + middle, side="right")
            first = np.searchsorted(self._values, centre - middle, side="left")
            enough = self._below(last) - self._below(first) > rank
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.asarray(high)


def _totals(images: pd.DataFrame, refused: Mapping[str, int]) -> pd.DataFrame:
    lost = sum(refused.values())
    row = {
        "images": len(images),
        "studies": _column(images, "study").nunique(),
        "patients": _column(images, "patient").nunique(),
        "labelled_fraction": float(images["labelled"].mean()) if len(images) else 0.0,
        "refused_fraction": lost / max(1, lost + len(images)),
    }
    return pd.DataFrame([row])


def _column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column, or blanks where the frame lacks it: the rule about columns says so, the others must not stumble."""
    if name in frame.columns:
        return frame[name]
    return pd.Series(np.nan, index=frame.index, dtype=object)


# --- Great Expectations ---------------------------------------------------------------------------------------------

KEYS = {"findings": "finding", "sites": "site", "batches": "batch"}
"""Tables of aggregates: of their rows the report names those that broke a rule."""


def _judge(rules: tuple[Rule, ...], tables: dict[str, pd.DataFrame]) -> list[RuleResult]:
    """The results in the order of the rules."""
    found: dict[str, RuleResult] = {}
    judgeable: dict[tuple[str, bool], list[Rule]] = {}
    for rule in rules:
        missing = [column for column in _columns_of(rule) if column not in tables[rule.table].columns]
        if missing:
            found[rule.name] = _result(rule, passed=False, observed=f"the column {', '.join(missing)} is missing")
        else:
            judgeable.setdefault((rule.table, _sealed(rule)), []).append(rule)
    with _great_expectations() as gx:
        source = _context(gx).data_sources.add_pandas("radia")
        for (table, sealed), group in judgeable.items():
            title = f"{table} {'identifiers' if sealed else 'measures'}"
            asset = source.add_dataframe_asset(title).add_batch_definition_whole_dataframe(title)
            batch = asset.get_batch({"dataframe": _plain(tables[table], group)})
            for result in _validate(gx, batch, title, group, _result_format(table, sealed)):
                found[result.name] = result
    return [found[rule.name] for rule in rules]


def _context(gx: Any) -> Any:
    """A context in memory: no progress bars, no analytics, no folder for a docs site."""
    from great_expectations.data_context.types import base

    config = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=base.ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _validate(gx: Any, batch: Any, title: str, rules: list[Rule], result_format: dict[str, Any]) -> list[RuleResult]:
    suite = gx.ExpectationSuite(name=title, expectations=[_expectation(gx, rule) for rule in rules])
    by_name = {rule.name: rule for rule in rules}
    results = []
    for outcome in batch.validate(suite, result_format=result_format).results:
        # GX calls a failed warning a failure as well: severity is ours to apply.
        rule = by_name[outcome.expectation_config.meta["rule"]]
        results.append(_result(rule, passed=bool(outcome.success), observed=_observed(rule, outcome)))
    return results


def _expectation(gx: Any, rule: Rule) -> Any:
    """The rule as one of Great Expectations' own. Raises SettingsError for one that it does not know or take."""
    kind = getattr(gx.expectations, _class_name(gx, rule.expect), None)
    if kind is None:
        raise SettingsError(f"rule {rule.name!r}: Great Expectations has no expect_{rule.expect}")
    try:
        return kind(**rule.args, severity=rule.severity, meta={"rule": rule.name})
    except (TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise SettingsError(f"rule {rule.name!r}: expect_{rule.expect} does not take these args") from error


def _class_name(gx: Any, expect: str) -> str:
    """The class of an expectation, whatever capitals its name has inside (expect_column_pair_values_A_to_be_…)."""
    wanted = "expect" + expect.replace("_", "").lower()
    return next((name for name in dir(gx.expectations) if name.lower() == wanted), "")


def _columns_of(rule: Rule) -> list[str]:
    single = [rule.args[name] for name in ("column", "column_A", "column_B") if name in rule.args]
    return [str(column) for column in (*single, *rule.args.get("column_list", ()))]


def _sealed(rule: Rule) -> bool:
    """Whether the rule looks at anything that could identify."""
    columns = _columns_of(rule)
    if not columns:
        return not rule.expect.startswith("table_")
    return rule.table not in (*KEYS, "totals") and not OPEN_COLUMNS.issuperset(columns)


def _result_format(table: str, sealed: bool) -> dict[str, Any]:
    if sealed:
        return {"result_format": "BOOLEAN_ONLY"}
    if table in KEYS:
        return {"result_format": "COMPLETE", "unexpected_index_column_names": [KEYS[table]]}
    return {"result_format": "BASIC", "partial_unexpected_count": int(table == "totals")}


def _observed(rule: Rule, outcome: Any) -> str:
    if _raised(outcome.exception_info):
        return "cannot be judged: the values are of another kind than the rule expects"
    found = outcome.result
    if not found:
        return "holds" if outcome.success else "does not hold"
    if "unexpected_count" in found:
        return _counted(rule, found)
    missing = (found.get("details") or {}).get("mismatched", {}).get("missing")
    if missing:
        return f"missing: {', '.join(map(str, missing))}"
    value = found.get("observed_value")
    return _number(value) if isinstance(value, int | float | np.number) else ("holds" if outcome.success else "differs")


def _counted(rule: Rule, found: Mapping[str, Any]) -> str:
    broken, rows = int(found["unexpected_count"]), int(found["element_count"])
    if rule.table == "totals":
        return _number(found["partial_unexpected_list"][0]) if found.get("partial_unexpected_list") else "holds"
    if rule.table in KEYS and found.get("unexpected_index_list"):
        key, column = KEYS[rule.table], str(rule.args.get("column"))
        return ", ".join(f"{row[key]} ({_number(row.get(column))})" for row in found["unexpected_index_list"])
    return f"{broken:,} of {rows:,} rows differ" if broken else f"all {rows:,} rows"


def _number(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.3g}"
    return str(value)


def _raised(exceptions: Mapping[str, Any]) -> bool:
    """GX gives one record, or one a metric."""
    records = [exceptions, *(record for record in exceptions.values() if isinstance(record, dict))]
    return any(record.get("raised_exception") for record in records)


def _result(rule: Rule, *, passed: bool, observed: str) -> RuleResult:
    return RuleResult(rule.name, rule.severity, passed, observed, rule.says, rule.table)


def _plain(table: pd.DataFrame, rules: list[Rule]) -> pd.DataFrame:
    """What these rules look at, as float or object: the types that GX's pandas engine compares without surprises.

    GX hashes every cell of a batch, so that a column of which only the name matters is handed over as zeros.
    """
    used = {column for rule in rules for column in (*_columns_of(rule), KEYS.get(rule.table, ""))}
    whole = any(not _columns_of(rule) and not rule.expect.startswith("table_") for rule in rules)
    names = [name for name in table.columns if name in used or any(not _columns_of(rule) for rule in rules)]
    told_apart = _only_told_apart(rules)
    plain: dict[Any, Any] = {}
    for name in names:
        column = table[name]
        if name not in used and not whole:
            plain[name] = np.zeros(len(table))
        elif name in told_apart and not whole:
            codes = pd.factorize(table[name])[0].astype(np.float64)
            plain[name] = np.where(codes < 0, np.nan, codes)
        elif pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
            plain[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            values = column.astype(object)
            plain[name] = values.where(values.notna(), None).to_numpy()
    return pd.DataFrame(plain, index=range(len(table)))


_TELLS_APART = frozenset({"column_values_to_be_unique", "column_values_to_not_be_null", "column_values_to_be_null"})


def _only_told_apart(rules: list[Rule]) -> set[str]:
    """Columns of which rules ask only whether cells are blank or alike: numbers do as well as texts, and cost less."""
    asked: dict[str, set[str]] = {}
    for rule in rules:
        for column in _columns_of(rule):
            asked.setdefault(column, set()).add(rule.expect)
    return {column for column, expects in asked.items() if expects <= _TELLS_APART}


@cache
def _imported() -> Any:
    quiet_dependencies()
    import great_expectations
    import great_expectations.expectations

    return great_expectations


@contextmanager
def _great_expectations() -> Iterator[Any]:
    """The library, silent: its logs and warnings quote values, and its outcomes reach us as results."""
    log = logging.getLogger("great_expectations")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield _imported()
    finally:
        log.setLevel(level)


# --- aggregates for the page ----------------------------------------------------------------------------------------


def _facts(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Aggregates of no patient: totals, findings, sites, batches, and histograms of the measures."""
    names = ("findings", "sites", "batches", "totals")
    facts: dict[str, Any] = {name: _records(tables[name]) for name in names}
    facts["measures"] = {measure: _histogram(_column(tables["manifest"], measure)) for measure in MEASURES}
    return facts


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.to_dict("records")
    return [{str(name): _json_value(value) for name, value in row.items()} for row in rows]


def _json_value(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return None
    if isinstance(value, float | np.floating):
        return round(float(value), 6)
    return int(value) if isinstance(value, int | np.integer) else str(value)


def _histogram(values: pd.Series[Any]) -> dict[str, Any]:
    """Counts in 20 bins over 0 to 1 (the measures' scale)."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    counts, _ = np.histogram(np.clip(numbers[np.isfinite(numbers)], 0, 1), bins=20, range=(0, 1))
    return {"low": 0.0, "high": 1.0, "counts": counts.tolist()}
