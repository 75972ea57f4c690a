# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""One learning step after another on simulated and real batches; an averaged teacher is what gets published.

Batch normalisation: source and target samples go through the network in **one** forward pass in training mode, so the
statistics are those of both domains together, for the student as for the teacher that is published. Two passes would
normalise each domain by itself while training and then publish statistics that fit neither, and a recipe without a
target objective (the control) never lets the network see a target sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sim2real_da.data.augment import camera_effects
from sim2real_da.networks.batches import PoseBatcher, detector_batch, pseudo_detector_batch, target_images
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.crops import crop_transform, cut
from sim2real_da.networks.detector import Detector, DetectorOutput, decode
from sim2real_da.networks.estimator import to_tensor
from sim2real_da.networks.pose import PoseNetwork
from sim2real_da.networks.pseudo_labels import pseudo_labels
from sim2real_da.objectives import Objective, Outputs
from sim2real_da.recipes import Recipe
from sim2real_da.samples import Frame, LabelledFrame

WINDOW = (192, 192)  # pixels of the detector's input a step trains on, as in sim2real_da.training
TEACHER_SCORE = 0.15  # detections of the teacher that give target crops; crops carry no labels, so a low bar is safe


@torch.no_grad()
def average(teacher: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the teacher towards the student: t = a t + (1 - a) s, a = min(1 - 1 / (step + 1), decay).

    Buffers are averaged as parameters are (whole numbers copied): the running statistics of batch normalisation belong
    to the weights. The first step (0) copies. Mean teacher (Tarvainen and Valpola, NeurIPS 2017).
    """
    alpha = min(1 - 1 / (step + 1), decay)
    for mine, other in zip(teacher.state_dict().values(), student.state_dict().values()):
        if mine.is_floating_point():
            mine.lerp_(other, 1 - alpha)
        else:
            mine.copy_(other)


class Learner:
    """Trains a copy of a bundle by a recipe.

    :param bundle: where to start; it is left as it is
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, device: str = 'cpu', seed: int = 0) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.generator = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.student = bundle.copy().to(self.device)
        self.teacher = bundle.copy().to(self.device)
        self.batcher = PoseBatcher(bundle.objects, bundle.pose, device=self.device)
        self.pseudo_batcher = PoseBatcher(bundle.objects, bundle.pose, device=self.device, effects=camera_effects)
        self.step_count = 0
        networks: dict[str, Detector | PoseNetwork] = {'detector': self.student.detector, 'pose': self.student.pose}
        self.objectives: dict[str, list[Objective]] = {
            name: [o.to(self.device) for o in recipe.build(name, network.feature_channels)]
            for name, network in networks.items()}
        parameters = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
        players = [p for group in self.objectives.values() for o in group for p in o.parameters()]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=0.01)]
        if players:
            self.optimisers.append(torch.optim.Adam(players, recipe.discriminator_rate, betas=(0.5, 0.99)))
        self.parameters = parameters
        self.skipped = 0
        for network in networks.values():
            network.train()
        self.teacher.detector.eval()
        self.teacher.pose.eval()

    @property
    def needs_target(self) -> bool:
        """Whether any objective of the recipe looks at real frames."""
        return any(o.needs_target for group in self.objectives.values() for o in group)

    @property
    def needs_pseudo_labels(self) -> bool:
        """Whether any objective of the recipe wants the teacher's labels of real frames."""
        return any(o.needs_pseudo_labels for group in self.objectives.values() for o in group)

    def step(self, source: Sequence[LabelledFrame], target: Sequence[Frame]) -> dict[str, float]:
        """Train both networks once and return losses and metrics by name (``network/loss``).

        A step whose loss is not finite changes nothing and is counted in ``skipped``.
        """
        losses, metrics = self._losses(source, target)
        total = torch.stack(list(losses.values())).sum()
        report = {name: float(loss.detach()) for name, loss in losses.items()} | metrics
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 10.0)
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            self.skipped += 1
            return report | {'skipped': float(self.skipped)}
        for optimiser in self.optimisers:
            optimiser.step()
        average(self.teacher.detector, self.student.detector, self.recipe.ema, self.step_count)
        average(self.teacher.pose, self.student.pose, self.recipe.ema, self.step_count)
        self.step_count += 1
        return report

    def candidate(self) -> Bundle:
        """Return a copy of the teacher, ready to be validated."""
        teacher = self.teacher.copy()
        teacher.detector.eval()
        teacher.pose.eval()
        return teacher

    def _losses(
        self, source: Sequence[LabelledFrame], target: Sequence[Frame],
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        bundle, rng = self.student, self.generator
        losses: dict[str, Tensor] = {}
        metrics: dict[str, float] = {}
        needs = {name: any(o.needs_target for o in group) for name, group in self.objectives.items()}
        pseudo = [pseudo_labels(self.teacher, f, self.device) for f in target] if self.needs_pseudo_labels else []

        size = bundle.detector.input_size
        images, targets = detector_batch(source, bundle.classes, size, rng, WINDOW, self.device)
        count, labelled = len(images), None
        if needs['detector']:
            if pseudo:
                extra, labelled = pseudo_detector_batch(
                    pseudo, bundle.classes, size, rng, WINDOW, self.device, camera_effects)
            else:
                unlabelled = [LabelledFrame(frame, ()) for frame in target]
                extra, _ = detector_batch(unlabelled, bundle.classes, size, rng, WINDOW, self.device)
            images = torch.cat([images, extra])
        output = bundle.detector(images)
        features = output.features
        on_source = DetectorOutput(output.heat[:count], output.sides[:count], output.semantic[:count], [])
        on_target = DetectorOutput(output.heat[count:], output.sides[count:], output.semantic[count:], [])
        self._collect('detector', Outputs(on_source, targets, features, count, self.step_count, on_target, labelled),
                      losses, metrics)

        crops = self.batcher.batch(source, rng, self.recipe.crops)
        posed = self.pseudo_batcher.batch(
            [LabelledFrame(x.frame, x.posed) for x in pseudo], rng, self.recipe.crops, empty=False) if pseudo else None
        seen = self._target_crops(target) if needs['pose'] and posed is None else None
        if crops is not None:
            images, pose_targets = crops
            count, labels = len(images), None
            if posed is not None:
                images, labels = torch.cat([images, posed[0]]), posed[1]
            elif seen is not None:
                images = torch.cat([images, seen])
            pose = bundle.pose(images)
            features = pose.features
            self._collect('pose', Outputs(pose.rows(0, count), pose_targets, features, count, self.step_count,
                                          pose.rows(count), labels), losses, metrics)
        return losses, metrics

    def _collect(self, network: str, outputs: Outputs, losses: dict[str, Tensor], metrics: dict[str, float]) -> None:
        for objective in self.objectives[network]:
            losses.update({f'{network}/{k}': v for k, v in objective.losses(outputs).items()})
            metrics.update({f'{network}/{k}': v for k, v in objective.metrics().items()})

    @torch.no_grad()
    def _target_crops(self, frames: Sequence[Frame]) -> Tensor | None:
        """Return crops ``(B, 3, size, size)`` where the teacher sees objects in real frames, None without."""
        size = self.student.pose.crop_size
        full = self.teacher.detector.input_size
        output = self.teacher.detector(target_images(frames, full, self.device))
        found = []
        for frame, (boxes, scores, _) in zip(frames, decode(output, TEACHER_SCORE, 20)):
            height, width = frame.image.shape[:2]
            scale = min(full[0] / width, full[1] / height)
            found += [(float(score), frame, box / scale) for box, score in zip(boxes.cpu().numpy(), scores.cpu())]
        if not found:
            return None
        # all of them compete, the best win: a batch of one frame's weak guesses would be mostly background
        found.sort(key=lambda item: -item[0])
        angles = np.radians(self.generator.uniform(-self.batcher.turn, self.batcher.turn, self.recipe.crops))
        return to_tensor([cut(frame.image, crop_transform(box, size, float(angle)), size)
                          for (_, frame, box), angle in zip(found, angles)], self.device)

