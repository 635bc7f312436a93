"""Image data sets: every layout gives the same images, batches are reproducible, bad files are named."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hnas.errors import HnasError, UsageError
from hnas.pipeline.images import ImageDataset, open_dataset, training_batch
from tests.support.image_files import (
    NAMES,
    Python2Pickler,
    encoded,
    modern,
    renamed,
    write_batches,
    write_folder,
    write_parquet,
)
from tests.support.places import ROOT

CIFAR10 = Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent")) / "cifar10"
needs_cifar10 = pytest.mark.skipif(
    not CIFAR10.is_dir(),
    reason="HNAS_TEST_DATA is unset or has no cifar10/: real CIFAR-10 images in Parquet are needed",
)
DIGITS_DIGEST = "a82be77236196f88"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A real photograph, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image("flower.jpg"))


@pytest.fixture(scope="module")
def patches(photo: np.ndarray) -> np.ndarray:
    """60 crops of the photograph, (60, 32, 32, 3)."""
    return np.stack([photo[32 * (i % 12) :, 32 * (i // 12) :][:32, :32] for i in range(60)])


# --- digits, batches, normalisation ---------------------------------------------------------------------------------


def test_digits_have_a_fixed_stratified_split() -> None:
    digits = open_dataset("digits")
    assert digits.test is not None
    assert (digits.name, digits.size, len(digits.train), len(digits.test)) == ("digits", 8, 1500, 297)
    assert digits.classes == tuple("0123456789")
    images = digits.train.images(np.arange(1500))
    assert (images.dtype, images.shape, images.min(), images.max()) == (np.uint8, (1500, 3, 8, 8), 0, 255)
    assert (images == images[:, :1]).all()
    assert not digits.flip
    shares = [np.bincount(split.labels) / len(split) for split in (digits.train, digits.test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.005


def test_the_batch_of_digits_has_not_drifted() -> None:
    batch = training_batch(open_dataset("digits"), 64, 0)
    assert batch.images.shape == (64, 3, 8, 8)
    assert batch.images.dtype == np.float32
    assert batch.labels.dtype == np.int64
    assert batch.digest == DIGITS_DIGEST


def test_a_batch_depends_only_on_data_set_size_and_seed() -> None:
    program = "from hnas.pipeline.images import *; print(training_batch(open_dataset('digits'), 64, 0).digest)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    elsewhere = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert elsewhere.stdout.strip() == DIGITS_DIGEST, elsewhere.stderr
    digits = open_dataset("digits")
    assert training_batch(digits, 64, 1).digest != DIGITS_DIGEST
    small, large = training_batch(digits, 10, 3), training_batch(digits, 1500, 3)
    assert np.array_equal(small.images, large.images[:10])
    assert np.array_equal(np.bincount(large.labels), np.bincount(digits.train.labels))


@pytest.mark.parametrize("size", [0, -1, 1501])
def test_an_empty_or_oversized_batch_is_rejected(size: int) -> None:
    with pytest.raises(UsageError, match="between 1 and 1500"):
        training_batch(open_dataset("digits"), size, 0)


def test_a_negative_seed_is_rejected() -> None:
    with pytest.raises(UsageError, match="the seed must be at least 0, got -1"):
        training_batch(open_dataset("digits"), 8, -1)


def test_rows_out_of_range_are_rejected() -> None:
    with pytest.raises(UsageError, match="image indices must be 0 to 1499"):
        open_dataset("digits").train.images(np.array([-1]))


def test_computed_moments_standardise_the_training_split(tmp_path: Path, patches: np.ndarray) -> None:
    dataset = open_dataset(str(write_folder(tmp_path / "Flowers", patches)))
    images = dataset.train.images(np.arange(len(dataset.train)))
    assert np.allclose(dataset.mean, images.mean(axis=(0, 2, 3)) / 255)
    assert np.allclose(dataset.std, images.std(axis=(0, 2, 3)) / 255)
    normal = dataset.normalise(images)
    assert normal.dtype == np.float32
    assert np.abs(normal.mean(axis=(0, 2, 3))).max() < 1e-5
    assert np.allclose(normal.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert dataset.flip


def test_a_constant_channel_is_not_divided_by_zero(tmp_path: Path, patches: np.ndarray) -> None:
    patches = patches.copy()
    patches[..., 2] = 7
    dataset = open_dataset(str(write_folder(tmp_path / "no-blue", patches)))
    assert dataset.std[2] == 1 / 255
    assert np.abs(training_batch(dataset, 4, 0).images[:, 2]).max() < 1e-5


def test_a_known_data_set_uses_the_published_constants(tmp_path: Path, patches: np.ndarray) -> None:
    dataset = open_dataset(str(write_folder(tmp_path / "CIFAR10", patches)))
    assert dataset.name == "cifar10"
    assert dataset.mean == pytest.approx((125.3 / 255, 123.0 / 255, 113.9 / 255))
    assert dataset.std == pytest.approx((63.0 / 255, 62.1 / 255, 66.7 / 255))


def test_a_data_set_can_be_pickled_for_a_worker(tmp_path: Path, patches: np.ndarray) -> None:
    images = [encoded(pixels) for pixels in patches]
    write_parquet(tmp_path / "d" / "train-00000-of-00001.parquet", images, [0, 1] * 30)
    for spec in (str(tmp_path / "d"), "digits"):
        dataset = open_dataset(spec)
        again: ImageDataset = pickle.loads(pickle.dumps(dataset))
        assert training_batch(again, 8, 0).digest == training_batch(dataset, 8, 0).digest


# --- real CIFAR-10 --------------------------------------------------------------------------------------------------


@needs_cifar10
def test_a_batch_of_real_cifar10_has_its_images() -> None:
    dataset = open_dataset(str(CIFAR10))
    batch = training_batch(dataset, 64, 0)
    assert dataset.test is not None
    assert (dataset.name, len(dataset.train), len(dataset.test), dataset.size) == ("cifar10", 50_000, 10_000, 32)
    assert np.array_equal(np.bincount(dataset.train.labels), [5000] * 10)
    assert batch.images.shape == (64, 3, 32, 32)
    assert dataset.flip


@needs_cifar10
def test_rows_of_real_cifar10_come_in_the_requested_order() -> None:
    table = pq.read_table(CIFAR10 / "train-00000-of-00001.parquet")
    rows = np.array([49_999, 0, 2_000, 1_999, 0])
    train = open_dataset(str(CIFAR10)).train
    cells = [table["img"][int(row)]["bytes"].as_py() for row in rows]
    expected = np.stack([np.asarray(Image.open(io.BytesIO(cell)).convert("RGB")).transpose(2, 0, 1) for cell in cells])
    assert np.array_equal(train.images(rows), expected)
    assert train.labels[rows].tolist() == [table["label"][int(row)].as_py() for row in rows]


@needs_cifar10
@pytest.mark.parametrize("dumps", [modern, renamed, Python2Pickler.dumps])
def test_parquet_and_python_batches_of_the_same_images_give_the_same_batch(
    tmp_path: Path, dumps: Callable[[object], bytes]
) -> None:
    real = open_dataset(str(CIFAR10))
    images = real.train.images(np.arange(120)).transpose(0, 2, 3, 1)
    labels = real.train.labels[:120].tolist()
    cells = [encoded(pixels) for pixels in images]
    write_parquet(tmp_path / "a/cifar10/data/train-00000-of-00002.parquet", cells[:70], labels[:70], image="img")
    write_parquet(tmp_path / "a/cifar10/data/train-00001-of-00002.parquet", cells[70:110], labels[70:110], image="img")
    write_parquet(tmp_path / "a/cifar10/data/test-00000-of-00001.parquet", cells[110:], labels[110:], image="img")
    write_batches(tmp_path / "b/cifar-10-batches-py", images, labels, dumps)
    write_batches(tmp_path / "c/cifar10/cifar-10-batches-py", images, labels, dumps)
    opened = [open_dataset(str(tmp_path / path)) for path in ("a/cifar10", "b/cifar-10-batches-py", "c/cifar10")]
    assert {dataset.name for dataset in opened} == {"cifar10"}
    assert len({training_batch(dataset, 64, 0).digest for dataset in opened}) == 1
    for dataset in opened:
        assert dataset.test is not None
        assert dataset.test.labels.tolist() == labels[110:]
        assert np.array_equal(dataset.test.images(np.arange(10)).transpose(0, 2, 3, 1), images[110:])


# --- class folders --------------------------------------------------------------------------------------------------


def test_class_folders_are_read_in_the_order_of_names(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path / "Pets", patches)
    (folder / "cat" / "notes.txt").write_text("not an image")
    (folder / ".cache").mkdir()
    dataset = open_dataset(str(folder))
    assert (dataset.name, dataset.classes, dataset.test) == ("pets", ("cat", "dog", "owl"), None)
    assert dataset.train.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert np.array_equal(dataset.train.images(np.array([21]))[0], patches[4].transpose(2, 0, 1))


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_become_splits(tmp_path: Path, patches: np.ndarray, test: str) -> None:
    write_folder(tmp_path / "train", patches[:40])
    write_folder(tmp_path / test, patches[40:42])  # cat and dog, no owl
    dataset = open_dataset(str(tmp_path))
    assert dataset.test is not None
    assert dataset.test.labels.tolist() == [0, 1]
    assert len(dataset.train) == 40


def test_an_unlabelled_test_folder_is_not_a_test_split(tmp_path: Path, patches: np.ndarray) -> None:
    write_folder(tmp_path / "train", patches[:40])
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(encoded(patches[0]))
    assert open_dataset(str(tmp_path)).test is None


def test_a_class_may_be_called_train(tmp_path: Path, patches: np.ndarray) -> None:
    dataset = open_dataset(str(write_folder(tmp_path, patches, ("car", "train"))))
    assert dataset.classes == ("car", "train")


def test_a_class_only_in_the_test_split_is_rejected(tmp_path: Path, patches: np.ndarray) -> None:
    write_folder(tmp_path / "train", patches[:40])
    write_folder(tmp_path / "test", patches[40:], ("cat", "yak"))
    with pytest.raises(UsageError, match="yak is a class of the test split only"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [("PNG", "L", 0), ("PNG", "P", 40), ("PNG", "RGBA", 0), ("PNG", "LA", 0), ("JPEG", "L", 20), ("JPEG", "CMYK", 40)],
)
def test_every_image_mode_becomes_rgb(
    tmp_path: Path, patches: np.ndarray, kind: str, mode: str, tolerance: int
) -> None:
    folder = write_folder(tmp_path / "modes", patches)
    target = folder / "cat" / "000.png"
    target.write_bytes(encoded(patches[0], kind, mode))
    found = open_dataset(str(folder)).train.images(np.array([0]))[0].astype(int)
    expected = np.asarray(Image.fromarray(patches[0]).convert("L" if "L" in mode else "RGB").convert("RGB")).transpose(
        2, 0, 1
    )
    assert found.shape == (3, 32, 32)
    assert np.abs(found - expected).mean() <= tolerance


def test_16_bit_images_are_rejected_rather_than_clipped(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path / "deep", patches)
    (folder / "cat" / "000.png").write_bytes(encoded(patches[0, ..., 0].astype(np.uint16) * 257))
    with pytest.raises(HnasError, match=r"000\.png has more than 8 bits"):
        open_dataset(str(folder))


def test_mixed_sizes_need_an_image_size(tmp_path: Path, photo: np.ndarray, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path / "mixed", patches)
    (folder / "dog" / "004.png").write_bytes(encoded(photo[:40, :50]))
    with pytest.raises(UsageError, match=r"dog/004\.png has 50x40 pixels where .* 32x32; pass --image-size"):
        training_batch(open_dataset(str(folder)), 60, 0)
    dataset = open_dataset(str(folder), image_size=16)
    assert training_batch(dataset, 60, 0).images.shape == (60, 3, 16, 16)
    expected = np.asarray(Image.fromarray(photo[:40, :50]).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.train.images(np.array([21]))[0], expected.transpose(2, 0, 1))


def test_non_square_images_need_an_image_size(tmp_path: Path, photo: np.ndarray, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path / "wide", patches)
    (folder / "cat" / "000.png").write_bytes(encoded(photo[:40, :50]))
    with pytest.raises(UsageError, match=r"cat/000\.png has 50x40 pixels; .* pass --image-size"):
        open_dataset(str(folder))
    assert open_dataset(str(folder), image_size=32).size == 32


def test_oversized_images_need_an_image_size(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path / "huge", patches)
    (folder / "cat" / "000.png").write_bytes(encoded(np.zeros((1025, 1025, 3), dtype=np.uint8)))
    with pytest.raises(UsageError, match=r"1025x1025 pixels; .* pass --image-size"):
        open_dataset(str(folder))


@pytest.mark.parametrize("size", [3, 1025, 0, -8])
def test_an_image_size_out_of_range_is_rejected(size: int) -> None:
    with pytest.raises(UsageError, match="between 4 and 1024"):
        open_dataset("digits", image_size=size)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_reported(tmp_path: Path, patches: np.ndarray, kind: str) -> None:
    folder = write_folder(tmp_path / "cut", patches)
    whole = encoded(patches[3], kind)
    (folder / "cat" / "003.png").write_bytes(whole[: len(whole) * 2 // 3])
    dataset = open_dataset(str(folder))
    with pytest.raises(HnasError, match=r"cat/003\.png cannot be decoded .*complete image file") as caught:
        dataset.train.images(np.array([1]))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am no image\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"]
)
def test_a_file_that_is_not_an_image_is_reported(tmp_path: Path, patches: np.ndarray, content: bytes) -> None:
    folder = write_folder(tmp_path / "text", patches)
    (folder / "cat" / "000.png").write_bytes(content)
    with pytest.raises(HnasError, match=r"cat/000\.png cannot be decoded \(it is in none"):
        open_dataset(str(folder))


def test_a_missing_file_is_reported(tmp_path: Path, patches: np.ndarray) -> None:
    dataset = open_dataset(str(write_folder(tmp_path / "gone", patches)))
    (tmp_path / "gone/cat/003.png").unlink()
    with pytest.raises(HnasError, match=r"cat/003\.png cannot be read"):
        dataset.train.images(np.arange(3))


def test_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no data set in a known layout"):
        open_dataset(str(tmp_path))


def test_a_folder_with_one_class_is_rejected(tmp_path: Path, patches: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"one class only \(cat\)"):
        open_dataset(str(write_folder(tmp_path, patches, ("cat",))))


def test_a_class_folder_without_images_is_rejected(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path, patches)
    (folder / "emu").mkdir()
    with pytest.raises(UsageError, match=r"emu holds no images"):
        open_dataset(str(folder))


def test_images_below_class_folders_are_rejected(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_folder(tmp_path, patches)
    (folder / "cat" / "more").mkdir()
    with pytest.raises(UsageError, match="more is a folder inside a class folder"):
        open_dataset(str(folder))


# --- names and paths ------------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_under_the_data_folder(
    tmp_path: Path, patches: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HNAS_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path}/cifar100.*give its path"):
        open_dataset("cifar100")
    write_folder(tmp_path / "cifar100", patches)
    assert open_dataset("cifar100").name == "cifar100"


def test_a_name_without_a_data_folder_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HNAS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"folder data/downloads/imagenet16-120; run `hnas fetch .*HNAS_DATA.*Parquet.*path"
    ):
        open_dataset("imagenet16-120")


@pytest.mark.parametrize("spec", ["/no/such/place", "", "cifar1000", "s3://bucket/cifar10", "a\0b"])
def test_a_path_that_does_not_exist_is_rejected(spec: str) -> None:
    with pytest.raises(UsageError, match=r"there is no data set at .* give digits, cifar10, cifar100, imagenet16-120"):
        open_dataset(spec)


@pytest.mark.parametrize("spec", ["~no-such-user-here/x", "x" * 5000])
def test_an_invalid_path_is_rejected(spec: str) -> None:
    with pytest.raises(HnasError, match="cannot be read"):
        open_dataset(spec)


def test_a_text_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text("cat.png\n")
    with pytest.raises(UsageError, match=r"images\.txt is not a \.parquet file"):
        open_dataset(str(tmp_path / "images.txt"))


# --- Parquet --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cells(patches: np.ndarray) -> list[bytes]:
    return [encoded(pixels) for pixels in patches]


LABELS = [0, 1, 2] * 20


@pytest.mark.parametrize("place", ["", "data", "plain_text"])
def test_sharded_parquet_with_class_names(tmp_path: Path, patches: np.ndarray, cells: list[bytes], place: str) -> None:
    folder = tmp_path / "Birds"
    names = ["auk", "bee-eater", "crow", "dodo"]
    for shard in range(3):
        rows = slice(shard * 20, shard * 20 + 20)
        path = folder / place / f"train-{shard:05}-of-00003.parquet"
        write_parquet(path, cells[rows], LABELS[rows], names=names, row_group_size=7)
    write_parquet(folder / place / "validation-00000-of-00001.parquet", cells[:5], LABELS[:5], names=names)
    dataset = open_dataset(str(folder))
    assert (dataset.name, dataset.classes) == ("birds", tuple(names))
    assert dataset.train.labels.tolist() == LABELS
    assert dataset.test is not None
    assert len(dataset.test) == 5
    rows = np.array([59, 0, 20, 39, 6, 7, 59])
    assert np.array_equal(dataset.train.images(rows), patches[rows].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("options", [{"plain": True}, {"image": "img", "label": "fine_label"}, {"label": "labels"}])
def test_the_hubs_other_column_names_are_read(tmp_path: Path, cells: list[bytes], options: dict[str, Any]) -> None:
    path = write_parquet(tmp_path / "My.Set.parquet", cells, LABELS, **options)
    dataset = open_dataset(str(path))
    assert (dataset.name, dataset.classes, dataset.test) == ("my.set", ("0", "1", "2"), None)
    assert len(training_batch(dataset, 60, 0).images) == 60


def test_only_the_requested_rows_are_decoded(tmp_path: Path, cells: list[bytes]) -> None:
    cells[5:] = [b"not an image"] * 55
    dataset = open_dataset(str(write_parquet(tmp_path / "x.parquet", cells, LABELS)))
    assert dataset.train.images(np.arange(5)).shape == (5, 3, 32, 32)
    with pytest.raises(HnasError, match=r"x\.parquet, row 5 cannot be decoded"):
        dataset.train.images(np.array([5]))


def test_messages_name_a_row_by_its_shard(tmp_path: Path, cells: list[bytes]) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", cells[:40], LABELS[:40], row_group_size=9)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [*cells[40:53], None], LABELS[40:54], row_group_size=9)
    with pytest.raises(HnasError, match=r"train-00001-of-00002\.parquet, row 13 has no image bytes"):
        open_dataset(str(tmp_path)).train.images(np.array([53]))


def test_a_missing_shard_is_reported(tmp_path: Path, cells: list[bytes]) -> None:
    for shard in (0, 2):
        write_parquet(tmp_path / f"train-{shard:05}-of-00003.parquet", cells, LABELS)
    with pytest.raises(UsageError, match="does not hold each shard of its train split exactly once"):
        open_dataset(str(tmp_path))


def test_shards_that_disagree_are_rejected(tmp_path: Path, cells: list[bytes]) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", cells, LABELS, names=["a", "b", "c"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", cells, LABELS, names=["c", "b", "a"])
    with pytest.raises(HnasError, match="has other class names"):
        open_dataset(str(tmp_path))
    write_parquet(tmp_path / "train-00001-of-00002.parquet", cells, LABELS, names=["a", "b", "c"], label="labels")
    with pytest.raises(HnasError, match="different columns"):
        open_dataset(str(tmp_path))


def test_a_test_split_with_other_class_names_is_rejected(tmp_path: Path, cells: list[bytes]) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", cells, LABELS, names=["a", "b", "c"])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", cells, LABELS, names=["c", "b", "a"])
    with pytest.raises(HnasError, match="labels must mean the same"):
        open_dataset(str(tmp_path))


def test_parquet_files_without_a_training_split_are_rejected(tmp_path: Path, cells: list[bytes]) -> None:
    write_parquet(tmp_path / "0000.parquet", cells, LABELS)
    with pytest.raises(UsageError, match=r"Parquet files \(0000\.parquet\) but none named train-"):
        open_dataset(str(tmp_path))


def test_several_configurations_require_a_choice(tmp_path: Path, cells: list[bytes]) -> None:
    for name in ("big", "small"):
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", cells, LABELS)
    with pytest.raises(UsageError, match=r"several data sets \(big, small\)"):
        open_dataset(str(tmp_path))


def test_missing_columns_and_wrong_types_are_reported(tmp_path: Path, cells: list[bytes]) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, cells, LABELS, image="picture")
    with pytest.raises(UsageError, match="no image column; it needs one of img, image, and has picture, label"):
        open_dataset(str(path))
    write_parquet(path, cells, LABELS, label="target")
    with pytest.raises(UsageError, match="no label column"):
        open_dataset(str(path))
    write_parquet(path, cells, ["cat", "dog", "owl"] * 20)
    with pytest.raises(UsageError, match="has string in its column label; labels must be integers"):
        open_dataset(str(path))
    pq.write_table(pa.table({"image": ["cat.png", "dog.png"], "label": [0, 1]}), path)
    with pytest.raises(UsageError, match="has string in its column image"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 3], ["a", "b", "c"], "row 2 has the label 3; labels must be 0 to 2"),
        ([0, -1, 2], ["a", "b", "c"], "row 1 has no label"),
        ([0, None, 1], None, "row 1 has no label"),
        ([0, -7, 1], None, "row 1 has the label -7"),
        ([-1, -1, -1], None, "row 0 has no label"),
        ([1, 2, 3], None, "row 0 has the label 1 but no training image has 0"),
        ([0, 1, 10**15], None, "row 2 has the label 1000000000000000 but no training image has 2"),
    ],
)
def test_bad_training_labels_are_reported(
    tmp_path: Path, cells: list[bytes], labels: list[Any], names: list[str] | None, message: str
) -> None:
    path = write_parquet(tmp_path / "x.parquet", cells[:3], labels, names=names)
    with pytest.raises(HnasError, match=message):
        open_dataset(str(path))


def test_labels_beyond_64_bits_are_rejected(tmp_path: Path, cells: list[bytes]) -> None:
    path = write_parquet(tmp_path / "x.parquet", cells[:2], pa.array([0, 2**64 - 1], pa.uint64()))
    with pytest.raises(HnasError, match=r"x\.parquet cannot be read"):
        open_dataset(str(path))


def test_a_single_class_and_an_empty_split_are_rejected(tmp_path: Path, cells: list[bytes]) -> None:
    path = write_parquet(tmp_path / "x.parquet", cells[:3], [1, 1, 1], names=["auk", "bat"])
    with pytest.raises(UsageError, match=r"one class only \(bat\)"):
        open_dataset(str(path))
    write_parquet(path, [], pa.array([], pa.int64()))
    with pytest.raises(UsageError, match="no training images"):
        open_dataset(str(path))


def test_a_labelled_split_is_preferred_to_an_unlabelled_one(tmp_path: Path, cells: list[bytes]) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", cells, LABELS)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", cells[:4], [-1] * 4)
    assert open_dataset(str(tmp_path)).test is None
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", cells[:3], [2, 1, 0])
    test = open_dataset(str(tmp_path)).test
    assert test is not None
    assert test.labels.tolist() == [2, 1, 0]


def test_a_test_label_out_of_range_is_reported(tmp_path: Path, cells: list[bytes]) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", cells, LABELS)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", cells[:4], [0, 1, 2, 3])
    with pytest.raises(HnasError, match=r"test-00000-of-00001\.parquet, row 3 has the label 3"):
        open_dataset(str(tmp_path))


def test_a_truncated_parquet_file_is_reported(tmp_path: Path, cells: list[bytes]) -> None:
    path = write_parquet(tmp_path / "x.parquet", cells, LABELS)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:3], b"", b"a,b\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(HnasError, match=r"x\.parquet cannot be read as Parquet .*complete Parquet file"):
            open_dataset(str(path))


def test_a_damaged_page_is_reported(tmp_path: Path, cells: list[bytes]) -> None:
    options = {"write_page_checksum": True, "compression": "none", "use_dictionary": False}
    path = write_parquet(tmp_path / "x.parquet", cells, LABELS, **options)
    content = bytearray(path.read_bytes())
    content[content.index(cells[30]) + 60] ^= 255
    path.write_bytes(content)
    with pytest.raises(HnasError, match=r"x\.parquet cannot be read as Parquet"):
        open_dataset(str(path)).train.images(np.array([30]))


# --- CIFAR's Python batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dumps", [modern, renamed, Python2Pickler.dumps])
def test_python_batches_are_read(tmp_path: Path, patches: np.ndarray, dumps: Callable[[object], bytes]) -> None:
    labels = [number % 10 for number in range(60)]
    dataset = open_dataset(str(write_batches(tmp_path / "mine", patches, labels, dumps)))
    assert (dataset.name, dataset.classes, len(dataset.train)) == ("mine", tuple(NAMES), 50)
    assert np.array_equal(dataset.train.images(np.array([49, 0])), patches[[49, 0]].transpose(0, 3, 1, 2))
    assert dataset.test is not None
    assert dataset.test.labels.tolist() == labels[50:]
    small = open_dataset(str(tmp_path / "mine"), image_size=16)
    assert small.train.images(np.arange(2)).shape == (2, 3, 16, 16)


def test_labels_of_python_batches_can_be_an_array(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_batches(tmp_path, patches, [0, 1] * 30)
    batch = {b"data": patches[:2].transpose(0, 3, 1, 2).reshape(2, -1), b"labels": np.array([7, 9])}
    (folder / "data_batch_1").write_bytes(modern(batch))
    assert open_dataset(str(folder)).train.labels[:3].tolist() == [7, 9, 0]


def test_cifar100_gives_its_fine_labels(tmp_path: Path, patches: np.ndarray) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows = patches.transpose(0, 3, 1, 2).reshape(60, -1)
    for name, part in (("train", slice(0, 50)), ("test", slice(50, 60))):
        fine = [number % 100 for number in range(60)][part]
        batch = {b"data": rows[part], b"fine_labels": fine, b"coarse_labels": [0] * len(fine)}
        (folder / name).write_bytes(Python2Pickler.dumps(batch))
    names = [f"fine {number}".encode() for number in range(100)]
    (folder / "meta").write_bytes(Python2Pickler.dumps({b"fine_label_names": names, b"coarse_label_names": []}))
    for path in (folder, tmp_path):
        dataset = open_dataset(str(path))
        assert dataset.classes[99] == "fine 99"
        assert dataset.train.labels.tolist() == list(range(50))
    assert open_dataset(str(folder)).name == "cifar100"


def write_imagenet16(
    folder: Path, rng: np.random.Generator, **changes: bytes
) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write downsampled ImageNet's eleven files as Python 3 does: str keys, labels 1 to 1000, a mean image."""
    folder.mkdir(parents=True)
    written = {}
    for number, name in enumerate([*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"]):
        pixels = rng.integers(0, 256, (6, 768), dtype=np.uint8)
        labels = [1 + number, 120, 121, 1000, 2, 5]
        batch = {"data": pixels, "labels": labels, "mean": pixels.mean(0)}
        (folder / name).write_bytes(changes.get(name, pickle.dumps(batch)))
        written[name] = pixels, labels
    return written


@pytest.mark.parametrize("place", ["ImageNet16", "imagenet16-120/ImageNet16", "imagenet16-120"])
def test_imagenet16_keeps_the_first_120_classes_at_16_pixels(tmp_path: Path, place: str) -> None:
    written = write_imagenet16(tmp_path / place, np.random.default_rng(0))
    dataset = open_dataset(str(tmp_path / place.split("/")[0]))
    assert (dataset.name, dataset.size, len(dataset.classes)) == ("imagenet16-120", 16, 120)
    kept = [0, 1, 4, 5]
    expected = [
        label - 1 for name, (_, labels) in written.items() if name != "val_data" for label in np.take(labels, kept)
    ]
    assert dataset.train.labels.tolist() == expected
    assert dataset.test is not None
    assert dataset.test.labels.tolist() == [10, 119, 1, 4]
    pixels = written["train_data_batch_2"][0][kept].reshape(4, 3, 16, 16)
    np.testing.assert_array_equal(dataset.train.images(np.arange(4, 8)), pixels)
    assert dataset.mean == pytest.approx((122.68 / 255, 116.66 / 255, 104.01 / 255))


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ({"data": np.zeros((2, 768), np.uint8), "labels": [0, 1]}, "labels outside 1 to 1000"),
        ({"data": np.zeros((2, 768), np.uint8), "labels": [1]}, "must hold one integer label for each of its 2"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]}, "no uint8 rows of 768 pixels"),
        ({"labels": [1, 2]}, "no uint8 rows"),
    ],
)
def test_files_with_other_content_than_imagenet16_are_reported(
    tmp_path: Path, batch: dict[str, object], complaint: str
) -> None:
    write_imagenet16(tmp_path / "ImageNet16", np.random.default_rng(0), train_data_batch_3=pickle.dumps(batch))
    with pytest.raises(HnasError, match=f"train_data_batch_3.*{complaint}"):
        open_dataset(str(tmp_path / "ImageNet16"))


