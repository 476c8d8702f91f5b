"""Freezing, splitting, versioning and bringing back snapshots."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radia.errors import BadLabelValue, SnapshotError, UnknownFinding, UnmatchedIds
from radia.findings import FINDINGS
from radia.settings import SnapshotSettings
from radia.snapshot import anchors, freeze, load, note_anchor, outside_test, restore, split_of, version
from radia.snapshot.versions import _repository

SETTINGS = SnapshotSettings()


def manifest_of(patients: int, *, batch: str = "HND-20260101-1", start: int = 0) -> pd.DataFrame:
    """Two studies a patient, one image a study."""
    rows = []
    for number in range(start, start + patients):
        for visit in (0, 1):
            rows.append(
                {
                    "image": f"I{number:04}{visit}",
                    "study": f"S{number:04}{visit}",
                    "patient": f"P{number:04}",
                    "accession": f"A{number:04}{visit}",
                    "batch": batch,
                    "site": "HND" if number % 2 else "HVD",
                    "sex": "F" if number % 3 else None,
                    "age_band": "40-49",
                    "view": "PA",
                    "manufacturer": "Rayons",
                    "pixel_sha256": f"{number:063}{visit}",
                    "source_sha256": f"{number:063x}{visit}",
                    "shard": "0.npy",
                    "row": 2 * number + visit,
                }
            )
    return pd.DataFrame(rows)


def labels_of(manifest: pd.DataFrame) -> pd.DataFrame:
    """Each finding present in every third study, blank in every fifth; the last never mentioned."""
    studies = manifest["study"].unique()
    table = pd.DataFrame({"study": studies})
    for column, finding in enumerate(FINDINGS):
        order = np.arange(len(studies)) + column
        values = np.where(order % 3 == 0, 1.0, 0.0)
        values[order % 5 == 0] = np.nan
        values[order % 7 == 0] = -1.0
        table[finding] = values
    return table


@pytest.fixture
def manifest() -> pd.DataFrame:
    return manifest_of(30)


@pytest.fixture
def labels(manifest: pd.DataFrame) -> pd.DataFrame:
    return labels_of(manifest)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


class TestSplit:
    def test_a_patient_never_changes_side_when_patients_are_added(self, tmp_path: Path) -> None:
        before = manifest_of(30)
        after = pd.concat([before, manifest_of(300, start=30, batch="HVD-20260102-1")])
        small = freeze(before, labels_of(before), settings=SETTINGS, folder=tmp_path).images
        large = freeze(after, labels_of(after), settings=SETTINGS, folder=tmp_path).images
        sides = large.set_index("image")["split"]
        assert (small["split"].to_numpy() == sides.loc[small["image"]].to_numpy()).all()

    def test_all_images_of_a_patient_are_on_one_side(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        images = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path).images
        assert (images.groupby("patient")["split"].nunique() == 1).all()

    def test_sides_have_the_fractions_of_the_settings(self) -> None:
        settings = SnapshotSettings(validation_fraction=0.1, test_fraction=0.3)
        counts = Counter(split_of(f"P{number}", settings) for number in range(20_000))
        assert counts["test"] / 20_000 == pytest.approx(0.3, abs=0.01)
        assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)

    def test_the_test_side_stays_the_same_when_the_validation_fraction_changes(self) -> None:
        patients = [f"P{number}" for number in range(500)]
        few, many = SnapshotSettings(validation_fraction=0.05), SnapshotSettings(validation_fraction=0.3)
        assert [split_of(p, few) == "test" for p in patients] == [split_of(p, many) == "test" for p in patients]

    def test_the_side_is_fixed_for_all_time(self) -> None:
        assert [split_of(f"P{number}", SETTINGS) for number in range(6)] == EXPECTED_SIDES


EXPECTED_SIDES = ["train", "train", "train", "test", "validation", "train"]


class TestDigest:
    def test_does_not_depend_on_row_order_batch_names_or_place(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        other = manifest.sample(frac=1, random_state=1).assign(batch="elsewhere", shard="9.npy", row=7)
        other["sex"] = other["sex"].astype("category")
        first = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path / "a")
        second = freeze(other, labels.sample(frac=1, random_state=2), settings=SETTINGS, folder=tmp_path / "b")
        assert first.digest == second.digest

    def test_does_not_depend_on_how_parquet_encodes(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        first = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        path = first.folder / "labels.parquet" / "HND-20260101-1.parquet"
        pd.read_parquet(path).to_parquet(path, compression="gzip", row_group_size=5)
        assert load(tmp_path, first.digest).digest == first.digest

    @pytest.mark.parametrize("column", ["sex", "pixel_sha256", "view", "patient"])
    def test_changes_with_any_content_of_an_image(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path, column: str
    ) -> None:
        other = manifest.copy()
        other.loc[other["study"] == "S00030", column] = "other"
        first = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        assert freeze(other, labels, settings=SETTINGS, folder=tmp_path).digest != first.digest

    def test_tells_blank_absent_and_uncertain_apart(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        digests = set()
        for value in (1.0, 0.0, -1.0, np.nan):
            labels.loc[4, "Edema"] = value
            digests.add(freeze(manifest, labels, settings=SETTINGS, folder=tmp_path).digest)
        assert len(digests) == 4

    def test_files_are_the_same_bytes_each_time(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        folders = [freeze(manifest, labels, settings=SETTINGS, folder=tmp_path / name).folder for name in "ab"]
        contents = [{p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} for folder in folders]
        assert contents[0] == contents[1]


class TestFreeze:
    def test_the_same_content_again_touches_no_file(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        first = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        before = files_of(tmp_path)
        assert freeze(manifest, labels, settings=SETTINGS, folder=tmp_path) == first
        assert files_of(tmp_path) == before

    def test_only_the_part_of_a_new_batch_is_new(self, tmp_path: Path) -> None:
        old = manifest_of(30)
        new = pd.concat([old, manifest_of(30, start=30, batch="HVD-20260102-1")])
        first = freeze(old, labels_of(old), settings=SETTINGS, folder=tmp_path)
        second = freeze(new, labels_of(new), settings=SETTINGS, folder=tmp_path)
        for table in ("images.parquet", "labels.parquet"):
            part = Path(table) / "HND-20260101-1.parquet"
            assert (first.folder / part).read_bytes() == (second.folder / part).read_bytes()
        assert first.folder.is_dir()
        assert second.batches == ("HND-20260101-1", "HVD-20260102-1")

    def test_leaves_withdrawn_patients_and_their_labels_out(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        snapshot = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path, withdrawn=frozenset({"P0003", "P0004"}))
        assert set(manifest["patient"]) - set(snapshot.images["patient"]) == {"P0003", "P0004"}
        assert set(snapshot.labels["study"]) == set(snapshot.images["study"])

    def test_leaves_images_without_labels_and_labels_without_images_out(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        labels.loc[3, "study"] = "S-of-elsewhere"
        snapshot = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        assert len(snapshot.images) == len(manifest) - 1
        assert "S-of-elsewhere" not in set(snapshot.labels["study"])

    def test_labels_follow_the_order_of_images(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        twin = manifest.iloc[[0]].assign(image="I99999", row=99)  # a second image of the first study
        snapshot = freeze(pd.concat([manifest, twin]), labels, settings=SETTINGS, folder=tmp_path)
        matrix = snapshot.labels_matrix()
        given = labels.set_index("study")[list(FINDINGS)]
        assert matrix.shape == (61, 14)
        for place, study in enumerate(snapshot.images["study"]):
            np.testing.assert_array_equal(matrix[place], given.loc[study].to_numpy())
        np.testing.assert_array_equal(snapshot.labels_matrix(["Edema"])[:, 0], matrix[:, FINDINGS.index("Edema")])
        with pytest.raises(UnknownFinding):
            snapshot.labels_matrix(["Pleural Oedema"])

    def test_counts_what_it_holds(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        counts = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path).description
        assert (counts["images"], counts["studies"], counts["patients"]) == (60, 60, 30)
        assert sum(side["patients"] for side in counts["sides"].values()) == 30
        assert counts["findings"]["Edema"]["present"] == int((labels["Edema"] == 1).sum())

    def test_no_partial_snapshot_is_left_when_writing_fails(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut(*_: object, **__: object) -> None:
            raise RuntimeError("cut")

        monkeypatch.setattr(pd.DataFrame, "to_parquet", cut)
        with pytest.raises(RuntimeError, match="cut"):
            freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestRefusals:
    def test_no_image_at_all(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="nothing to freeze"):
            freeze(manifest.iloc[:0], labels, settings=SETTINGS, folder=tmp_path)

    def test_no_label_for_any_image(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="of 60 images none has a row of labels"):
            freeze(manifest, labels.assign(study="elsewhere").iloc[:1], settings=SETTINGS, folder=tmp_path)

    def test_all_patients_withdrawn(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="nothing to freeze"):
            freeze(manifest, labels, settings=SETTINGS, folder=tmp_path, withdrawn=frozenset(manifest["patient"]))

    def test_all_labels_blank(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        labels[list(FINDINGS)] = np.nan
        with pytest.raises(SnapshotError, match="all labels of all 60 studies are blank"):
            freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)

    def test_no_patient_on_the_test_side(self, tmp_path: Path) -> None:
        trainee = next(f"P{n}" for n in range(99) if split_of(f"P{n}", SETTINGS) == "train")
        manifest = manifest_of(2).assign(patient=trainee)
        with pytest.raises(SnapshotError, match="none of the 1 patients falls on the test side"):
            freeze(manifest, labels_of(manifest), settings=SETTINGS, folder=tmp_path)

    def test_a_doubled_image(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(UnmatchedIds, match="1 images stand in the manifest more than once"):
            freeze(pd.concat([manifest, manifest.iloc[[5]]]), labels, settings=SETTINGS, folder=tmp_path)

    def test_two_rows_of_labels_for_one_study(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        with pytest.raises(UnmatchedIds, match="1 studies have more than one row of labels"):
            freeze(manifest, pd.concat([labels, labels.iloc[[5]]]), settings=SETTINGS, folder=tmp_path)

    def test_a_study_of_two_patients(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        manifest.loc[0, "study"] = manifest.loc[9, "study"]
        with pytest.raises(SnapshotError, match="more than one patient"):
            freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)

    def test_a_label_that_is_no_label(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        labels.loc[2, "Edema"] = 2.0
        with pytest.raises(BadLabelValue):
            freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)

    def test_a_manifest_without_a_column(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="manifest lacks the columns view, pixel_sha256"):
            freeze(manifest.drop(columns=["view", "pixel_sha256"]), labels, settings=SETTINGS, folder=tmp_path)


class TestConcerns:
    def test_names_a_finding_that_is_never_present(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        labels["Pneumothorax"] = 0.0
        snapshot = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        assert "Pneumothorax is never present" in snapshot.concerns
        assert not any("Edema" in concern for concern in snapshot.concerns)

    def test_names_an_empty_validation_side(self, tmp_path: Path) -> None:
        manifest = manifest_of(40)
        keep = manifest["patient"].map(lambda patient: split_of(patient, SETTINGS)) != "validation"
        snapshot = freeze(manifest[keep], labels_of(manifest[keep]), settings=SETTINGS, folder=tmp_path)
        assert "no patient falls on the validation side" in snapshot.concerns


class TestLoad:
    def test_gives_back_what_was_frozen(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        frozen = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        loaded = load(tmp_path, frozen.digest)
        pd.testing.assert_frame_equal(loaded.images, frozen.images)
        np.testing.assert_array_equal(loaded.labels_matrix(), frozen.labels_matrix())
        assert list(loaded.table.columns) == [*loaded.images.columns, *FINDINGS]

    def test_refuses_an_unknown_digest(self, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="no snapshot abc"):
            load(tmp_path, "abc")

    def test_refuses_a_changed_label(self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
        frozen = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        changed = frozen.labels.copy()
        changed.loc[0, "Edema"] = 0.0 if changed.loc[0, "Edema"] == 1.0 else 1.0
        changed.to_parquet(frozen.folder / "labels.parquet" / "HND-20260101-1.parquet")
        with pytest.raises(SnapshotError, match="was changed after it was frozen"):
            load(tmp_path, frozen.digest)

    @pytest.mark.parametrize(
        "part", ["labels.parquet/HND-20260101-1.parquet", "images.parquet/HND-20260101-1.parquet", "snapshot.json"]
    )
    def test_refuses_a_part_cut_short(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path, part: str
    ) -> None:
        frozen = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        path = frozen.folder / part
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(SnapshotError, match="missing or damaged"):
            load(tmp_path, frozen.digest)

    def test_refuses_a_folder_renamed_to_another_digest(
        self, manifest: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
    ) -> None:
        frozen = freeze(manifest, labels, settings=SETTINGS, folder=tmp_path)
        shutil.copytree(frozen.folder, tmp_path / ("0" * 64))
        with pytest.raises(SnapshotError, match="was changed"):
            load(tmp_path, "0" * 64)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "site" / "archive"


def archived(archive: Path, manifest: pd.DataFrame) -> str:
    """Freezes in the archive, with a stand-in shard a batch; returns the digest."""
    for batch in manifest["batch"].unique():
        folder = archive / "images" / batch
        if not folder.is_dir():
            folder.mkdir(parents=True)
            (folder / "0.npy").write_bytes(os.urandom(5000))
    return freeze(manifest, labels_of(manifest), settings=SETTINGS, folder=archive / "snapshots").digest


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".dvc" not in path.parts
    }


class TestVersion:
    def test_returns_the_md5_that_dvc_records(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        md5 = version(archive, digest)
        assert md5 in (archive / "snapshots" / f"{digest}.dvc").read_text()
        assert (archive / "images" / "HND-20260101-1.dvc").is_file()

    def test_a_second_time_changes_nothing(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        md5 = version(archive, digest)
        before = {name: times for name, times in files_of(archive).items() if "/.dvc/tmp" not in name}
        assert version(archive, digest) == md5
        assert {name: times for name, times in files_of(archive).items() if "/.dvc/tmp" not in name} == before

    def test_writes_nothing_outside_the_archive(self, manifest: pd.DataFrame, archive: Path, tmp_path: Path) -> None:
        digest = archived(archive, manifest)
        code = (
            f"from radia.snapshot import version; from pathlib import Path; version(Path({str(archive)!r}), {digest!r})"
        )
        home = tmp_path / "home"
        home.mkdir()
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", "")
        assert list(home.rglob("*")) == []
        with _repository(archive) as repository:  # DVC keeps its state in /var/tmp unless told otherwise
            assert Path(repository.site_cache_dir).is_relative_to(archive)
        assert {path.name for path in archive.parent.iterdir()} == {"archive"}

    def test_names_a_batch_that_is_not_in_the_archive(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        shutil.rmtree(archive / "images" / "HND-20260101-1")
        with pytest.raises(SnapshotError, match="needs batch HND-20260101-1"):
            version(archive, digest)

    def test_works_inside_a_git_checkout_that_is_a_dvc_project(self, manifest: pd.DataFrame, tmp_path: Path) -> None:
        from dvc.repo import Repo

        checkout = tmp_path / "checkout"
        checkout.mkdir()
        subprocess.run(["git", "init", "-q", str(checkout)], check=True)
        (checkout / ".gitignore").write_text("/data/*\n")
        Repo.init(str(checkout)).close()
        index = (checkout / ".git" / "index").read_bytes()
        archive = checkout / "data" / "archive"
        digest = archived(archive, manifest)
        version(archive, digest)
        shutil.rmtree(archive / "snapshots" / digest)
        restore(archive, digest)
        assert (archive / ".dvc" / "cache").is_dir()
        assert not (checkout / ".dvc" / "cache" / "files").exists()
        assert (checkout / ".git" / "index").read_bytes() == index

    def test_waits_for_another_process_in_the_archive(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        done: list[str] = []
        with _repository(archive) as holder, holder.lock:
            waiting = threading.Thread(target=lambda: done.append(version(archive, digest)))
            waiting.start()
            waiting.join(timeout=1.0)
            assert waiting.is_alive()
            assert done == []
        waiting.join(timeout=300)
        assert len(done) == 1

    def test_two_processes_may_begin_at_once(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        call = f"version(Path({str(archive)!r}), {digest!r})"
        code = f"from radia.snapshot import version; from pathlib import Path; print({call})"
        processes = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        answers = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert answers[0] == answers[1] != ""


class TestRestore:
    def test_brings_back_the_exact_files_after_deletion(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        before = contents(archive / "snapshots") | contents(archive / "images")
        shutil.rmtree(archive / "snapshots" / digest)
        shutil.rmtree(archive / "images" / "HND-20260101-1")
        restore(archive, digest)
        assert contents(archive / "snapshots") | contents(archive / "images") == before

    def test_brings_an_older_version_back_into_another_folder(self, archive: Path, tmp_path: Path) -> None:
        digest = archived(archive, manifest_of(30))
        version(archive, digest)
        before = contents(archive / "snapshots" / digest) | contents(archive / "images")
        shard = archive / "images" / "HND-20260101-1" / "0.npy"
        shard.unlink()
        shard.write_bytes(b"made anew")
        restore(archive, digest, tmp_path / "elsewhere")
        found = contents(tmp_path / "elsewhere" / "snapshots" / digest) | contents(tmp_path / "elsewhere" / "images")
        assert found == before
        assert shard.read_bytes() == b"made anew"

    def test_brings_back_a_changed_file(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        path = archive / "snapshots" / digest / "snapshot.json"
        text = path.read_text()
        path.unlink()
        path.write_text("{}")
        restore(archive, digest)
        assert path.read_text() == text

    def test_older_snapshots_stay_when_new_ones_come(self, archive: Path) -> None:
        old = manifest_of(30)
        new = pd.concat([old, manifest_of(30, start=30, batch="HVD-20260102-1")])
        first = archived(archive, old)
        version(archive, first)
        second = archived(archive, new)
        version(archive, second)
        shutil.rmtree(archive / "snapshots" / first)
        restore(archive, first)
        assert len(load(archive / "snapshots", first).images) == 60
        assert len(load(archive / "snapshots", second).images) == 120

    def test_brings_back_a_batch_as_it_was_before_it_was_made_anew(self, archive: Path) -> None:
        manifest = manifest_of(30)
        first = archived(archive, manifest)
        version(archive, first)
        shard = archive / "images" / "HND-20260101-1" / "0.npy"
        held = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(b"another size")
        anew = manifest.assign(pixel_sha256=manifest["pixel_sha256"].str.replace("0", "a"))
        second = archived(archive, anew)
        version(archive, second)
        restore(archive, first)
        assert shard.read_bytes() == held
        restore(archive, second)
        assert shard.read_bytes() == b"another size"

    def test_versioned_files_can_still_be_replaced_and_deleted(self, manifest: pd.DataFrame, archive: Path) -> None:
        """Hard links into the cache: the cache keeps its bytes whatever happens to the workspace's name."""
        digest = archived(archive, manifest)
        version(archive, digest)
        shard = archive / "images" / "HND-20260101-1" / "0.npy"
        held = shard.read_bytes()
        assert not stat.S_IMODE(shard.stat().st_mode) & stat.S_IWUSR
        replacement = shard.with_name("new")
        replacement.write_bytes(b"other")
        replacement.replace(shard)
        restore(archive, digest)
        assert shard.read_bytes() == held

    def test_names_a_snapshot_that_was_never_versioned(self, archive: Path, manifest: pd.DataFrame) -> None:
        digest = archived(archive, manifest)
        with pytest.raises(SnapshotError, match="never versioned"):
            restore(archive, digest)

    def test_tells_when_the_cache_lacks_a_part(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        shutil.rmtree(archive / ".dvc" / "cache")
        shutil.rmtree(archive / "snapshots" / digest)
        with pytest.raises(SnapshotError, match=r"cannot be restored.* no remote is set up"):
            restore(archive, digest)

    def test_fetches_what_the_cache_lacks_from_the_remote(
        self, manifest: pd.DataFrame, archive: Path, tmp_path: Path
    ) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        before = contents(archive)
        with_remote(archive, tmp_path / "remote")
        with _repository(archive) as repository:
            repository.push()
        shutil.rmtree(archive / ".dvc" / "cache")
        for folder in ("snapshots", "images"):
            shutil.rmtree(next(path for path in (archive / folder).iterdir() if path.is_dir()))
        restore(archive, digest, tmp_path / "elsewhere")
        restore(archive, digest)
        assert contents(archive) == before

    def test_says_that_the_remote_is_away(self, manifest: pd.DataFrame, archive: Path, tmp_path: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        with_remote(archive, tmp_path / "nowhere")
        shutil.rmtree(archive / ".dvc" / "cache")
        shutil.rmtree(archive / "snapshots" / digest)
        with pytest.raises(SnapshotError, match=r"the remote store does not answer or lacks it too"):
            restore(archive, digest)


class TestAnchors:
    """A snapshot's record keeps a place of the ledger's chain."""

    def test_are_kept_with_the_record_and_the_first_stays(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        note_anchor(archive, digest, f"7:{'a' * 64}")
        note_anchor(archive, digest, f"9:{'b' * 64}")
        version(archive, digest)
        restore(archive, digest)
        assert anchors(archive) == {digest: f"7:{'a' * 64}"}

    def test_of_a_damaged_record_are_an_error_that_names_it(self, manifest: pd.DataFrame, archive: Path) -> None:
        digest = archived(archive, manifest)
        version(archive, digest)
        record = archive / "snapshots" / f"{digest}.dvc"
        record.write_text("[: no yaml")
        with pytest.raises(SnapshotError, match=f"record {digest}.dvc is damaged"):
            anchors(archive)

    def test_need_a_versioned_snapshot(self, archive: Path) -> None:
        with pytest.raises(SnapshotError, match="never versioned"):
            note_anchor(archive, "0" * 64, f"7:{'a' * 64}")


class TestStored:
    """What a version costs: only what is new."""

    def test_an_unchanged_snapshot_stores_nothing_and_added_images_little_more_than_themselves(
        self, archive: Path
    ) -> None:
        old = pd.concat([manifest_of(30, start=30 * n, batch=f"HND-2026010{n + 1}-1") for n in range(4)])
        version(archive, archived(archive, old))
        before = stored(archive)
        version(archive, archived(archive, old))
        assert stored(archive) == before
        new = manifest_of(30, start=120, batch="HND-20260105-1")
        newer = archived(archive, pd.concat([old, new]))
        version(archive, newer)
        parts = [archive / "snapshots" / newer / kind / "HND-20260105-1.parquet" for kind in PARTS]
        listings = [path for path in archive.rglob("*.dir") if path not in before]
        added = [
            archive / "images" / "HND-20260105-1" / "0.npy",
            *parts,
            archive / "snapshots" / newer / "snapshot.json",
        ]
        grown = sum(stored(archive).values()) - sum(before.values())
        assert grown == sum(path.stat().st_size for path in [*added, *listings])


PARTS = ("images.parquet", "labels.parquet")


def stored(archive: Path) -> dict[Path, int]:
    """Every object of DVC's cache with its size."""
    return {path: path.stat().st_size for path in (archive / ".dvc" / "cache" / "files").rglob("*") if path.is_file()}


def with_remote(archive: Path, folder: Path) -> None:
    config = archive / ".dvc" / "config"
    config.write_text(
        config.read_text().replace("[core]", "[core]\n    remote = store")
        + f"['remote \"store\"']\n    url = {folder}\n"
    )


def test_dvc_and_dagster_live_in_one_process() -> None:
    code = (
        "from radia.settings import quiet_dependencies; quiet_dependencies();"
        "import dvc.repo, dvc.utils.hydra, hydra;"
        "from dagster import AssetSelection, asset, Definitions;"
        "print(AssetSelection.from_string('key:a or key:b+'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reads_of_test_patients_stay_out_of_snapshots() -> None:
    settings = SnapshotSettings()
    patients = [f"P{number:03d}" for number in range(60)]
    manifest = pd.DataFrame({"study": [f"S{patient}" for patient in patients], "patient": patients})
    reads = pd.DataFrame({"study": [*manifest["study"], "S of nobody"], "Edema": 1.0})
    kept = set(outside_test(reads, manifest, settings)["study"])
    assert kept == {f"S{patient}" for patient in patients if split_of(patient, settings) != "test"}
    assert 0 < len(kept) < 60
