# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Mix Transformer and context-aware fusion: shapes, what attention and fusion see, training and export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import box_model, frame, labelled_frame
from recipe_runs import batches
from torch.nn import functional as F  # noqa: N812

from sim2real_da.networks.backbones import Pyramid, build_backbone, build_fusion
from sim2real_da.networks.bundle import Bundle
from sim2real_da.networks.detector import Detector
from sim2real_da.networks.export import export_network, named_tensors
from sim2real_da.networks.mix_transformer import CHANNELS, Attention, ContextFusion, MixTransformer
from sim2real_da.networks.pose import build_pose_network
from sim2real_da.online.learner import Learner
from sim2real_da.recipes import load_recipe
from sim2real_da.samples import Pose


@pytest.mark.parametrize('size', [(64, 96), (240, 320), (72, 128)])
def test_maps_of_four_strides_rounded_up(size):
    with torch.inference_mode():
        maps = build_backbone('mix_transformer').eval()(torch.rand(1, 3, *size))
        assert all(m.is_contiguous() for m in maps)
    assert [m.shape[1] for m in maps] == list(CHANNELS)
    assert [m.shape[2:] for m in maps] == [torch.Size(-(-s // stride) for s in size) for stride in (4, 8, 16, 32)]


def test_attention_is_that_of_the_formula():
    layer = Attention(8, 2, 1).double()
    tokens = torch.randn(2, 12, 8, dtype=torch.float64)
    query = layer.query(tokens)
    key, value = layer.key_value(tokens).split(8, dim=2)
    heads = [F.softmax(query[..., h] @ key[..., h].transpose(1, 2) / 2.0, dim=2) @ value[..., h]
             for h in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(layer(tokens, 3, 4), layer.out(torch.cat(heads, dim=2)))


def test_reduced_attention_sees_every_place():
    layer = Attention(4, 1, 4).double()
    tokens = torch.randn(1, 7 * 9, 4, dtype=torch.float64, requires_grad=True)  # 4 divides neither side
    layer(tokens, 7, 9)[0, 0].sum().backward()
    assert (tokens.grad[0].abs().sum(dim=1) > 0).all()


def test_position_matters_without_a_position_code():
    encoder = MixTransformer().eval()
    with torch.inference_mode():
        grey = encoder(torch.full((1, 3, 64, 64), 0.5))[0][0]
    assert float((grey - grey[:, 8:9, 8:9]).abs().max()) > 1e-3


def test_fusion_stands_where_others_have_a_pyramid():
    assert isinstance(build_fusion('mix_transformer', CHANNELS, 16), ContextFusion)
    assert isinstance(build_fusion('resnet_tiny', CHANNELS, 16), Pyramid)
    assert isinstance(Detector(1, 'mix_transformer').pyramid, ContextFusion)
    for kind in ('direct', 'dense'):
        network = build_pose_network(1, kind, backbone='mix_transformer', width=16)
        assert any(isinstance(module, ContextFusion) for module in network.modules())
    fusion = ContextFusion(CHANNELS, 16).eval()
    maps = [torch.rand(1, c, -(-60 // d), -(-80 // d), requires_grad=True) for c, d in zip(CHANNELS, (1, 2, 4, 8))]
    merged = fusion(maps)
    assert merged.shape == (1, 16, 60, 80)
    merged[0, :, 30, 40].sum().backward()
    rows = maps[0].grad[0].abs().sum(dim=(0, 2)).nonzero()[:, 0]
    assert set((rows - 30).tolist()) == {-18, -12, -6, 0, 6, 12, 18}  # what the dilations reach at the finest map
    assert all(m.grad.abs().max() > 0 for m in maps)


@pytest.mark.parametrize('kind', ['detector', 'direct', 'dense'])
def test_networks_with_it_learn(kind):
    network = (Detector(2, 'mix_transformer', (64, 64), 16) if kind == 'detector' else
               build_pose_network(2, kind, backbone='mix_transformer', width=16)).train()
    source, _ = batches('detector' if kind == 'detector' else 'pose')
    before = {k: v.clone() for k, v in network.named_parameters()}
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    output = network(source.images)
    assert [f.shape[1] for f in output.features] == list(network.feature_channels)
    if kind == 'dense':  # the shared batches have no dense targets
        loss = output.coordinates.square().mean() + output.mask.square().mean() + output.classes.square().mean()
    else:
        loss = sum(output.loss(source.targets).values())
        if kind == 'detector':  # the batch has no semantic map
            loss = loss + output.semantic.square().mean()
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert {k for k, v in network.named_parameters() if torch.equal(v, before[k])} == set()


def test_a_learner_adapts_it_while_a_camera_runs():
    model, rng = box_model('box'), np.random.default_rng(0)
    form = {'backbone': 'mix_transformer', 'width': 16}
    learner = Learner(Bundle.create({'box': model}, form, form), load_recipe('dann'))
    before = {n: {k: v.detach().clone() for k, v in getattr(learner.student, n).backbone.named_parameters()}
              for n in ('detector', 'pose')}
    pose = Pose(np.array([0.3, 0.5, 0.1, 0.8]), np.array([0.0, 0.0, 0.6]))
    report = learner.step([labelled_frame(rng, model, pose) for _ in range(2)], [frame(rng) for _ in range(2)])
    assert learner.step_count == 1 and all(np.isfinite(v) for v in report.values())
    assert 'detector/domain' in report
    for name, old in before.items():
        assert any(not torch.equal(v, old[k]) for k, v in getattr(learner.student, name).backbone.named_parameters())


@pytest.mark.parametrize('kind', ['detector', 'direct'])
def test_the_file_answers_as_the_network(kind, tmp_path):
    pytest.importorskip('onnxscript', reason='needs onnxscript (requirements-test.txt)')
    runtime = pytest.importorskip('onnxruntime', reason='needs onnxruntime (requirements-test.txt)')
    size = (128, 72) if kind == 'detector' else (64, 64)
    network = (Detector(2, 'mix_transformer', size, 16) if kind == 'detector' else
               build_pose_network(2, kind, backbone='mix_transformer', width=16)).eval()
    export_network(network, size, tmp_path / 'network.onnx')
    session = runtime.InferenceSession(tmp_path / 'network.onnx', providers=['CPUExecutionProvider'])
    images = torch.rand(3, 3, size[1], size[0])
    with torch.inference_mode():
        wanted = named_tensors(network(images))
    for (name, tensor), found in zip(wanted.items(), session.run(None, {'images': images.numpy()})):
        np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
