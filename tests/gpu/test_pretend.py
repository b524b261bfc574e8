"""The pretended GPU finds what a real one would stumble over, and names the line."""

import importlib.util
from pathlib import Path

import pytest
import torch

from tests.gpu.pretend import DEVICE, Watch, watching

FAULTS = '''"""Three faults, a line each."""

import torch


def mixes(x):
    return x + torch.ones(4)


def waits(x):
    return x * float(x.sum())


def copies(x):
    return x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device)
'''


@pytest.fixture
def faults(tmp_path: Path):
    path = tmp_path / "faults.py"
    path.write_text(FAULTS)
    spec = importlib.util.spec_from_file_location("faults", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("fault", "counter", "line", "reason"),
    [
        ("mixes", "mixings", "return x + torch.ones(4)", "aten.add.Tensor"),
        ("waits", "waits", "return x * float(x.sum())", "aten._local_scalar_dense.default"),
        ("copies", "waits", "return x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device)", "copy to the device"),
    ],
)
def test_a_planted_fault_is_found_with_its_line(faults, tmp_path, fault, counter, line, reason):
    with watching(str(tmp_path)) as watch:
        getattr(faults, fault)(torch.ones(4).to(DEVICE))
    number = 1 + FAULTS.splitlines().index("    " + line)
    assert (reason, f"faults.py:{number}") in getattr(watch, counter)


def test_values_and_gradients_are_those_of_the_cpu():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    images = torch.randn(2, 3, 8, 8)
    net(images).sum().backward()
    want = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    with watching() as watch:
        net.to(DEVICE)
        net(images.to(DEVICE, non_blocking=True)).sum().backward()
    for gradient, parameter in zip(want, net.parameters(), strict=True):
        assert torch.equal(parameter.grad.inner, gradient)
    assert not watch.mixings
    assert watch.launches


def test_an_asynchronous_copy_to_the_device_does_not_wait_and_one_back_does():
    with Watch() as watch:
        there = torch.ones(4).to(DEVICE, non_blocking=True)
        assert not watch.waits
        there.to("cpu")
    assert watch.waits.total() == 1
