#!/usr/bin/env bash
# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
#
# Run a command in a virtual environment made by setup_env.py:  tools/with_env.sh .venv python -m pytest
# It sets what the ROS wheels need before the interpreter starts (they would re-execute it otherwise) and renders off screen.
set -euo pipefail
if [ $# -lt 2 ] || [ ! -x "$1/bin/python" ]; then
    echo "usage: $0 VENV COMMAND...  (VENV is made by: make setup)" >&2
    exit 2
fi
VIRTUAL_ENV=$(cd "$1" && pwd)
shift
export VIRTUAL_ENV PATH="$VIRTUAL_ENV/bin:$PATH"
unset PYTHONHOME
libraries=$VIRTUAL_ENV/lib
if [ "$(cat "$VIRTUAL_ENV/.setup/mode" 2>/dev/null)" != sourced ]; then
    for folder in "$VIRTUAL_ENV"/lib/python3.*/site-packages/ros_*.libs; do
        [ -d "$folder" ] && libraries+=:$folder
    done
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
fi
case ":${AMENT_PREFIX_PATH:-}:" in
*":$VIRTUAL_ENV:"*) ;;
*) export AMENT_PREFIX_PATH="$VIRTUAL_ENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}" ;;
esac
case ":${LD_LIBRARY_PATH:-}:" in
*":$libraries:"*) ;;
*) export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
esac
export MUJOCO_GL=${MUJOCO_GL:-egl}
exec "$@"
