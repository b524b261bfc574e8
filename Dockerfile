# CPU:  docker build -t dualdistill .
# CUDA: docker build -t dualdistill --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 \
#           --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# Run:  docker run --rm --shm-size 8g -v /path/to/nuscenes:/data -v "$PWD/runs:/workspace/runs" dualdistill evaluate ...
ARG BASE=debian:trixie-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/dualdistill
ENV PATH=/opt/dualdistill/bin:$PATH PIP_NO_CACHE_DIR=1

RUN pip install torch torchvision --index-url ${TORCH_INDEX}
COPY pyproject.toml README.md LICENSE NOTICE /src/
COPY src /src/src
RUN pip install '/src[synthetic,export]'

WORKDIR /workspace
ENTRYPOINT ["dualdistill"]
CMD ["--help"]
