#!/usr/bin/env bash
# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
#
# Find a Python for setup_env.py and start it with the same arguments: tools/setup_env.sh --venv .venv [--ros jazzy|kilted]
# PYTHON=... chooses one; else the one the environment was made with, else the system's, else the newest that will do.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
candidates=()
if [ -n "${PYTHON:-}" ]; then
    candidates=("$PYTHON")
else
    for ((i = 1; i < $#; i++)); do
        if [ "${!i}" = --venv ]; then
            j=$((i + 1))
            home=$(sed -n 's/^home = //p' "${!j}/pyvenv.cfg" 2>/dev/null || true)
            for folder in "${!j}"/lib/python3.*; do
                [ -d "$folder" ] && [ -n "$home" ] && candidates+=("$home/$(basename "$folder")")
            done
        fi
    done
    [ -n "${ROS_DISTRO:-}" ] && candidates+=(/usr/bin/python3) # what ROS 2 packages are built for
    candidates+=(python3 python3.13 python3.12 python3.11 python3.10 python3.14)
fi
found=none
for python in "${candidates[@]}"; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    [ "$found" = none ] && found=$version
    if [ "${version%%.*}" = 3 ] && [ "${version#*.}" -ge 10 ]; then
        exec "$python" "$here/setup_env.py" "$@"
    fi
done
echo "[setup] Python 3.10 or newer is needed, found ${found}; run: sudo apt-get install -y python3.11 python3.11-venv python3.11-dev (or name one: PYTHON=/path/to/python3 make setup)" >&2
exit 1
