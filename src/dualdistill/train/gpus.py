"""Peak arithmetic and memory of common GPUs, from NVIDIA's data sheets and architecture white papers."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU model."""

    name: str
    bf16_tflops: float
    """10^12 operations a second of dense (not sparse) bf16 matrix products with float32 accumulation."""
    memory_gb: int
    pattern: str
    """Regular expression of the name that CUDA reports for it."""

    def peak_tflops(self, precision: str) -> float:
        """Peak of a training in "bf16" or "32", where matrix products run in TF32 at half the rate of bf16."""
        return self.bf16_tflops if precision == "bf16" else self.bf16_tflops / 2


GPUS = (
    Gpu(name="RTX 3090", bf16_tflops=71, memory_gb=24, pattern=r"RTX 3090$"),
    Gpu(name="RTX 4090", bf16_tflops=165, memory_gb=24, pattern=r"RTX 4090$"),
    Gpu(name="L40S", bf16_tflops=362, memory_gb=48, pattern=r"L40S"),
    Gpu(name="A100 40 GB", bf16_tflops=312, memory_gb=40, pattern=r"A100.*40GB"),
    Gpu(name="A100 80 GB", bf16_tflops=312, memory_gb=80, pattern=r"A100.*80GB"),
    Gpu(name="H100 SXM", bf16_tflops=989, memory_gb=80, pattern=r"H100.*HBM3$"),
    Gpu(name="H200 SXM", bf16_tflops=989, memory_gb=141, pattern=r"H200$"),
)


def gpu_named(cuda_name: str) -> Gpu | None:
    """The GPU that CUDA reports under this name, such as "NVIDIA A100-SXM4-80GB"; None if it is not in the table."""
    return next((gpu for gpu in GPUS if re.search(gpu.pattern, cuda_name)), None)
