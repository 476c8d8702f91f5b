"""Reports in French and English to labels: conventions, scope, sections, tables, and what must not change a label."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from radia.cli import main
from radia.errors import LabelError, UnmatchedIds
from radia.findings import FINDINGS
from radia.reports import canary as canaries
from radia.reports import label_report, label_reports, label_with_evidence, read_report_table, rules_digest
from radia.reports.labeler import EMPTY, FOREIGN, NOTHING_READ
from radia.reports.lexicon import LANGUAGES, NORMAL, OTHER, lexicon, source_of
from radia.reports.text import fold

SPEC = Path(__file__).resolve().parents[1] / "spec"
SHARED = Path(__file__).resolve().parents[3] / "shared"
CODES = dict(
    zip(("nf", "ec", "ca", "lo", "ll", "ed", "co", "pn", "at", "px", "pe", "po", "fx", "sd"), FINDINGS, strict=True)
)
IDENTIFIERS = ("Dr Massé", "M. Jean Nodulet", "RAMQ GAUA 9907 1313", "2024-03-12", "514-555-0199", "Dossier 200-36")
CUES_OF_CODE = {"normal", "new", "question", "versus", "or"}
"""Cues that the code names, beside those of the lexicon."""
VALUES = {"+": 1.0, "-": 0.0, "?": -1.0}


def named(text: str) -> dict[str, float]:
    """The labels that a report gets, blanks left out."""
    return {finding: value for finding, value in label_report(text).values.items() if value is not None}


def expected(codes: str) -> dict[str, float]:
    return {CODES[code[:2]]: VALUES[code[2]] for code in codes.split()}


def spec(name: str) -> list[tuple[str, dict[str, float]]]:
    lines = [line for line in (SPEC / name).read_text(encoding="utf-8").splitlines() if line[:1] not in ("#", ">", "")]
    rows = [line.split("|", 1) for line in lines]
    return [(text.strip().replace(" / ", "\n"), expected(codes)) for codes, text in rows]


SETS = (
    "french_reports",
    "french_prose",
    "french_prose_second",
    "french_prose_third",
    "french_prose_fourth",
    "french_prose_fifth",
    "french_prose_sixth",
)
FRENCH_SETS = {name: spec(f"{name}.txt") for name in SETS}
FRENCH = [row for rows in FRENCH_SETS.values() for row in rows]
SAMPLE = FRENCH[::2]
"""Enough of them for what is tried in many ways."""


def flipped(text: str, labels: dict[str, float]) -> bool:
    got = named(text)
    return any({got.get(finding), labels.get(finding)} == {0.0, 1.0} for finding in FINDINGS)


@pytest.mark.parametrize("name", FRENCH_SETS)
class TestFrenchReports:
    def test_at_least_93_in_100_agree_in_every_finding(self, name: str) -> None:
        rows = FRENCH_SETS[name]
        wrong = [text for text, labels in rows if named(text) != labels]
        assert len(rows) >= 80
        assert len(wrong) <= 0.07 * len(rows), wrong

    def test_at_most_one_in_100_turns_present_into_absent_or_back(self, name: str) -> None:
        rows = FRENCH_SETS[name]
        turned = [text for text, labels in rows if flipped(text, labels)]
        assert len(turned) <= 0.01 * len(rows), turned


@pytest.mark.parametrize(("codes", "text"), [line.split(" | ", 1) for line in """\
nf+ px- pe- | No pleural effusion or pneumothorax.
nf+ co- px- pe- | No focal consolidation, pneumothorax, or large pleural effusion.
nf+ lo- px- pe- | The lungs are clear of focal airspace disease, pneumothorax, or pleural effusion.
pe+ px- | No pneumothorax, small left pleural effusion.
ca+ px- | No pneumothorax. The heart is enlarged.
ca+ ec- | Heart is enlarged. Mediastinal contours are normal.
nf+ ca- ec- | Normal heart size and mediastinal contours.
nf+ ca- | Heart size is at the upper limits of normal.
ca+ | Mild cardiomegaly.
pn? | Pneumonia cannot be excluded.
pn? | Possible right lower lobe pneumonia.
lo+ at? | Left basilar opacity may represent atelectasis.
lo+ at? pn? | Opacity at the left base, atelectasis versus pneumonia.
pe? | Blunting of the left costophrenic angle.
lo? | No new opacity.
pe+ | No change in the left pleural effusion.
nf+ pe- | Interval resolution of the left pleural effusion.
nf+ pe- | The pleural effusion has resolved.
nf+ sd- | The right PICC line has been removed.
nf+ sd+ px- | Right chest tube in place. No pneumothorax.
nf+ sd+ | Status post valve replacement.
ll+ lo+ | Nodular opacity in the right upper lobe.
 | Calcified granuloma in the right lung base.
 | Pericardial effusion.
