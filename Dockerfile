# The images of the service:
#   docker build .                             all: Valkey, API and a worker in one container
#   docker build --target api .                HTTP; holds no model library
#   docker build --target worker .             the llama family
#   docker build --target worker-transformers . the families huggingface and gptq_llama
#   docker build --target forwarder .          the openai family; holds no model library either
# `all` and `worker` may be varied: --build-arg LLAMA_BUILD=cuda, FAMILIES=every, DEFAULT_MODEL=no. docs/containers.md has
# a table. A stage that a target does not need is not built (BuildKit, Docker >= 23). Tests: tests/test_containers.py,
# and with a container engine `make images`.

ARG PYTHON=python:3.11-slim-bookworm
# as PYTHON, with a compiler; a digest may follow a tag: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_BUILD=python:3.11-bookworm
# Ubuntu 22.04, not newer: its C library must not be newer than that of PYTHON's Debian 12, where the wheel will run.
ARG CUDA=nvidia/cuda:12.8.1-devel-ubuntu22.04
ARG ROCM=rocm/dev-ubuntu-22.04:6.4.1-complete
# cpu | openblas | vulkan | cuda | rocm
ARG LLAMA_BUILD=cpu
# llama | every: the families of `worker` and, beside openai, of `all`
ARG FAMILIES=llama
# yes | no: whether `worker` and `all` hold SmolLM2-135M-Instruct, which config.yaml names
ARG DEFAULT_MODEL=yes
# GGML_CPU_ALL_VARIANTS compiles ggml's CPU code once per generation, from plain SSE2 to AVX-512 and AMX, as modules next
# to libllama.so (INSTALL_BINDIR: else the wheel puts them into site-packages/bin). workers/engines/llama/library.py has
# the best one loaded that the CPU of the moment runs. Nothing of llama.cpp outside these modules uses more than SSE2; what
# sets the limit is numpy, whose wheels need x86-64-v2 (SSE4.2: Nehalem and Bulldozer on).
ARG LLAMA_CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_INSTALL_BINDIR=llama_cpp/lib -DCMAKE_INSTALL_LIBDIR=llama_cpp/lib"
# an index of torch's builds, for example https://download.pytorch.org/whl/cpu; empty: pip's own
ARG TORCH_INDEX=


# --- llama-cpp-python, compiled once for every CPU: /wheels, and in /runtime the libraries that PYTHON lacks ----------

# its line of the requirement file alone: another package's new version compiles nothing again
FROM ${PYTHON} AS llama-version
COPY workers/requirements/llama.txt /
RUN sed -n '/^llama-cpp-python==/,/[^\\]$/p' /llama.txt >/llama-cpp-python.txt

