# The images of one service:
#   docker build --target api .                               HTTP; holds no model library
#   docker build --target worker .                            the llama family, for any x86-64 CPU since 2009
#   docker build --target worker --build-arg LLAMA_BUILD=cuda .   the same with NVIDIA GPUs
#   docker build --target forwarder .                         the openai family; holds no model library either
#   docker build --target worker-transformers .               the families huggingface and gptq_llama; GPUs too
# A stage that a target does not need is not built (BuildKit, Docker >= 23). Tests: tests/test_containers.py.

ARG PYTHON=python:3.11-slim-bookworm
# as PYTHON, with a compiler; a digest may follow a tag: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_BUILD=python:3.11-bookworm
# Ubuntu 22.04, not newer: its C library must not be newer than that of PYTHON's Debian 12, where the wheel will run.
ARG CUDA=nvidia/cuda:12.8.1-devel-ubuntu22.04
# cpu | cuda
ARG LLAMA_BUILD=cpu
# the version that pyproject.toml names; a test compares
ARG LLAMA_CPP_PYTHON=0.3.36
# GGML_CPU_ALL_VARIANTS compiles ggml's CPU code once per generation, from plain SSE2 to AVX-512 and AMX, as modules next
# to libllama.so (INSTALL_BINDIR: else the wheel puts them into site-packages/bin). workers/engines/llama/library.py has
# the best one loaded that the CPU of the moment runs. Nothing of llama.cpp outside these modules uses more than SSE2; what
# sets the limit is numpy, whose wheels need x86-64-v2 (SSE4.2: Nehalem and Bulldozer on).
ARG LLAMA_CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_INSTALL_BINDIR=llama_cpp/lib -DCMAKE_INSTALL_LIBDIR=llama_cpp/lib"


# --- llama-cpp-python, compiled once for every CPU: /wheels, and in /runtime the libraries that PYTHON lacks ----------

FROM ${PYTHON_BUILD} AS llama-cpu
ARG LLAMA_CPP_PYTHON
ARG LLAMA_CMAKE_ARGS
RUN CMAKE_ARGS="${LLAMA_CMAKE_ARGS}" \
    pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python -w /wheels llama-cpp-python==${LLAMA_CPP_PYTHON} \
 && mkdir /runtime && cp -L "$(gcc -print-file-name=libgomp.so)" /runtime/libgomp.so.1

FROM ${CUDA} AS llama-cuda
# a pin of Debian or Ubuntu packages breaks the build with their next security fix; the base image's tag fixes the release
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential python3-pip \
 && rm -rf /var/lib/apt/lists/*
ARG LLAMA_CPP_PYTHON
ARG LLAMA_CMAKE_ARGS
RUN CMAKE_ARGS="${LLAMA_CMAKE_ARGS} -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF" \
    pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python -w /wheels llama-cpp-python==${LLAMA_CPP_PYTHON} \
 && mkdir /runtime && cp -L "$(gcc -print-file-name=libgomp.so)" /runtime/libgomp.so.1 \
 && cp -L /usr/local/cuda/lib64/libcudart.so.12 /usr/local/cuda/lib64/libcublas.so.12 \
          /usr/local/cuda/lib64/libcublasLt.so.12 /runtime/

# a stage of this file, not an image
# hadolint ignore=DL3006
FROM llama-${LLAMA_BUILD} AS llama

# the kernel of several rows for Q4_1; a machine that has none, or a build that fails, leaves an empty folder
FROM ${PYTHON_BUILD} AS rows-kernel
COPY workers/engines/llama/rows_kernel/build.py workers/engines/llama/rows_kernel/rows.c workers/engines/llama/rows_kernel/rows_kernel.h /kernel/
RUN --mount=type=bind,from=llama,source=/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-deps /wheels/*.whl \
 && python /kernel/build.py /kernels/llm_api_kernels


# --- what both images share -------------------------------------------------------------------------------------------

FROM ${PYTHON} AS base
# HOME: compose may run the image as any user, who then has none; nothing is kept there
ENV PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LLM_API_MODELS_DIR=/models
# tini is process 1: as such a program dies of no signal that it does not handle yet, and a SIGTERM of its first second is
# lost. The pin of a Debian package breaks the build with its next security fix; the base image's tag fixes the release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp llm-api \
 && install -d -o llm-api -g llm-api /models
WORKDIR /llm-api
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --require-hashes --no-deps -r requirements.txt


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
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
        --require-hashes --no-deps -r workers/requirements/openai.txt
COPY app/__init__.py app/__init__.py
COPY app/errors.py app/errors.py
COPY app/niceness.py app/niceness.py
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
RUN pip wheel --no-cache-dir --require-hashes --no-deps -w /wheels -r /requirements.txt
# the 4-bit kernel of the CPU; a machine that has none, or a build that fails, leaves an empty folder
COPY workers/engines/gptq/int4_kernel/build.py workers/engines/gptq/int4_kernel/int4_matmul.c /kernel/
RUN python /kernel/build.py /wheels/llm_api_kernels

FROM base AS worker-transformers
# libpcre2-8-0, which a wheel of that stage wants, is in every Debian: grep needs it
ENV HF_HUB_DISABLE_TELEMETRY=1
COPY workers/requirements/huggingface.txt workers/requirements/huggingface.txt
# torch first: what depends on it would else choose another build of it
RUN --mount=type=bind,from=gptq,source=/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore torch==2.13.0 \
 && pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
        --require-hashes --no-deps -r workers/requirements/huggingface.txt \
 && pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-deps /wheels/*.whl \
 && cp -r /wheels/llm_api_kernels "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
# the import fails the build where a library is missing
RUN python -c "import transformers, optimum.gptq, gptqmodel"
COPY app/__init__.py app/__init__.py
COPY app/errors.py app/errors.py
COPY app/niceness.py app/niceness.py
COPY app/config app/config
COPY app/jobs app/jobs
COPY workers workers
COPY config.yaml ./
RUN python -m compileall -q app workers
USER 1000:1000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "workers.healthcheck"]
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "workers.main"]


# --- worker: the last stage, so the one that is built without --target ------------------------------------------------

FROM base AS worker
ENV HF_HUB_DISABLE_TELEMETRY=1
COPY workers/requirements/llama.txt workers/requirements/llama.txt
# the wheel from above first: what the file names is installed then, and is not built again
RUN --mount=type=bind,from=llama,source=/wheels,target=/wheels \
    --mount=type=bind,from=rows-kernel,source=/kernels,target=/kernels \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-deps /wheels/*.whl \
 && pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
        --require-hashes --no-deps -r workers/requirements/llama.txt \
 && cp -r /kernels/llm_api_kernels "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
COPY --from=llama /runtime/ /usr/local/lib/
# the import fails the build where a library is missing
RUN ldconfig && python -c "import llama_cpp"
COPY app/__init__.py app/__init__.py
COPY app/errors.py app/errors.py
COPY app/niceness.py app/niceness.py
COPY app/config app/config
COPY app/jobs app/jobs
COPY workers workers
COPY config.yaml ./
RUN python -m compileall -q app workers
USER 1000:1000
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "workers.healthcheck"]
ENTRYPOINT ["tini", "-s", "--", "python", "-m", "workers.main"]
