import hashlib
import json
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radia.cli import main
from radia.errors import MixedSides, Reason, ShardDamaged, StorageFull, UnknownId
from radia.images import (
    ImageStore,
    Prepared,
    add_batch,
    letterbox,
    perceptual_hash,
    prepare,
    read_index,
    repair_batch,
    verify_batch,
)
from radia.settings import ScaleSettings

SIDE = 64


def thorax(rows: int = 128, columns: int = 128, *, heart: float = 0.05, seed: int = 0) -> NDArray[np.float32]:
    """Two dark lungs beside a bright spine in a gray trunk, 0..1."""
    y, x = (np.mgrid[:rows, :columns] + 0.5) / np.array([rows, columns])[:, None, None]
    gray = np.where(np.abs(x - 0.5) < 0.42, 0.6, 0.15) + 0.15 * y
    for middle in (0.3, 0.7):
        gray[((x - middle) / 0.13) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1] -= 0.4
    gray[np.abs(x - 0.5) < heart] += 0.2
    noise = np.random.default_rng(seed).normal(0, 0.02, (rows, columns))
    return np.clip(gray + noise, 0, 1).astype(np.float32)


def write_dicom(path: Path, gray: NDArray[np.float32], **header: object) -> None:
    """A clean DX file of 12 bits; `header` adds or replaces elements."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", generate_uid()
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows, dataset.Columns = gray.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = np.round(gray * 4095).astype("<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Three chests and one hand, all said to be chests."""
    for number, heart in enumerate((0.05, 0.1, 0.15)):
        write_dicom(tmp_path / "clean" / "P1" / "S1" / f"I{number}.dcm", thorax(heart=heart, seed=number))
    write_dicom(tmp_path / "clean" / "P2" / "S2" / "I3.dcm", np.full((128, 128), 0.4, np.float32))
    return tmp_path / "clean"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


def add(
    clean: Path,
    images: Path,
    batch: str = "HND-20261123-1",
    *,
    side: int = SIDE,
    shard_bytes: int = 2 * SIDE**2,
    workers: int = 1,
) -> pd.DataFrame:
    scale = ScaleSettings(workers=workers)
    return add_batch(clean, images, batch=batch, side=side, shard_bytes=shard_bytes, scale=scale)


def prepare_or_crash(path: Path, side: int) -> Prepared:
    """Ends its process at one file, as a decoder that crashes does."""
    if path.stem == "I3":
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare(path, side)


class TestLetterbox:
    def test_keeps_proportions_and_fills_with_black(self) -> None:
        square = letterbox(np.ones((40, 20), np.float32), 8)
        assert square[:, 2:6].tolist() == [[255] * 4] * 8
        assert square[:, :2].max() == square[:, 6:].max() == 0

    def test_is_the_mean_of_the_area_that_a_pixel_covers(self) -> None:
        gray = np.random.default_rng(0).random((32, 32), dtype=np.float32)
        expected = gray.reshape(8, 4, 8, 4).mean((1, 3)) * 255
        assert np.abs(letterbox(gray, 8) - expected).max() <= 0.51

    def test_turns_a_fine_grid_into_gray_and_not_into_bands(self) -> None:
        fine = (np.indices((301, 301)).sum(0) % 2).astype(np.float32)
        inner = letterbox(fine, 100)[1:-1, 1:-1]
        assert inner.min() > 108
        assert inner.max() < 147

    def test_enlarges_smoothly(self) -> None:
        ramp = np.tile(np.linspace(0, 1, 4, dtype=np.float32), (4, 1))
        assert np.diff(letterbox(ramp, 16)[8].astype(int)).max() < 30

    @pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1), (7, 3000)])
    def test_takes_any_shape(self, shape: tuple[int, int]) -> None:
        square = letterbox(np.ones(shape, np.float32), 32)
        assert square.shape == (32, 32)
        assert square.max() == 255


class TestPerceptualHash:
    def test_stays_when_an_image_is_resized_or_brightened(self) -> None:
        uneven = np.random.default_rng(0).random((8, 8), dtype=np.float32)
        source = np.kron(uneven, np.ones((64, 64), np.float32))
        large, small = letterbox(source, 512), letterbox(source, 128)
        brighter = (large * 0.7 + 60).astype(np.uint8)
        assert distance(perceptual_hash(large), perceptual_hash(small)) <= 2
        assert distance(perceptual_hash(large), perceptual_hash(brighter)) <= 2

    def test_differs_between_images(self) -> None:
        other = letterbox(thorax()[::-1, ::-1].copy(), 128)
        assert distance(perceptual_hash(letterbox(thorax(), 128)), perceptual_hash(other)) > 10

    def test_has_16_hex_digits_even_for_a_blank_image(self) -> None:
        assert len(perceptual_hash(np.zeros((8, 8), np.uint8))) == 16


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


