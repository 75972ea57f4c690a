# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of an adaptation: features of both domains before and after, and how well a discriminator told them apart.

The plane of an embedding is that of the two largest principal components of source and target rows together, of each
panel by itself: features of two networks have no axes in common. A plane shows what varies most, not all there is; two
domains that lie upon each other in it may still be apart in others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real_da.evaluation.report import smoothed

Array = NDArray[np.float64]

COLOURS = {'source': '#1f6fb4', 'target': '#e07b00'}
MARKERS = {'source': 'o', 'target': 'x'}
MOST = 500  # points of a domain in a panel; more hide each other
STYLE = {'font.size': 11, 'axes.spines.top': False, 'axes.spines.right': False, 'legend.frameon': False}


@dataclass(frozen=True)
class Features:
    """Features of one network.

    :param source: ``(M, D)``
    :param target: ``(N, D)``
    :param source_classes: ``(M,)``; None: points are coloured by domain
    :param target_classes: ``(N,)``: true classes where the picture is for an evaluation, else the network's
    """

    source: Array
    target: Array
    source_classes: NDArray[np.int64] | None = None
    target_classes: NDArray[np.int64] | None = None


def principal_plane(features: Array) -> tuple[Array, Array, Array]:
    """Return the mean ``(D,)``, two principal axes ``(2, D)`` and the share of the variance along each ``(2,)``.

    The sign of an axis is the one with a positive largest entry, so that a picture is the same each time.

    :raises ValueError: for fewer than two rows or columns
    """
    if features.ndim != 2 or min(features.shape) < 2:
        raise ValueError(f'embedding: features {features.shape}, expected at least two rows of at least two numbers')
    mean = features.mean(axis=0)
    _, values, axes = np.linalg.svd(features - mean, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    variance = values**2
    return mean, axes, variance[:2] / max(float(variance.sum()), 1e-300)


def projected(features: Features) -> dict[str, Any]:
    """Return the points of a panel, as JSON holds them.

    :returns: ``source`` and ``target``, lists of x and y; ``source_classes`` and ``target_classes`` where known;
        ``shares`` of the variance along x and y
    """
    mean, plane, shares = principal_plane(np.concatenate([features.source, features.target]))
    panel: dict[str, Any] = {'shares': [round(float(s), 4) for s in shares]}
    for domain, rows, classes in (('source', features.source, features.source_classes),
                                  ('target', features.target, features.target_classes)):
        # evenly spaced: rows may be sorted by class
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST)).astype(int)
        panel[domain] = np.round((rows[chosen] - mean) @ plane.T, 3).tolist()
        if classes is not None:
            panel[f'{domain}_classes'] = classes[chosen].tolist()
    return panel


def draw_embedding(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> None:
    """Draw two panels, before and after an adaptation; with classes these are hues and the domains are markers.

    :param before: of :func:`projected`
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.6), layout='constrained')
        for axis, title, panel in zip(axes, ('Before', 'After'), (before, after)):
            for domain in ('source', 'target'):
                x, y = np.array(panel[domain]).T
                classes = panel.get(f'{domain}_classes')
                look: dict[str, Any] = {'color': COLOURS[domain]} if classes is None else {
                    'c': np.array(classes) % 20, 'cmap': 'tab20', 'vmin': 0, 'vmax': 19}
                axis.scatter(x, y, s=14, alpha=0.6, linewidths=0.9 if domain == 'target' else 0,
                             marker=MARKERS[domain], label=domain, **look)
            axis.set(title=title, xticks=[], yticks=[], xlabel=f'{100 * panel["shares"][0]:.0f} % of the variance',
                     ylabel=f'{100 * panel["shares"][1]:.0f} %')
        axes[1].legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        pyplot.close(figure)


def accuracy_curves(history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and values of every logged accuracy of a discriminator, by the name it was logged with.

    :param history: what was logged at each step: :meth:`.Adaptation.step`'s reports, or a session's history. A step
        that did not log ``step`` is counted
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, entry in enumerate(history):
        for name, value in entry.items():
            if name.endswith('accuracy') and isinstance(value, int | float) and np.isfinite(value):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(entry.get('step', number)))
                values.append(float(value))
    return curves


def draw_accuracy(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the discriminators' accuracy over the steps of several runs, smoothed, one colour each.

    :param histories: what each run logged, by its name
    :raises ValueError: when no run logged one
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    curves = {f'{run} {name}' if len(histories) > 1 else name: curve
              for run, history in histories.items() for name, curve in accuracy_curves(history).items()}
    if not curves:
        raise ValueError('discriminator accuracy: none was logged; expected numbers whose name ends with accuracy')
    with pyplot.rc_context({**STYLE, 'axes.grid': True, 'grid.alpha': 0.25}):
        figure, axis = pyplot.subplots(figsize=(9.0, 3.6), layout='constrained')
        for name, (steps, values) in curves.items():
            drawn = axis.plot(steps, values, linewidth=1, alpha=0.25)
            axis.plot(steps, smoothed(values, len(values) // 20), linewidth=1.8, color=drawn[0].get_color(),
                      label=name.replace('_', ' ').replace('/', ' '))
        axis.axhline(0.5, color='grey', linewidth=1, linestyle='--')
        axis.set(title='Discriminator (0.5: the domains look alike)', xlabel='step', ylabel='accuracy', ylim=(0, 1.02))
        figure.legend(loc='outside right center')  # beside the curves: with many of them there is no free corner
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140)
        pyplot.close(figure)
