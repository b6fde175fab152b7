import io
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from saddlescope.training.data import datasets
from saddlescope.training.data.datasets import CIFAR10, FASHION_MNIST, cifar10
from saddlescope.training.data.image_files import read_images

pyarrow = pytest.importorskip("pyarrow")
from PIL import Image  # noqa: E402
from pyarrow import parquet  # noqa: E402

SMALL = replace(CIFAR10, rows=(6, 3))


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(folder, split, pixels, labels, column="img"):
    (folder / "cifar10").mkdir(exist_ok=True)
    images = [{"bytes": png(image), "path": None} for image in pixels]
    parquet.write_table(pyarrow.table({column: images, "label": labels}), folder / "cifar10" / f"{split}-0.parquet")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SADDLESCOPE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "CIFAR10", SMALL)
    generator = np.random.default_rng(0)
    return tmp_path, generator.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("column", ["img", "image"])
def test_pixels_come_back_exactly_and_are_decoded_once(folder, column, monkeypatch):
    path, pixels = folder
    write(path, "train", pixels, [0, 1, 2, 3, 4, 9], column)
    first = read_images(SMALL, "train")
    assert np.array_equal(first.images, pixels) and first.labels.tolist() == [0, 1, 2, 3, 4, 9]
    assert isinstance(first.images, np.memmap)
    monkeypatch.setattr("saddlescope.training.data.image_files._decode", None)
    assert np.array_equal(read_images(SMALL, "train").images, pixels)


def test_a_changed_file_is_decoded_again(folder):
    path, pixels = folder
    write(path, "train", pixels, [0] * 6)
    digest = read_images(SMALL, "train").digest
    write(path, "train", pixels[::-1], [0] * 6)
    again = read_images(SMALL, "train")
    assert again.digest != digest and np.array_equal(again.images, pixels[::-1])


def test_pooling_and_standardisation(folder):
    path, pixels = folder
    write(path, "train", pixels, [0, 1, 2, 3, 4, 5])
    write(path, "test", pixels[:3], [0, 1, 2])
    data = cifar10(size=16, samples=4)
    blocks = pixels.astype(np.float64).reshape(6, 16, 2, 16, 2, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    mean, deviation = blocks[:4].mean(axis=(0, 2, 3)), blocks[:4].std(axis=(0, 2, 3))
    expected = (blocks - mean[:, None, None]) / deviation[:, None, None]
    assert np.allclose(data.inputs, expected[:4], atol=1e-5) and np.allclose(data.test_inputs, expected[:3], atol=1e-5)
    assert data.targets.tolist() == [0, 1, 2, 3] and len(data.digest) == 33
    for wrong in ({"size": 5}, {"samples": 7}):
        with pytest.raises(ValueError, match="expected"):
            cifar10(**wrong)


def test_without_a_folder_it_is_downloaded_once(folder, monkeypatch):
    pytest.importorskip("datasets")
    path, pixels = folder
    for split, n in (("train", 6), ("test", 3)):
        write(path, split, pixels[:n], list(range(n)))
    monkeypatch.delenv("SADDLESCOPE_DATA")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(path / "hub"))
    source = replace(SMALL, hub=str(path / "cifar10"))  # load_dataset takes a folder as it takes a name
    assert np.array_equal(read_images(source, "train").images, pixels)
    for file in (path / "cifar10").iterdir():
        file.unlink()
    assert np.array_equal(read_images(source, "train").images, pixels)


def test_what_cannot_be_downloaded_is_named_with_the_way_out(folder, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.delenv("SADDLESCOPE_DATA")
    source = replace(SMALL, hub=str(folder[0] / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"no folder for cifar10, and .*nowhere cannot.*--data or SADDLESCOPE"):
        read_images(source, "train")


def test_missing_truncated_and_foreign_files_are_named(folder):
    path, pixels = folder
    with pytest.raises(FileNotFoundError, match=r"no train\*\.parquet.*--data or SADDLESCOPE_DATA"):
        read_images(SMALL, "train")
    write(path, "train", pixels, [0] * 6)
    file = path / "cifar10" / "train-0.parquet"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="expected a whole parquet file"):
            read_images(SMALL, "train")
    write(path, "train", pixels[:5], [0] * 5)
    with pytest.raises(ValueError, match="got '5 images', expected 6"):
        read_images(SMALL, "train")
    write(path, "train", pixels, [0, 1, 2, 3, 4, 10])
    with pytest.raises(ValueError, match="got 'class 10'"):
        read_images(SMALL, "train")
    write(path, "train", pixels[:, :28, :28], [0] * 6)
    with pytest.raises(ValueError, match=r"shape \(28, 28, 3\)"):
        read_images(SMALL, "train")
    write(path, "train", pixels, [0] * 6, column="text")
    with pytest.raises(ValueError, match="with columns text, label"):
        read_images(SMALL, "train")
    parquet.write_table(pyarrow.table({"img": [{"bytes": b"no image"}] * 6, "label": [0] * 6}), file)
    with pytest.raises(ValueError, match="image 0 that cannot be read"):
        read_images(SMALL, "train")
    assert not [entry for entry in (path / "cache" / "saddlescope").iterdir()]


@pytest.mark.skipif("SADDLESCOPE_DATA" not in os.environ, reason="SADDLESCOPE_DATA does not name a folder of data")
def test_the_real_fashion_mnist():
    train = read_images(FASHION_MNIST, "train")
    assert train.images.shape == (60_000, 28, 28) and np.bincount(train.labels).tolist() == [6_000] * 10
    assert torch.tensor(train.images[0].astype(float)).mean() > 1
