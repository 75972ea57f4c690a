# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""How good is a network on the target? Scores that need no target label; higher is better, always.

With N target rows p_i over C classes, features z_i, labelled source rows (x_j, y_j) that no training step saw, and
H(p) = -sum_c p_c log p_c (natural logarithm, 0 log 0 = 0):

=====================  ==============================================================================================
``source_validation``  accuracy on the source rows, or the network's own metric there (``Evidence.source_score``)
``entropy``            -mean H(p_i). **Rewards collapse**: a network that always says one class has the best score
``infomax``            H(mean p) - mean H(p_i), the mutual information of row and class (Bridle et al., NeurIPS 1991)
``bnm``                ||P||_* / N, nuclear norm of the N x C matrix (Cui et al., CVPR 2020): sure and diverse. It falls
                       as 1 / sqrt(N): compare at one N only
``snd``                mean entropy of the rows of softmax(cos(z_i, z_j) / 0.05) over j != i (Saito et al., ICCV 2021).
                       Features that collapse to one point have the **best** score, log(N - 1)
``dev``                -(mean(w l) + eta mean(w) - eta), eta = -cov(w l, w) / var(w): the source rows' cross entropy l,
                       weighted by the ratio of the domains' densities w, with a control variate (You et al., ICML 2019)
``devn``               the same with w / max(w) (Musgrave et al., arXiv 2208.07360): tamer where few rows weigh all
``rankme``             exp(H(sigma / sum sigma)), sigma the singular values of the target features (Garrido et al., ICML
                       2023): how many directions are in use. A detector of collapse more than a score
``teacher_agreement``  -mean KL(q_i || p_i), q another network's rows: the averaged teacher, or the frozen source model.
                       The averaged teacher drifts with the network
``reprojection``       share of the target instances on whose pose all views of the crop agree (15 degrees up to
                       symmetries, middles within a tenth of the box); a view without a pose disagrees
=====================  ==============================================================================================

The weights of DEV are exp(z) of a domain classifier's logit, here a regularised logistic regression on standardised
features, fitted on one half of the source rows and all target rows and read on the other half, then the other way
round. (The paper fits a small network on the *training* source; a validator here needs nothing but held-out rows.)

Musgrave et al. compare most of these on a million checkpoints: none wins everywhere, source validation is hard to beat
but blind to harm on the target. :mod:`sim2real_da.evaluation.evidence` collects the rows from networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import entr, expit, rel_entr, softmax

from sim2real_da.networks.pseudo_labels import AGREE_DEG, AGREE_PIXELS

Array = NDArray[np.float64]

TEMPERATURE = 0.05  # of SND
LEAST = 1e-6  # probabilities are not taken for smaller before a logarithm that counts
PENALTY = 0.1  # on the squared weights of the domain classifier; without it few rows in many dimensions are separable
WIDEST = 20.0  # largest logit of the domain classifier that is read
CHUNK = 1024  # rows of the similarity matrix in memory at once


