# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One learning step after another on simulated and real batches; an averaged teacher is what gets published.

Batch normalisation: source and target samples go through the network in **one** forward pass in training mode, so the
statistics are those of both domains together, for the student as for the teacher that is published. Two passes would
normalise each domain by itself while training and then publish statistics that fit neither, and a recipe without a
target objective (the control) never lets the network see a target sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sim2real_da.adaptation import Adaptation
from sim2real_da.data.augment import camera_effects
from sim2real_da.networks.batches import PoseBatcher, detector_batch, pseudo_detector_batch, target_images
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crop_sets import FOUND_MOST, FOUND_SCORE
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.detector import decode
from sim2real_da.networks.distributed import everywhere, own_seed
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.networks.pseudo_labels import pseudo_labels
from sim2real_da.networks.scene_labels import SceneLabeller
from sim2real_da.networks.weights_file import WeightsError, pack, unpack
from sim2real_da.objectives import Batch, SelfTraining
from sim2real_da.recipes import Recipe, RecipeError
from sim2real_da.samples import Frame, LabelledFrame
from sim2real_da.static_scene import FEWEST_OBJECTS

WINDOW = (192, 192)  # pixels of the detector's input a step trains on, as in sim2real_da.training
CLASS_SCORE = 0.3  # detections of the teacher that say what a frame shows


