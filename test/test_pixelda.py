# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""PixelDA: its losses in closed form, whose turn moves what, and a trained generator used frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import box_model, labelled_frame
from pixel_batches import NETWORKS, batches, kind, same, state
from scipy.spatial.transform import Rotation

from sim2real_da.adaptation import Adaptation
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.classifier import Classifier, ClassTargets
from sim2real_da.networks.classifier_weights import save_classifier
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.direct_pose import DirectOutput
from sim2real_da.networks.discriminators import ImageDiscriminator
from sim2real_da.networks.generators import ResidualGenerator, load_generator, save_generator
from sim2real_da.networks.pose import DirectTargets, PoseTargets
from sim2real_da.networks.weights_file import WeightsError
from sim2real_da.objectives import Batch, PixelDa, joint_pass
from sim2real_da.objectives.pixelda import DECAY_STEPS, pairwise_error, pose_loss, quaternion_loss, rotation_loss
from sim2real_da.objectives.turns import held_still, take_turn
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import RecipeError, load_recipe
from sim2real_da.samples import Pose

SMALL = {'blocks': 1, 'filters': 8, 'width': 4}


def matrices(*euler: tuple[float, float, float]) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_euler('xyz', euler, degrees=True).as_matrix())


# losses


def test_quaternions_q_and_minus_q_are_the_same_rotation():
    q = torch.nn.functional.normalize(torch.randn(20, 4, dtype=torch.float64), dim=1)
    torch.testing.assert_close(quaternion_loss(q, q), torch.full((20,), math.log(1e-4), dtype=torch.float64),
                               rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(quaternion_loss(-q, q), quaternion_loss(q, q))


def test_quaternion_loss_closed_form():
    still = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    for degrees in (1.0, 60.0, 90.0, 180.0):
        half = math.radians(degrees) / 2
        turned = torch.tensor([math.sin(half), 0, 0, math.cos(half)], dtype=torch.float64)
        assert float(quaternion_loss(turned, still)) == pytest.approx(math.log(1e-4 + 1 - math.cos(half)))


def test_rotation_matrices_and_quaternions_lose_alike():
    first, second = Rotation.random(50, random_state=0), Rotation.random(50, random_state=1)
    torch.testing.assert_close(
        rotation_loss(torch.from_numpy(first.as_matrix()), torch.from_numpy(second.as_matrix())),
        quaternion_loss(torch.from_numpy(first.as_quat()), torch.from_numpy(second.as_quat())))


def test_rotation_loss_has_the_right_gradient_and_a_finite_one_at_half_a_turn():
    found, true = matrices((20, 40, -10), (5, 0, 90)).requires_grad_(), matrices((0, 0, 0), (60, 0, 0))
    assert torch.autograd.gradcheck(rotation_loss, (found, true))
    opposite = matrices((180, 0, 0)).requires_grad_()
    rotation_loss(opposite, matrices((0, 0, 0))).sum().backward()
    assert torch.isfinite(opposite.grad).all()


@pytest.mark.parametrize('symmetric', [True, False])
def test_the_nearest_symmetric_variant_counts_and_only_shown_objects(symmetric):
    said, true = matrices((0, 0, 180), (0, 0, 0)), matrices((0, 0, 0), (0, 0, 90))
    turns = torch.stack([matrices((0, 0, 0))[0], matrices((0, 0, 180 if symmetric else 0))[0]]).expand(2, -1, -1, -1)
    output = DirectOutput(said[:, None], torch.zeros(2, 1, 2), torch.zeros(2, 1), torch.zeros(2, 1, 3),
                          torch.zeros(2, 2), [], 32)
    # the second crop shows none of the objects: however wrong its rotation, it does not count
    targets = PoseTargets(torch.tensor([0, 1]), DirectTargets(
        true, torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, 3, 3), turns))
    expected = math.log(1e-4) if symmetric else math.log(1e-4 + 1)
    assert float(pose_loss(output, targets)) == pytest.approx(expected, abs=1e-3)


def test_pairwise_error_is_blind_to_a_shift_when_the_mask_is_full():
    first = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    full = torch.ones(2, 1, 6, 6, dtype=torch.float64)
    assert float(pairwise_error(first, first + 0.3, full)) == pytest.approx(0, abs=1e-15)
    half = full.clone()
    half[..., :3] = 0
    # d = c within the mask: c^2 f - c^2 f^2 for a mask that covers the share f of the picture
    assert float(pairwise_error(first, first + 0.3, half)) == pytest.approx(0.09 * (0.5 - 0.25))


