"""A classifier takes raw pixels and returns what its network returns for normalised images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hnas import UsageError
from hnas.models import Classifier
from tests.support.models import digits, trained


def test_logits_match_the_network_on_normalised_images() -> None:
    made, data = trained("nasbench201"), digits()
    classifier = Classifier(made.network, data.mean, data.std).eval()
    images = made.images[:20]
    expected = made.network.eval()(torch.from_numpy(data.normalise(images.numpy())))
    torch.testing.assert_close(classifier(images), expected, rtol=0, atol=1e-5)
    assert torch.equal(classifier(images), classifier(images.float()))


def test_probabilities_are_the_softmax_of_the_logits_in_any_mode() -> None:
    made, data = trained("nasbench201"), digits()
    classifier = Classifier(made.network, data.mean, data.std).eval()
    expected = torch.softmax(classifier(made.images[:9]).double(), 1)
    classifier.train()
    made.network.eval()
    torch.testing.assert_close(classifier.probabilities(made.images[:9]), expected)
    assert classifier.training
    assert not made.network.training


def test_the_state_dict_contains_only_the_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    state = Classifier(network, (0.5,) * 3, (0.2,) * 3).state_dict()
    assert set(state) == {"network.1.weight", "network.1.bias"}


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (2, 8, 8, 3)])
def test_images_other_than_uint8_pixels_are_refused(shape: tuple[int, ...]) -> None:
    classifier = Classifier(nn.Conv2d(3, 2, 1), (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(UsageError, match="must be uint8"):
        classifier.probabilities(torch.zeros(shape, dtype=torch.uint8))
