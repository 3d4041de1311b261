"""Optimizers over flat memory, parameter groups, gradient clipping, and learning-rate schedules."""

from minigrad.optim.adagrad import Adagrad
from minigrad.optim.adam import Adam, AdamW
from minigrad.optim.clip import clip_grad_norm
from minigrad.optim.groups import decay_groups
from minigrad.optim.layers import layer_groups
from minigrad.optim.lion import Lion
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.plateau import ReduceOnPlateau
from minigrad.optim.rmsprop import RMSprop
from minigrad.optim.schedule import Schedule
from minigrad.optim.schedules import ConstantSchedule, CosineSchedule, LinearSchedule, OneCycleSchedule, PolynomialSchedule
from minigrad.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "ConstantSchedule",
    "CosineSchedule",
    "LinearSchedule",
    "Lion",
    "OneCycleSchedule",
    "Optimizer",
    "PolynomialSchedule",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "clip_grad_norm",
    "decay_groups",
    "layer_groups",
]
