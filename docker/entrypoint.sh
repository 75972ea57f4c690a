#!/bin/bash
# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
# Runs a command with ROS 2, this package, and a DDS profile that lets raw images through (docs/install.md).
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
profile="$(ros2 pkg prefix --share sim2real_da)/config/fastdds.xml"
export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$profile}"
export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$profile}"
exec "$@"