def test_pairwise_error_sees_only_the_mask_and_is_a_variance():
    first, other = torch.rand(2, 3, 6, 6, dtype=torch.float64), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    mask = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    mask[..., 2:4, 2:4] = 1
    outside = first + (1 - mask) * other
    assert float(pairwise_error(first, outside, mask)) == 0
    full = torch.ones_like(mask)
    expected = (first - other).flatten(1).var(dim=1, unbiased=False).mean()
    torch.testing.assert_close(pairwise_error(first, other, full), expected)
    assert torch.autograd.gradcheck(lambda x: pairwise_error(first, x, mask), other.requires_grad_())


# networks


@pytest.mark.parametrize('size', [16, 28, 64])
def test_a_generator_keeps_size_and_range_and_heeds_its_noise(size):
    generator = ResidualGenerator(size, blocks=1, filters=8)
    images = torch.rand(3, 3, size, size)
    made = generator(images)
    assert made.shape == images.shape and float(made.detach().min()) >= 0 and float(made.detach().max()) <= 1
    generator.eval()
    z = torch.rand(3, 10)
    torch.testing.assert_close(generator(images, z), generator(images, z))
    with torch.no_grad():
        assert not torch.equal(generator(images, z), generator(images, -z))


def test_a_generator_without_noise_takes_any_size_and_one_with_it_says_which():
    assert ResidualGenerator(16, 1, 8, noise=0, norm='instance')(torch.rand(1, 3, 24, 40)).shape == (1, 3, 24, 40)
    with pytest.raises(ValueError, match='16 x 16 pixels, found 40 x 24'):
        ResidualGenerator(16, 1, 8)(torch.rand(1, 3, 24, 40))
    with pytest.raises(ValueError, match="'layer'"):
        ResidualGenerator(16, norm='layer')


@pytest.mark.parametrize(('size', 'layers', 'cells'), [(16, 3, 4), (28, 4, 4), (64, 5, 4), (4, 1, 4)])
def test_a_discriminator_doubles_until_four_cells(size, layers, cells):
    critic = ImageDiscriminator(size, filters=4)
    convolutions = [m for m in critic.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [4 * 2**i for i in range(layers)]
    assert critic.layers(torch.rand(2, 3, size, size)).shape[-1] == cells
    assert critic(torch.rand(2, 3, size, size)).shape == (2,)


def test_noise_and_dropout_act_while_training_alone():
    critic = ImageDiscriminator(16, filters=4)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert not torch.equal(critic(images), critic(images))
        critic.eval()
        assert torch.equal(critic(images), critic(images))


def test_a_stored_generator_comes_back(tmp_path):
    generator = ResidualGenerator(16, 1, 8)
    generator(torch.rand(4, 3, 16, 16))  # moves its statistics
    back = load_generator(save_generator(generator, tmp_path / 'g.safetensors'))
    images, z = torch.rand(2, 3, 16, 16), torch.rand(2, 10)
    with torch.no_grad():
        assert torch.equal(back(images, z), generator.eval()(images, z))
    assert not any(p.requires_grad for p in back.parameters())


def test_files_that_are_no_generators_are_named(tmp_path):
    with pytest.raises(WeightsError, match='none.safetensors: no such'):
        load_generator(tmp_path / 'none.safetensors')
    (tmp_path / 'text.safetensors').write_text('hello, this is text')
    with pytest.raises(WeightsError, match='text.safetensors: weights: truncated'):
        load_generator(tmp_path / 'text.safetensors')
    save_classifier(tmp_path / 'other.safetensors', NETWORKS['classifier'](), 'source')
    with pytest.raises(WeightsError, match='other.safetensors: weights: a classifier, expected a generator'):
        load_generator(tmp_path / 'other.safetensors')
    broken = ResidualGenerator(16, 1, 8)
    torch.nn.init.constant_(broken.last.bias, float('nan'))
    with pytest.raises(WeightsError, match='not finite'):
        load_generator(save_generator(broken, tmp_path / 'nan.safetensors'))


# turns


def test_a_turn_moves_the_players_own_parameters_alone_and_clips():
    mine, other = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(2.0))
    assert take_turn(torch.optim.SGD([mine], 1.0), 100 * mine * other, clip=5.0)
    assert mine.item() == pytest.approx(1 - 5) and other.item() == 2 and other.grad is None


def test_a_turn_that_is_not_finite_changes_nothing():
    mine = torch.nn.Parameter(torch.tensor(1.0))
    assert not take_turn(torch.optim.SGD([mine], 1.0), mine * float('nan'), clip=5.0)
    assert mine.item() == 1


def test_who_is_held_still_keeps_his_statistics_and_goes_on_as_before():
    network = NETWORKS['classifier']()
    before = state(network)
    with held_still(network):
        network(torch.rand(4, 3, 16, 16))
    assert same(before, state(network)) and network.training


