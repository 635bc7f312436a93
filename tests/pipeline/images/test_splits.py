"""Splits are recognised by one rule in every layout, are never taken for classes, and odd files are reported."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.images import open_dataset, training_batch
from hnas.pipeline.images.splits import TEST, TRAIN, VALIDATION, looks_like_a_split, role, role_of_file
from tests.support.image_files import encoded, write_batches, write_folder, write_parquet

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
TEST_NAMES = ("test", "Test", "TESTING", "test_set", "testset", "Test-Images")
VALIDATION_NAMES = ("val", "valid", "validation", "Validation_Set", "eval", "Evaluation", "dev", "VAL", "val_images")


@pytest.mark.parametrize("name", ["train", "TRAIN", "Training", "train_set", "training-data", "Train Images"])
def test_names_of_the_training_split(name: str) -> None:
    assert role(name) == TRAIN


@pytest.mark.parametrize("name", ["trainer", "contest", "train_station", "test_tube", "devil", "value", "", "latest"])
def test_names_that_are_not_splits(name: str) -> None:
    assert role(name) is None
    assert not looks_like_a_split(name)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("train", TRAIN), ("cifar10-train", TRAIN), ("Train_0", TRAIN), ("train-extra", TRAIN), ("my.test_set", TEST),
        ("validation", VALIDATION), ("mnist_dev", VALIDATION), ("train-test", None), ("0000", None), ("trainval", None),
        ("contest", None),
    ],
)  # fmt: skip
def test_the_split_of_a_parquet_file(stem: str, expected: str | None) -> None:
    found = role_of_file(stem)
    assert (found and found[0]) == expected


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TEST_NAMES, *VALIDATION_NAMES])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_a_test_folder_is_found_under_any_of_its_names(tmp_path: Path, train: str, name: str) -> None:
    write_folder(tmp_path / train, PIXELS[:40])
    write_folder(tmp_path / name, PIXELS[40:43])
    dataset = open_dataset(str(tmp_path))
    assert dataset.classes == ("cat", "dog", "owl")
    assert len(dataset.train) == 40
    assert dataset.test is not None
    assert np.array_equal(dataset.test.images(np.arange(3)).transpose(0, 2, 3, 1), PIXELS[40:43])


def test_the_test_split_is_preferred_to_the_validation_split(tmp_path: Path) -> None:
    for name, rows in (("train", slice(0, 40)), ("dev", slice(40, 43)), ("Testing", slice(43, 45))):
        write_folder(tmp_path / name, PIXELS[rows])
    test = open_dataset(str(tmp_path)).test
    assert test is not None
    assert len(test) == 2


@pytest.mark.parametrize("names", [("val", "valid"), ("test", "Testing"), ("train", "training")])
def test_two_folders_for_one_split_are_rejected(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in {"train", *names}:
        write_folder(tmp_path / name, PIXELS[:6])
    with pytest.raises(UsageError, match=rf"holds both {min(names)} and {max(names)}, and each would be its"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("name", ["held_out", "tset", "vaild"])
def test_unexplained_class_folders_next_to_train_are_rejected(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "train", PIXELS[:40])
    write_folder(tmp_path / name, PIXELS[40:])
    with pytest.raises(UsageError, match=f"class folders in {name}, whose name is not that of a split"):
        open_dataset(str(tmp_path))
    write_folder(tmp_path / "test", PIXELS[40:])
    assert open_dataset(str(tmp_path)).test is not None


def test_other_folders_next_to_train_are_ignored(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", PIXELS[:40])
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    (tmp_path / "docs" / "overview.svg").write_text("<svg/>")
    os.mkfifo(tmp_path / "docs" / "pipe.png")
    assert len(open_dataset(str(tmp_path)).train) == 40


@pytest.mark.parametrize("name", ["test", "Val", "eval", "test1", "valid_2"])
def test_unsorted_test_images_do_not_become_a_class(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, PIXELS[:40])
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.png").write_bytes(encoded(PIXELS[0]))
    with pytest.raises(UsageError, match=f"{name} is named like a split but holds images without class folders"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("names", [("train", "test"), ("trainA", "trainB", "testA", "testB"), ("Training", "Valid")])
def test_splits_without_class_folders_do_not_become_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_folder(tmp_path, PIXELS, names)
    with pytest.raises(UsageError, match="is named like a split but holds images without class folders"):
        open_dataset(str(tmp_path))


def test_train_can_be_one_class_among_others(tmp_path: Path) -> None:
    assert open_dataset(str(write_folder(tmp_path, PIXELS, ("car", "train", "test_tube")))).classes[1:] == (
        "test_tube",
        "train",
    )


def test_a_split_without_a_training_split_is_rejected(tmp_path: Path) -> None:
    write_folder(tmp_path / "valid", PIXELS)
    with pytest.raises(UsageError, match=r"valid is a split, but .* has no training split"):
        open_dataset(str(tmp_path))


# --- Parquet --------------------------------------------------------------------------------------------------------

CELLS = [encoded(pixels) for pixels in PIXELS]
LABELS = [0, 1, 2] * 20


@pytest.mark.parametrize("name", [*TEST_NAMES, *VALIDATION_NAMES])
@pytest.mark.parametrize(
    "pattern", ["{}-00000-of-00001.parquet", "{}.parquet", "birds-{}.parquet", "{}/0000.parquet", "cfg/{}/0000.parquet"]
)
def test_parquet_test_files_are_found_under_any_of_their_names(tmp_path: Path, name: str, pattern: str) -> None:
    write_parquet(tmp_path / pattern.format("train"), CELLS[:40], LABELS[:40])
    write_parquet(tmp_path / pattern.format(name), CELLS[40:43], LABELS[40:43])
    dataset = open_dataset(str(tmp_path))
    assert len(dataset.train) == 40
    assert dataset.test is not None
    assert np.array_equal(dataset.test.images(np.arange(3)).transpose(0, 2, 3, 1), PIXELS[40:43])


def test_two_parquet_names_for_one_split_are_rejected(tmp_path: Path) -> None:
    for name in ("train", "val", "validation"):
        write_parquet(tmp_path / f"{name}.parquet", CELLS, LABELS)
    with pytest.raises(UsageError, match="both val and validation"):
        open_dataset(str(tmp_path))
    (tmp_path / "val.parquet").unlink()
    write_parquet(tmp_path / "validation" / "0.parquet", CELLS, LABELS)
    with pytest.raises(UsageError, match="its validation split both as files and in a folder"):
        open_dataset(str(tmp_path))


def test_unexplained_parquet_images_next_to_train_are_rejected(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", CELLS, LABELS)
    pq.write_table(pa.table({"year": [2020]}), tmp_path / "licences.parquet")
    assert open_dataset(str(tmp_path)).test is None
    write_parquet(tmp_path / "vaild.parquet", CELLS, LABELS)
    with pytest.raises(UsageError, match=r"vaild\.parquet holds images, but its name contains no split"):
        open_dataset(str(tmp_path))
    write_parquet(tmp_path / "test.parquet", CELLS, LABELS)
    assert open_dataset(str(tmp_path)).test is not None


def test_a_gap_between_numbered_files_of_a_split_is_reported(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        write_parquet(tmp_path / "train" / f"{number:04}.parquet", CELLS, LABELS)
    with pytest.raises(UsageError, match="lacks shards of its train split"):
        open_dataset(str(tmp_path))


def test_hidden_system_files_are_not_shards(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", CELLS, LABELS)
    (tmp_path / "._train-00000-of-00001.parquet").write_bytes(b"Mac OS X")
    assert len(open_dataset(str(tmp_path)).train) == 60


# --- irregular and endless files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("absent.png")],
    ids=["fifo", "device", "dangling link"],
)
def test_an_irregular_file_among_images_is_reported(tmp_path: Path, make: Callable[[Path], object]) -> None:
    write_folder(tmp_path, PIXELS)
    make(tmp_path / "cat" / "000x.png")
    with pytest.raises(UsageError, match=r"cat/000x\.png is not a regular file"):
        open_dataset(str(tmp_path))


def test_an_image_replaced_by_a_pipe_does_not_block(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_folder(tmp_path, PIXELS)))
    (tmp_path / "cat" / "003.png").unlink()
    os.mkfifo(tmp_path / "cat" / "003.png")
    with pytest.raises(UsageError, match=r"003\.png is a named pipe, which may never end"):
        training_batch(dataset, 60, 0)


def test_an_enormous_file_among_images_is_not_read(tmp_path: Path) -> None:
    dataset = open_dataset(str(write_folder(tmp_path, PIXELS)))
    os.truncate(tmp_path / "cat" / "003.png", 2**40)
    with pytest.raises(UsageError, match=r"003\.png has more than 268,435,456 bytes"):
        training_batch(dataset, 60, 0)


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "one.parquet"])
def test_a_pipe_in_place_of_a_parquet_file_does_not_block(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="is a named pipe, which may never end"):
        open_dataset(str(tmp_path if name.startswith("train") else tmp_path / name))


def test_a_device_is_rejected_as_a_data_set() -> None:
    with pytest.raises(UsageError, match="/dev/zero is a device"):
        open_dataset("/dev/zero")


def test_folders_that_link_to_each_other_terminate(tmp_path: Path) -> None:
    write_folder(tmp_path, PIXELS)
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="up is a folder inside a class folder"):
        open_dataset(str(tmp_path))
    (tmp_path / "cat" / "up").unlink()
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(HnasError, match="cannot be read"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("suffix", [".avif", ".HEIC", ".jp2", ".tga"])
def test_unsupported_image_formats_are_not_skipped_silently(tmp_path: Path, suffix: str) -> None:
    write_folder(tmp_path, PIXELS)
    (tmp_path / "dog" / f"x{suffix}").write_bytes(b"?")
    with pytest.raises(UsageError, match=f"x{suffix} has an unsupported format"):
        open_dataset(str(tmp_path))


def test_a_small_parquet_file_of_a_trillion_rows_is_rejected(tmp_path: Path) -> None:
    """Equal labels are run-length encoded, so this file of a few kB really has all of its rows."""
    path = tmp_path / "train.parquet"
    count = 11 * 10**7
    labels = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**7, np.int8)), pa.array([3]))
    images = pa.nulls(10**7, pa.binary())
    with pq.ParquetWriter(path, pa.schema([("image", pa.binary()), ("label", labels.type)])) as writer:
        for _ in range(count // 10**7):
            writer.write_table(pa.table({"image": images, "label": labels}), row_group_size=10**7)
    assert path.stat().st_size < 2**20
    with pytest.raises(UsageError, match="a split has at most 100,000,000"):
        open_dataset(str(path))


def test_endlessly_nested_class_names_are_ignored(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array(CELLS), "label": LABELS})
    nested = "[" * 200_000 + "]" * 200_000
    pq.write_table(table.replace_schema_metadata({"huggingface": nested}), tmp_path / "x.parquet")
    assert open_dataset(str(tmp_path / "x.parquet")).classes == ("0", "1", "2")


BOMBS = {
    "labels of lists of lists": b"".join(
        [
            b"\x80\x02}(U\x04dataU\x01xU\x06labels",
            b"]q\x00K\x01a",
            *(b"0](" + b"h%c" % k * 10 + b"eq%c" % (k + 1) for k in range(30)),
            b"u.",
        ]
    ),
    "a memory of 2**31 places": b"\x80\x02}r\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_tiny_pickle_does_not_expand_without_end(tmp_path: Path, name: str) -> None:
    folder = write_batches(tmp_path / "set", np.zeros((60, 32, 32, 3), np.uint8), [0, 1] * 30)
    (folder / "data_batch_2").write_bytes(BOMBS[name])
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)\n"
        "from hnas.allocator import most_held\n"
        "from hnas.pipeline.images import open_dataset\n"
        "try: open_dataset(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, str(error)[-60:])\n"
        "print(most_held() < 2 * 2**30)"
    )
    found = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=60)
    assert found.stdout.startswith("HnasError"), found
    assert found.stdout.endswith("True\n"), found


# --- names ----------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf_8_are_read_and_escaped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / os.fsdecode(b"d\xff") / "set", PIXELS, (os.fsdecode(b"c\xe9"), "dog"))
    dataset = open_dataset(str(folder))
    assert training_batch(dataset, 60, 0).images.shape == (60, 3, 8, 8)
    (folder / os.fsdecode(b"c\xe9") / "000.png").write_bytes(b"no image")
    with pytest.raises(HnasError, match=r"d\\xff/set/c\\xe9/000\.png cannot be decoded") as caught:
        training_batch(dataset, 60, 0)
    str(caught.value).encode()
    write_parquet(tmp_path / "birds" / "train.parquet", CELLS, LABELS)
    (tmp_path / "birds").rename(folder.parent / "birds")
    assert len(open_dataset(str(tmp_path / os.fsdecode(b"d\xff") / "birds")).train) == 60


def test_a_data_set_whose_name_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"d\\xff has a name that is not UTF-8"):
        open_dataset(str(write_folder(tmp_path / os.fsdecode(b"d\xff"), PIXELS)))


def test_control_characters_in_names_do_not_reach_a_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J"
    for prepare in (
        lambda folder: (folder / f"emu{evil}").mkdir(),
        lambda folder: (folder / "cat" / f"more{evil}").mkdir(),
        lambda folder: (folder / "cat" / f"0{evil}.png").write_bytes(b"no image"),
        lambda folder: (folder / "cat" / f"0{evil}.png").symlink_to("absent"),
    ):
        folder = write_folder(tmp_path / str(len(list(tmp_path.iterdir()))), PIXELS)
        prepare(folder)
        with pytest.raises(HnasError, match=r"\\x1b") as caught:
            open_dataset(str(folder))
        assert str(caught.value).isprintable()
    write_batches(tmp_path / "batches", PIXELS.repeat(4, 1).repeat(4, 2), [0] * 60)
    named = pickle.dumps({b"label_names": [evil.encode(), b"b"]}, protocol=2)
    (tmp_path / "batches" / "batches.meta").write_bytes(named)
    with pytest.raises(UsageError, match="one class only") as caught:
        open_dataset(str(tmp_path / "batches"))
    assert str(caught.value).isprintable()