def test_missing_files_of_imagenet16_are_reported(tmp_path: Path) -> None:
    write_imagenet16(tmp_path / "ImageNet16", np.random.default_rng(0))
    (tmp_path / "ImageNet16" / "train_data_batch_7").unlink()
    with pytest.raises(UsageError, match="lacks train_data_batch_7"):
        open_dataset(str(tmp_path))


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_rejected_without_running(tmp_path: Path, patches: np.ndarray, protocol: int) -> None:
    folder = write_batches(tmp_path / "evil", patches, [0, 1] * 30)
    trace = tmp_path / "ran"
    content = pickle.dumps({b"data": Hostile(trace)}, protocol=protocol)
    (folder / "data_batch_2").write_bytes(content)
    with pytest.raises(HnasError, match=rf"data_batch_2 asks for {os.name}\.system, which was refused") as caught:
        open_dataset(str(folder))
    assert caught.value.exit_code == 1
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists(), "the pickle must run code in an ordinary unpickler"


@pytest.mark.parametrize("module", ["builtins", "numpy", "numpy.core.multiarray", "_codecs"])
def test_any_other_global_is_rejected(tmp_path: Path, patches: np.ndarray, module: str) -> None:
    folder = write_batches(tmp_path / "evil", patches, [0, 1] * 30)
    (folder / "batches.meta").write_bytes(f"c{module}\neval\n.".encode())
    with pytest.raises(HnasError, match=rf"asks for {module}\.eval"):
        open_dataset(str(folder))


