"""Optimizers over flat memory: SGD, Adam, AdamW, parameter groups, gradient clipping, the learning-rate schedule."""

from minigrad.optim.adam import Adam, AdamW
from minigrad.optim.clip import clip_grad_norm
from minigrad.optim.groups import decay_groups
from minigrad.optim.optimizer import Optimizer
from minigrad.optim.schedule import LinearSchedule
from minigrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "LinearSchedule", "Optimizer", "clip_grad_norm", "decay_groups"]
