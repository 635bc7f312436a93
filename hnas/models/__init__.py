"""Trained networks as classifiers of pixels, and their export to other runtimes."""

from hnas.models.classifier import Classifier

__all__ = ["Classifier"]
