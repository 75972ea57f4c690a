# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Detector, pose network and the objects they know, as one versioned, checksummed safetensors file.

The manifest has classes, objects, architecture, version, parent and recipe, see
:mod:`sim2real_da.networks.weights_file`. The same bytes lie on disk and travel on the weights topic.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim2real_da.networks.detector import Detector
from sim2real_da.networks.outline import OutlineNetwork
from sim2real_da.networks.pose import PoseNetwork, build_pose_network
from sim2real_da.networks.weights_file import WeightsError, halved, pack, read_weights, unpack, write_atomically
from sim2real_da.samples import ObjectModel

SAME_SIZE = 0.05  # by how much, relative, the diameters of one object may differ
LARGEST_LOG_SIZE = 0.4
LAST_VERSION = 999_999  # versions only grow: one beyond all would be the last that is ever taken


@dataclass
class Bundle:
    """All that perception needs.

    :param objects: what the classes look like; the order is the label map
    :param version: grows with every promotion, also on rollback
    :param parent: version these weights were trained from
    :param recipe: name of the recipe that made them
    :param note: where they come from, for a person to read
    :param covariance_factors: what the variances of translation and rotation are multiplied by (``calibrate``)
    :param outline: puts poses on outlines that it sees (:mod:`sim2real_da.networks.refinement`), where it was trained
    :param log_sizes: logarithms of how much larger than its model an object looks to the camera, where that is known
    """

    detector: Detector
    pose: PoseNetwork
    objects: dict[str, ObjectModel]
    version: int = 0
    parent: int = 0
    recipe: str = 'source'
    note: str = ''
    created: dict[str, Any] = field(default_factory=dict)
    covariance_factors: tuple[float, float] = (1.0, 1.0)
    outline: OutlineNetwork | None = None
    log_sizes: dict[str, float] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the label map."""
        return tuple(self.objects)

    @classmethod
    def create(cls, objects: dict[str, ObjectModel], detector: dict[str, Any] | None = None,
               pose: dict[str, Any] | None = None) -> Bundle:
        """Return untrained networks for these objects; the dicts are keyword arguments of the two networks."""
        count = len(objects)
        return cls(Detector(count, **(detector or {})), build_pose_network(count, **(pose or {})), dict(objects))

    def thaw(self, network: str) -> None:
        """Let the frozen backbone of 'detector' or 'pose' learn from now on."""
        old = getattr(self, network)
        config = {**old.config, 'frozen': False}
        new = Detector(**config) if network == 'detector' else build_pose_network(**config)
        new.load_state_dict(old.state_dict())
        setattr(self, network, new.train(old.training))

    def represent(self, representation: str) -> None:
        """Let the pose network say poses in another representation: a fresh network on the old one's backbone."""
        old = self.pose
        if old.config['representation'] == representation:
            return
        kept = {name: old.config[name] for name in ('classes', 'backbone', 'crop_size', 'frozen')}
        self.pose = build_pose_network(**kept, representation=representation)
        self.pose.backbone.load_state_dict(old.backbone.state_dict())  # type: ignore[union-attr, operator]
        self.pose.train(old.training)
        self.covariance_factors = (1.0, 1.0)  # they were fitted to the other network's errors

    def look_from(self, views: int) -> None:
        """Let poses be the mean of so many crops of an object; the weights stay as they are.

        :raises ValueError: for more than there are, or a representation whose poses are of one crop
        """
        self._look_anew(self.pose.state_dict(), views=views)

    def look_closer(self, crop_size: int, looks: int) -> None:
        """Let the pose network see crops of another size, and once or twice, with the weights it has.

        Training on small crops first and on large ones afterwards takes a fraction of the time (progressive resizing,
        as in EfficientNetV2, Tan and Le, ICML 2021).

        :param crop_size: side in pixels, a multiple of 32
        :param looks: see :class:`sim2real_da.networks.pose.PoseNetwork`
        """
        self._look_anew(self.pose.state_at(crop_size), crop_size=crop_size, looks=looks)

    def _look_anew(self, state: dict[str, torch.Tensor], **options: int) -> None:
        new = build_pose_network(**{**self.pose.config, **options})
        new.load_state_dict(state)
        self.pose = new.train(self.pose.training)
        self.covariance_factors = (1.0, 1.0)  # they were fitted to the errors on other crops

    def check_objects(self, objects: Mapping[str, ObjectModel], where: str, every: bool = False) -> None:
        """Refuse data of other objects: names alone say little, many sets call their first one obj_000001.

        :param where: the data, for the message
        :param every: all of the data's objects have to be known, not just one of them
        :raises ValueError: naming the object and what differs
        """
        known = set(self.classes) & set(objects)
        if not known or (every and len(known) < len(objects)):
            raise ValueError(f'weights for other objects: they know {", ".join(self.classes)}; {where} has '
                             f'{", ".join(objects)}')
        self.check_sizes({name: model.diameter for name, model in objects.items()}, where)

    def check_sizes(self, diameters: Mapping[str, float], where: str) -> None:
        """Refuse objects that have the names of known ones and another size.

        :param diameters: metres, by name; what the bundle does not know is passed over
        :param where: the data, for the message
        :raises ValueError: naming the object and what differs
        """
        for name in sorted(set(self.classes) & set(diameters)):
            own, other = self.objects[name].diameter, diameters[name]
            if not math.isclose(own, other, rel_tol=SAME_SIZE):
                raise ValueError(f'weights for other objects: they know {name} with a diameter of {1000 * own:.1f} mm, '
                                 f'in {where} it has {1000 * other:.1f} mm')

    def copy(self) -> Bundle:
        """Return an independent copy (weights and buffers included)."""
        return copy.deepcopy(self)

    def finite(self) -> bool:
        """Whether every parameter and buffer is a finite number."""
        return all(bool(torch.isfinite(t).all()) for t in self._tensors().values() if t.is_floating_point())

    def to(self, device: str | torch.device) -> Bundle:
        """Move all networks to a device and return self."""
        for network in self.networks().values():
            network.to(device)
        return self

    def eval(self) -> Bundle:
        """Set all networks to evaluation and return self."""
        for network in self.networks().values():
            network.eval()
        return self

    def networks(self) -> dict[str, Any]:
        """Return the networks there are by name."""
        both: dict[str, Any] = {'detector': self.detector, 'pose': self.pose}
        return both if self.outline is None else {**both, 'outline': self.outline}

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {f'{name}.{k}': v for name, network in self.networks().items() for k, v in network.state_dict().items()}

    def to_bytes(self, half: bool = False) -> bytes:
        """Return the safetensors bytes; ``half`` stores floating-point tensors in 16 bits, for shipping."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self._tensors().items()}
        tensors.update({f'objects.{m.name}.points': torch.from_numpy(np.array(m.points, dtype=np.float32))
                        for m in self.objects.values()})
        if half:
            tensors = halved(tensors)
        # a frozen backbone is the same in both networks: it is stored once
        for name in [k for k in tensors if k.startswith('pose.backbone.')]:
            twin = tensors.get(name.replace('pose.', 'detector.', 1))
            if twin is not None and twin.shape == tensors[name].shape and torch.equal(twin, tensors[name]):
                del tensors[name]
        manifest = {
            'version': self.version, 'parent': self.parent, 'recipe': self.recipe, 'note': self.note,
            'detector': self.detector.config, 'pose': self.pose.config, 'created': self.created,
            'objects': [m.to_dict() for m in self.objects.values()],
            'outline': None if self.outline is None else self.outline.config,
            'covariance_factors': list(self.covariance_factors), 'log_sizes': self.log_sizes,
        }
        return pack(tensors, manifest)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, like: Bundle | None = None) -> Bundle:
        """Read weights.

        :param like: weights that these are to replace; classes and architecture have to be the same
        :raises WeightsError: truncated or damaged data, a wrong checksum, non-finite numbers, other classes or another
            architecture; the message says which
        """
        manifest, tensors = unpack(data, 'bundle')
        try:
            objects = {o['name']: ObjectModel.from_dict(o, tensors.pop(f'objects.{o["name"]}.points').float().numpy())
                       for o in manifest['objects']}
            with torch.device('meta'):  # nothing is allocated before the sizes are known to be those of the file
                planned = _planned(manifest)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise WeightsError(f'weights: the manifest is incomplete or not understood ({error})') from error
        for name in [f'pose.{k}' for k in planned['pose'].state_dict() if k.startswith('backbone.')]:
            twin = name.replace('pose.', 'detector.', 1)
            if name not in tensors and twin in tensors:
                tensors[name] = tensors[twin]
        parts = {name: {k.removeprefix(f'{name}.'): v for k, v in tensors.items() if k.startswith(f'{name}.')}
                 for name in planned}
        for name, network in planned.items():
            wanted, own = ({k: tuple(v.shape) for k, v in state.items()}
                           for state in (network.state_dict(), parts[name]))
            if wrong := sorted(set(wanted.items()) ^ set(own.items())):
                raise WeightsError(f'weights: the {name} does not fit its manifest: {wrong[0][0]} is '
                                   f'{own.get(wrong[0][0], "missing")}, expected {wanted.get(wrong[0][0], "none")}')
        try:
            networks = _planned(manifest)
            bundle = cls(
                networks['detector'], networks['pose'], objects, int(manifest['version']), int(manifest['parent']),
                str(manifest['recipe']), str(manifest['note']), dict(manifest['created']), _factors(manifest),
                networks.get('outline'), _log_sizes(manifest))
            bundle.recipe.encode(), bundle.note.encode()  # both go into messages
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise WeightsError(f'weights: the manifest is incomplete or not understood ({error})') from error
        if not 0 <= min(bundle.version, bundle.parent) <= max(bundle.version, bundle.parent) <= LAST_VERSION:
            raise WeightsError(f'weights: version {bundle.version} after {bundle.parent}, expected 0 to {LAST_VERSION}')
        for name, network in planned.items():
            if (known := network.config.get('classes', len(objects))) != len(objects):
                raise WeightsError(f'weights: {len(objects)} objects, but the {name} knows {known}')
        if like is not None:
            like.require_same(bundle)
        for name, network in networks.items():
            network.load_state_dict(parts[name])
        bundle.eval()
        if not bundle.finite():
            raise WeightsError('weights: some numbers are not finite; these weights are not used')
        return bundle

    def require_same(self, other: Bundle) -> None:
        """Refuse weights of other classes or another architecture.

        :raises WeightsError: saying what differs
        """
        if other.classes != self.classes:
            raise WeightsError(f'weights: made for the classes {list(other.classes)}, expected {list(self.classes)}')
        mine, theirs = ({name: network.config for name, network in bundle.networks().items()}
                        for bundle in (self, other))
        for name in ('detector', 'pose', 'outline'):
            if mine.get(name) != theirs.get(name):
                raise WeightsError(f'weights: another {name} architecture {theirs.get(name, "(none)")}, expected '
                                   f'{mine.get(name, "(none)")}')

    def save(self, path: Path | str, half: bool = False) -> Path:
        """Write atomically: a reader finds the old file or the new one, never a part."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes(half))
        return path

    @classmethod
    def load(cls, path: Path | str, like: Bundle | None = None) -> Bundle:
        """Read a file.

        :raises WeightsError: see :meth:`from_bytes`; the message starts with the file's name
        """
        path = Path(path)
        data = read_weights(path)
        try:
            return cls.from_bytes(data, like)
        except WeightsError as error:
            raise WeightsError(f'{path}: {error}') from error


