"""Gray pixels to square uint8 images in memory-mapped shards, and back by image id.

`images/<batch>/` holds `shard-00000.u8` … (images one after the other, [side, side] bytes each, row by row, no header)
and `index.parquet`: one row per clean file, with where its image lies and what was measured on the way, or why it was
refused. The same clean files give the same bytes. Batches are never appended to; a batch that is made again replaces
the old one whole.

`images/.catalogue.db` repeats which image lies in which batch, so that adding a batch does not read all indexes; it is
brought up to date from the indexes and may be deleted.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import ceil, floor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from radia import digests
from radia.errors import MixedSides, Reason, Refusal, ShardDamaged, UnknownId
from radia.settings import ScaleSettings
from radia.workers import each
from radia.workspace import written_whole

INDEX = "index.parquet"
_STRIP_ROWS = 256
"""Rows of a film that are shrunk at a time."""
_SIDE, _ROWS = b"radia.side", b"radia.rows_per_shard"

_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), False, {"description": "pseudonym of the SOP instance"}),
        pa.field("batch", pa.string(), False, {"description": "batch of intake"}),
        pa.field("shard", pa.string(), True, {"description": "file in the batch's folder; null: refused"}),
        pa.field("row", pa.int64(), True, {"description": "place in the shard, from 0; null: refused without one"}),
        pa.field("pixel_sha256", pa.string(), True, {"description": "SHA-256 of the side x side bytes"}),
        pa.field("shard_sha256", pa.string(), True, {"description": "SHA-256 of the shard"}),
        pa.field("exposure", pa.float64(), True, {"description": "mean gray without padding, 0..1"}),
        pa.field("contrast", pa.float64(), True, {"description": "95th less 5th percentile of gray, 0..1"}),
        pa.field(
            "saturation", pa.float64(), True, {"description": "share of pixels at the darkest or brightest value"}
        ),
        pa.field("perceptual_hash", pa.string(), True, {"description": "64 bits of the DCT, 16 hex digits"}),
        pa.field("reason", pa.string(), True, {"description": "why there is no image; null: there is one"}),
        pa.field("detail", pa.string(), True, {"description": "more on the reason, without a value of the header"}),
    ]
)


@dataclass(frozen=True)
class Prepared:
    """One clean file on its way into a shard: its pixels and their measures, or why it is refused."""

    image: str
    pixels: NDArray[np.uint8] | None = None
    exposure: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    perceptual_hash: str | None = None
    reason: str | None = None
    detail: str | None = None


# --- one image ------------------------------------------------------------------------------------------------------


def letterbox(gray: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """The whole image in the middle of a black square, its proportions kept. gray: [rows, columns] in 0..1.

    Every pixel of a smaller image is the mean of the area it covers, so nothing fine turns into moiré; a larger one is
    interpolated linearly. Returns [side, side].
    """
    square = np.zeros((side, side), dtype=np.uint8)
    square[content_of_square(gray.shape[0], gray.shape[1], side)] = _resized(gray.shape, lambda a, b: gray[a:b], side)
    return square


def prepare(path: Path, side: int) -> Prepared:
    """Reads one clean file and makes its image, unless it is refused: unreadable, or no frontal chest radiograph."""
    from radia.dicom.facts import facts_of, open_image
    from radia.dicom.pixels import open_film
    from radia.frontal import objection

    try:
        dataset = open_image(path)
        film = open_film(dataset)
        facts = facts_of(dataset)
    except Refusal as refusal:
        return Prepared(path.stem, reason=refusal.reason.value, detail=refusal.detail or None)
    except MemoryError:
        return Prepared(path.stem, reason=Reason.UNREADABLE_PIXELS.value, detail="too large for memory")
    except Exception as error:  # a damaged header makes the parser raise whatever it likes, at any element
        return Prepared(path.stem, reason=Reason.UNREADABLE.value, detail=type(error).__name__)
    content = _resized(film.shape, film.rows, side)
    against = objection(modality=facts.modality, body_part=facts.body_part, view=facts.view, pixels=content)
    if against:
        return Prepared(path.stem, reason=Reason.NOT_CHEST.value, detail=against)
    square = np.zeros((side, side), dtype=np.uint8)
    square[content_of_square(*film.shape, side)] = content
    return _measured(path.stem, square, content)


def perceptual_hash(gray: NDArray[np.uint8]) -> str:
    """64 bits that stay the same when an image is resized, recompressed or brightened, as 16 hex digits.

    The signs, about their median, of the lowest 8 x 8 coefficients of the cosine transform of the image at 32 x 32
    (the "pHash" of Zauner, Implementation and benchmarking of perceptual image hash functions, 2010).
    gray: [rows, columns].
    """
    from PIL import Image

    small = np.asarray(Image.fromarray(gray).convert("F").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    waves = _cosines()
    low = (waves @ small @ waves.T).ravel()
    bits = np.round(low, 6) > np.median(np.round(low[1:], 6))
    return np.packbits(bits).tobytes().hex()


def content_of_square(rows: int, columns: int, side: int) -> tuple[slice, slice]:
    """Where the image lies in its square."""
    height, width = (max(1, round(length * side / max(rows, columns))) for length in (rows, columns))
    top, left = (side - height) // 2, (side - width) // 2
    return slice(top, top + height), slice(left, left + width)


def _resized(
    shape: tuple[int, ...], gray_rows: Callable[[int, int], NDArray[np.float32]], side: int
) -> NDArray[np.uint8]:
    """The image without its margins. It is shrunk a strip at a time, which stays in the processor's cache."""
    from PIL import Image

    rows, columns = shape
    down, across = content_of_square(rows, columns, side)
    height, width = down.stop - down.start, across.stop - across.start
    shrinks = width <= columns
    filter_ = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    scale = rows / height
    strip = max(1, round(_STRIP_ROWS / scale)) if shrinks else height
    resized = np.empty((height, width), np.uint8)
    for start in range(0, height, strip):
        stop = min(start + strip, height)
        above, below = start * scale, min(stop * scale, rows)
        first = floor(above)
        part = np.ascontiguousarray(gray_rows(first, ceil(below)), dtype=np.float32)
        box = (0, above - first, columns, below - first)
        small = np.asarray(Image.fromarray(part).resize((width, stop - start), filter_, box=box))
        resized[start:stop] = np.clip(small * 255 + 0.5, 0, 255)
    return resized


