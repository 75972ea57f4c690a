# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The online session on stored frames: what a robot's run does, without a robot and as fast as it goes."""

from __future__ import annotations

import logging
import tempfile
import time
from typing import Any

import numpy as np

from sim2real_da.networks.bundle import Bundle
from sim2real_da.online.session import AdaptationSession
from sim2real_da.online.store import WeightStore
from sim2real_da.recipes import load_recipe
from sim2real_da.samples import Frame, LabelledFrame

LOG = logging.getLogger(__name__)
GATE_EVERY = 25  # steps between two candidates
TOLERANCE = 0.01  # of the gate, as the robot's


def adapt(
    bundle: Bundle, recipe: str, seed: int, source: list[LabelledFrame], target: list[Frame], *, steps: int,
    holdout: int, gate_every: int = GATE_EVERY, tolerance: float = TOLERANCE, device: str = 'cpu',
    evidence: bool = True,
) -> tuple[Bundle, dict[str, Any]]:
    """Run one arm from a source model; return what is published at its end and how it went.

    :param source: simulated frames; the first ``holdout`` are the gate's
    :param recipe: its name, or the path of a YAML file
    :param target: real frames; a type that carries no labels
    :param tolerance: how far the scores on held-out simulation may fall, 0..1
    :param evidence: whether the real frames have a say in the gate
    :returns: the bundle; promotions, rejections, seconds and the last candidate's ``reason``
    :raises RuntimeError: when the session ends before its steps are done; the message has its reason
    """
    begin = time.monotonic()
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        session = AdaptationSession(
            bundle.copy(), load_recipe(recipe), WeightStore(folder), device=device, seed=seed, holdout=holdout,
            gate_every=gate_every, max_steps=steps, tolerance=tolerance, evidence=evidence,
            buffer_bytes=max(sum(frame.image.nbytes for frame in target), 1))
        for frame in source[:holdout]:
            session.add_source(frame)
        for i in rng.permutation(np.arange(holdout, len(source)))[:200]:
            session.add_source(source[i])
        for i in rng.permutation(len(target)):
            session.add_target(target[i])
        while session.state == 'adapting':
            before = session.step
            session.work()
            if session.step > before and session.step % 25 == 0:
                LOG.info('%s seed %d step %d: %s', recipe, seed, session.step, {
                    k: round(v, 3) for k, v in session.metrics.items() if '/' in k and 'error' not in k})
        if session.state != 'done':
            raise RuntimeError(f'{recipe}: {session.state}: {session.reason}')
        return session.current().copy(), {
            'promotions': session.promotions, 'rejections': session.rejections,
            'seconds': round(time.monotonic() - begin, 1), 'reason': session.reason}
