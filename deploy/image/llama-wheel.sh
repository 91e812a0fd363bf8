#!/bin/sh
# A step of the Dockerfile: compile llama-cpp-python with $LLAMA_CMAKE_ARGS and $LLAMA_BACKEND_ARGS into /wheels, and copy
# into /runtime what the wheel is linked with and an image without a compiler lacks.
#   llama-wheel.sh REQUIREMENTS     a file that names llama-cpp-python with its hashes
# ccache, where it is installed, keeps each compiled file in $CCACHE_DIR.
set -eu

# The source gets a fixed path: ccache finds nothing under the random names that pip would give it.
mkdir -p /source /wheels /runtime /tmp/wheel
python3 -m pip download -q --require-hashes --no-deps --no-binary llama-cpp-python -d /source -r "$1"
tar -xzf /source/*.tar.gz -C /source --strip-components=1

# Two of the variants for 64-bit ARM use SME, which gcc knows from version 14 on; the others remain.
if [ "$(uname -m)" = aarch64 ] && [ "$(gcc -dumpversion)" -lt 14 ]; then
  sed -i '/ggml_add_cpu_backend_variant(armv9/d' /source/vendor/llama.cpp/ggml/src/CMakeLists.txt
fi

if command -v ccache >/dev/null; then
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CMAKE_CUDA_COMPILER_LAUNCHER=ccache CMAKE_HIP_COMPILER_LAUNCHER=ccache
fi
CMAKE_ARGS="$LLAMA_CMAKE_ARGS ${LLAMA_BACKEND_ARGS:-}" SKBUILD_BUILD_DIR=/build \
  python3 -m pip wheel --no-cache-dir --no-deps -w /wheels /source

# libcuda.so.1 comes from the driver of the machine that runs the image, the others of this list are in every PYTHON
python3 -m zipfile -e /wheels/*.whl /tmp/wheel
find /tmp/wheel -name '*.so*' -exec ldd {} + | sed -nE 's/.* => (\/[^ ]+) .*/\1/p' | sort -u \
  | grep -vE '^/tmp/wheel|/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|z|ssl|crypto|stdc\+\+|gcc_s|cuda))\.so' \
  | while read -r library; do cp -L "$library" /runtime/; done
# rocBLAS and hipBLASLt read their kernels from folders beside them
for folder in /opt/rocm/lib/rocblas /opt/rocm/lib/hipblaslt; do
  if [ -d "$folder" ]; then cp -r "$folder" /runtime/; fi
done
rm -rf /tmp/wheel /build
