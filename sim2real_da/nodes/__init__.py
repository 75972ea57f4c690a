# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes: they translate messages, hold parameters and state, and call the core. Only this room imports rclpy."""
