# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Online sim-to-real domain adaptation of object detection and pose estimation for ROS 2."""

__version__ = '0.1.0'