class Learner:
    """Trains a copy of a bundle by a recipe.

    :param bundle: where to start; it is left as it is
    :raises RecipeError: for a recipe with an objective that cannot learn on a stream
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, device: str = 'cpu', seed: int = 0) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.generator = np.random.default_rng(own_seed(seed))
        torch.manual_seed(seed)
        self.student = bundle.copy().to(self.device)
        self.batcher = PoseBatcher(bundle.objects, bundle.pose, device=self.device)
        self.pseudo_batcher = PoseBatcher(bundle.objects, bundle.pose, device=self.device, effects=camera_effects)
        self.step_count = 0
        self.teacher = self.student.copy()
        self.parts = {
            name: Adaptation(getattr(self.student, name), name, recipe, getattr(self.teacher, name))
            for name in ('detector', 'pose')}
        for part in self.parts.values():
            for objective in part.objectives:
                if not objective.online:
                    raise RecipeError(f'recipe {recipe.name}: {type(objective).__name__} learns on stored pictures '
                                      'only (sim2real_da benchmark); see docs/techniques.md for what can learn online')
        self.unique = any(isinstance(o, SelfTraining) and o.unique for o in self.parts['detector'].objectives)
        self.skipped = 0
        self.scene: SceneLabeller | None = None
        if any(isinstance(o, SelfTraining) and o.static_scene for p in self.parts.values() for o in p.objectives):
            if len(bundle.classes) < FEWEST_OBJECTS:
                raise RecipeError(f'recipe {recipe.name}: static_scene wants {FEWEST_OBJECTS} objects or more to tell '
                                  f'the camera from them; the model knows {", ".join(bundle.classes)}')
            self.scene = SceneLabeller(self.device)

    @property
    def target_crops(self) -> int:
        """Crops of real frames in a step."""
        return self.recipe.target_crops or self.recipe.crops

    @property
    def needs_target(self) -> bool:
        """Whether any objective of the recipe looks at real frames."""
        return any(part.needs_target for part in self.parts.values())

    @property
    def needs_pseudo_labels(self) -> bool:
        """Whether any objective of the recipe wants the teacher's labels of real frames."""
        return any(part.needs_pseudo_labels for part in self.parts.values())

    def slow(self, pace: float) -> None:
        """Go on with this share of the recipe's learning rates."""
        for part in self.parts.values():
            part.pace = pace

    def step(self, source: Sequence[LabelledFrame], target: Sequence[Frame]) -> dict[str, float]:
        """Train both networks once and return losses and metrics by name (``network/loss``).

        A step whose loss is not finite changes nothing, in neither network, and is counted in ``skipped``.
        """
        losses = self._losses(source, target)
        # a part for which one of several processes has nothing is left out by all
        for name in self.parts:
            if not everywhere(name in losses, self.device) and losses.pop(name, None) is not None:
                self.parts[name].restore()
        report = {f'{part}/{name}': float(loss.detach()) for part, own in losses.items() for name, loss in own.items()}
        if not all([self.parts[name].backward(own) for name, own in losses.items()]):
            for name in losses:  # neither network keeps anything of this step
                self.parts[name].restore()
            self.skipped += 1
            return report | {'skipped': float(self.skipped)}
        for name in losses:
            report.update({f'{name}/{k}': v for k, v in self.parts[name].apply().items()})
        self.step_count += 1
        return report if self.scene is None else report | {'scene/labelled': self.scene.share}

    @torch.no_grad()
    def classes(self, frame: Frame) -> set[str]:
        """Return which classes the teacher finds in a real frame."""
        teacher = self.teacher.detector
        images = target_images([frame], teacher.input_size, self.device)
        _, _, found = decode(teacher(images), CLASS_SCORE)[0]
        return {self.student.classes[int(c)] for c in found}

    def candidate(self) -> Bundle:
        """Return a copy of the teacher, ready to be validated."""
        teacher = self.teacher.copy()
        teacher.detector.eval()
        teacher.pose.eval()
        if self.scene is not None and self.scene.log_sizes:
            teacher.log_sizes = dict(self.scene.log_sizes)
        return teacher

    def state(self, about: Mapping[str, Any] | None = None) -> bytes:
        """Return what a later learner needs to go on from here, as a checksummed safetensors file.

        :param about: JSON of the caller's, returned by :meth:`load_state`
        """
        tensors = {f'{name}.{k}': v.detach().cpu().contiguous() for name, part in self.parts.items()
                   for k, v in part.state().items()}
        tensors['random'] = torch.get_rng_state()
        if self.device.type == 'cuda':
            tensors['random_cuda'] = torch.cuda.get_rng_state(self.device)
        return pack(tensors, {
            'kind': 'learner', 'recipe': self.recipe.name, 'step_count': self.step_count, 'skipped': self.skipped,
            'generator': self.generator.bit_generator.state, 'about': dict(about or {})})

    def load_state(self, data: bytes, random: bool = True) -> dict[str, Any]:
        """Go on from a :meth:`state`; return what the caller had put beside it.

        :param random: whether random numbers go on, too; after a rollback they would repeat what went wrong
        :raises WeightsError: for a damaged file, or the state of another recipe or other networks; this learner is not
            to be used then
        """
        manifest, tensors = unpack(data, 'learner')
        if manifest.get('recipe') != self.recipe.name:
            raise WeightsError(f'learner: the state of recipe {manifest.get("recipe")}, expected {self.recipe.name}')
        try:
            for name, part in self.parts.items():
                part.load_state({k.removeprefix(f'{name}.'): v for k, v in tensors.items() if k.startswith(f'{name}.')})
            self.step_count, self.skipped = int(manifest['step_count']), int(manifest['skipped'])
            if random:
                self.generator.bit_generator.state = manifest['generator']
                torch.set_rng_state(tensors['random'])
                if self.device.type == 'cuda' and 'random_cuda' in tensors:
                    torch.cuda.set_rng_state(tensors['random_cuda'], self.device)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(f'learner: {error}') from error
        return dict(manifest.get('about') or {})

    def _losses(self, source: Sequence[LabelledFrame], target: Sequence[Frame]) -> dict[str, dict[str, Tensor]]:
        bundle, rng = self.student, self.generator
        losses: dict[str, dict[str, Tensor]] = {}
        needs = {name: part.needs_target for name, part in self.parts.items()}
        pseudo = [(self.scene and self.scene.of(f)) or pseudo_labels(self.teacher, f, self.device, self.unique)
                  for f in target] if self.needs_pseudo_labels else []

        size = bundle.detector.input_size
        on_source = Batch(*detector_batch(source, bundle.classes, size, rng, WINDOW, self.device))
        on_target = None
        if needs['detector'] and pseudo:
            on_target = Batch(*pseudo_detector_batch(
                pseudo, bundle.classes, size, rng, WINDOW, self.device, camera_effects))
        elif needs['detector']:
            unlabelled = [LabelledFrame(frame, ()) for frame in target]
            on_target = Batch(detector_batch(unlabelled, bundle.classes, size, rng, WINDOW, self.device)[0])
        losses['detector'] = self.parts['detector'].losses(on_source, on_target)

        crops = self.batcher.batch(source, rng, self.recipe.crops)
        posed = self.pseudo_batcher.batch(
            [LabelledFrame(x.frame, x.posed) for x in pseudo], rng, self.target_crops, empty=False) if pseudo else None
        on_target = Batch(*posed) if posed is not None else None
        if crops is not None and needs['pose'] and posed is None:
            seen = self._target_crops(target)
            on_target = Batch(seen) if seen is not None else None
        if not everywhere(on_target is not None, self.device):  # players step together, or not at all
            on_target = None
        if crops is not None:
            losses['pose'] = self.parts['pose'].losses(Batch(*crops), on_target)
        return losses

    @torch.no_grad()
    def _target_crops(self, frames: Sequence[Frame]) -> Tensor | None:
        """Return crops ``(B, 3, size, size)`` where the teacher sees objects in real frames, None without."""
        size = self.student.pose.crop_size
        full = self.teacher.detector.input_size
        output = self.teacher.detector(target_images(frames, full, self.device))
        found = []
        for frame, (boxes, scores, _) in zip(frames, decode(output, FOUND_SCORE, FOUND_MOST)):
            height, width = frame.image.shape[:2]
            scale = min(full[0] / width, full[1] / height)
            found += [(float(score), frame, box / scale) for box, score in zip(boxes.cpu().numpy(), scores.cpu())]
        if not found:
            return None
        # all of them compete, the best win: a batch of one frame's weak guesses would be mostly background
        found.sort(key=lambda item: -item[0])
        angles = np.radians(self.generator.uniform(-self.batcher.turn, self.batcher.turn, self.target_crops))
        return to_tensor([cut(frame.image, crop_transform(box, size, float(angle)), size)
                          for (_, frame, box), angle in zip(found, angles)], self.device)