def test_a_pickle_cannot_choose_a_codec(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_batches(tmp_path / "evil", patches, [0, 1] * 30)
    (folder / "batches.meta").write_bytes(b"c_codecs\nencode\n(Vx\nVzip\ntR.")
    with pytest.raises(HnasError, match=r"batches\.meta is not a complete pickle \(the encoding zip\)"):
        open_dataset(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a complete pickle"),
        (b"plain text", "is not a complete pickle"),
        (modern([1, 2]), "holds no dictionary"),
        (modern({b"labels": [0]}), "has no entry data"),
        (modern({b"data": [[0] * 3072], b"labels": [0]}), "must hold uint8 rows"),
        (modern({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}), "must hold uint8 rows"),
        (modern({b"data": np.zeros((2, 784), np.uint8), b"labels": [0, 1]}), "must hold uint8 rows"),
        (modern({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}), "must hold one integer label for each"),
        (modern({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 0.5]}), "must hold one integer label for each"),
        (
            modern({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 2**70]}),
            "must hold one integer label for each",
        ),
        (modern({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}), "data_batch_3, row 1 has the label 10"),
    ],
)
def test_a_batch_without_images_is_reported(tmp_path: Path, patches: np.ndarray, content: bytes, message: str) -> None:
    folder = write_batches(tmp_path / "odd", patches, [0, 1] * 30)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(HnasError, match=message) as caught:
        open_dataset(str(folder))
    assert "data_batch_3" in str(caught.value)


def test_a_truncated_batch_is_reported(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_batches(tmp_path / "cut", patches, [0, 1] * 30)
    whole = (folder / "data_batch_4").read_bytes()
    for length in (1, 40, len(whole) // 2, len(whole) - 1):
        (folder / "data_batch_4").write_bytes(whole[:length])
        with pytest.raises(HnasError, match=r"data_batch_4 is not a complete pickle"):
            open_dataset(str(folder))


def test_a_missing_batch_is_reported(tmp_path: Path, patches: np.ndarray) -> None:
    folder = write_batches(tmp_path / "four", patches, [0, 1] * 30)
    (folder / "data_batch_5").unlink()
    with pytest.raises(UsageError, match="lacks data_batch_5"):
        open_dataset(str(folder))