class TestAddBatch:
    def test_writes_kept_images_to_shards_and_refused_ones_to_the_index_alone(self, clean: Path, images: Path) -> None:
        index = add(clean, images)
        assert index["image"].tolist() == ["I0", "I1", "I2", "I3"]
        assert index["shard"].tolist() == ["shard-00000.u8", "shard-00000.u8", "shard-00001.u8", None]
        assert index["row"].tolist() == [0, 1, 0, pd.NA]
        assert index["reason"].tolist() == [None, None, None, Reason.NOT_CHEST.value]
        assert [path.stat().st_size for path in sorted((images / "HND-20261123-1").glob("*.u8"))] == [8192, 4096]

    def test_records_the_digest_of_each_image_and_shard(self, clean: Path, images: Path) -> None:
        index = add(clean, images)
        shard = (images / "HND-20261123-1" / "shard-00000.u8").read_bytes()
        assert index["pixel_sha256"][1] == hashlib.sha256(shard[SIDE**2 :]).hexdigest()
        assert index["shard_sha256"][1] == hashlib.sha256(shard).hexdigest()

    def test_measures_images_without_their_padding(self, tmp_path: Path, images: Path) -> None:
        write_dicom(tmp_path / "clean" / "wide.dcm", thorax(100, 200))
        row = add(tmp_path / "clean", images).iloc[0]
        assert row["exposure"] == pytest.approx(float(thorax(100, 200).mean()), abs=0.01)
        assert 0.3 < row["contrast"] < 0.8
        assert row["saturation"] < 0.05

    def test_gives_the_same_bytes_with_any_number_of_workers(self, tmp_path: Path) -> None:
        for number in range(17):
            write_dicom(tmp_path / "clean" / f"I{number}.dcm", thorax(seed=number))
        for workers in (1, 2):
            add(tmp_path / "clean", tmp_path / f"images{workers}", workers=workers)
        one, two = (sorted((tmp_path / f"images{w}" / "HND-20261123-1").iterdir()) for w in (1, 2))
        assert [path.name for path in one] == [path.name for path in two]
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]

    def test_replaces_a_batch_that_is_made_again(self, clean: Path, images: Path) -> None:
        add(clean, images)
        (clean / "P1" / "S1" / "I1.dcm").unlink()
        assert add(clean, images)["image"].tolist() == ["I0", "I2", "I3"]
        assert ImageStore(images).ids.tolist() == ["I0", "I2"]

    def test_keeps_an_image_in_the_batch_that_had_it_first(self, clean: Path, images: Path) -> None:
        add(clean, images, "A-20261123-1")
        second = add(clean, images, "A-20261123-2")
        assert second["reason"].tolist() == [Reason.DUPLICATE.value] * 3 + [Reason.NOT_CHEST.value]
        assert add(clean, images, "A-20261123-1")["reason"].isna().sum() == 3

    def test_says_whether_an_instance_that_comes_again_has_other_pixels(self, tmp_path: Path, images: Path) -> None:
        for folder, seed in (("first", 1), ("later", 2), ("again", 1)):
            write_dicom(tmp_path / folder / "I1.dcm", thorax(seed=seed))
        add(tmp_path / "first", images, "A-20261123-1")
        later = add(tmp_path / "later", images, "A-20261123-2")
        again = add(tmp_path / "again", images, "A-20261123-3")
        assert later["reason"].tolist() == again["reason"].tolist() == [Reason.DUPLICATE.value]
        assert later["detail"].tolist() == ["batch A-20261123-1 has it with other pixels"]
        assert again["detail"].tolist() == ["batch A-20261123-1 has it with the same pixels"]
        assert later["shard"].isna().all()

    def test_names_why_a_file_has_no_image(self, tmp_path: Path, images: Path) -> None:
        write_dicom(tmp_path / "clean" / "lateral.dcm", thorax(), ViewPosition="LL")
        (tmp_path / "clean" / "text.dcm").write_bytes(b"not DICOM at all")
        index = add(tmp_path / "clean", images).set_index("image")
        assert index["reason"].to_dict() == {
            "lateral": "not a frontal chest radiograph",
            "text": "not a DICOM file",
        }
        assert index["shard"].isna().all()

    def test_of_nothing_is_an_empty_index(self, tmp_path: Path, images: Path) -> None:
        (tmp_path / "clean").mkdir()
        assert add(tmp_path / "clean", images).empty
        assert len(ImageStore(images)) == 0

    def test_leaves_the_old_batch_when_the_disk_is_full(
        self, clean: Path, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = add(clean, images)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as during:
            during.setattr("radia.images.pq.write_table", full)
            with pytest.raises(StorageFull):
                add(clean, images)
        verify_batch(images, "HND-20261123-1")
        pd.testing.assert_frame_equal(read_index(images, "HND-20261123-1"), before)

    def test_refuses_a_file_that_ends_its_process_and_keeps_the_others(
        self, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(9):
            write_dicom(tmp_path / "clean" / f"I{number}.dcm", thorax(seed=number))
        monkeypatch.setattr("radia.images.prepare", prepare_or_crash)
        index = add(tmp_path / "clean", images, workers=2)
        assert index["image"].tolist() == [f"I{number}" for number in range(9)]
        lost = "the process that had it ended twice: a decoder crashed, or memory ran out"
        assert index["reason"].tolist() == [lost if number == 3 else None for number in range(9)]

    def test_tells_how_far_it_is(self, clean: Path, images: Path) -> None:
        seen: list[tuple[int, int]] = []
        one, tell = ScaleSettings(workers=1), lambda *steps: seen.append(steps)
        add_batch(clean, images, batch="A-1-1", side=SIDE, shard_bytes=10**9, scale=one, progress=tell)
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


class TestImageStore:
    def test_reads_images_in_the_order_asked_for_across_shards_and_batches(self, clean: Path, images: Path) -> None:
        add(clean, images)
        write_dicom(images.parent / "more" / "J.dcm", thorax(seed=9))
        add(images.parent / "more", images, "HVD-20261123-1")
        pixels = ImageStore(images).read(["J", "I2", "I0", "J"])
        for position, path in enumerate(("more/J", "clean/P1/S1/I2", "clean/P1/S1/I0", "more/J")):
            expected = prepare(images.parent / f"{path}.dcm", SIDE).pixels
            assert np.array_equal(pixels[position], expected)  # type: ignore[arg-type]

    def test_knows_its_images_and_side(self, clean: Path, images: Path) -> None:
        add(clean, images)
        store = ImageStore(images)
        assert (store.ids.tolist(), store.side, len(store)) == (["I0", "I1", "I2"], SIDE, 3)
        assert "I2" in store
        assert "I3" not in store

    def test_reads_nothing_as_an_empty_array(self, clean: Path, images: Path) -> None:
        add(clean, images)
        assert ImageStore(images).read([]).shape == (0, SIDE, SIDE)

    def test_never_writes_over_images_that_somebody_holds(self, clean: Path, images: Path) -> None:
        add(clean, images)
        store = ImageStore(images)
        held = [store.read([image]) for image in ("I0", "I1", "I2", "I0", "I1")]
        part = store.read(["I2"])[0, 5:9]
        for _ in range(5):
            store.read(["I0"])
        for pixels, image in zip(held, ("I0", "I1", "I2", "I0", "I1"), strict=True):
            assert np.array_equal(pixels[0], prepare(clean / "P1" / "S1" / f"{image}.dcm", SIDE).pixels)  # type: ignore[arg-type]
        assert np.array_equal(part, prepare(clean / "P1" / "S1" / "I2.dcm", SIDE).pixels[5:9])  # type: ignore[index]

    def test_uses_memory_again_that_nobody_holds(self, clean: Path, images: Path) -> None:
        add(clean, images)
        store = ImageStore(images)
        addresses = {store.read(["I0"]).ctypes.data for _ in range(8)}
        assert len(addresses) <= 2

    def test_fills_an_array_that_is_given(self, clean: Path, images: Path) -> None:
        add(clean, images)
        store = ImageStore(images)
        for ids in (["I0", "I1"], ["I0", "I2"]):
            given = np.empty((2, SIDE, SIDE), np.uint8)
            assert store.read(ids, out=given) is given
            assert np.array_equal(given, store.read(ids))

    def test_may_be_pickled_after_reading(self, clean: Path, images: Path) -> None:
        add(clean, images)
        store = ImageStore(images)
        store.read(["I0"])
        pickled = pickle.dumps(store)
        assert np.array_equal(pickle.loads(pickled).read(["I0"]), store.read(["I0"]))

    def test_counts_ids_that_nobody_has_seen(self, clean: Path, images: Path) -> None:
        add(clean, images)
        with pytest.raises(UnknownId, match="2 of 3 images"):
            ImageStore(images).read(["I0", "I3", "elsewhere"])

    def test_of_no_batch_is_an_error(self, images: Path) -> None:
        with pytest.raises(UnknownId, match="holds no batch"):
            ImageStore(images)

    def test_refuses_batches_of_different_sides(self, clean: Path, images: Path) -> None:
        add(clean, images, "A-1-1")
        add(clean, images, "B-1-1", side=32)
        with pytest.raises(MixedSides, match="A-1-1: 64, B-1-1: 32"):
            ImageStore(images)


class TestDamage:
    def test_of_one_bit_is_found_and_the_shard_named(self, clean: Path, images: Path) -> None:
        add(clean, images)
        ImageStore(images).verify("HND-20261123-1")
        shard = images / "HND-20261123-1" / "shard-00001.u8"
        shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
        with pytest.raises(ShardDamaged, match=r"HND-20261123-1/shard-00001\.u8 does not have the digest"):
            ImageStore(images).verify("HND-20261123-1")

    def test_that_cut_a_shard_is_found_on_reading(self, clean: Path, images: Path) -> None:
        add(clean, images)
        shard = images / "HND-20261123-1" / "shard-00000.u8"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(ShardDamaged, match="holds 8191 bytes, expected 8192"):
            ImageStore(images).read(["I0"])

    def test_that_took_a_shard_away_is_found(self, clean: Path, images: Path) -> None:
        add(clean, images)
        (images / "HND-20261123-1" / "shard-00000.u8").unlink()
        with pytest.raises(ShardDamaged, match="is missing"):
            ImageStore(images).verify("HND-20261123-1")

    def test_of_a_batch_that_nobody_has_seen_is_an_unknown_id(self, clean: Path, images: Path) -> None:
        add(clean, images)
        with pytest.raises(UnknownId):
            ImageStore(images).verify("X-1-1")


class TestRepairCommand:
    def test_makes_damaged_batches_again_and_names_them(self, clean: Path, tmp_path: Path) -> None:
        site = tmp_path / "data"
        for batch in ("HND-20261123-1", "HND-20261123-2"):
            folder = site / "clean" / batch
            write_dicom(folder / "P1" / "S1" / f"I{batch[-1]}.dcm", thorax(seed=int(batch[-1])))
            pd.DataFrame().to_parquet(folder / "outcomes.parquet")
            add(folder, site / "archive" / "images", batch)
        shard = site / "archive" / "images" / "HND-20261123-2" / "shard-00000.u8"
        before = shard.read_bytes()
        shard.write_bytes(b"damaged")
        environment = {"RADIA_DATA": str(site)}
        found = CliRunner().invoke(main, ["images", "--repair", "--json"], env=environment, catch_exceptions=False)
        assert json.loads(found.stdout) == {"repaired": ["HND-20261123-2"]}
        assert shard.read_bytes() == before
        again = CliRunner().invoke(main, ["images", "--repair"], env=environment)
        assert again.stdout == "every shard is whole\n"


class TestRepairBatch:
    def test_makes_a_damaged_batch_anew_with_the_same_bytes(self, clean: Path, images: Path) -> None:
        add(clean, images)
        folder = images / "HND-20261123-1"
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        (folder / "shard-00001.u8").write_bytes(b"damaged")
        assert repair_batch(clean, images, batch="HND-20261123-1", scale=ScaleSettings(workers=1))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_leaves_a_sound_batch_alone(self, clean: Path, images: Path) -> None:
        add(clean, images)
        assert not repair_batch(clean, images, batch="HND-20261123-1", scale=ScaleSettings(workers=1))

    def test_refuses_clean_files_that_give_other_pixels_and_changes_nothing(self, clean: Path, images: Path) -> None:
        add(clean, images)
        index = (images / "HND-20261123-1" / "index.parquet").read_bytes()
        (images / "HND-20261123-1" / "shard-00001.u8").unlink()
        write_dicom(clean / "P1" / "S1" / "I0.dcm", thorax(seed=77))
        with pytest.raises(ShardDamaged, match=r"shard-00001\.u8 is missing.*no longer give the same pixels"):
            repair_batch(clean, images, batch="HND-20261123-1", scale=ScaleSettings(workers=1))
        assert (images / "HND-20261123-1" / "index.parquet").read_bytes() == index
