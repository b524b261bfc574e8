"""Processes of a training, started by Fabric or by whoever launched this one, what PyTorch does in each of them, and
requests to stop: SIGINT (Ctrl-C), SIGTERM (a scheduler), SIGHUP (a closed terminal)."""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import environments
from lightning_fabric.strategies import DDPStrategy

from dualdistill.errors import UserError
from dualdistill.experiment.training import TrainingConfig
from dualdistill.models.image_backbone import ImageEncoder
from dualdistill.models.layers.bev_encoder import ResidualEncoder, ResNetEncoder
from dualdistill.models.layers.second import Second, SecondFpn
from dualdistill.ops.frozen import FrozenModule
from dualdistill.train.data import STOP
from dualdistill.train.step import Training

Result = TypeVar("Result")

_COMPILED = (ImageEncoder, ResidualEncoder, ResNetEncoder, Second, SecondFpn)

TIMEOUT = timedelta(hours=2)
"""How long processes wait for each other: one checks files or scores a validation while the others wait."""


def launch(devices: int, nodes: int = 1, config: TrainingConfig | None = None) -> Fabric:
    """The processes of a training, connected: `devices` on each of `nodes` machines.

    Started by torchrun, SLURM, LSF or MPI, this process joins the others; alone, it starts those of its machine, which
    repeat its command line (on several machines MASTER_ADDR, MASTER_PORT and NODE_RANK connect them).

    Args:
        config: Settings of the training; None for an evaluation.

    Raises:
        UserError: if the launcher's processes are not `devices` x `nodes`, or the machine lacks devices that they need.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if min(devices, nodes) < 1:
        raise UserError(f"--devices and --nodes must be at least 1, got {devices} and {nodes}.")
    gpus, cores = torch.cuda.device_count(), max(os.cpu_count() or 1, 2)  # two processes can be tried on one core
    if 0 < gpus < devices:
        raise UserError(f"--devices {devices}: this machine has {gpus} GPUs.")
    # In Fabric's order.
    kinds = (getattr(environments, f"{name}Environment") for name in ("TorchElastic", "SLURM", "LSF", "MPI"))
    environment = next((kind() for kind in kinds if kind.detect()), environments.LightningEnvironment())
    alone = isinstance(environment, environments.LightningEnvironment)
    if not alone and environment.world_size() != devices * nodes:
        raise UserError(
            f"{type(environment).__name__.removesuffix('Environment')} started {environment.world_size()} processes, "
            f"but --devices {devices} --nodes {nodes} are {devices * nodes}. Give the devices of one machine and the "
            "number of machines that it was started with."
        )
    if alone and not gpus and devices > cores:
        raise UserError(f"--devices {devices}: this machine has no GPU, and {cores} cores.")
    if alone and nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"--nodes {nodes}: start it with torchrun or SLURM, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each "
            "machine; otherwise this one would wait for the others in vain."
        )
    if config is not None and config.sync_batch_norm and not gpus:
        raise UserError("training.sync_batch_norm=true works on GPUs alone: set it to false.")
    several = devices * nodes > 1
    unused = config is not None and config.distill_fraction < 1  # parameters without a gradient after distillation ends
    strategy = DDPStrategy(find_unused_parameters=unused, timeout=TIMEOUT) if several else "auto"
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        fabric = Fabric(accelerator=kind, devices=devices, num_nodes=nodes, strategy=strategy, plugins=[environment])
        fabric.launch()
    except ValueError as error:  # the same number of processes, spread otherwise over the machines
        raise UserError(f"--devices {devices} --nodes {nodes} does not fit the launcher: {error}") from None
    return fabric


def configure(training: Training, config: TrainingConfig) -> None:
    """Set PyTorch's precision and choice of kernels, and compile networks, as a training's settings say.

    Compiled are the networks of maps alone: what lies between them depends on data (points, pooling plans, boxes).
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    if not config.compile:
        return
    frozen = [each.module for each in training.modules() if isinstance(each, FrozenModule)]
    for module in (module for part in (training, *frozen) for module in part.modules()):
        if isinstance(module, _COMPILED):
            module.compile()


def on_leader(fabric: Fabric, function: Callable[[], Result]) -> Result:
    """Result of a function that the leading process alone calls; its UserError ends all of them."""
    outcome: Any = None
    if fabric.is_global_zero:
        try:
            outcome = function()
        except UserError as error:
            outcome = error
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, UserError):
        if fabric.is_global_zero:
            raise outcome
        raise SystemExit(0)  # the leader reports it; other exit codes would make the launcher kill the leader
    return outcome


class StopSignals:
    """Context in which the first stop signal is noted in `received`; a second one of its kind ends the process.

    A signal that the process ignores (SIGHUP under `nohup`) stays ignored.
    """

    def __init__(self) -> None:
        self.received = 0
        """Number of the first signal; 0 if there was none."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        with suppress(ValueError):  # only the main thread has signal handlers
            heeded = [number for number in STOP if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        signal.signal(number, self._previous[number])
