# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""``sim2real_da export``: both networks as ONNX files, and a manifest that says how to read what they put out.

For runtimes other than PyTorch. What lies around the networks (resizing, peaks, crops, poses) is arithmetic that stays
outside the files; ``manifest.json`` spells it out, so a reader needs no code of this package.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sim2real_da.networks.bundle import Bundle, write_atomically
from sim2real_da.networks.crops import CELL, PADDING
from sim2real_da.networks.detector import STRIDE
from sim2real_da.networks.estimator import POSE_SCORE
from sim2real_da.networks.pose import VIEWS
from sim2real_da.resources import weights_path

FORMAT = 'sim2real_da/onnx/1'
INPUT = 'images'

# What each output means; H, W: the detector's input, S: side of a crop, s = S / 2, C: number of classes.
DETECTOR_OUTPUTS = {
    'heat': 'class logits, (batch, C, H/4, W/4)',
    'sides': 'distances left, top, right, bottom from a cell to the sides of its box in input pixels, '
             '(batch, 4, H/4, W/4)',
    'semantic': 'logits (batch, 1 + C, H/4, W/4); channel 0 is background',
}
POSE_OUTPUTS = {
    'direct': {
        'rotation': 'of the object as the crop shows it, for each class, (batch, C, 3, 3)',
        'centre': "projected middle of the object's box, from the crop's middle in units of its side, (batch, C, 2)",
        'size': "logarithm of the diameter's share of the crop's side, (batch, C)",
        'spread': 'logarithms of the standard deviations of centre, size and rotation (radians), (batch, C, 3)',
        'classes': 'logits (batch, C + 1); the last one is "none of them"',
    },
    'dense': {
        'coordinates': "for each class, the point of the object that a cell shows: -1..1 along each axis of the "
                       "object's box, (batch, C, 3, s, s)",
        'mask': 'logits of "this cell shows the object", (batch, C, s, s)',
        'classes': 'logits (batch, C + 1); the last one is "none of them"',
    },
}
DETECTOR_STEPS = (
    'input: RGB, resized by f = min(W / width, H / height) with its aspect kept, padded right and below with black, '
    'divided by 255',
    'p = sigmoid(heat); a peak is a cell that is the largest of its 3 x 3 neighbours in its channel',
    f'cell (row, column) is at x = {STRIDE} column + {(STRIDE - 1) / 2}, y = {STRIDE} row + {(STRIDE - 1) / 2}; '
    'its box is (x - left, y - top, x + right, y + bottom)',
    'non-maximum suppression within each class at intersection over union 0.5',
    'image pixel = (input pixel + 0.5) / f - 0.5; the centre of a pixel has integer coordinates',
)
CROP_STEPS = (
    f'crop pixel = k * image pixel + t with k = S / longer side of the box / {PADDING} and '
    't = (S - 1) / 2 - k * middle of the box; outside of the image is black; RGB divided by 255',
    'bilinear; where k < 1, sample at n = min(round(1 / k), 4) times the size and average n x n pixels',
    'score of a detection: sqrt(p * softmax(classes)[its class]); no pose is computed below '
    f'{POSE_SCORE}',
    'views: cut the object once more for each further one, turned and padded as listed (the crop is what a rotation of '
    'the image about the middle of the box by turn_deg shows); the pose is the mean of those that give one, at least '
    'half of them',
    'looks: with 2, the first crop gives a first pose alone; then all views are cut around it, with the square whose '
    "middle is the projected middle of the object's box and whose side is fx * diameter / depth instead of the "
    "detector's box",
    'outlines: where true, the package moves the pose until the outline lies where a third network, which is not '
    'exported, sees it, for an object that looks larger than its model by log_sizes (natural logarithm), and the '
    'covariance is that of this pose',
)
POSE_STEPS = {
    'direct': (
        'take the row of the detected class; fx, cx …, K: of the image, without lens distortion',
        'image pixel of the middle: m = (centre * S + (S - 1) / 2 - t) / k',
        'depth = fx * diameter * k / (exp(size) * S); place = depth * inverse(K) * (m, 1)',
        'R = Q * rotation, Q the smallest rotation that turns (0, 0, 1) into the direction of place',
        "translation = place - R * (object's minimum + object's size / 2)",
        'standard deviations: exp(spread), of m in units of S / k pixels, of the depth relative to it, of the rotation '
        'in radians about each axis; the package drops a pose beyond 60 degrees',
    ),
    'dense': (
        'take the channels of the detected class',
        f'cell (row, column) is at crop pixel ({CELL} column + {(CELL - 1) / 2}, {CELL} row + {(CELL - 1) / 2}); it '
        'shows the object where sigmoid(mask) > 0.5',
        "point in the object's frame = object's minimum + (1 + coordinates) * object's size / 2",
        'perspective-n-point from these points and their image pixels ((crop pixel - t) / k): RANSAC with a '
        f'reprojection error of {1.5 * CELL:g} / k image pixels, then least squares on the inliers',
    ),
}