def _measured(image: str, square: NDArray[np.uint8], content: NDArray[np.uint8]) -> Prepared:
    share = np.bincount(content.ravel(), minlength=256) / content.size
    below = np.cumsum(share)
    low, high = int(np.searchsorted(below, 0.05)), int(np.searchsorted(below, 0.95))
    return Prepared(
        image,
        square,
        exposure=round(float(share @ np.arange(256)) / 255, 6),
        contrast=(high - low) / 255,
        saturation=round(float(share[0] + share[255]), 6),
        perceptual_hash=perceptual_hash(content),
    )


def _cosines() -> NDArray[np.float64]:
    """The lowest 8 rows of the DCT-II of length 32: [8, 32]."""
    wave, place = np.mgrid[:8, :32]
    return np.asarray(np.cos(np.pi * wave * (2 * place + 1) / 64))


# --- a batch --------------------------------------------------------------------------------------------------------


def add_batch(
    clean: Path,
    images: Path,
    *,
    batch: str,
    side: int,
    shard_bytes: int,
    scale: ScaleSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Makes the images of one batch of clean DICOM (`clean/<patient>/<study>/<image>.dcm`) and returns its index.

    A file that is no frontal chest radiograph, or whose image another batch has already, gets a row with the reason
    and no pixels. scale: where files are worked on. Raises StorageFull.
    """
    rows_per_shard = max(1, shard_bytes // side**2)
    with closing(_Catalogue(images)) as catalogue, written_whole(images / batch) as partial:
        table = _make_batch(
            clean,
            partial,
            catalogue,
            batch,
            side=side,
            rows_per_shard=rows_per_shard,
            scale=scale or ScaleSettings(),
            progress=progress,
        )
    return _frame(table)


def repair_batch(clean: Path, images: Path, *, batch: str, scale: ScaleSettings | None = None) -> bool:
    """Makes a batch anew from its clean DICOM where a shard is damaged; says whether one was.

    Raises ShardDamaged, and leaves all as it is, where the clean files no longer give the pixels that the index
    records; UnknownId where there is no such batch.
    """
    try:
        verify_batch(images, batch)
        return False
    except ShardDamaged as damage:
        found = damage
    recorded = _index_table(images, batch)
    side, rows_per_shard = _side_of(recorded), int(recorded.schema.metadata[_ROWS])
    scale = scale or ScaleSettings()
    with closing(_Catalogue(images)) as catalogue, written_whole(images / batch) as partial:
        made = _make_batch(clean, partial, catalogue, batch, side=side, rows_per_shard=rows_per_shard, scale=scale)
        digest_columns = ["image", "shard", "row", "pixel_sha256", "shard_sha256"]
        if not made.select(digest_columns).equals(recorded.select(digest_columns)):
            raise ShardDamaged(
                f"{found}; its clean files no longer give the same pixels: restore the archive"
            ) from found
    return True


def erase_images(images: Path, batch: str, gone: Collection[str]) -> None:
    """Makes a batch anew without the pixels of some images; one that holds none of them stays as it is.

    Zeros take their place in the shards, so that the places of the others stay. Their rows of the index stay too, with
    the digest of what was there and the reason. Raises UnknownId where there is no such batch.
    """
    recorded = _index_table(images, batch)
    rows = recorded.to_pylist()
    held = [row for row in rows if row["image"] in gone and row["reason"] is None]
    if not held:
        return
    size = _side_of(recorded) ** 2
    with written_whole(images / batch) as partial:
        shutil.copytree(images / batch, partial)
        for path in partial.iterdir():
            path.chmod(0o644)  # DVC keeps what it has as read-only
        for row in held:
            with (partial / row["shard"]).open("r+b") as shard:
                shard.seek(row["row"] * size)
                shard.write(bytes(size))
            row |= {"reason": Reason.ERASED.value, "perceptual_hash": None}
        digest = {path.name: digests.of_file(path) for path in partial.glob("shard-*.u8")}
        rows = [row | {"shard_sha256": digest.get(str(row["shard"]))} for row in rows]
        table = pa.Table.from_pylist(rows, schema=recorded.schema)
        pq.write_table(table.replace_schema_metadata(recorded.schema.metadata), partial / INDEX)


def _make_batch(
    clean: Path,
    folder: Path,
    catalogue: _Catalogue,
    batch: str,
    *,
    side: int,
    rows_per_shard: int,
    scale: ScaleSettings,
    progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Writes shards and index into a new folder."""
    paths = sorted(clean.rglob("*.dcm"), key=lambda path: path.stem)
    folder.mkdir()
    writer = _ShardWriter(folder, batch, rows_per_shard=rows_per_shard)
    with closing(_prepare_all(paths, side, scale)) as results:
        for done, prepared in enumerate(results, 1):
            writer.add(_unless_elsewhere(prepared, catalogue, batch))
            if progress:
                progress(done, len(paths))
    metadata = {_SIDE: str(side).encode(), _ROWS: str(rows_per_shard).encode()}
    table = writer.close().replace_schema_metadata(metadata)
    pq.write_table(table, folder / INDEX)
    return table


def read_index(images: Path, batch: str) -> pd.DataFrame:
    """The index of one batch, refused files included. Raises UnknownId."""
    return _frame(_index_table(images, batch))


def _unless_elsewhere(prepared: Prepared, catalogue: _Catalogue, batch: str) -> Prepared:
    """The image, or where an earlier batch has its instance, the reason why it is refused; what is in use stays."""
    earlier = catalogue.elsewhere(prepared.image, batch)
    if earlier is None:
        return prepared
    detail = prepared.detail
    if prepared.pixels is not None:
        same = hashlib.sha256(prepared.pixels.tobytes()).hexdigest() == earlier.pixel_sha256
        detail = f"batch {earlier.batch} has it with {'the same' if same else 'other'} pixels"
    return replace(Prepared(prepared.image), reason=prepared.reason or Reason.DUPLICATE.value, detail=detail)


def _prepare_all(paths: Sequence[Path], side: int, scale: ScaleSettings) -> Generator[Prepared]:
    """The images of all files, in their order."""
    shared = ["radia.images", "radia.dicom.pixels", "radia.dicom.facts", "radia.frontal"]
    return each(functools.partial(prepare, side=side), paths, if_lost=_lost, scale=scale, preload=shared)


def _lost(path: Path) -> Prepared:
    return Prepared(path.stem, reason=Reason.WORKER_LOST.value)


class _ShardWriter:
    """Appends images to shards, one full after the other, and keeps their index."""

    def __init__(self, folder: Path, batch: str, *, rows_per_shard: int) -> None:
        self._folder = folder
        self._batch = batch
        self._rows_per_shard = rows_per_shard
        self._kept = 0
        self._rows: list[dict[str, object]] = []

    def add(self, prepared: Prepared) -> None:
        """Appends one image, or the row that says why there is none."""
        row: dict[str, object] = {name: getattr(prepared, name, None) for name in _SCHEMA.names}
        row |= {"batch": self._batch, "shard": None, "row": None}
        if prepared.pixels is not None:
            shard, place = divmod(self._kept, self._rows_per_shard)
            content = prepared.pixels.tobytes()
            row |= {"shard": _shard_name(shard), "row": place, "pixel_sha256": hashlib.sha256(content).hexdigest()}
            with (self._folder / _shard_name(shard)).open("ab") as file:
                file.write(content)
            self._kept += 1
        self._rows.append(row)

    def close(self) -> pa.Table:
        """The index, with the digest of every shard."""
        digest = {path.name: digests.of_file(path) for path in self._folder.glob("shard-*.u8")}
        rows = [row | {"shard_sha256": digest.get(str(row["shard"]))} for row in self._rows]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.u8"


# --- reading back ---------------------------------------------------------------------------------------------------


_KEPT_BYTES = 64 * 2**20
"""Batches of more bytes are not kept for use again."""


def _references_of_an_array_alone() -> int:
    """What Python counts for an array that one name holds."""
    memory = np.empty(1, np.uint8)
    return sys.getrefcount(memory)


_ALONE = _references_of_an_array_alone()


class ImageStore:
    """All images of all batches, by id, straight from memory-mapped shards.

    May be pickled and used in other processes. Opened again to see batches that were added since.
    """

    ids: NDArray[np.str_]
    """The id of every image that was kept, in the order of batches and rows."""
    side: int
    """Pixels along an edge."""

    def __init__(self, images: Path) -> None:
        """Raises MixedSides where batches were made with different sides, UnknownId where there is none."""
        self._images = images
        batches = _batches(images)
        if not batches:
            raise UnknownId(f"{images} holds no batch of images: run `radia images`, or `radia run`")
        tables = {batch: _index_table(images, batch) for batch in batches}
        self.side = _one_side({batch: _side_of(table) for batch, table in tables.items()})
        index = pa.concat_tables(
            [
                table.select(["image", "batch", "shard", "row", "reason"]).replace_schema_metadata(None)
                for table in tables.values()
            ]
        ).to_pandas()
        places = index[index["shard"].notna()]
        rows_in = (places["batch"] + "/" + places["shard"]).value_counts()
        kept = places[places["reason"].isna()].reset_index(drop=True)
        self.ids = kept["image"].to_numpy(dtype=object)
        self._places = pd.Index(kept["image"])
        codes, files = pd.factorize(kept["batch"] + "/" + kept["shard"])
        self._shard = codes.astype(np.int32)
        self._row = kept["row"].to_numpy(dtype=np.int64)
        self._files = [images / name for name in files]
        self._rows_in = rows_in.reindex(files).to_numpy()
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._used: deque[NDArray[np.uint8]] = deque(maxlen=2)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_maps": {}, "_used": deque(maxlen=2)}

    def read(self, ids: Sequence[str] | NDArray[np.str_], *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The images of these ids, in their order: [n, side, side]. Raises UnknownId, ShardDamaged.

        out: an array of that shape to fill. Without it, memory of an earlier batch that nobody holds any more is used
        again, for fresh memory costs as much as the copy.
        """
        places = self._places.get_indexer(pd.Index(ids, dtype=object))
        missing = int((places < 0).sum())
        if missing:
            raise UnknownId(f"{missing} of {len(places)} images are not in the archive")
        pixels = self._memory(len(places)) if out is None else out
        shards, rows = self._shard[places], self._row[places]
        if len(places) and (shards == shards[0]).all():
            return np.take(self._map(int(shards[0])), rows, axis=0, out=pixels, mode="clip")
        for image, shard, row in zip(pixels, shards, rows, strict=True):
            np.copyto(image, self._map(int(shard))[row])
        return pixels

    def verify(self, batch: str) -> None:
        """Checks every shard of a batch against its digest. Raises ShardDamaged naming the first bad one, UnknownId."""
        verify_batch(self._images, batch)

    def _memory(self, count: int) -> NDArray[np.uint8]:
        """Memory for so many images: of an earlier batch where no array of it is left, else fresh."""
        size = count * self.side**2
        memory = self._used.popleft() if self._used else np.empty(size, np.uint8)
        if len(memory) < size or sys.getrefcount(memory) != _ALONE:
            memory = np.empty(size, np.uint8)
        if size <= _KEPT_BYTES:
            self._used.append(memory)
        return memory[:size].reshape(count, self.side, self.side)

    def _map(self, shard: int) -> NDArray[np.uint8]:
        if shard not in self._maps:
            path, rows = self._files[shard], int(self._rows_in[shard])
            size = path.stat().st_size if path.is_file() else 0
            if size != rows * self.side**2:
                raise _damaged(path, f"holds {size} bytes, expected {rows * self.side**2}")
            shape = (rows, self.side, self.side)
            self._maps[shard] = np.asarray(np.memmap(path, dtype=np.uint8, mode="r", shape=shape))
        return self._maps[shard]


def verify_batch(images: Path, batch: str) -> None:
    """Checks every shard of a batch against its digest. Raises ShardDamaged naming the first bad one, UnknownId."""
    index = read_index(images, batch).dropna(subset=["shard"])
    for shard, expected in index.drop_duplicates("shard").set_index("shard")["shard_sha256"].items():
        path = images / batch / str(shard)
        if not path.is_file():
            raise _damaged(path, "is missing")
        if digests.of_file(path) != expected:
            raise _damaged(path, "does not have the digest that its index records")


def _damaged(path: Path, what: str) -> ShardDamaged:
    return ShardDamaged(f"shard {path.parent.name}/{path.name} {what}: `radia images --repair` makes it again")


def _batches(images: Path) -> list[str]:
    return sorted(path.parent.name for path in images.glob(f"[!.]*/{INDEX}"))


def _index_table(images: Path, batch: str) -> pa.Table:
    path = images / batch / INDEX
    if not path.is_file():
        raise UnknownId(f"there are no images of batch {batch}: run `radia images`")
    return pq.read_table(path)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame.astype({"row": "Int64"})


def _side_of(table: pa.Table) -> int:
    return int((table.schema.metadata or {})[_SIDE])


def _one_side(sides: dict[str, int]) -> int:
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{batch}: {side}" for batch, side in sides.items())
        raise MixedSides(f"batches were made with different sides ({listed}): run `radia images` for all of them")
    return next(iter(sides.values()))


@dataclass(frozen=True)
class _Earlier:
    """Where an instance lies already."""

    batch: str
    pixel_sha256: str


class _Catalogue:
    """Which batch has which image, in SQLite, brought up to date from the indexes."""

    def __init__(self, images: Path) -> None:
        images.mkdir(parents=True, exist_ok=True)
        self._images = images
        self._digests: dict[str, pd.Series[str]] = {}
        self._connection = sqlite3.connect(images / ".catalogue.db")
        self._connection.executescript(
            """
            CREATE TABLE IF NOT EXISTS batch (name TEXT PRIMARY KEY, modified INT, bytes INT);
            CREATE TABLE IF NOT EXISTS image (id TEXT, batch TEXT, PRIMARY KEY (id, batch)) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS image_by_batch ON image (batch);
            """
        )
        self._update(images)

    def elsewhere(self, image: str, batch: str) -> _Earlier | None:
        """Another batch that has this image, and the digest of its pixels there."""
        query = "SELECT batch FROM image WHERE id = ? AND batch != ? ORDER BY batch"
        found = self._connection.execute(query, (image, batch)).fetchone()
        if found is None:
            return None
        if found[0] not in self._digests:
            self._digests[found[0]] = read_index(self._images, found[0]).set_index("image")["pixel_sha256"]
        return _Earlier(found[0], str(self._digests[found[0]][image]))

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    def _update(self, images: Path) -> None:
        present = {batch: (images / batch / INDEX).stat() for batch in _batches(images)}
        now = {(batch, status.st_mtime_ns, status.st_size) for batch, status in present.items()}
        recorded = set(self._connection.execute("SELECT name, modified, bytes FROM batch"))
        for batch, *_ in recorded - now:
            self._connection.execute("DELETE FROM image WHERE batch = ?", (batch,))
            self._connection.execute("DELETE FROM batch WHERE name = ?", (batch,))
        for batch, modified, size in sorted(now - recorded):
            self._add(images, batch)
            self._connection.execute("INSERT INTO batch VALUES (?, ?, ?)", (batch, modified, size))
        self._connection.commit()

    def _add(self, images: Path, batch: str) -> None:
        index = read_index(images, batch).dropna(subset=["shard"])
        rows: Iterable[tuple[str, str]] = ((image, batch) for image in index["image"])
        self._connection.executemany("INSERT INTO image VALUES (?, ?)", rows)