@dataclass(frozen=True)
class Evidence:
    """What a validator may look at: labelled source rows that no training step saw, and unlabelled target rows.

    A row is a picture, a crop or a detected instance.

    :param source: class probabilities ``(M, C)``
    :param labels: their classes ``(M,)``
    :param source_features: ``(M, D)``
    :param target: class probabilities ``(N, C)``
    :param target_features: ``(N, D)``
    :param teacher: another network's probabilities of the same target rows ``(N, C)``; None without one
    :param views: greatest angle in degrees and distance (share of the box) between the poses of an instance's first
        view and of the others, ``(K, 2)``, infinite where a view has no pose; None for a network without poses
    :param source_score: the network's own metric on held-out source where the accuracy of rows is not its task
    :raises ValueError: for shapes that do not fit, no rows, or rows that are no distributions
    """

    source: Array
    labels: NDArray[np.int64]
    source_features: Array
    target: Array
    target_features: Array
    teacher: Array | None = None
    views: Array | None = None
    source_score: float | None = None

    def __post_init__(self) -> None:
        rows = {'source': self.source, 'target': self.target, 'teacher': self.teacher}
        for name, p in rows.items():
            if p is None:
                continue
            if p.ndim != 2 or not len(p) or p.shape[1] != self.source.shape[1]:
                raise ValueError(f'evidence: {name} {p.shape}, expected (rows, {self.source.shape[-1]} classes) and at '
                                 'least one row')
            if not (np.all(p >= 0) and np.allclose(p.sum(axis=1), 1, atol=1e-3)):
                raise ValueError(f'evidence: the rows of {name} are no probabilities that sum to 1')
        beside = {'labels': (self.labels, self.source), 'source_features': (self.source_features, self.source),
                  'target_features': (self.target_features, self.target), 'teacher': (self.teacher, self.target)}
        for name, (value, of) in beside.items():
            if value is not None and len(value) != len(of):
                raise ValueError(f'evidence: {len(value)} rows of {name}, expected {len(of)}')
        if self.labels.min() < 0 or self.labels.max() >= self.source.shape[1]:
            raise ValueError(f'evidence: labels from {self.labels.min()} to {self.labels.max()}, expected 0 to '
                             f'{self.source.shape[1] - 1}')


def source_validation(evidence: Evidence) -> float:
    """Return the network's own metric on held-out source, or else the accuracy of its rows."""
    if evidence.source_score is not None:
        return evidence.source_score
    return float(np.mean(evidence.source.argmax(axis=1) == evidence.labels))


def entropy(evidence: Evidence) -> float:
    """Return -mean H(p): 0 for one-hot rows, -log C for uniform ones."""
    return -float(entr(evidence.target).sum(axis=1).mean())


def infomax(evidence: Evidence) -> float:
    """Return H(mean p) - mean H(p): log C for balanced one-hot rows, 0 when all rows are alike."""
    return mutual_information(evidence.target)


def mutual_information(rows: Array) -> float:
    """Return H(mean p) - mean H(p) of class probabilities ``(N, C)``."""
    return float(entr(rows.mean(axis=0)).sum() - entr(rows).sum(axis=1).mean())


def bnm(evidence: Evidence) -> float:
    """Return the nuclear norm of the target's probabilities over N: sqrt(C / N) for balanced one-hot rows."""
    return float(np.linalg.norm(evidence.target, 'nuc')) / len(evidence.target)


def snd(evidence: Evidence) -> float:
    """Return the soft neighbourhood density: log(N - 1) when all features are alike.

    :raises ValueError: for a single target row, which has no neighbour
    """
    features = evidence.target_features
    if len(features) < 2:
        raise ValueError('snd: one target row has no neighbours; give at least two')
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    rows = []
    for first in range(0, len(unit), CHUNK):
        part = unit[first:first + CHUNK]
        similarity = part @ unit.T / TEMPERATURE  # (n, N)
        similarity[np.arange(len(part)), np.arange(first, first + len(part))] = -np.inf
        rows.append(entr(softmax(similarity, axis=1)).sum(axis=1))
    return float(np.concatenate(rows).mean())


def domain_weights(source: Array, target: Array) -> Array:
    """Return p_target(x) / p_source(x) of every source row ``(M,)``, by cross-fitting over two halves.

    :raises ValueError: for fewer than two source rows
    """
    if len(source) < 2:
        raise ValueError(f'dev: {len(source)} source row(s), need at least two')
    weights = np.empty(len(source))
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1, None, 2) if half.start == 0 else slice(0, None, 2)
        weights[other] = _density_ratio(source[half], target, source[other])
    return weights