FROM ${PYTHON_BUILD} AS llama-on-cpu
# a pin of Debian or Ubuntu packages breaks the build with their next security fix; the base image's tag fixes the release
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ccache \
 && rm -rf /var/lib/apt/lists/*

FROM llama-on-cpu AS llama-on-openblas
# a pin of Debian packages breaks the build, as above
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libopenblas-dev \
 && rm -rf /var/lib/apt/lists/*
ENV LLAMA_BACKEND_ARGS="-DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS"

FROM llama-on-cpu AS llama-on-vulkan
# a pin of Debian packages breaks the build, as above
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libvulkan-dev glslc spirv-headers \
 && rm -rf /var/lib/apt/lists/*
ENV LLAMA_BACKEND_ARGS="-DGGML_VULKAN=ON"

FROM ${CUDA} AS llama-on-cuda
# a pin of Ubuntu packages breaks the build, as above
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential ccache python3-pip \
 && rm -rf /var/lib/apt/lists/*
ENV LLAMA_BACKEND_ARGS="-DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF"

FROM ${ROCM} AS llama-on-rocm
# a pin of Ubuntu packages breaks the build, as above
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential ccache libgomp1 python3-pip \
 && rm -rf /var/lib/apt/lists/*
ENV HIP_PATH=/opt/rocm \
    HIPCXX=/opt/rocm/llvm/bin/clang \
    LLAMA_BACKEND_ARGS="-DGGML_HIP=ON -DGPU_TARGETS=gfx908;gfx90a;gfx942;gfx1030;gfx1100;gfx1101;gfx1102;gfx1151;gfx1200;gfx1201"

# a stage of this file, not an image
# hadolint ignore=DL3006
FROM llama-on-${LLAMA_BUILD} AS llama
ARG LLAMA_CMAKE_ARGS
COPY --from=llama-version /llama-cpp-python.txt /
COPY deploy/image/llama-wheel.sh /usr/local/bin/llama-wheel
RUN --mount=type=cache,target=/ccache \
    CCACHE_DIR=/ccache CCACHE_MAXSIZE=2G llama-wheel /llama-cpp-python.txt

# the kernels of several rows; a machine that has none, or a build that fails, leaves an empty folder
FROM ${PYTHON_BUILD} AS rows-kernel
COPY workers/engines/llama/rows_kernel/build.py workers/engines/llama/rows_kernel/rows.c workers/engines/llama/rows_kernel/*.h /kernel/
RUN --mount=type=bind,from=llama,source=/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-deps /wheels/*.whl \
 && python /kernel/build.py /kernels/llm_api_kernels


# --- what all images share --------------------------------------------------------------------------------------------

FROM ${PYTHON} AS uv
COPY deploy/image/requirements-uv.txt /requirements.txt
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --require-hashes --no-deps \
        --target /uv -r /requirements.txt

FROM ${PYTHON} AS base
LABEL org.opencontainers.image.title="LLM API" \
      org.opencontainers.image.description="Large language models behind an HTTP API, with the promises of a job queue" \
      org.opencontainers.image.licenses="MIT"
# HOME: compose may run the image as any user, who then has none; nothing is kept there
ENV PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LLM_API_MODELS_DIR=/models
# for the builds only. Bytecode is written once, here: the file systems of containers are read-only. The certificates are
# those of PYTHON, where a network with a certificate of its own has added it.
ARG UV_SYSTEM_PYTHON=1
ARG UV_COMPILE_BYTECODE=1
ARG UV_LINK_MODE=copy
ARG UV_SYSTEM_CERTS=1
ARG UV_CACHE_DIR=/root/.cache/uv
ARG PIP_CACHE_DIR=/root/.cache/pip
# tini is process 1: as such a program dies of no signal that it does not handle yet, and a SIGTERM of its first second is
# lost. The pin of a Debian package breaks the build with its next security fix; the base image's tag fixes the release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
 && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp llm-api \
 && install -d -o llm-api -g llm-api /models
WORKDIR /llm-api
COPY deploy/image/llm-api.sh /usr/local/bin/llm-api
COPY requirements.txt ./
RUN --mount=type=bind,from=uv,source=/uv/bin,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/uv pip install --require-hashes --no-deps -r requirements.txt


# --- api --------------------------------------------------------------------------------------------------------------

FROM base AS api
# the port of EXPOSE, whatever config.yaml says; publish another one with `docker run -p` or LLM_API_PORT of compose.
# The second port is for probes only: it answers however many clients the first one has.
ENV LLM_API_SERVER__HOST=0.0.0.0 \
    LLM_API_SERVER__PORT=8000 \
    LLM_API_SERVER__HEALTH_PORT=8001
COPY app app
COPY config.yaml ./
RUN python -m compileall -q app
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LLM_API_SERVER__HEALTH_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "gunicorn", "-c", "python:app.server.gunicorn_settings", "app.server.wsgi:app"]


# --- forwarder: a worker of the openai family -------------------------------------------------------------------------

FROM base AS forwarder
COPY workers/requirements/openai.txt workers/requirements/openai.txt
RUN --mount=type=bind,from=uv,source=/uv/bin,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/uv pip install --require-hashes --no-deps -r workers/requirements/openai.txt
COPY app/__init__.py app/__init__.py
COPY app/errors.py app/errors.py
COPY app/freed_memory.py app/freed_memory.py
COPY app/niceness.py app/niceness.py
COPY app/access app/access
COPY app/cli app/cli
COPY app/config app/config
COPY app/jobs app/jobs
COPY workers workers
COPY config.yaml ./
RUN python -m compileall -q app workers
USER 1000:1000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "workers.healthcheck"]
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "workers.main"]


# --- worker-transformers ----------------------------------------------------------------------------------------------

# gptqmodel and five packages that it needs come as source, one of them in C
FROM ${PYTHON_BUILD} AS gptq
COPY workers/requirements/gptq_llama.txt /requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --require-hashes --no-deps -w /wheels -r /requirements.txt
# the 4-bit kernel of the CPU; a machine that has none, or a build that fails, leaves an empty folder
COPY workers/engines/gptq/int4_kernel/build.py workers/engines/gptq/int4_kernel/int4_matmul.c /kernel/
RUN python /kernel/build.py /wheels/llm_api_kernels

FROM base AS packages-transformers
# libpcre2-8-0, which a wheel of that stage wants, is in every Debian: grep needs it
ENV HF_HUB_DISABLE_TELEMETRY=1
ARG TORCH_INDEX
COPY workers/requirements/huggingface.txt workers/requirements/huggingface.txt
# torch first: what depends on it would else choose another build of it. pip, because it reads the settings of the base
# image, which may name a build of torch. It is pinned; the linter takes the index for a package.
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --root-user-action ignore ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} torch==2.13.0
RUN --mount=type=bind,from=uv,source=/uv/bin,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=gptq,source=/wheels,target=/wheels \
    /opt/uv/uv pip install --require-hashes --no-deps -r workers/requirements/huggingface.txt \
 && /opt/uv/uv pip install --no-deps /wheels/*.whl \
 && cp -r /wheels/llm_api_kernels "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
# the import fails the build where a library is missing
RUN python -c "import transformers, optimum.gptq, gptqmodel"

FROM packages-transformers AS worker-transformers
COPY app/__init__.py app/__init__.py
COPY app/errors.py app/errors.py
COPY app/freed_memory.py app/freed_memory.py
COPY app/niceness.py app/niceness.py
COPY app/access app/access
COPY app/cli app/cli
COPY app/config app/config
COPY app/jobs app/jobs
COPY workers workers
COPY config.yaml ./
RUN python -m compileall -q app workers
USER 1000:1000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "workers.healthcheck"]
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "workers.main"]


# --- worker -----------------------------------------------------------------------------------------------------------

FROM base AS below-llama
FROM packages-transformers AS below-every

# a stage of this file, not an image
# hadolint ignore=DL3006
FROM below-${FAMILIES} AS packages-worker
WORKDIR /llm-api
ENV HF_HUB_DISABLE_TELEMETRY=1
ARG LLAMA_BUILD
# the drivers of Intel's and AMD's GPUs; NVIDIA's come with its container toolkit. Without a pin, as above.
# hadolint ignore=DL3008
RUN if [ "${LLAMA_BUILD}" = vulkan ]; then \
        apt-get update && apt-get install -y --no-install-recommends mesa-vulkan-drivers && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    fi
COPY --from=llama /runtime/ /usr/local/lib/
COPY workers/requirements/llama.txt workers/requirements/llama.txt
# the wheel from above first: what the file names is installed then, and is not built again
RUN --mount=type=bind,from=uv,source=/uv/bin,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=llama,source=/wheels,target=/wheels \
    --mount=type=bind,source=deploy/image/default-model.txt,target=/default-model.txt \
    /opt/uv/uv pip install --no-cache --no-deps /wheels/*.whl \
 && /opt/uv/uv pip install --require-hashes --no-deps -r workers/requirements/llama.txt --excludes /default-model.txt
# the import fails the build where a library is missing
RUN ldconfig && python -c "import llama_cpp"
# a layer of its own: it is most of what a new version of another package would send again
ARG DEFAULT_MODEL
RUN --mount=type=bind,from=uv,source=/uv/bin,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    if [ "${DEFAULT_MODEL}" = yes ]; then \
        /opt/uv/uv pip install --require-hashes --no-deps -r workers/requirements/llama.txt; \
    fi
RUN --mount=type=bind,from=rows-kernel,source=/kernels,target=/kernels \
    cp -rT /kernels/llm_api_kernels "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/llm_api_kernels"

FROM packages-worker AS worker
COPY app/__init__.py app/__init__.py
COPY app/errors.py app/errors.py
COPY app/freed_memory.py app/freed_memory.py
COPY app/niceness.py app/niceness.py
COPY app/access app/access
COPY app/cli app/cli
COPY app/config app/config
COPY app/jobs app/jobs
COPY workers workers
COPY config.yaml ./
RUN python -m compileall -q app workers
USER 1000:1000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "workers.healthcheck"]
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "workers.main"]


# --- all: what `make run` starts, in one container; the last stage, so the one that is built without --target ---------

FROM packages-worker AS all
ENV LLM_API_SERVER__HOST=0.0.0.0 \
    LLM_API_SERVER__PORT=8000 \
    LLM_API_SERVER__HEALTH_PORT=8001 \
    LLM_API_DATA_DIR=/data
COPY workers/requirements/openai.txt workers/requirements/openai.txt
COPY app/requirements-run.txt app/requirements-run.txt
RUN --mount=type=bind,from=uv,source=/uv/bin,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=deploy/image/default-model.txt,target=/default-model.txt \
    /opt/uv/uv pip install --require-hashes --no-deps -r workers/requirements/openai.txt \
 && /opt/uv/uv pip install --require-hashes --no-deps -r app/requirements-run.txt --excludes /default-model.txt \
 && install -d -o llm-api -g llm-api /data
COPY deploy/image/as-owner-of-models.sh /usr/local/bin/as-owner-of-models
COPY app app
COPY workers workers
COPY config.yaml ./
RUN python -m compileall -q app workers
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['LLM_API_SERVER__HEALTH_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# as-owner-of-models gives up root before anything else starts
ENTRYPOINT ["tini", "-s", "--", "as-owner-of-models", "python", "-m", "app.cli"]
CMD ["run"]
