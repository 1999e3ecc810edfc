# mmfakd on CUDA GPUs. The build needs the packages of Ubuntu and of PyPI, and no model hub.
#
#   docker build -t mmfakd .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" mmfakd train CONFIG
#
# Detection and segmentation need mmcv's compiled operators, which take half an hour:
#
#   docker build -t mmfakd --build-arg OPERATORS=1 .
ARG CUDA=13.0.2
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS build

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/mmfakd
ENV PATH=/opt/mmfakd/bin:$PATH \
    PIP_NO_CACHE_DIR=1

WORKDIR /src
COPY requirements requirements
# The largest layer: it stays the same while the code changes.
RUN pip install -c requirements/constraints-torch2.11.txt \
    torch torchvision setuptools wheel

ARG OPERATORS=0
ARG TORCH_CUDA_ARCH_LIST="8.0 8.6 8.9 9.0"
RUN if [ "$OPERATORS" = 1 ]; then \
        pip install -c requirements/constraints-torch2.11.txt ninja psutil \
        && MMCV_WITH_OPS=1 FORCE_CUDA=1 pip install --no-build-isolation \
            -c requirements/constraints-torch2.11.txt mmcv; \
    fi

COPY . .
RUN if [ "$OPERATORS" = 1 ]; then \
        pip install -c requirements/constraints-torch2.11.txt \
            '.[mim,stock-det,stock-seg]'; \
    else \
        pip install -c requirements/constraints-torch2.11.txt '.[stock]'; \
    fi

# torch's packages bring their own CUDA libraries; nvcc stays behind.
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04

# Triton and torch.compile call a C compiler at run time, with the headers of Python.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ libgl1 libglib2.0-0t64 python3 python3-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/mmfakd /opt/mmfakd
ENV PATH=/opt/mmfakd/bin:$PATH
# What does not fit together ends the build.
RUN mmfakd configs list && python -c 'import mmfakd'

WORKDIR /work
ENTRYPOINT ["mmfakd"]
CMD ["--help"]
