# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Online sim-to-real domain adaptation of object detection and pose estimation for ROS 2."""

import os

# a picture of half a megabyte can unfold to gigabytes; OpenCV reads this limit (pixels) when it is loaded
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(2**27))

__version__ = '0.1.0'