def with_covariance_factors(data: bytes, factors: tuple[float, float], views: int | None = None,
                            outline: bool = True) -> bytes:
    """Return the same weights with other covariance factors; the tensors stay as they are, also 16-bit ones.

    :param views: how many crops of an object these were fitted for (:meth:`Bundle.look_from`); None: as many as before
    :param outline: whether the outline network stays, where there is one
    """
    manifest, tensors = unpack(data, 'bundle')
    if views is not None:
        manifest = manifest | {'pose': manifest['pose'] | {'views': views}}
    if not outline:
        manifest = manifest | {'outline': None}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith('outline.')}
    return pack(tensors, manifest | {'covariance_factors': list(factors)})


def _planned(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the untrained networks that a manifest describes, by name."""
    # the first files did not name their representation
    networks = {'detector': Detector(**manifest['detector']),
                'pose': build_pose_network(**{'representation': 'dense', **manifest['pose']})}
    outline = manifest.get('outline')
    return networks if outline is None else {**networks, 'outline': OutlineNetwork(**outline)}


def _log_sizes(manifest: dict[str, Any]) -> dict[str, float]:
    """Return how much larger than their models objects look; nothing for files from before that was known.

    :raises ValueError: for one that looks half as large again as its model, or larger, or as small
    """
    sizes = {str(name): float(size) for name, size in manifest.get('log_sizes', {}).items()}
    if wrong := [name for name, size in sizes.items() if not abs(size) < LARGEST_LOG_SIZE]:
        raise ValueError(f'log_sizes: {wrong[0]} {sizes[wrong[0]]}, expected numbers between -{LARGEST_LOG_SIZE} and '
                         f'{LARGEST_LOG_SIZE}')
    return sizes


def _factors(manifest: dict[str, Any]) -> tuple[float, float]:
    """Return the covariance factors, 1 for files from before there were any.

    :raises ValueError: when one is not a positive number: the covariance would not be one
    """
    translation, rotation = (float(v) for v in manifest.get('covariance_factors', (1.0, 1.0)))
    if not (0 < translation < math.inf and 0 < rotation < math.inf):
        raise ValueError(f'covariance_factors {translation} {rotation}, expected positive numbers')
    return translation, rotation
