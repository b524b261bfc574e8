"""Batch norm over however many rows there are."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def normed(norm: nn.BatchNorm1d | nn.SyncBatchNorm, features: Float[Tensor, "rows chan"]) -> Float[Tensor, "rows chan"]:
    """`norm` of the features, in training by the running statistics if there are fewer than two rows."""
    if norm.training and len(features) < 2:
        statistics = (norm.running_mean, norm.running_var)
        return F.batch_norm(features, *statistics, norm.weight, norm.bias, eps=norm.eps)
    return norm(features)
