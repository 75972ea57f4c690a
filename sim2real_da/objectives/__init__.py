# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What a network is trained for, one technique a file.

An objective is a class with ``losses(outputs) -> dict of named losses`` (see :mod:`sim2real_da.objectives.base`). Give
it a name in :data:`OBJECTIVES` and it can stand in a recipe.
"""

from sim2real_da.objectives.advent import AdvEnt, ClassPrior, MinEnt
from sim2real_da.objectives.base import Batch, Objective, Outputs, joint_pass
from sim2real_da.objectives.class_mix import ClassMix
from sim2real_da.objectives.cogan import CoGan
from sim2real_da.objectives.coral import Coral
from sim2real_da.objectives.cycada import Cycada
from sim2real_da.objectives.dann import Dann
from sim2real_da.objectives.dsn import Dsn
from sim2real_da.objectives.feature_distance import FeatureDistance
from sim2real_da.objectives.masked_consistency import MaskedConsistency
from sim2real_da.objectives.mmd import Mmd
from sim2real_da.objectives.pixelda import PixelDa
from sim2real_da.objectives.self_training import SelfTraining
from sim2real_da.objectives.supervised import Supervised

OBJECTIVES: dict[str, type[Objective]] = {
    'supervised': Supervised, 'dann': Dann, 'self_training': SelfTraining,
    'mmd': Mmd, 'coral': Coral, 'dsn': Dsn, 'cogan': CoGan,
    'pixelda': PixelDa, 'cycada': Cycada,
    'minent': MinEnt, 'advent': AdvEnt, 'class_prior': ClassPrior, 'feature_distance': FeatureDistance,
    'class_mix': ClassMix, 'masked_consistency': MaskedConsistency}

__all__ = ['OBJECTIVES', 'AdvEnt', 'Batch', 'ClassMix', 'ClassPrior', 'CoGan', 'Coral', 'Cycada', 'Dann', 'Dsn',
           'FeatureDistance', 'MaskedConsistency', 'MinEnt', 'Mmd', 'Objective', 'Outputs', 'PixelDa', 'SelfTraining',
           'Supervised', 'joint_pass']
