"""AOA adapters of the released DualDistill code, by its parameter names. See
docs/methods/dualdistill.md#alignment; for conversion
and parity."""

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.distill.align import Aoa, SemiOrthogonal

_NAMES = {
    "0.pos_embed": "attention.position",
    "0.query.weight": "attention.query",
    "0.proj_student.0": "attention.keys.0",
    "0.proj_student.1": "attention.keys.1",
    "0.proj_pos.0": "attention.query_linear",
    "0.pos_attention.q": "attention.to_query",
    "0.pos_attention.k": "attention.to_key",
    "0.pos_attention.v": "attention.to_value",
    "0.pos_attention.proj": "attention.to_out",
    "0.norm": "attention.norm",
    "0.ffn.layers.0.0": "attention.feed_forward.0",
    "0.ffn.layers.1": "attention.feed_forward.2",
    "2.projector.parametrizations.weight.original": "projector.raw",
    "2.projector.parametrizations.weight.0.base": "projector.base",
    "2.weight": "projector.gain",
    "2.bias": "projector.bias",
}
"""Official name, or the module part of it, to ours."""


def official_aoa_name(name: str) -> str:
    """Our name for a parameter or buffer of an official adapter.

    Raises:
        KeyError: for a name that no official adapter has.
    """
    if name in _NAMES:
        return _NAMES[name]
    module, _, leaf = name.rpartition(".")
    return f"{_NAMES[module]}.{leaf}"


@torch.no_grad()
def load_official_aoa(aoa: Aoa, state: dict[str, Tensor]) -> None:
    """Fill `aoa` with the state of an official adapter of one encoder level, its prefix taken off.

    A Cayley projector starts at the matrix that the official Householder parameters stand for; a
    Householder one takes the parameters themselves.

    Raises:
        KeyError: for a name that no official adapter has.
        RuntimeError: if a name is missing or a shape differs.
        ValueError: if the official projector has collapsed
        (docs/methods/dualdistill.md#projector-collapse) and ours cannot.
    """
    own = aoa.state_dict()
    found = {official_aoa_name(name): tensor for name, tensor in state.items()}
    # The 1x1 convolution of the queries is a linear layer here.
    found = {n: t.view_as(own[n]) if n in own and t.numel() == own[n].numel() else t for n, t in found.items()}
    aoa.load_state_dict(found)
    if aoa.projector.map != "householder":
        released = type(aoa.projector)(aoa.projector.raw.shape[1], aoa.projector.raw.shape[0], "householder")
        released.load_state_dict({n: found[f"projector.{n}"] for n in released.state_dict()})
        start_at(aoa.projector, released.weight)


@torch.no_grad()
def start_at(projector: SemiOrthogonal, weight: Float[Tensor, "outputs inputs"]) -> None:
    """Make `weight` the present W of a Cayley projector; `raw` starts anew.

    Raises:
        ValueError: if its rows (columns, where it is tall) are not orthonormal.
    """
    frame = (weight.mT if weight.shape[0] < weight.shape[1] else weight).double()
    error = (frame.mT @ frame - torch.eye(frame.shape[1]).double()).abs().max().item()
    if error > 1e-4:
        raise ValueError(f"expected an orthonormal matrix, got one off by {error:.1e}")
    full = torch.linalg.qr(frame, mode="complete").Q
    full[:, : frame.shape[1]] = frame  # QR may have flipped the signs of columns
    projector.base.copy_(full)
    projector.raw.zero_()
