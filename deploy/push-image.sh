#!/bin/bash
# A step of .github/workflows/release.yml: push one image of the release for one platform, with provenance and an SBOM.
#   push-image.sh PLATFORM SUFFIX TARGET [OPTION OF docker build]...
# $BASES: the base images by digest, as options. $REGISTRY: a host. GITHUB_*: as GitHub Actions sets them.
set -euo pipefail
platform=$1 suffix=$2 target=$3
shift 3
version=${GITHUB_REF_NAME#v}
read -ra bases <<<"$BASES"
docker buildx build . --target "$target" --push \
  -t "$REGISTRY/${GITHUB_REPOSITORY,,}:$version$suffix-$platform" \
  --provenance mode=max --sbom true \
  --label "org.opencontainers.image.version=$version" \
  --label "org.opencontainers.image.revision=$GITHUB_SHA" \
  --label "org.opencontainers.image.created=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
  --label "org.opencontainers.image.source=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY" \
  "${bases[@]}" "$@"
