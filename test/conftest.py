# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every test gets: fixed seeds, a ROS domain of its own, fast tests first, and the shared data where they are."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision  # noqa: F401 - before Mesa: its LLVM and Triton's crash in one process when Mesa's is loaded first

REPO = Path(__file__).resolve().parent.parent

# Two runs on one machine, or a robot next door, must not hear each other. DDS maps domains 0-101 to ports everywhere.
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('MUJOCO_GL', 'egl')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order: the core's tests, then those with processes, then those marked slow; a broken thing shows early."""

    def effort(item: pytest.Item) -> tuple[bool, bool]:
        return item.get_closest_marker('slow') is not None, item.path.name.startswith('test_ros_')

    items.sort(key=effort)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same numbers, alone or among others."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries that draw from the global generator
    if 'torch' in sys.modules:
        sys.modules['torch'].manual_seed(0)


def shared_data(name: str, what: str) -> Path:
    """Return a folder of the shared data, which is not part of the repository; skip the test where it is absent."""
    folder = Path(os.environ.get('SIM2REAL_DATA', REPO.parent / 'shared' / 'data')) / name
    if not folder.is_dir():
        pytest.skip(f'no {what} data at {folder}; set SIM2REAL_DATA to the folder that has {name}/')
    return folder


@pytest.fixture(scope='session')
def lmo() -> Path:
    """The LineMOD-Occluded data set in BOP layout."""
    return shared_data('lmo', 'LineMOD-Occluded')


@pytest.fixture(scope='session')
def digits_data() -> Path:
    """MNIST, USPS and photographs."""
    return shared_data('digits', 'digits')


@pytest.fixture(scope='session')
def gtsrb_data() -> Path:
    """Templates of traffic signs and real crops."""
    return shared_data('gtsrb', 'traffic-sign')
