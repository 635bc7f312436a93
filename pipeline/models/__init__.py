"""Trained models for use elsewhere: folders with weights, labels for images, programs for other runtimes, drawings.

save_model("best", network, space="nasbench201", arch=arch, …)   # weights.safetensors and model.json, atomically
model = load("best")                                             # a torch module in evaluation mode
model.predict("photos/")[0].label
"""

from hnas.pipeline.models.folder import ModelInfo, check_model_folder, save_model
from hnas.pipeline.models.loading import Model, load
from hnas.pipeline.models.predictions import Prediction

__all__ = ["Model", "ModelInfo", "Prediction", "check_model_folder", "load", "save_model"]
