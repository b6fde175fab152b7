"""Labelled images from parquet files in the schema of Hugging Face's image data sets, decoded once."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saddlescope._checks import refuse

ENVIRONMENT = "SADDLESCOPE_DATA"
"""Environment variable that names the folder of data sets."""
EXTRA = "pip install 'saddlescope[train]'"


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """A data set of images as its publisher describes it."""

    name: str
    """Of the folder below the data folder."""
    hub: str
    """Name on the Hugging Face hub."""
    image: tuple[str, ...]
    """Names of the column of images, ``{"bytes"}`` each; the first that is there."""
    label: str
    """Name of the column of classes."""
    shape: tuple[int, ...]
    """Of one image: height, width and, if it has colours, 3."""
    classes: int
    rows: tuple[int, int] | None
    """Images to train on and to test on; None if any number will do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """One split of a data set, decoded."""

    images: np.ndarray
    """Pixels, uint8, memory-mapped, shape ``(n, height, width)`` or ``(n, height, width, 3)``."""
    labels: np.ndarray
    """Classes, int64, shape ``(n,)``."""
    digest: str
    """SHA-256 of the files, 16 digits."""


def read_images(source: ImageSource, split: str, folder: Path | str | None = None) -> LabelledImages:
    """Return a split, ``"train"`` or ``"test"``, of a data set.

    The files are ``folder/NAME/**/SPLIT*.parquet``. They are decoded once, into a memory-mapped array below
    ``XDG_CACHE_HOME`` or ``~/.cache``, and known again by the hash of their content.

    Args:
        source: what is expected.
        split: which part.
        folder: of the data sets; by default that of the environment variable ``SADDLESCOPE_DATA``, and
            without one the data set is downloaded by Hugging Face's ``datasets``.

    Raises:
        FileNotFoundError: if the folder has no such files.
        ValueError: if a file is truncated, is no parquet file, or holds something else.
        ModuleNotFoundError: without pyarrow and Pillow.
    """
    place = data_folder(folder)
    files = _local_files(source, split, place) if place else _hub_files(source, split)
    digest = _digest(files)
    cached = _cache() / f"{source.name}-{split}-{digest}"
    if not cached.is_dir():
        _decode(source, split, files, cached)
    images, labels = (np.load(cached / f"{part}.npy", mmap_mode="r") for part in ("images", "labels"))
    return LabelledImages(images=images, labels=np.array(labels), digest=digest)


def data_folder(folder: Path | str | None = None) -> Path | None:
    """Return the folder of data sets: the one given, or that of ``SADDLESCOPE_DATA``, or None."""
    place = folder or os.environ.get(ENVIRONMENT)
    return Path(place) if place else None


def _local_files(source: ImageSource, split: str, folder: Path) -> list[Path]:
    files = sorted((folder / source.name).rglob(f"{split}*.parquet"))
    if not files:
        raise FileNotFoundError(
            f"data: found no {split}*.parquet below {folder / source.name}, expected the parquet files of "
            f"{source.hub}; put them there, or name another folder by --data or {ENVIRONMENT}"
        )
    return files


def _hub_files(source: ImageSource, split: str) -> list[Path]:
    file = _cache() / "hub" / source.name / f"{split}.parquet"
    if file.exists():
        return [file]
    here = f"data: got no folder for {source.name}"
    way_out = f"name a folder of parquet files by --data or {ENVIRONMENT}"
    try:
        from datasets import load_dataset  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        missing = "Hugging Face's datasets, which would download it, is not installed"
        raise ModuleNotFoundError(f"{here} and {missing}; {way_out}, or do: pip install datasets") from error
    try:
        data: Any = load_dataset(source.hub, split=split)
    except OSError as error:  # of which ConnectionError is one
        raise FileNotFoundError(f"{here}, and {source.hub} cannot be downloaded ({error}); {way_out}") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    data.to_parquet(str(partial))
    partial.replace(file)
    return [file]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saddlescope"


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _decode(source: ImageSource, split: str, files: list[Path], target: Path) -> None:
    """Write the decoded arrays whole or not at all, also when several processes do so at once."""
    rows = list(_rows(source, files))
    expected = None if source.rows is None else source.rows[split == "test"]
    if not rows or (expected is not None and len(rows) != expected):
        raise refuse(f"{source.name}, {split}", f"{len(rows)} images", f"{expected or 'at least one'}", "fetch it anew")
    labels = np.array([label for _, label in rows], dtype=np.int64)
    if labels.min() < 0 or labels.max() >= source.classes:
        raise refuse(f"{source.name}, {split}", f"class {labels.max()}", f"classes 0 to {source.classes - 1}")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        images = np.lib.format.open_memmap(
            scratch / "images.npy", mode="w+", dtype=np.uint8, shape=(len(rows), *source.shape)
        )
        for row, pixels in enumerate(_pixels(source, (data for data, _ in rows))):
            images[row] = pixels
        images.flush()
        np.save(scratch / "labels.npy", labels)
        scratch.rename(target)
    except OSError:
        # Another process may have been faster; its arrays are as good.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rows(source: ImageSource, files: list[Path]) -> Iterator[tuple[bytes, int]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"parquet files need pyarrow, which is not installed; do: {EXTRA}") from error
    for file in files:
        try:
            table = parquet.read_table(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise refuse("data", str(file), "a whole parquet file", f"fetch it anew ({error})") from None
        column = next((name for name in source.image if name in table.column_names), None)
        if column is None or source.label not in table.column_names:
            raise refuse(
                "data",
                f"{file} with columns {', '.join(table.column_names)}",
                f"columns {' or '.join(source.image)}, {source.label} as in {source.hub}",
            )
        for image, label in zip(table[column].to_pylist(), table[source.label].to_pylist(), strict=True):
            if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes) or not isinstance(label, int):
                raise refuse("data", str(file), "encoded images {bytes} and whole numbers as labels")
            yield image["bytes"], label


def _pixels(source: ImageSource, encoded: Iterable[bytes]) -> Iterator[np.ndarray]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"images need Pillow, which is not installed; do: {EXTRA}") from error
    mode = "RGB" if len(source.shape) == 3 else "L"
    for row, data in enumerate(encoded):
        try:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
        except (UnidentifiedImageError, OSError) as error:
            raise refuse(source.name, f"image {row} that cannot be read ({error})", "PNG or JPEG") from None
        if pixels.shape != source.shape:
            raise refuse(source.name, f"image {row} of shape {pixels.shape}", f"shape {source.shape}")
        yield pixels
