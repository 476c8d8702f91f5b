"""Walking from a model to its images, and from an image or a patient to the models."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from radia import digests
from radia.errors import UnknownId
from radia.findings import FINDINGS
from radia.ledger import Ledger, open_ledger
from radia.registry import Version
from radia.settings import Settings
from radia.trace import (
    Tree,
    models_that_saw,
    render_text,
    to_json,
    trace_batch,
    trace_event,
    trace_image,
    trace_model,
    trace_patient,
    trace_person,
)
from radia.trace_page import MANY, Links, to_html
from radia.workspace import Workspace

SNAPSHOT, OTHER_SNAPSHOT = "5" * 64, "6" * 64
PATIENTS = {"P1": "train", "P2": "test"}


def image_rows(batch: str) -> pd.DataFrame:
    """Two patients, three images: P1 has two studies."""
    rows = [("I1", "S1", "P1"), ("I2", "S2", "P1"), ("I3", "S3", "P2")]
    table = pd.DataFrame(rows, columns=["image", "study", "patient"])
    table["site"], table["batch"], table["shard"], table["row"] = "HND", batch, "0000.npy", range(3)
    table["source_sha256"] = [digests.of_json(image) for image in table["image"]]
    table["pixel_sha256"] = [digests.of_json([image]) for image in table["image"]]
    return table


def label_rows() -> pd.DataFrame:
    labels = pd.DataFrame({"study": ["S1", "S2", "S3"]})
    for finding in FINDINGS:
        labels[finding] = [None, 0.0, 1.0] if finding == "Edema" else [1.0, None, None]
    return labels.astype(dict.fromkeys(FINDINGS, float))


def write_snapshot(site: Workspace, digest: str, rows: pd.DataFrame) -> None:
    folder = site.snapshots / digest
    folder.mkdir(parents=True)
    rows.assign(split=rows["patient"].map(PATIENTS)).to_parquet(folder / "images.parquet")
    label_rows()[label_rows()["study"].isin(rows["study"])].to_parquet(folder / "labels.parquet")


@pytest.fixture
def site(tmp_path: Path) -> Workspace:
    site = Workspace(tmp_path)
    batch = "HND-20261123-1"
    for folder in (site.manifest, site.labels, site.suspects, site.clean / batch, site.reads):
        folder.mkdir(parents=True)
    rows = image_rows(batch)
    rows.to_parquet(site.manifest / f"{batch}.parquet")
    label_rows().assign(**{f"{finding} origin": "given" for finding in FINDINGS}).to_parquet(
        site.labels / "given.parquet"
    )
    outcomes = rows[["source_sha256", "image"]].assign(outcome="clean", reason=None, actions='{"(0010,0010)": "Z"}')
    outcomes["profile"] = "basic"
    outcomes["boxes"] = [[[1, 2, 3, 4]], [], []]
    refused = {"source_sha256": "f" * 64, "image": None, "outcome": "refused", "reason": "no pixel data"}
    pd.concat([outcomes, pd.DataFrame([refused])]).to_parquet(site.clean / batch / "outcomes.parquet")
    suspects = {"id": ["S1"], "finding": ["Edema"], "given": [1.0], "probability": [0.9], "score": [0.8], "rank": [1]}
    pd.DataFrame(suspects).to_parquet(site.suspects / "suspects.parquet")
    write_snapshot(site, SNAPSHOT, rows)
    write_snapshot(site, OTHER_SNAPSHOT, rows[rows["patient"] == "P2"])
    return site


@pytest.fixture
def ledger(site: Workspace) -> Ledger:
    """The events of one retraining, as the steps write them, and some that have nothing to do with it."""
    ledger, batch = open_ledger(site), "HND-20261123-1"
    ledger.append("intake", actor="radia", outputs={batch: "1" * 64}, parameters={"summary": {"files": 4}})
    ledger.append("intake", actor="radia", outputs={"HVD-20261123-1": "e" * 64})
    ledger.append("deidentify", actor="radia", inputs={"receipt": "1" * 64}, outputs={batch: "2" * 64})
    ledger.append("images", actor="radia", inputs={"outcomes": "2" * 64}, outputs={batch: "3" * 64})
    ledger.append("labels", actor="radia", inputs={batch: "3" * 64}, outputs={"labels": "4" * 64})
    taken = {batch: "3" * 64, "given": "4" * 64}
    ledger.append("check", actor="radia", inputs=taken, outputs={"report": "7" * 64})
    ledger.append("snapshot", actor="radia", inputs=taken, outputs={"snapshot": SNAPSHOT, "dvc": "d" * 32})
    ledger.append("suspects", actor="radia", inputs={"snapshot": SNAPSHOT}, outputs={"suspects": "8" * 64})
    ledger.append("finetune", actor="gpu", inputs={"snapshot": SNAPSHOT}, outputs={"checkpoint": "9" * 64})
    ledger.append("evaluate", actor="radia", inputs={"candidate": "9" * 64}, outputs={"metrics": "a" * 64})
    ledger.append("gate", actor="radia", inputs={"metrics": "a" * 64}, outputs={"decision": "b" * 64})
    evidence = {"snapshot": SNAPSHOT, "checkpoint": "9" * 64, "metrics": "a" * 64, "decision": "b" * 64}
    ledger.append("register", actor="radia", inputs=evidence, outputs={"cxr-candidate/3": "c" * 32}, code="abc123")
    ledger.append("register", actor="radia", inputs={"snapshot": "0" * 64}, outputs={"cxr-candidate/4": "0" * 32})
    ledger.append(
        "promote",
        actor="radia",
        inputs={"cxr-candidate/3": "c" * 32},
        outputs={"cxr/2": "c" * 32},
        parameters={"approver": "Dr Côté", "reason": "better"},
    )
    ledger.append("accessed", actor="Dr Roy", subjects=["I1", "P1"], parameters={"screen": "review"})
    return ledger


def labels_of(tree: Tree) -> list[str]:
    return [child.label for child in tree.children]


class TestTraceModel:
    def test_goes_back_to_the_batches(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_model(site, ledger, "3")
        assert tree.label == "model cxr-candidate/3"
        assert tree.detail["code"] == "abc123"
        assert tree.detail["in use as"] == "cxr/2"
        steps = {name: labels_of(tree.find(name)) for name in ("batches", "labels", "checks", "training", "evaluation")}
        assert steps == {
            "batches": ["intake (event 1)", "deidentify (event 3)", "images (event 4)"],
            "labels": ["labels (event 5)", "suspects (event 8)"],
            "checks": ["check (event 6)"],
            "training": ["finetune (event 9)"],
            "evaluation": ["evaluate (event 10)", "gate (event 11)"],
        }

    def test_lists_every_image_with_labels_and_source(self, site: Workspace, ledger: Ledger) -> None:
        snapshot = trace_model(site, ledger, "cxr-candidate/3").find("snapshot")
        assert snapshot.detail["digest"] == SNAPSHOT
        assert snapshot.detail["dvc"] == "d" * 32
        assert snapshot.detail["split"] == {"train": 2, "test": 1}
        rows = snapshot.find("images").rows
        assert list(rows["image"]) == ["I1", "I2", "I3"]
        assert rows.loc[2, "source_sha256"] == digests.of_json("I3")
        assert rows.loc[2, "Edema"] == 1

    def test_names_the_people(self, site: Workspace, ledger: Ledger) -> None:
        people = trace_model(site, ledger, "3").find("people").detail
        assert people["Dr Côté"] == "promote"
        assert people["gpu"] == "finetune"
        assert "Dr Roy" not in people

    def test_finds_the_candidate_behind_a_model_in_use(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_model(site, ledger, "cxr/2")
        assert tree.label == "model cxr/2"
        assert tree.find("register").detail["made"] == {"cxr-candidate/3": "c" * 32}
        assert tree.find("decisions").children[0].detail["approver"] == "Dr Côté"

    def test_shows_what_mlflow_knows(self, site: Workspace, ledger: Ledger) -> None:
        tags = {"gate": "passed", "approval": "pending"}
        version = Version("cxr-candidate", "3", "c" * 32, tags, ("newest",), "2026-11-23", "card", "models:/m-1")
        facts = trace_model(site, ledger, "3", version).find("MLflow").detail
        assert (facts["gate"], facts["approval"], facts["aliases"]) == ("passed", "pending", "newest")

    def test_says_when_the_snapshot_is_not_on_this_machine(self, site: Workspace, ledger: Ledger) -> None:
        assert "radia restore" in trace_model(site, ledger, "4").find("snapshot 000000000000").detail["images"]

    def test_counts_patients_who_withdrew_since(self, site: Workspace, ledger: Ledger) -> None:
        ledger.append("withdraw", actor="Dr Roy", subjects=["P2"])
        assert trace_model(site, ledger, "3").find("snapshot").detail["withdrawn since"] == 1

    def test_of_an_unknown_version_names_those_that_exist(self, site: Workspace, ledger: Ledger) -> None:
        with pytest.raises(UnknownId, match="the nearest: cxr/2, cxr-candidate/4, cxr-candidate/3"):
            trace_model(site, ledger, "99")


class TestTraceImage:
    def test_goes_to_batch_source_cleaning_and_labels(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_image(site, ledger, "I1")
        assert tree.detail["source_sha256"] == digests.of_json("I1")
        assert labels_of(tree.find("batch")) == ["intake (event 1)", "deidentify (event 3)", "images (event 4)"]
        cleaning = tree.find("de-identification").detail
        assert cleaning["actions"] == {"(0010,0010)": "Z"}
        assert cleaning["boxes"] == [[1, 2, 3, 4]]
        assert tree.find("labels given").detail["Fracture"] == 1
        assert "Edema" not in tree.find("labels given").detail
        assert tree.find("suspects").detail["Edema"]["rank"] == 1

    def test_goes_to_snapshots_and_models(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_image(site, ledger, "I3")
        held = [child for child in tree.children if child.label.startswith("snapshot")]
        assert [snapshot.detail["digest"] for snapshot in held] == [SNAPSHOT, OTHER_SNAPSHOT]
        assert held[0].detail["split"] == "test"
        assert held[0].detail["labels"] == {"Edema": 1.0}
        assert labels_of(held[0]) == ["model cxr-candidate/3"]
        assert held[0].children[0].detail["used"] == "evaluated on it"
        assert held[1].children == ()

    def test_shows_who_looked_at_it(self, site: Workspace, ledger: Ledger) -> None:
        looked = trace_image(site, ledger, "I1").find("accessed")
        assert looked.children[0].detail["by"] == "Dr Roy"

    def test_is_found_by_the_digest_of_its_source(self, site: Workspace, ledger: Ledger) -> None:
        assert trace_image(site, ledger, digests.of_json("I2")).label == "image I2"

    def test_says_why_a_source_was_refused(self, site: Workspace, ledger: Ledger) -> None:
        assert trace_image(site, ledger, "f" * 64).find("refused").detail["reason"] == "no pixel data"

    def test_shows_reads(self, site: Workspace, ledger: Ledger) -> None:
        pd.DataFrame({"study": ["S1"], "reader": ["Dr Roy"], "Edema": [0.0]}).to_parquet(site.reads / "reads.parquet")
        assert trace_image(site, ledger, "I1").find("read in").detail["reader"] == "Dr Roy"

    def test_of_an_unknown_id_names_the_nearest_and_never_what_was_asked(self, site: Workspace, ledger: Ledger) -> None:
        with pytest.raises(UnknownId, match="the nearest: I1, I2, I3") as caught:
            trace_image(site, ledger, "I9")
        assert "I9" not in str(caught.value)
        with pytest.raises(UnknownId, match="nothing there is like it"):
            trace_image(site, ledger, "TREMBLAY^MARIE")


class TestTracePatient:
    def test_goes_to_studies_snapshots_and_models(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_patient(site, ledger, "P1")
        assert (tree.detail["images"], tree.detail["studies"]) == (2, 2)
        assert [label for label in labels_of(tree) if label.startswith("study")] == ["study S1", "study S2"]
        [held] = [child for child in tree.children if child.label.startswith("snapshot")]
        assert (held.detail["split"], held.detail["images"]) == ("train", 2)
        assert held.children[0].detail["used"] == "trained on it"
        assert tree.find("accessed").detail["events"] == 1

    def test_shows_a_withdrawal(self, site: Workspace, ledger: Ledger) -> None:
        ledger.append("withdraw", actor="Dr Roy", subjects=["P1"], parameters={"models": ["cxr-candidate/3"]})
        assert trace_patient(site, ledger, "P1").find("withdrawal").detail["models"] == ["cxr-candidate/3"]

    def test_of_an_unknown_id_names_the_nearest(self, site: Workspace, ledger: Ledger) -> None:
        with pytest.raises(UnknownId, match="no patient of this id in the archive; the nearest: P1, P2"):
            trace_patient(site, ledger, "P7")

    def test_names_the_models_that_saw_a_patient(self, site: Workspace, ledger: Ledger) -> None:
        assert models_that_saw(site, ledger, "P1") == ["cxr-candidate/3"]
        assert models_that_saw(site, ledger, "P7") == []


class TestABatch:
    def test_goes_to_its_steps_snapshots_and_models(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_batch(site, ledger, "HND-20261123-1")
        assert tree.detail == {"images": 3, "patients": 2}
        assert [child.label.split()[0] for child in tree.children][:3] == ["intake", "deidentify", "images"]
        assert tree.find("model cxr-candidate/3") is not None

    def test_says_how_many_of_it_are_on_each_side(self, site: Workspace, ledger: Ledger) -> None:
        tree = trace_batch(site, ledger, "HND-20261123-1")
        assert tree.find(f"snapshot {SNAPSHOT[:12]}").detail["split"] == {"test": 1, "train": 2}
        assert tree.find("model cxr-candidate/3").detail["used"] == "trained on it (2), evaluated on it (1)"

    def test_of_an_unknown_name_names_the_nearest(self, site: Workspace, ledger: Ledger) -> None:
        with pytest.raises(UnknownId, match="HND-20261123-1"):
            trace_batch(site, ledger, "HND-20261123-2")


class TestAPerson:
    def test_did_what_an_account_wrote(self, ledger: Ledger) -> None:
        tree = trace_person(ledger, "gpu")
        assert [child.label for child in tree.children] == ["finetune"]

    def test_approved_what_an_account_wrote_for_them(self, ledger: Ledger) -> None:
        assert [child.label for child in trace_person(ledger, "Dr Côté").children] == ["promote"]

    def test_asked_what_an_account_looked_up_for_them(self, ledger: Ledger) -> None:
        asked = ledger.append("reidentify", actor="radia", parameters={"person": "Dre Tremblay", "reason": "recall"})
        tree = trace_person(ledger, "Dre Tremblay")
        assert tree.find(f"reidentify (event {asked.sequence})").detail["reason"] == "recall"
        assert tree.detail["events"] == 1

    def test_shows_the_newest_of_many_and_counts_all(self, ledger: Ledger) -> None:
        for number in range(9):
            ledger.append("read", actor="Dr Roy", parameters={"number": number})
        reads = trace_person(ledger, "Dr Roy").find("read")
        assert reads.detail["events"] == 9
        assert [child.detail["number"] for child in reads.children] == [8, 7, 6, 5, 4]

    def test_who_did_nothing_is_unknown_and_the_nearest_are_named(self, ledger: Ledger) -> None:
        with pytest.raises(UnknownId, match="no person of this id in the ledger; nothing there is like it"):
            trace_person(ledger, "nobody")
        with pytest.raises(UnknownId, match="nearest: Dr Roy"):
            trace_person(ledger, "Dr Roi")


class TestAnEvent:
    def test_goes_back_to_what_it_took_and_on_to_what_took_it(self, ledger: Ledger) -> None:
        (check,) = ledger.events(action="check")
        tree = trace_event(ledger, check.sequence)
        assert tree.find("made from").find("intake") is not None
        (snapshot,) = ledger.events(action="snapshot")
        used = trace_event(ledger, snapshot.sequence).find("used by")
        assert used.find("finetune") is not None
        assert used.find("register") is not None


class TestLooks:
    def test_text_is_a_tree_that_shows_the_first_images(self, site: Workspace, ledger: Ledger) -> None:
        text = render_text(trace_model(site, ledger, "3"))
        assert text.splitlines()[0] == "model cxr-candidate/3"
        assert "I3 · test · HND-20261123-1 · source" in text
        assert "Edema" in text
        assert "split: train 2, test 1" in text

    def test_text_says_how_many_images_are_not_shown(self) -> None:
        text = render_text(Tree("images", rows=pd.DataFrame({"image": [f"I{number}" for number in range(1200)]})))
        assert "… and 1,195 more (all of them with --json)" in text

    def test_json_holds_every_image_and_blanks_as_null(self, site: Workspace, ledger: Ledger) -> None:
        found = json.loads(json.dumps(to_json(trace_model(site, ledger, "3"))))
        snapshot = next(child for child in found["children"] if child["label"].startswith("snapshot"))
        rows = snapshot["children"][0]["rows"]
        edema = rows["columns"].index("Edema")
        assert [row[edema] for row in rows["values"]] == [None, 0.0, 1.0]
        assert [row[0] for row in rows["values"]] == ["I1", "I2", "I3"]
        odd = pd.DataFrame({"image": ['I"1', "Î2"], "n": [1, 2], "Edema": [float("nan"), 0.5]})
        assert to_json(Tree("x", rows=odd))["rows"]["values"] == [['I"1', 1, None], ["Î2", 2, 0.5]]

    def test_page_stands_alone_and_escapes(self, site: Workspace, ledger: Ledger) -> None:
        page = to_html(Tree("model <b>", {"by": "<script>"}, (Tree("images", rows=image_rows("B")),)))
        assert "<b>" not in page.split("<h1>")[1].split("</h1>")[0]
        assert "<script>" not in page
        assert "http" not in page
        assert "src=" not in page
        assert "I3" in page


class TestThePage:
    def test_draws_the_way_with_actions_days_and_people(self, site: Workspace, ledger: Ledger) -> None:
        drawn = to_html(trace_model(site, ledger, "3")).split("<svg")[1].split("</svg>")[0]
        day = ledger.events(action="promote")[0].at[:10]
        order = ["source files", "clean DICOM", "snapshot", "evaluation", "in use"]
        assert [drawn.index(f">{word}<") for word in order] == sorted(drawn.index(f">{word}<") for word in order)
        for said in ("received", "de-identified", "prepared", "frozen", "trained", "evaluated", "approved", "Dr Côté"):
            assert f">{said}<" in drawn
        assert "cxr/2" in drawn
        assert f">{day}<" in drawn

    def test_of_an_image_says_how_many_of_the_batch_and_which_model_saw_it(
        self, site: Workspace, ledger: Ledger
    ) -> None:
        drawn = to_html(trace_image(site, ledger, "I1")).split("<svg")[1].split("</svg>")[0]
        assert ">1 of 4<" in drawn
        assert ">I1<" in drawn
        assert ">cxr-candidate/3<" in drawn

    def test_draws_many_batches_as_one_and_tells_each_below(self, site: Workspace, ledger: Ledger) -> None:
        events = [
            ledger.append("intake", actor="radia", outputs={f"B{n}": f"{n:064d}"}, parameters={"summary": {"files": 2}})
            for n in range(MANY + 1)
        ]
        page = to_html(Tree("batch all", children=tuple(Tree(f"intake {e.sequence}", event=e) for e in events)))
        drawn = page.split("<svg")[1].split("</svg>")[0]
        assert f">{MANY + 1} batches<" in drawn
        assert f">{2 * (MANY + 1)}<" in drawn
        assert "B3" not in drawn
        assert "<td>B3</td>" in page

    def test_links_to_where_the_events_lead(self, site: Workspace, ledger: Ledger) -> None:
        ledger.append(
            "register", actor="radia", outputs={"cxr-candidate/9": "c" * 32}, parameters={"dagster_run_id": "run-1"}
        )
        page = to_html(trace_model(site, ledger, "9"), Links.of("https://d/", "https://m/"))
        assert 'href="https://d/runs/run-1"' in page
        assert 'href="https://m/#/models/cxr-candidate/versions/9"' in page
        assert f'href="https://m/#/runs/{"c" * 32}"' in page
        assert "radia restore cxr-candidate/9 DIR" in page


class TestLinks:
    """Where a trace's page sends people."""

    @pytest.fixture(autouse=True)
    def nothing_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RADIA_PUBLIC_URL", "MLFLOW_TRACKING_URI"):
            monkeypatch.delenv(name, raising=False)

    def test_on_one_machine_go_to_what_radia_up_opens(self) -> None:
        assert Links.in_force(Settings()) == Links("http://127.0.0.1:3000", "http://127.0.0.1:5000")

    def test_behind_the_proxy_go_where_nothing_can_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADIA_PUBLIC_URL", "https://radia.hospital.example/")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")  # the services' own address: no person's
        links = Links.in_force(Settings())
        assert links.dagster_run("r1") == "https://radia.hospital.example/dagster-readonly/runs/r1"
        assert links.mlflow_run("m1") == "https://radia.hospital.example/mlflow/#/runs/m1"

    def test_that_are_named_go_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RADIA_PUBLIC_URL", "https://radia.hospital.example")
        named = {"dagster": "https://d.example/", "mlflow": "https://m.example"}
        assert Links.in_force(Settings.model_validate({"pages": named})) == Links(
            "https://d.example", "https://m.example"
        )
