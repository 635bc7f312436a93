"""A trained network as a classifier of pixels, and the programs of it that other runtimes run."""

from hnas.models.classifier import Classifier

__all__ = ["Classifier"]
