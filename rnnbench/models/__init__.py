"""Models: an embedding, a recurrent network and an output layer, with losses and optimisers, on any backend."""

from rnnbench.models.model import Evaluation, Model, ModelGradients, TrainingPass, load_model
from rnnbench.models.optimisers import OPTIMISERS, SGD, Adam, AdamW, Optimiser
from rnnbench.models.parts import OutputGradients, Parts, Rows
from rnnbench.models.spec import ModelSpec, init_model_params

__all__ = [
    "OPTIMISERS",
    "SGD",
    "Adam",
    "AdamW",
    "Evaluation",
    "Model",
    "ModelGradients",
    "ModelSpec",
    "Optimiser",
    "OutputGradients",
    "Parts",
    "Rows",
    "TrainingPass",
    "init_model_params",
    "load_model",
]