def _density_ratio(source: Array, target: Array, asked: Array) -> Array:
    """Fit a logistic regression on two domains of equal weight and return exp(logit) of the asked rows."""
    # each domain has half a say in the scale, too, whatever its number of rows
    middle = (source.mean(axis=0) + target.mean(axis=0)) / 2
    spread = np.sqrt((((source - middle) ** 2).mean(axis=0) + ((target - middle) ** 2).mean(axis=0)) / 2)
    spread[spread < 1e-9] = 1.0
    s, t, a = ((x - middle) / spread for x in (source, target, asked))

    def loss(parameters: Array) -> tuple[float, Array]:
        w, b = parameters[:-1], parameters[-1]
        zs, zt = s @ w + b, t @ w + b  # positive means target
        value = (np.logaddexp(0, zs).mean() + np.logaddexp(0, -zt).mean()) / 2 + PENALTY / 2 * w @ w
        ds, dt = expit(zs) / len(s), -expit(-zt) / len(t)
        return float(value), np.append((ds @ s + dt @ t) / 2 + PENALTY * w, (ds.sum() + dt.sum()) / 2)

    found = minimize(loss, np.zeros(s.shape[1] + 1), jac=True, method='L-BFGS-B').x
    return np.asarray(np.exp(np.clip(a @ found[:-1] + found[-1], -WIDEST, WIDEST)))


def weighted_risk(losses: Array, weights: Array) -> float:
    """Return mean(w l) + eta mean(w) - eta with eta = -cov(w l, w) / var(w), which is the plain mean for w = 1."""
    weighted = weights * losses
    spread = float(np.var(weights))
    if spread < 1e-12:  # equal weights: nothing to control, and the quotient would be of rounding errors
        return float(weighted.mean())
    eta = -float(np.mean((weighted - weighted.mean()) * (weights - weights.mean()))) / spread
    return float(weighted.mean() + eta * weights.mean() - eta)


def _source_losses(evidence: Evidence) -> Array:
    return -np.log(np.maximum(evidence.source[np.arange(len(evidence.labels)), evidence.labels], LEAST))


def dev(evidence: Evidence) -> float:
    """Return minus the deep embedded validation risk; the source's own risk when the domains are equal."""
    weights = domain_weights(evidence.source_features, evidence.target_features)
    return -weighted_risk(_source_losses(evidence), weights)


def devn(evidence: Evidence) -> float:
    """Return the same with weights divided by their greatest."""
    weights = domain_weights(evidence.source_features, evidence.target_features)
    return -weighted_risk(_source_losses(evidence), weights / weights.max())


def rankme(evidence: Evidence) -> float:
    """Return the effective rank of the target features: k for k orthogonal directions of equal size."""
    values = np.linalg.svd(evidence.target_features, compute_uv=False)
    total = values.sum()
    return float(np.exp(entr(values / total).sum())) if total > 0 else 0.0


def teacher_agreement(evidence: Evidence) -> float:
    """Return -mean KL(teacher || network): 0 when both say the same.

    :raises ValueError: without a teacher
    """
    if evidence.teacher is None:
        raise ValueError('teacher_agreement: the evidence has no teacher rows')
    return -float(rel_entr(evidence.teacher, np.maximum(evidence.target, LEAST)).sum(axis=1).mean())


def reprojection(evidence: Evidence) -> float:
    """Return the share of the instances on whose pose the views agree, as pseudo-labels are believed; 0 without.

    :raises ValueError: for a network without poses
    """
    if evidence.views is None:
        raise ValueError('reprojection: the evidence has no poses of several views')
    if not len(evidence.views):
        return 0.0
    return float(np.mean((evidence.views[:, 0] < AGREE_DEG) & (evidence.views[:, 1] < AGREE_PIXELS)))


VALIDATORS: dict[str, Callable[[Evidence], float]] = {
    'source_validation': source_validation, 'entropy': entropy, 'infomax': infomax, 'bnm': bnm, 'snd': snd, 'dev': dev,
    'devn': devn, 'rankme': rankme, 'teacher_agreement': teacher_agreement, 'reprojection': reprojection}
_NEEDS = {'teacher_agreement': 'teacher', 'reprojection': 'views'}


def scores(evidence: Evidence) -> dict[str, float]:
    """Return every validator's score, without those that need what the evidence has not."""
    return {name: validator(evidence) for name, validator in VALIDATORS.items()
            if name not in _NEEDS or getattr(evidence, _NEEDS[name]) is not None}
