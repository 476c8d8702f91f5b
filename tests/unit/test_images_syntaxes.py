"""One radiograph in every transfer syntax that hospitals send, through add_batch: the same image each time."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from radia.dicom.pixels import encode_lossless
from radia.images import ImageStore, add_batch
from radia.settings import ScaleSettings

SIDE = 64
Stored = NDArray[np.uint8] | NDArray[np.uint16]


def thorax(bits: int, rows: int = 160, columns: int = 128) -> Stored:
    """Two dark lungs beside a bright spine in a gray trunk."""
    y, x = (np.mgrid[:rows, :columns] + 0.5) / np.array([rows, columns])[:, None, None]
    gray = np.where(np.abs(x - 0.5) < 0.42, 0.6, 0.15) + 0.15 * y
    for middle in (0.3, 0.7):
        gray[((x - middle) / 0.13) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1] -= 0.4
    gray[np.abs(x - 0.5) < 0.05] += 0.2
    gray += np.random.default_rng(0).normal(0, 0.02, gray.shape)
    return (np.clip(gray, 0, 1) * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def native(bits: int) -> Dataset:
    pixels = thorax(bits)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored = 8 * pixels.itemsize, bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = (1 << bits) / 2, 1 << bits
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return dataset


def with_fragment(dataset: Dataset, syntax: str, fragment: bytes) -> Dataset:
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.PixelData = encapsulate([fragment])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset


def uncompressed(syntax: str) -> Callable[[Dataset], Dataset]:
    def make(dataset: Dataset) -> Dataset:
        if syntax == uid.ExplicitVRBigEndian and dataset.BitsAllocated == 16:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
        dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
        return dataset

    return make


def lossless(syntax: str) -> Callable[[Dataset], Dataset]:
    def make(dataset: Dataset) -> Dataset:
        bits, allocated = dataset.BitsStored, dataset.BitsAllocated
        _, fragments = encode_lossless(dataset.pixel_array, syntax, bits=bits, allocated=allocated)
        return with_fragment(dataset, syntax, b"".join(map(bytes, fragments)))

    return make


def jpeg(syntax: str) -> Callable[[Dataset], Dataset]:
    """8 bits with loss; the extended process is the baseline one under another frame header."""

    def make(dataset: Dataset) -> Dataset:
        buffer = io.BytesIO()
        Image.fromarray(dataset.pixel_array).save(buffer, "JPEG", quality=95)
        stream = buffer.getvalue()
        if syntax == uid.JPEGExtended12Bit:
            stream = stream.replace(b"\xff\xc0", b"\xff\xc1", 1)
        return with_fragment(dataset, syntax, stream)

    return make


def compressed(syntax: str, **options: object) -> Callable[[Dataset], Dataset]:
    def make(dataset: Dataset) -> Dataset:
        dataset.compress(uid.UID(syntax), **options)
        return dataset

    return make


EXACT: dict[str, Callable[[Dataset], Dataset]] = {
    "implicit little endian": uncompressed(uid.ImplicitVRLittleEndian),
    "explicit big endian": uncompressed(uid.ExplicitVRBigEndian),
    "deflated": uncompressed(uid.DeflatedExplicitVRLittleEndian),
    "RLE": compressed(uid.RLELossless),
    "JPEG lossless (.57)": lossless(uid.JPEGLossless),
    "JPEG lossless SV1 (.70)": lossless(uid.JPEGLosslessSV1),
    "JPEG-LS lossless (.80)": compressed(uid.JPEGLSLossless),
    "JPEG 2000 lossless (.90)": compressed(uid.JPEG2000Lossless),
    "JPEG 2000 (.91) without loss": lossless(uid.JPEG2000),
}
LOSSY: dict[str, tuple[int, Callable[[Dataset], Dataset]]] = {
    "JPEG baseline (.50), 8 bits": (8, jpeg(uid.JPEGBaseline8Bit)),
    "JPEG extended (.51), 8 bits": (8, jpeg(uid.JPEGExtended12Bit)),
    "JPEG-LS near-lossless (.81), 12 bits": (12, compressed(uid.JPEGLSNearLossless, jls_error=16)),
    "JPEG 2000 (.91), 8 bits": (8, compressed(uid.JPEG2000, j2k_psnr=[40])),
    "JPEG 2000 (.91), 12 bits": (12, compressed(uid.JPEG2000, j2k_psnr=[45])),
}


def batch_of(folder: Path, files: dict[str, Dataset]) -> tuple[pd.DataFrame, ImageStore]:
    (folder / "clean").mkdir()
    for name, dataset in files.items():
        dataset.save_as(folder / "clean" / f"{name}.dcm", enforce_file_format=True)
    one = ScaleSettings(workers=1)
    index = add_batch(folder / "clean", folder / "images", batch="A-1-1", side=SIDE, shard_bytes=10**6, scale=one)
    return index.set_index("image"), ImageStore(folder / "images")


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_lossless_syntax_gives_the_same_bytes(bits: int, tmp_path: Path) -> None:
    files = {name: make(native(bits)) for name, make in EXACT.items()}
    index, _ = batch_of(tmp_path, {"explicit little endian": native(bits), **files})
    assert index["reason"].dropna().to_dict() == {}
    assert index["pixel_sha256"].to_dict() == dict.fromkeys(index.index, index["pixel_sha256"].iloc[0])
    written = {name: dcmread(tmp_path / "clean" / f"{name}.dcm").file_meta.TransferSyntaxUID for name in files}
    assert len(set(written.values())) == len(EXACT)


@pytest.mark.parametrize("name", LOSSY)
def test_a_lossy_syntax_gives_almost_the_same_image(name: str, tmp_path: Path) -> None:
    bits, make = LOSSY[name]
    index, store = batch_of(tmp_path, {"plain": native(bits), "lossy": make(native(bits))})
    assert index["reason"].dropna().to_dict() == {}
    plain, lossy = store.read(["plain", "lossy"]).astype(int)
    assert 0 < np.abs(plain - lossy).mean() < 3


@pytest.mark.parametrize("name", [*EXACT, *LOSSY])
def test_a_stream_that_is_cut_is_refused_or_read_and_never_ends_the_batch(name: str, tmp_path: Path) -> None:
    bits, make = LOSSY.get(name) or (12, EXACT[name])
    whole = make(native(bits))
    buffer = io.BytesIO()
    whole.save_as(buffer, enforce_file_format=True)
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "cut.dcm").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
    index, store = batch_of_two(tmp_path)
    assert index["reason"].isna().to_dict()["whole"]
    assert (index["reason"]["cut"] is None) == ("cut" in store)


def batch_of_two(folder: Path) -> tuple[pd.DataFrame, ImageStore]:
    native(12).save_as(folder / "clean" / "whole.dcm", enforce_file_format=True)
    two = ScaleSettings(workers=2)  # a decoder that crashes on a cut stream ends its own process alone
    index = add_batch(folder / "clean", folder / "images", batch="A-1-1", side=SIDE, shard_bytes=10**6, scale=two)
    return index.set_index("image"), ImageStore(folder / "images")
