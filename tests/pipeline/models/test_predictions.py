"""Labels for images in every form, and unreadable images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hnas
from hnas import HnasError, UsageError
from hnas.pipeline.models import Model
from tests.support.models import CLASSES, trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("predict") / "model"
    trained("nasbench201").save(folder)
    return hnas.load(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five digits as files: c.png in the folder, the others in subfolders."""
    folder = tmp_path_factory.mktemp("photos")
    for name, image in zip(("a/1.png", "a/2.png", "b/1.bmp", "c.png", "b/.hidden.png"), pictures(), strict=False):
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def pictures(n: int = 5) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in trained("nasbench201").images[:n]]


def test_every_form_of_an_image_gets_the_same_label(model: Model, photos: Path) -> None:
    tensor = trained("nasbench201").images[:4]
    arrays = tensor.permute(0, 2, 3, 1).numpy()
    expected = torch.softmax(model(tensor).double(), 1)
    paths = [photos / name for name in ("a/1.png", "a/2.png", "b/1.bmp", "c.png")]
    for given in (
        tensor, arrays, pictures(4), list(arrays), list(tensor), iter(pictures(4)), paths, [str(p) for p in paths],
        arrays[..., 0], [arrays[0], pictures(4)[1], tensor[2], paths[3]],
    ):  # fmt: skip
        if isinstance(given, np.ndarray) and given.ndim == 3:
            given = list(given)  # grey images, one by one
        found = model.predict(given)
        np.testing.assert_allclose([one.probabilities for one in found], expected.tolist(), atol=1e-6)
        assert [one.label for one in found] == [CLASSES[i] for i in expected.argmax(1).tolist()]


def test_probabilities_sum_to_one_and_the_best_come_first(model: Model) -> None:
    (found,) = model.predict(pictures(1))
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.top(3)[0] == (found.label, found.probability)
    assert [p for _, p in found.top(99)] == sorted(found.probabilities, reverse=True)


def test_images_of_a_folder_are_labelled_in_name_order(model: Model, photos: Path) -> None:
    found = model.predict(photos)
    assert [str(Path(one.image or "").relative_to(photos)) for one in found] == [
        "c.png",
        "a/1.png",
        "a/2.png",
        "b/1.bmp",
    ]


def test_images_of_another_size_are_resized_as_for_training(model: Model) -> None:
    wide = pictures(1)[0].resize((20, 12))
    expected = model.predict(wide.resize((8, 8), Image.Resampling.BILINEAR))
    assert model.predict(wide) == expected


def test_training_mode_is_kept_and_changes_no_label(model: Model) -> None:
    before = model.predict(trained("nasbench201").images[:8])
    model.train()
    try:
        assert model.predict(trained("nasbench201").images[:8]) == before
        assert model.training
        assert model.network.training
    finally:
        model.eval()


def test_batching_changes_no_label(model: Model) -> None:
    images = trained("nasbench201").images[:130]
    together = [one.probabilities for one in model.predict(images)]
    alone = [model.predict(image)[0].probabilities for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((8, 8, 3)), "must be uint8"),
        (np.zeros((3, 8, 8), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), "an array of images"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"\(3, height, width\)"),
        (torch.zeros(3, 8, 8), "must be uint8"),
        (7, "int is not an image"),
        (b"png", "bytes is not an image"),
        ([None], "NoneType is not an image"),
        (Image.new("F", (8, 8)), "colour space F"),
        ("gone.png", "gone.png cannot be read"),
        ("a\0b.png", "cannot be read"),
    ],
)
def test_inputs_that_are_not_images_are_reported(given: object, said: str, model: Model) -> None:
    with pytest.raises((HnasError, UsageError), match=said) as error:
        model.predict(given)
    assert "\n" not in str(error.value)


def test_an_empty_folder_is_reported(model: Model, tmp_path: Path) -> None:
    with pytest.raises(HnasError, match="holds no images"):
        model.predict(tmp_path)