@pytest.mark.parametrize('name', list(NETWORKS))
def test_turns_of_the_pixel_players_leave_the_network_alone(name):
    network = NETWORKS[name]()
    objective = PixelDa(network.feature_channels, content=1.0, **SMALL)
    objective.start(network)
    source, target = batches(name, network)
    outputs, losses = joint_pass(network, [objective], source, target, 0)
    players = state(objective.generator, objective.discriminator)
    torch.stack(list(losses.values())).sum().backward()
    # the network's turn: nothing flows into the generator
    assert all(p.grad is None for p in objective.parameters())
    before, gradients = state(network), [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    objective.play(outputs)
    assert same(before, state(network))
    for parameter, gradient in zip(network.parameters(), gradients):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    generator = len(objective.generator.state_dict())
    after = state(objective.generator, objective.discriminator)
    assert not same(players[:generator], after[:generator]) and not same(players[generator:], after[generator:])


def test_the_discriminators_turn_does_not_move_the_generator_nor_the_other_way_round(monkeypatch):
    network = NETWORKS['classifier']()
    objective = PixelDa(network.feature_channels, **SMALL)
    objective.start(network)
    moved = []

    def watch(optimiser, loss, clip):
        players = (objective.discriminator, objective.generator)
        before = [state(p) for p in players]
        result = take_turn(optimiser, loss, clip)
        moved.append([not same(b, state(p)) for b, p in zip(before, players)])
        return result

    monkeypatch.setattr('sim2real_da.objectives.pixelda.take_turn', watch)
    outputs, _ = joint_pass(network, [objective], *batches('classifier', network), 0)
    objective.play(outputs)
    assert moved == [[True, False], [False, True]]


@pytest.mark.parametrize('says', [0.0, 1.5, -2.0])
def test_the_game_closed_form(says):
    network = NETWORKS['classifier']()
    objective = PixelDa(network.feature_channels, **SMALL)
    objective.start(network)
    last = objective.discriminator.decide[1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, says)  # the same logit for every picture
    objective._optimisers[0].param_groups[0]['lr'] = 0.0  # it takes its turn before the generator asks it
    outputs, _ = joint_pass(network, [objective], *batches('classifier', network), 0)
    report = objective.play(outputs)

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    # binary cross entropy of each domain, 2 log 2 where it cannot tell; non-saturating for the generator, log 2 there
    assert report['discriminator'] == pytest.approx(softplus(-says) + softplus(says), rel=1e-5)
    assert report['generator'] == pytest.approx(softplus(-says), rel=1e-5)


@pytest.mark.parametrize('name', list(NETWORKS))
def test_the_recipe_trains_every_network_it_is_made_for(name):
    network = NETWORKS[name]()
    run = Adaptation(network, kind(name), load_recipe('pixelda'), steps=10)
    source, target = batches(name, network)
    before = state(network)
    report = run.step(source, target)
    assert 'skipped' not in report and all(math.isfinite(v) for v in report.values())
    assert {'adapted_class', 'discriminator', 'generator', 'generator_task', 'image_domain_accuracy'} <= set(report)
    assert ('content' in report) == (name != 'classifier')  # the paper's content loss is for renders with masks
    assert ({'quaternion', 'adapted_quaternion'} <= set(report)) == (name == 'direct')
    assert not same(before, state(network))
    made = run.objectives[1].translator()(source.images)
    assert made.shape == source.images.shape and run.objectives[1].generator.training


def test_players_get_no_second_optimiser_and_the_papers_own():
    network = NETWORKS['classifier']()
    run = Adaptation(network, 'classifier', load_recipe('pixelda'), steps=10)
    assert len(run.optimisers) == 1
    objective = run.objectives[1]
    for optimiser in objective._optimisers:
        group = optimiser.param_groups[0]
        assert group['lr'] == 1e-3 and group['betas'][0] == 0.5 and group['weight_decay'] == 1e-5
    for optimiser, schedule in zip(objective._optimisers, objective._schedules):
        optimiser.step()
        for _ in range(DECAY_STEPS - 1):
            schedule.step()
        assert optimiser.param_groups[0]['lr'] == 1e-3
        schedule.step()
        assert optimiser.param_groups[0]['lr'] == pytest.approx(0.95e-3)


def test_labelled_target_pictures_add_their_loss():
    network = NETWORKS['classifier']()
    objective = PixelDa(network.feature_channels, labelled=0.5, **SMALL)
    objective.start(network)
    source, target = batches('classifier', network)
    assert 'labelled_class' not in joint_pass(network, [objective], source, target, 0)[1]
    target.targets = ClassTargets(torch.tensor([0, 1, 2, 0]))
    assert 'labelled_class' not in joint_pass(network, [objective], source, target, 0)[1]  # a teacher's
    target.labelled = True
    outputs, losses = joint_pass(network, [objective], source, target, 0)
    torch.testing.assert_close(losses['labelled_class'], 0.5 * outputs.target.loss(target.targets)['class'])


def test_the_generator_learns_to_make_target_pictures():
    """Dark source, bright target: what the generator makes is bright after some steps."""
    network = NETWORKS['classifier']()
    objective = PixelDa(network.feature_channels, **SMALL)
    objective.start(network)
    source = Batch(torch.rand(8, 3, 16, 16) * 0.2, ClassTargets(torch.arange(8) % 3))
    target = Batch(0.8 + torch.rand(8, 3, 16, 16) * 0.2)
    for step in range(25):
        objective.play(joint_pass(network, [objective], source, target, step)[0])
    assert float(objective.translator()(source.images).detach().mean()) > 0.55  # 0.5 before the first step


def test_content_without_masks_is_an_error_that_says_so():
    network = NETWORKS['classifier']()
    objective = PixelDa(network.feature_channels, content=1.0, **SMALL)
    objective.start(network)
    source, target = batches('classifier', network)
    source.masks = None
    with pytest.raises(ValueError, match='needs masks'):
        joint_pass(network, [objective], source, target, 0)


def test_pictures_that_are_not_finite_change_nobody():
    network = NETWORKS['classifier']()
    run = Adaptation(network, 'classifier', load_recipe('pixelda'), steps=10)
    source, target = batches('classifier', network)
    source.images[0, 0, 0, 0] = float('nan')
    before = state(network, run.objectives[1])
    assert run.step(source, target)['skipped'] == 1
    assert same(before, state(network, run.objectives[1]))


def test_a_detector_is_refused():
    with pytest.raises(TypeError, match='expected a classifier or a pose network, got Detector'):
        PixelDa((8,), **SMALL).start(Detector(1))


# frozen


def frozen_recipe(tmp_path, file):
    path = tmp_path / 'own.yaml'
    path.write_text(f'detector: {{supervised: }}\npose: {{supervised: , pixelda: {{frozen: {file}}}}}\n'
                    f'classifier: {{supervised: , pixelda: {{frozen: {file}}}}}')
    return load_recipe(path)


@pytest.mark.parametrize('name', list(NETWORKS))
def test_a_frozen_generator_adapts_and_does_not_learn(name, tmp_path):
    network = NETWORKS[name]()
    side = 16 if name == 'classifier' else 32
    file = save_generator(ResidualGenerator(side, 1, 8), tmp_path / 'g.safetensors')
    run = Adaptation(network, kind(name), frozen_recipe(tmp_path, file), steps=10)
    assert not run.needs_target
    objective = run.objectives[1]
    objective.train()
    before = state(objective)
    report = run.step(batches(name, network)[0], None)
    assert 'adapted_class' in report and 'generator' not in report and same(before, state(objective))


def test_a_frozen_generator_works_online(tmp_path):
    """The one cell of the table of techniques in which PixelDA learns beside a running robot."""
    rng, model = np.random.default_rng(0), box_model('box')
    bundle = Bundle.create({'box': model}, {'input_size': (160, 120), 'width': 8}, {'width': 8, 'hidden': 16})
    file = save_generator(ResidualGenerator(bundle.pose.crop_size, 1, 8), tmp_path / 'g.safetensors')
    learner = Learner(bundle, frozen_recipe(tmp_path, file))
    generator = learner.parts['pose'].objectives[1].generator
    before, weights = state(generator), [p.clone() for p in learner.student.pose.parameters()]
    seen = [labelled_frame(rng, model, Pose(np.array([0, 0, 0, 1.0]), np.array([0, 0, 0.5])))]
    report = learner.step(seen, [])
    assert not learner.needs_target and 'pose/adapted_class' in report and same(before, state(generator))
    assert any(not torch.equal(a, b) for a, b in zip(weights, learner.student.pose.parameters()))
    again = Learner(bundle, frozen_recipe(tmp_path, file))
    again.load_state(learner.state())
    assert again.step_count == 1 and again.step(seen, []).get('skipped') is None


def test_a_frozen_generator_of_another_size_or_none_is_named(tmp_path):
    file = save_generator(ResidualGenerator(16, 1, 8), tmp_path / 'g.safetensors')
    with pytest.raises(ValueError, match='made for 16 pixels, the network takes 28'):
        Adaptation(Classifier(3), 'classifier', frozen_recipe(tmp_path, file), steps=10)
    with pytest.raises(RecipeError, match='gone.safetensors: no such generator file'):
        frozen_recipe(tmp_path, tmp_path / 'gone.safetensors').build('pose', (8, 8))
