"""Distillation held to a share of the head's gradient on the student's BEV map.

Not in the papers. Related: GradNorm (Chen et al., ICML 2018), which balances gradient norms of tasks, and the adaptive
weight of VQGAN (Esser et al., CVPR 2021, section 3.1), the ratio of two gradient norms at one layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.ops.processes import mean_count

EVERY = 5
"""Batches from one measurement to the next: each costs two backward passes through the BEV encoder."""
DECAY = 0.95
"""Decay of the running means over a batch."""


class GradientBound(nn.Module):
    """The factor min(1, share · g_head / g_distill) on the distillation loss.

    g_head and g_distill are running means of the L2 norms of the two losses' gradients on the student's `canvas`, the
    input of its BEV encoder. The buffers are the state of the bound: a resumed training needs them.
    """

    sums: Float[Tensor, "2"]
    """Decayed sums of both norms; the ratio of the means is theirs."""
    batches: Tensor

    def __init__(self, share: float):
        """Args: `share` is the largest norm of distillation's gradient, in units of the head's."""
        super().__init__()
        if share <= 0:
            raise ValueError(f"the share of the head's gradient must be positive, got {share}")
        self.share = share
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @property
    def factor(self) -> float:
        """1 before the first measurement, and where distillation has no gradient."""
        head, distill = self.sums.tolist()
        return min(1.0, self.share * head / distill) if distill > 0 else 1.0

    def update(self, head: Float[Tensor, ""], distill: Float[Tensor, ""], canvas: Float[Tensor, "batch _ y x"]) -> None:
        """Count a batch; measure every `EVERY`-th, the first included. The graph is kept for the backward pass. `head`
        and `distill`: weighted sums of the losses of the student's head, and of the distiller's."""
        if int(self.batches) % EVERY == 0:
            norms = []
            for loss in (head, distill):
                (gradient,) = torch.autograd.grad(loss, canvas, retain_graph=True, materialize_grads=True)
                norms.append(mean_count(gradient.norm()))  # over processes, which share one factor
            self.sums.mul_(DECAY**EVERY).add_(torch.stack(norms).double())
        self.batches += 1
