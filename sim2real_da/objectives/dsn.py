# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""DSN, Domain Separation Networks (Bousmalis et al., NeurIPS 2016, arXiv 1608.06019).

The network's features H_c are what both domains share; a private encoder of each domain says the rest, H_p; a decoder
makes the picture again from both. With a similarity of the shared features (DANN or MMD, gamma their weight)

    L = L_task(source) + alpha * L_recon + beta * L_difference + L_similarity(gamma)
    L_recon      = 1/k ||e||^2 - 1/k^2 (sum e)^2,  e = x - decoder(H_c + H_p), mean over the pictures of both domains
    L_difference = ||H_c^T H_p||_F^2 / (number of entries) of source + the same of target.

The reconstruction error is blind to a constant (SIMSE: scale-invariant mean squared error). Rows of H are one picture
each, less the domain's mean and of length 1, so that the difference does not fall by making features small. The paper
writes the sum over the matrix's entries; its authors' program, to which its weights belong, takes their mean. As a sum
with those weights the difference is hundreds of times the task's loss and little else is learnt.

**Sign**: all terms are added and minimised; where the similarity is DANN's, the minus is in its reversal layer alone.
All of them are silent in the first ``start`` steps: the paper's 10,000 steps of the task alone.

Deviations: H_c is the network's deepest feature map. Where that has several cells (pose crops) encoders and decoder
work on maps, and rows of H are their means; the private encoders and the decoder are small convolutional networks.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.dsn import PrivateEncoder, SharedDecoder
from sim2real_da.objectives.base import Objective, Outputs
from sim2real_da.objectives.dann import Dann
from sim2real_da.objectives.features import has_target
from sim2real_da.objectives.mmd import Mmd


def scale_invariant_error(picture: Tensor, made: Tensor) -> Tensor:
    """Return 1/k ||e||^2 - 1/k^2 (sum e)^2 of each picture ``(B, ...)``, mean over them; k numbers in a picture."""
    error = (picture - made).flatten(1)
    return (error.square().mean(dim=1) - error.mean(dim=1).square()).mean()


def difference(shared: Tensor, private: Tensor) -> Tensor:
    """Return the mean square of H_c^T H_p's entries, rows centred over the batch and scaled to length 1.

    :param shared: ``(B, C)``
    :param private: ``(B, P)``
    """
    rows = [F.normalize(h - h.mean(dim=0), dim=1) for h in (shared, private)]
    return (rows[0].T @ rows[1]).square().mean()  # of (C, P)


class Dsn(Objective):
    """Private encoders, a shared decoder and a similarity of what is shared.

    :param channels: channels of the network's feature maps; the last is the deepest
    :param reconstruction: weight alpha; the paper: 0.01 to 0.15
    :param difference: weight beta; the paper: 0.05 to 0.075
    :param similarity: 'dann' or 'mmd'
    :param weight: gamma, of the similarity; the paper: 0.25 to 0.3
    :param start: steps of the task alone; DANN's lambda rises from there
    :param high: where DANN's lambda ends
    :param steps: steps after the start that stand for progress 1 of it; None: up to the end of the run
    """

    needs_target = True
    networks = ('classifier', 'pose')
    online = False

    def __init__(self, channels: tuple[int, ...], reconstruction: float = 0.1, difference: float = 0.05,
                 similarity: str = 'dann', weight: float = 0.25, start: int = 10000, high: float = 1.0,
                 steps: int | None = 10000) -> None:
        super().__init__()
        if similarity not in ('dann', 'mmd'):
            raise ValueError(f"similarity {similarity!r}: expected 'dann' or 'mmd'")
        self.reconstruction, self.difference, self.first = reconstruction, difference, start
        self.similarity: Objective = (
            Dann(channels, weight, high, steps) if similarity == 'dann' else Mmd(channels, weight))
        self.source_encoder, self.target_encoder = PrivateEncoder(channels[-1]), PrivateEncoder(channels[-1])
        self.decoder = SharedDecoder(channels[-1])

    def losses(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``reconstruction``, ``difference`` and the similarity's own loss; nothing before the start.

        Nothing, too, when the pass held no target sample.
        """
        step = outputs.step - self.first
        if step < 0 or not has_target(outputs) or outputs.batches is None or outputs.batches[1] is None:
            return {}
        shared, count = outputs.features[-1], outputs.source_count
        pictures = torch.cat([batch.images for batch in outputs.batches if batch is not None])
        height, width = shared.shape[-2:]
        private = torch.cat([self.source_encoder(pictures[:count], (height, width)),
                             self.target_encoder(pictures[count:], (height, width))])
        made = self.decoder(shared + private, (pictures.shape[-2], pictures.shape[-1]))
        both = [(h[:count], h[count:]) for h in (shared.mean(dim=(2, 3)), private.mean(dim=(2, 3)))]
        apart = sum((difference(c, p) for c, p in zip(*both)), start=shared.new_zeros(()))
        length = outputs.steps - self.first if outputs.steps is not None else None
        return {'reconstruction': self.reconstruction * scale_invariant_error(pictures, made),
                'difference': self.difference * apart,
                **self.similarity.losses(replace(outputs, step=step, steps=length))}

    def metrics(self) -> dict[str, float]:
        """Return those of the similarity: DANN's lambda and its discriminators' accuracy."""
        return self.similarity.metrics()
