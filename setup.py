# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Build with colcon (``colcon build``) or pip (``pip install -e .``)."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'sim2real_da'
HERE = Path(__file__).resolve().parent
NODES = ('perception', 'adaptation', 'simulator', 'camera', 'evaluator', 'recorder')


def installed(folder: str, pattern: str) -> list[tuple[str, list[str]]]:
    """List a folder's files for ``share/sim2real_da``, keeping sub-folders."""
    found: dict[str, list[str]] = {}
    for file in sorted((HERE / folder).rglob(pattern)):
        relative = file.relative_to(HERE)
        found.setdefault(f'share/{NAME}/{relative.parent.as_posix()}', []).append(relative.as_posix())
    return list(found.items())


def requirements(name: str) -> list[str]:
    """Read a requirements file; it is the one place where they stand."""
    lines = (line.split('#')[0].strip() for line in (HERE / name).read_text().splitlines())
    return [line for line in lines if line]


setup(
    name=NAME,
    version='0.1.0',
    description='Online sim-to-real domain adaptation for object detection and 6-D poses in ROS 2',
    author='The sim2real_da authors',
    maintainer='The sim2real_da authors',
    maintainer_email='sim2real-da@example.org',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['py.typed', 'weights/*.safetensors', '**/*.html', '**/*.jinja']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *installed('launch', '*.launch.py'),
        *installed('config', '*.yaml'),
        *installed('config', '*.xml'),
        *installed('config/rviz', '*.rviz'),
        *installed('config/foxglove', '*.json'),
    ],
    install_requires=requirements('requirements.txt'),
    extras_require={'test': requirements('requirements-test.txt')},
    zip_safe=False,
    entry_points={
        'console_scripts': [
            f'{NAME} = {NAME}.cli:main',
            *(f'{node} = {NAME}.nodes.{node}:main' for node in NODES),
        ],
    },
)
