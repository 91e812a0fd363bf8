#!/bin/sh
# Start of the image `all`: gives /data and /models to the user that the service runs as, and becomes that user, without
# capabilities.
#   as-owner-of-models COMMAND...
# That user is the owner of the folder that is mounted as $LLM_API_MODELS_DIR. A folder that Docker has made belongs to
# root, and becomes uid 1000's. Where root is not the machine's root (a rootless engine), it stays root's.
# With `docker run --user` nothing is changed.
set -eu
[ "$(id -u)" = 0 ] || exec "$@"

owner=$(stat -c %u:%g "$LLM_API_MODELS_DIR")
if [ "${owner%%:*}" = 0 ] && grep -qE '^ +0 +0 +4294967295$' /proc/self/uid_map; then
  owner=1000:1000
  chown "$owner" "$LLM_API_MODELS_DIR" || echo "models_dir: $LLM_API_MODELS_DIR belongs to root and is read-only" >&2
fi
find "$LLM_API_DATA_DIR" ! -user "${owner%%:*}" -exec chown "$owner" {} +
exec setpriv --reuid "${owner%%:*}" --regid "${owner##*:}" --clear-groups --inh-caps=-all --bounding-set=-all \
  --no-new-privs -- "$@"