class TensorsOf(nn.Module):
    """A network whose answer is the tensors of its output's fields, in their order; lists (features) are left out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run on images ``(B, 3, H, W)`` in [0, 1]."""
        return tuple(named_tensors(self.network(images)).values())


def named_tensors(output: object) -> dict[str, Tensor]:
    """Return the tensors of an output by the names of its fields."""
    return {name: value for name, value in vars(output).items() if isinstance(value, Tensor)}


def export_network(network: nn.Module, size: tuple[int, int], path: Path) -> None:
    """Write a network in evaluation mode as one ONNX file; the batch is as large as the caller's.

    :param size: (width, height) of its input
    :raises ValueError: when a package for this is not installed
    """
    for name in ('onnx', 'onnxscript'):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f'export: the Python package {name} is missing; pip install onnx onnxscript')
    # a batch of two: a dimension of one would be taken for fixed
    images = torch.zeros(2, 3, size[1], size[0])
    with torch.no_grad():
        names = list(named_tensors(network(images)))
    # dynamo=True costs one more package, onnxscript; the exporter that does without is deprecated (torch 2.9).
    program = torch.onnx.export(
        TensorsOf(network).eval(), (images,), dynamo=True, input_names=[INPUT], output_names=names,
        dynamic_shapes=({0: 'batch'},), external_data=False, verbose=False)
    assert program is not None
    write_atomically(path, program.model_proto.SerializeToString())


def manifest(bundle: Bundle) -> dict[str, Any]:
    """Return what a reader of the two files has to know."""
    width, height = bundle.detector.input_size
    representation, size = bundle.pose.config['representation'], bundle.pose.crop_size
    return {
        'format': FORMAT, 'version': bundle.version, 'recipe': bundle.recipe, 'note': bundle.note,
        'conventions': 'float32 tensors; metres; poses map the frame of the CAD model to the camera (x right, y down, '
                       'z forward); boxes are x0 y0 x1 y1 in pixels',
        'classes': list(bundle.classes),
        'objects': [model.to_dict() for model in bundle.objects.values()],
        'detector': {
            'file': 'detector.onnx', 'input': {INPUT: ['batch', 3, height, width]}, 'stride': STRIDE,
            'outputs': DETECTOR_OUTPUTS, 'steps': list(DETECTOR_STEPS)},
        'pose': {
            'file': 'pose.onnx', 'input': {INPUT: ['batch', 3, size, size]}, 'representation': representation,
            'crop_size': size, 'padding': PADDING, 'looks': bundle.pose.looks,
            'views': [{'turn_deg': round(float(np.degrees(turn)), 3), 'padding': padding}
                      for turn, padding in VIEWS[:bundle.pose.views]],
            'outlines': bundle.outline is not None, 'log_sizes': bundle.log_sizes,
            'outputs': POSE_OUTPUTS[representation],
            'steps': [*CROP_STEPS, *POSE_STEPS[representation]],
            'covariance_factors': dict(zip(('translation', 'rotation'), bundle.covariance_factors))},
    }


def export(bundle: Bundle, folder: Path) -> None:
    """Write ``detector.onnx``, ``pose.onnx`` and ``manifest.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    export_network(bundle.detector, bundle.detector.input_size, folder / 'detector.onnx')
    export_network(bundle.pose, (bundle.pose.crop_size, bundle.pose.crop_size), folder / 'pose.onnx')
    text = json.dumps(manifest(bundle), indent=2, ensure_ascii=False) + '\n'
    write_atomically(folder / 'manifest.json', text.encode())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``sim2real_da export``."""
    parser.add_argument('--weights', required=True, help="weights file, or the name of shipped ones ('tools')")
    parser.add_argument('--out', required=True, type=Path, help='folder for the three files')


def run(options: argparse.Namespace) -> None:
    """Write the files that the command line asks for.

    :raises ValueError: for weights that cannot be used, or a package that is missing
    """
    export(Bundle.load(weights_path(options.weights)), options.out)
    sys.stdout.write(f'{options.out}: detector.onnx, pose.onnx, manifest.json\n')