fx+ | Nondisplaced fracture of the left sixth rib.
lo+ pn? | Right lower lobe airspace opacity concerning for pneumonia.
ed+ | Pulmonary vascular congestion.
nf+ px- | INDICATION: Rule out pneumonia. / FINDINGS: No pneumothorax.
""".splitlines()])  # fmt: skip
def test_english_reports_follow_the_same_conventions(codes: str, text: str) -> None:
    assert named(text.replace(" / ", "\n")) == expected(codes)


class TestSections:
    def test_the_indication_and_the_technique_state_nothing(self) -> None:
        text = "INDICATION : Épanchement pleural connu.\nTECHNIQUE : PA.\nCONSTATATIONS : Cardiomégalie."
        assert named(text) == {"Cardiomegaly": 1.0}

    def test_headings_in_the_middle_of_a_line_are_headings(self) -> None:
        text = "Renseignements cliniques : pneumonie ? Constatations : Cardiomégalie. Opinion : Pas d'épanchement."
        assert named(text) == {"Cardiomegaly": 1.0, "Pleural Effusion": 0.0}

    def test_a_report_without_headings_is_read_but_for_its_history(self) -> None:
        assert named("Antécédent de pneumothorax. Cardiomégalie.") == {"Cardiomegaly": 1.0}

    def test_findings_after_an_indication_without_a_heading_of_their_own_are_read(self) -> None:
        assert named("INDICATION : Pneumonie ?\n\nCardiomégalie.") == {"Cardiomegaly": 1.0}
        assert named("Indication : pneumonie ?\nCardiomégalie.") == {"Cardiomegaly": 1.0}

    def test_a_relatives_disease_is_not_the_patients(self) -> None:
        assert "Lung Lesion" not in named("Sa mère a eu un cancer du poumon. Cardiomégalie.")

    def test_evidence_names_the_section(self) -> None:
        labels = label_report("CONSTATATIONS : Cardiomégalie.\nCONCLUSION : Épanchement pleural.")
        assert {piece.finding: piece.section for piece in labels.evidence} == {
            "Cardiomegaly": "findings",
            "Pleural Effusion": "impression",
        }


class TestEvidence:
    def test_offsets_are_those_of_the_text_as_given(self) -> None:
        text = "Cœur normal.\r\nPas d’épanchement  PLEURAL\u0301."
        evidence = {piece.finding: piece for piece in label_report(text).evidence}
        assert text[evidence["Cardiomegaly"].start : evidence["Cardiomegaly"].end] == "Cœur"
        effusion = evidence["Pleural Effusion"]
        assert text[effusion.start : effusion.end].startswith("épanchement")
        assert effusion.cues == ("negation ahead",)

    def test_it_holds_no_word_of_the_report(self) -> None:
        labels = label_report("Patient : Gauthier. Épanchement Tremblay pleural possible.")
        assert "gauthier" not in repr(labels).lower()
        assert "tremblay" not in repr(labels).lower()

    @pytest.mark.parametrize("identifier", IDENTIFIERS)
    def test_the_table_of_evidence_holds_no_word_either(self, identifier: str) -> None:
        texts = [f"{identifier}. {text} {identifier}" for text, _ in FRENCH[::40]]
        found = label_with_evidence(pd.DataFrame({"id": range(len(texts)), "text": texts}))
        kinds = {"id", "value", "start", "end"}
        words = {str(value) for column in set(found.evidence) - kinds for value in found.evidence[column].unique()}
        allowed = {
            *FINDINGS,
            OTHER,
            NORMAL,
            "findings",
            "impression",
            "none",
            "fr",
            "en",
            "",
            EMPTY,
            FOREIGN,
            NOTHING_READ,
        }
        cues = {cue for word in words - allowed for cue in word.split(" + ")}
        assert cues - {"None", "nan"} <= {*source_of("fr")["cues"], *source_of("fr")["predicates"]} | CUES_OF_CODE

    def test_the_table_of_evidence_says_why_a_report_got_no_label(self) -> None:
        found = label_with_evidence(
            pd.DataFrame({"id": ["a", "b", "c"], "text": ["", "Kein Pneumothorax.", "Thorax N."]})
        )
        reasons = found.evidence.set_index("id")["reason"]
        assert reasons["a"] == EMPTY
        assert reasons["b"] == FOREIGN
        assert found.abstained == {EMPTY: 1, FOREIGN: 1}
        assert found.labels["id"].tolist() == ["a", "b", "c"]

    def test_the_command_writes_it_beside_the_labels(self, tmp_path: Path) -> None:
        (tmp_path / "in.csv").write_text("id,text\n1,Pas d'épanchement pleural.\n2,\n")
        arguments = ["labels", "from-reports", *(str(tmp_path / name) for name in ("in.csv", "out.csv"))]
        evidence = tmp_path / "evidence.csv"
        result = CliRunner().invoke(main, [*arguments, "--evidence", str(evidence), "--json"])
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        assert told == {"reports": 2, "abstained": {EMPTY: 1}, "rules": rules_digest()}
        rows = pd.read_csv(evidence, dtype=str)
        effusion = rows[rows["finding"] == "Pleural Effusion"].iloc[0]
        told_of = effusion[["id", "start", "end", "section", "language", "cues"]].tolist()
        assert told_of == ["1", "6", "25", "none", "fr", "negation ahead"]
        assert float(effusion["value"]) == 0.0
        assert "pleural" not in evidence.read_text()


class TestAbstention:
    @pytest.mark.parametrize("text", ["", "   \n", "...", "12345 %% ??", "zzz qqq"])
    def test_text_that_says_nothing_gets_no_label(self, text: str) -> None:
        labels = label_report(text)
        assert set(labels.values.values()) == {None}
        assert labels.reason

    @pytest.mark.parametrize(
        "text",
        [
            "Kein Pneumothorax. Pleuraerguss rechts. Herz nicht vergrössert, keine Infiltrate.",
            "Kein Nachweis von Pneumothorax oder Atelektase.",
            "No se observa neumotórax. Derrame pleural derecho. Silueta cardiaca normal.",
            "Non si osserva pneumotorace. Versamento pleurico a destra.",
            "Sem pneumotórax. Derrame pleural à direita. Área cardíaca normal.",
            "Geen pneumothorax. Het hart is niet vergroot. Geen infiltraten.",
        ],
    )
    def test_another_language_is_never_positive(self, text: str) -> None:
        assert 1.0 not in label_report(text).values.values()


CHANGES: dict[str, Callable[[str], str]] = {
    "capitals": str.upper,
    "small letters": str.lower,
    "no accents": lambda text: "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)),
    "decomposed accents": lambda text: unicodedata.normalize("NFD", text),
    "wide spaces": lambda text: text.replace(" ", "  "),
    "hard spaces": lambda text: text.replace(" ", "\u00a0"),
    "tabs": lambda text: text.replace(" ", "\t"),
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "spaces around": lambda text: f"\n  {text}  \n",
    "curly apostrophes": lambda text: text.replace("'", "’"),
    "a signature": lambda text: f"{text}\nSigné Dr Massé",
    "a patient": lambda text: f"Patient : Jean Nodulet, RAMQ GAUA 9907 1313.\n{text}",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_label_does_not_change_with(change: str) -> None:
    changed = [text for text, _ in SAMPLE if named(CHANGES[change](text)) != named(text)]
    assert changed == []


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([t for t, _ in FRENCH if "\n" not in t and "?" not in t]), min_size=2, max_size=5),
    st.randoms(),
)
def test_a_label_does_not_change_with_the_order_of_sentences(texts: list[str], random: object) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert named("CONSTATATIONS : " + " ".join(texts)) == named("CONSTATATIONS : " + " ".join(shuffled))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(FRENCH),
    st.sampled_from(IDENTIFIERS),
    st.sampled_from(["{who}. {text}", "{text} {who}.", "{who}\n{text}", "{text}\n{who}", "between"]),
)
def test_a_label_does_not_change_with_identifiers(row: tuple[str, dict[str, float]], who: str, where: str) -> None:
    text = row[0]
    changed = text.replace(". ", f". {who}. ") if where == "between" else where.format(who=who, text=text)
    assert named(changed) == named(text)


@pytest.mark.parametrize(
    ("slip", "finding", "value"),
    [
        ("Cardiomgalie.", "Cardiomegaly", 1.0),
        ("Pas d'épanchment pleural.", "Pleural Effusion", 0.0),
        ("Pneumothroax droit.", "Pneumothorax", 1.0),
        ("Atéléctasie linéaire.", "Atelectasis", 1.0),
        ("No pleural efusion.", "Pleural Effusion", 0.0),
    ],
)
def test_a_slip_of_the_pen_is_forgiven(slip: str, finding: str, value: float) -> None:
    assert named(slip)[finding] == value


def test_words_that_only_look_like_findings_are_not() -> None:
    assert "Pleural Effusion" not in named("Hémithorax gauche clair. Poumons clairs.")
    assert "Pneumonia" not in named("Injection de produit de contraste. Poumons clairs.")
    assert "Cardiomegaly" not in named("Examen anormal.")


class TestLexicon:
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_observation_but_no_finding_has_words(self, language: str) -> None:
        findings = source_of(language)["findings"]
        assert all(findings[finding]["terms"] for finding in FINDINGS if finding != "No Finding")

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_no_phrase_is_a_yaml_value(self, language: str) -> None:
        assert lexicon(language).language == language

    def test_folding_is_done_once(self) -> None:
        assert fold("Œdème À-CÔTÉ") == "oedeme a-cote"
        assert fold(fold("Œdème")) == fold("Œdème")


class TestCanary:
    def test_its_own_reports_are_labelled_rightly(self) -> None:
        canaries.check_canary.cache_clear()
        canaries.check_canary()

    def test_a_wrong_label_stops_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        canaries.check_canary.cache_clear()
        monkeypatch.setattr(canaries, "_canaries", lambda: [{"text": "Cardiomégalie.", "labels": {"Edema": 1}}])
        with pytest.raises(LabelError, match="canary report 1 is labelled wrongly in Cardiomegaly, Edema"):
            label_reports(pd.DataFrame({"id": ["1"], "text": ["Cardiomégalie."]}))
        canaries.check_canary.cache_clear()


class TestTables:
    def write(self, folder: Path, content: bytes) -> Path:
        path = folder / "reports.csv"
        path.write_bytes(content)
        return path

    def test_a_table_is_read_by_its_first_column(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, b'AccessionNumber,Report\n0012,"Ligne 1\nLigne 2, suite"\nA3,\n')
        table = read_report_table(path)
        assert table.to_dict("list") == {"id": ["0012", "A3"], "text": ["Ligne 1\nLigne 2, suite", ""]}

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_encodings_and_separators(self, tmp_path: Path, encoding: str, separator: str) -> None:
        text = f"id{separator}text\r\n1{separator}Pas d'épanchement.\r\n".encode(encoding)
        assert read_report_table(self.write(tmp_path, text))["text"].tolist() == ["Pas d'épanchement."]

    def test_labels_come_in_the_order_of_the_findings(self) -> None:
        labels = label_reports(pd.DataFrame({"id": ["b", "a"], "text": ["Cardiomégalie.", None]}))
        assert list(labels.columns) == ["id", *FINDINGS]
        assert labels["id"].tolist() == ["b", "a"]
        assert labels.loc[0, "Cardiomegaly"] == 1.0
        assert np.isnan(labels.loc[1, list(FINDINGS)].to_numpy(dtype=float)).all()

    def test_doubled_and_blank_ids_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnmatchedIds, match="1 ids stand there more than once"):
            read_report_table(self.write(tmp_path, b"id,text\nsecret1,a\nsecret1,b\n"))
        with pytest.raises(UnmatchedIds, match="1 rows have no id"):
            read_report_table(self.write(tmp_path, b"id,text\n,a\n2,b\n"))

    def test_errors_quote_no_value(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError) as error:
            read_report_table(self.write(tmp_path, b"id,text\nsecret1,a,b,c\n"))
        assert "secret1" not in str(error.value)

    @pytest.mark.parametrize("content", [b"", b"id,text\n", b"id\n1\n", b"id,a,b\n1,2,3\n", b"PK\x00\x01\x00"])
    def test_what_is_no_table_of_reports_is_refused(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(LabelError):
            read_report_table(self.write(tmp_path, content))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="does not exist"):
            read_report_table(tmp_path / "none.csv")


@pytest.mark.skipif(not (SHARED / "hospital-sample").is_dir(), reason="the development data is not beside the project")
def test_reports_made_from_labels_give_the_labels_back() -> None:
    reports = read_report_table(SHARED / "hospital-sample" / "reports.csv")
    labels = label_reports(reports).set_index("id")
    given = pd.read_csv(SHARED / "hospital-sample" / "labels.csv", dtype={0: str}, index_col=0).reindex(labels.index)
    present = given[list(FINDINGS)].eq(1.0) & (labels[list(FINDINGS)] == 0.0)
    assert not present.to_numpy().any()


class TestConventions:
    """Each convention with its examples; docs/report-labels.md is the same list, written out."""

    @pytest.mark.parametrize(("text", "labels"), spec("report_conventions.txt"))
    def test_every_example_is_labelled_as_the_page_says(self, text: str, labels: dict[str, float]) -> None:
        assert named(text) == labels

    def test_the_page_is_written_from_the_examples(self) -> None:
        page = SPEC.parents[1] / "docs" / "report-labels.md"
        assert page.read_text(encoding="utf-8") == conventions_page(), (
            "write it anew: python tests/unit/test_reports.py"
        )


def conventions_page() -> str:
    head = (SPEC / "report_labels_head.md").read_text(encoding="utf-8")
    lines = ["# Labels from reports", "", head]
    for line in (SPEC / "report_conventions.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("> "):
            lines += ["", f"## {line[2:]}", "", "| report | labels |", "|---|---|"]
        elif line[:1] not in ("#", ""):
            codes, text = line.split("|", 1)
            names = [f"{name} {value:g}" for name, value in expected(codes).items()]
            lines.append(f"| {text.strip().replace(' / ', '<br>')} | {', '.join(names) or 'blank'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (SPEC.parents[1] / "docs" / "report-labels.md").write_text(conventions_page(), encoding="utf-8")
