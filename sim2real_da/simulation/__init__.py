# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""MuJoCo scenes that become labelled pictures: objects, randomisation, rendering, and the surrogate reality."""

import os
import sys

if sys.platform.startswith('linux') and not os.environ.get('DISPLAY'):
    os.environ.setdefault('MUJOCO_GL', 'egl')  # mujoco reads it when it is imported, so it stands before everything
# Mesa's software rasteriser: its threads cost more than they gain on small pictures, and training needs the cores
os.environ.setdefault('LP_NUM_THREADS', '0')
