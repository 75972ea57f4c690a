# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Nodes in processes of their own, talking over DDS: answers, weight changes, bad input, services, shutdown."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CAMERA, box_model, frame, labelled_frame

pytest.importorskip('rclpy', reason='needs ROS 2 (make setup installs wheels)')
pytest.importorskip('vision_msgs', reason='needs vision_msgs (make setup generates it)')

from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from ros_helpers import LATCHED, Graph  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import String, UInt8MultiArray  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo, VisionInfo  # noqa: E402

from sim2real_da.networks.bundle import Bundle  # noqa: E402
from sim2real_da.nodes import messages  # noqa: E402
from sim2real_da.nodes.runner import NodeDied, NodeSpec, Runner, graph_environment  # noqa: E402
from sim2real_da.samples import Detection, Frame, ObjectLabel, Pose  # noqa: E402

OBJECTS = {'box': box_model('box'), 'bar': box_model('bar', (0.08, 0.01, 0.01))}
POSE = Pose(np.array([0.9, 0.1, 0.2, 0.1]), np.array([0.0, 0.0, 0.5]))
SMALL = {'input_size': (160, 120), 'width': 16}


def made_bundle(objects: dict[str, object] | None = None, version: int = 0) -> Bundle:
    torch.manual_seed(version)
    bundle = Bundle.create(objects or OBJECTS, SMALL)  # type: ignore[arg-type]
    bundle.version = version
    return bundle


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_bundle().save(tmp_path_factory.mktemp('weights') / 'source.safetensors')


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


class Eye:
    """A perception node and a camera that the test holds in its hand."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rng = np.random.default_rng(0)
        self.stamp = 0
        self.boxes = graph.collect(Detection2DArray, 'perception/detections')
        self.image = graph.publisher(Image, 'real/image')
        self.info = graph.publisher(CameraInfo, 'real/camera_info')
        self.weights = graph.publisher(UInt8MultiArray, 'weights', LATCHED)
        graph.until(lambda: self.boxes, 'the first answer', meanwhile=self.show, period=0.3)
        graph.spin(1.0)
        self.boxes.clear()

    def show(self, message: Image | None = None) -> int:
        self.stamp += 1_000_000
        head = messages.header(self.stamp, 'camera')
        if message is None:
            message = messages.image_message(frame(self.rng).image, head)
        message.header = head
        self.info.publish(messages.camera_info_message(CAMERA, head))
        self.image.publish(message)
        return self.stamp

    def answered(self, stamp: int) -> bool:
        return any(messages.nanoseconds(m.header.stamp) == stamp for m in self.boxes)

    def look(self) -> None:
        """Show one image and wait for its answer."""
        stamp = self.show()
        self.graph.until(lambda: self.answered(stamp), f'the answer to the image of stamp {stamp}')

    def send(self, data: bytes) -> None:
        self.weights.publish(messages.weights_message(data))


@pytest.fixture(scope='module')
def eye(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eye]:
    made = Graph(tmp_path_factory.mktemp('eye'))
    try:
        made.start('perception', {'weights': str(source), 'score_threshold': 0.0, 'silence_timeout_s': 2.0})
        yield Eye(made)
    finally:
        made.close()


def test_every_accepted_image_is_answered_while_weights_change(eye: Eye) -> None:
    infos = eye.graph.collect(VisionInfo, 'perception/vision_info', LATCHED)
    for number in range(30):  # one at a time: none may be lost
        if number % 5 == 4:
            eye.send(made_bundle(version=1 + number // 5).to_bytes())
        eye.look()
    assert len(eye.boxes) == 30
    for number in range(60):  # faster than it can look: the newest ones are accepted, and each of those is answered
        if number % 10 == 9:
            eye.send(made_bundle(version=10 + number // 10).to_bytes())
        eye.show()
        eye.graph.spin(0.02)
    last = eye.stamp
    eye.graph.until(lambda: eye.answered(last), 'the answer to the newest image')
    eye.graph.until(lambda: infos and infos[-1].database_version == 15, 'weights 15')
    eye.look()
    sent = len(eye.boxes)

    def settled() -> bool:
        # diagnostics may catch an image between accepted and answered; one that stays unanswered never lets them meet
        counted = eye.graph.values('perception')
        answered = counted.get('frames_answered')
        return answered is not None and int(answered) >= sent and counted['frames_accepted'] == answered

    eye.graph.until(settled, 'as many images answered as accepted')
    values = eye.graph.values('perception')
    assert int(values['weight_swaps']) >= 7 and values['weights_version'] == '15'
    stamps = [messages.nanoseconds(m.header.stamp) for m in eye.boxes]
    assert stamps == sorted(set(stamps)), 'an image was answered twice or out of order'
    assert all(d.header == m.header for m in eye.boxes for d in m.detections)
    assert [v.database_version for v in infos] == sorted(v.database_version for v in infos)


def test_weights_that_cannot_be_used_are_named_and_the_old_ones_run_on(eye: Eye) -> None:
    before = eye.graph.values('perception')['weights_version']
    good = made_bundle(version=50).to_bytes()
    flipped = bytearray(good)
    flipped[-3] ^= 0xFF
    cases = [
        (good[:len(good) // 2], 'truncated'),
        (bytes(flipped), 'checksum'),
        (made_bundle({'box': OBJECTS['box']}, 50).to_bytes(), 'made for the classes'),
        (Bundle.create(OBJECTS, SMALL | {'width': 24}).to_bytes(), 'architecture'),
        (made_bundle(version=1).to_bytes(), 'not newer'),
        (b'', 'bytes'),
    ]
    for data, says in cases:
        eye.send(data)
        eye.graph.until(lambda says=says: says in eye.graph.values('perception').get('last_rejection', ''),
                        f'the rejection that says {says!r}')
        assert eye.graph.diagnostics['perception'].level == b'\x01'
        eye.look()
    assert eye.graph.values('perception')['weights_version'] == before
    eye.send(good)
    eye.graph.until(lambda: eye.graph.values('perception')['weights_version'] == '50', 'the good weights')
    eye.look()


def test_weights_wait_while_held(eye: Eye) -> None:
    assert eye.graph.order('perception/hold').success
    eye.send(made_bundle(version=60).to_bytes())
    eye.graph.spin(2.0)
    assert eye.graph.values('perception')['weights_version'] != '60'
    assert '60' in eye.graph.order('perception/release').message
    eye.graph.until(lambda: eye.graph.values('perception')['weights_version'] == '60', 'the held weights')


def broken_images() -> list[tuple[Image, str]]:
    cases = []
    for change, says in (
            ({'step': 5}, 'step 5'), ({'height': 0}, 'at least 1x1'), ({'encoding': 'nonsense'}, 'nonsense')):
        message = messages.image_message(np.zeros((240, 320, 3), np.uint8), messages.header(0, ''))
        for name, value in change.items():
            setattr(message, name, value)
        cases.append((message, says))
    small = messages.image_message(np.zeros((120, 160, 3), np.uint8), messages.header(0, ''))
    return [*cases, (small, 'but the image is 160x120')]


def test_bad_images_are_named_and_good_ones_answered(eye: Eye) -> None:
    for message, says in broken_images():
        eye.show(message)
        eye.graph.until(lambda says=says: says in eye.graph.values('perception').get('last refusal /real/image', ''),
                        f'the refusal that says {says!r}')
        eye.look()
    broken = messages.camera_info_message(CAMERA, messages.header(0, ''))
    broken.k[0] = math.nan
    eye.info.publish(broken)
    eye.graph.until(lambda: 'not finite' in eye.graph.values('perception').get('last refusal /real/camera_info', ''),
                    'the refusal of NaN')
    eye.look()


def test_overlay_and_markers_only_while_someone_looks(eye: Eye) -> None:
    overlays = eye.graph.collect(Image, 'perception/overlay', 1)
    eye.graph.until(lambda: overlays, 'an overlay', meanwhile=eye.show, period=0.5)
    assert (overlays[0].height, overlays[0].width) == (240, 320)
    infos = eye.graph.collect(LabelInfo, 'perception/label_info', LATCHED)
    eye.graph.until(lambda: infos, 'the latched label map')
    assert messages.read_label_info(infos[0], '') == ['box', 'bar']
    assert eye.graph.set_parameter('perception', 'score_threshold', 0.35).successful
    eye.graph.until(lambda: infos[-1].threshold == pytest.approx(0.35), 'the new threshold', meanwhile=eye.show,
                    period=0.5)


def test_parameters_out_of_range_are_refused_with_a_reason(eye: Eye) -> None:
    for name, value, says in (('score_threshold', 1.5, 'out of range'), ('max_detections', 0, 'out of range'),
                              ('weights', 'other', 'read-only'),
                              ('compressed', True, 'read when the node configures')):
        result = eye.graph.set_parameter('perception', name, value)
        assert not result.successful and name in result.reason and says in result.reason
    assert eye.graph.set_parameter('perception', 'max_detections', 3).successful
    eye.boxes.clear()
    eye.look()
    assert len(eye.boxes[-1].detections) <= 3
    assert eye.graph.set_parameter('perception', 'max_detections', 20).successful


def test_a_silent_topic_is_named_in_diagnostics(eye: Eye) -> None:
    eye.graph.until(lambda: 'no message on /real/image for' in eye.graph.diagnostics['perception'].message,
                    'the silence to be noticed')
    assert '/real/camera_info' in eye.graph.diagnostics['perception'].message
    eye.look()
    eye.graph.until(lambda: '/real/image' not in eye.graph.diagnostics['perception'].message, 'speech to be noticed',
                    meanwhile=eye.show)


def test_a_node_that_cannot_start_says_why(source: Path, tmp_path: Path) -> None:
    for parameters, says in (
            ({'score_threshold': 7.5}, 'score_threshold'),
            ({'weights': str(tmp_path / 'none.safetensors')}, 'no such weights file'),
    ):
        spec = NodeSpec('perception', '', parameters)
        done = subprocess.run(spec.command(), capture_output=True, text=True, timeout=120, check=False,
                              env=graph_environment(99))
        assert done.returncode == 1 and says in done.stderr + done.stdout


def test_lifecycle_by_hand_compressed_input_and_clean_end(graph: Graph, source: Path, tmp_path: Path) -> None:
    graph.start('perception', {'weights': str(tmp_path / 'none'), 'autostart': False, 'compressed': True,
                               'score_threshold': 0.0}, wait=False)

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(graph.call(ChangeState, 'perception/change_state', request).success)

    assert not change(Transition.TRANSITION_CONFIGURE)
    assert 'no such weights file' in graph.runner.last_lines('perception')
    refused = graph.set_parameter('perception', 'weights', str(source))
    assert not refused.successful and 'read-only' in refused.reason  # the graph does not choose files
    shutil.copy(source, tmp_path / 'none')
    assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)
    found = graph.collect(Detection2DArray, 'perception/detections')
    image = graph.publisher(CompressedImage, 'real/image/compressed')
    info = graph.publisher(CameraInfo, 'real/camera_info')
    picture = frame(np.random.default_rng(0)).image

    def show() -> None:
        info.publish(messages.camera_info_message(CAMERA, messages.header(1, 'camera')))
        image.publish(messages.compressed_message(picture, messages.header(1, 'camera')))

    graph.until(lambda: found, 'an answer to a compressed image', meanwhile=show, period=0.3)
    assert change(Transition.TRANSITION_DEACTIVATE) and change(Transition.TRANSITION_CLEANUP)
    assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)
    found.clear()
    graph.until(lambda: found, 'an answer after a second start', meanwhile=show, period=0.3)
    process = graph.runner._running['perception']
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    with pytest.raises(NodeDied, match='node perception ended with status 0'):
        graph.runner.check()


class World:
    """A simulator and a camera that the test holds in its hand."""

    def __init__(self, graph: Graph) -> None:
        self.rng = np.random.default_rng(0)
        self.stamp = 0
        self.name = 'box'
        self.shift = 0
        self.sim = {kind: graph.publisher(kind, topic) for kind, topic in (
            (Image, 'sim/image'), (CameraInfo, 'sim/camera_info'), (Detection3DArray, 'sim/labels'))}
        self.image, self.info = graph.publisher(Image, 'real/image'), graph.publisher(CameraInfo, 'real/camera_info')

    def show(self) -> None:
        self.stamp += 1_000_000
        head = messages.header(self.stamp, 'sim')
        drawn = labelled_frame(self.rng, OBJECTS['box'], POSE)
        label = drawn.labels[0]
        labels = [ObjectLabel(self.name, label.box, label.pose, 1.0)]
        self.sim[Image].publish(messages.image_message(drawn.frame.image, head))
        self.sim[CameraInfo].publish(messages.camera_info_message(CAMERA, head))
        self.sim[Detection3DArray].publish(messages.labels_message(
            labels, {self.name: OBJECTS['box']}, messages.header(self.stamp + self.shift, 'sim')))
        self.info.publish(messages.camera_info_message(CAMERA, head))
        self.image.publish(messages.image_message(frame(self.rng).image, head))


def test_adaptation_promotes_persists_and_obeys(graph: Graph, source: Path, tmp_path: Path) -> None:
    state = tmp_path / 'state'
    graph.start('adaptation', {
        'weights': str(source), 'state_dir': str(state), 'recipe': 'dann', 'holdout': 2, 'gate_every': 2,
        'tolerance': 1.0, 'max_steps': 4, 'batch_source': 2, 'batch_target': 2, 'duty_cycle': 1.0, 'nice': 0,
        'evidence': False})  # an untrained network finds nothing on the camera
    graph.start('perception', {'weights': str(source)}, {'weights': 'adaptation/weights'})
    world = World(graph)
    seen: list[tuple[int, bool]] = []  # version, whether it was on disk when the message came

    def note(message: UInt8MultiArray) -> None:
        version = Bundle.from_bytes(bytes(message.data)).version
        seen.append((version, (state / f'v{version:06d}.safetensors').is_file()))

    graph.probe.create_subscription(UInt8MultiArray, 'adaptation/weights', note, LATCHED)
    graph.until(lambda: seen, 'the latched current version')

    # what is wrong is named: labels of another stamp, a class the model does not know
    world.shift = 1
    graph.until(lambda: 'without a partner of the same stamp' in graph.diagnostics['adaptation'].message,
                'labels of another stamp to be named', meanwhile=world.show)
    assert 'sim/labels' in graph.diagnostics['adaptation'].message
    world.shift, world.name = 0, 'spoon'
    graph.until(lambda: 'spoon' in graph.values('adaptation').get('last refusal /sim/labels', ''),
                'the unknown class to be named', meanwhile=world.show)
    world.name = 'box'

    graph.until(lambda: graph.values('adaptation').get('state') == 'done', 'four steps', 180, world.show)
    assert int(graph.values('adaptation')['promotions'].split('.')[0]) == 2
    graph.until(lambda: graph.values('perception').get('weights_version') == '3', 'perception to take version 3')
    assert seen[-1][0] == 3 and all(on_disk for _, on_disk in seen)
    history = json.loads((state / 'history.json').read_text())
    assert [entry['step'] for entry in history] == [1, 2, 3, 4]

    # an operator's orders
    assert graph.order('adaptation/pause').success
    graph.until(lambda: graph.values('adaptation')['state'] == 'paused', 'the pause')
    assert 'v000003' in graph.order('adaptation/save').message
    assert 'version 4' in graph.order('adaptation/rollback').message
    assert graph.order('adaptation/hold').success
    assert 'version 5' in graph.order('adaptation/reset').message
    graph.until(lambda: graph.values('adaptation')['state'] == 'held', 'the held version')
    graph.until(lambda: graph.values('perception').get('weights_version') == '4', 'perception to take version 4')
    assert 'version 5' in graph.order('adaptation/release').message
    graph.until(lambda: graph.values('perception').get('weights_version') == '5', 'perception to take version 5')
    assert graph.order('adaptation/resume').success
    graph.until(lambda: graph.values('adaptation')['state'] != 'paused', 'the end of the pause')
    perception_source = Bundle.load(source).detector.state_dict()
    restored = Bundle.load(state / 'v000005.safetensors').detector.state_dict()
    assert all(torch.equal(perception_source[k], restored[k]) for k in restored), 'reset is not the source model'


def test_evaluator_scores_topics_once_a_frame(graph: Graph, lmo_like: Path) -> None:
    graph.start('evaluator', {'objects': str(lmo_like), 'frames': 2, 'pause_adaptation': False})
    reports = graph.collect(String, 'evaluator/report', LATCHED)
    publishers = {topic: graph.publisher(kind, topic) for topic, kind in (
        ('ground_truth', Detection3DArray), ('detections', Detection2DArray), ('detections_3d', Detection3DArray),
        ('real/camera_info', CameraInfo), ('real/image', Image))}
    from sim2real_da.simulation.objects import bop_models

    model = bop_models(lmo_like)['obj_000001']
    picture = frame(np.random.default_rng(0)).image
    good = Pose(np.array([0, 0, 0, 1.0]), np.array([0.0, 0.0, 1.0]))
    turned = Pose(np.array([0, 0, math.sin(math.pi / 12), math.cos(math.pi / 12)]), np.array([0.0, 0.0, 1.1]))
    stamp, solid_frame = [0], ['base_link']

    def show() -> None:
        for number in (1, 2):  # frame 1 is found 30 degrees and 0.1 m off, frame 2 is missed
            stamp[0] += 1_000_000
            head = messages.header(stamp[0], 'camera')
            label = ObjectLabel(model.name, np.zeros(4), good, 1.0)
            truth = messages.labels_message([label], {model.name: model}, head)
            truth.detections[0].id = f'{number}/0'
            box = messages.read_labels(truth, '', CAMERA, {model.name: model}).labels[0].box
            found = [Detection(model.name, 0.9, box, turned)] if number == 1 else []
            publishers['real/camera_info'].publish(messages.camera_info_message(CAMERA, head))
            publishers['ground_truth'].publish(truth)
            publishers['real/image'].publish(messages.image_message(picture, head))
            publishers['detections'].publish(messages.detections_2d_message(found, head))
            head = messages.header(stamp[0], solid_frame[0])
            publishers['detections_3d'].publish(messages.detections_3d_message(found, {model.name: model}, head))

    assert graph.order('evaluator/start').success
    graph.until(lambda: any('score perception without target_frame' in v for v in graph.values('evaluator').values()),
                'the refusal of poses in another frame', meanwhile=show, period=0.3)
    solid_frame[0] = 'camera'
    graph.until(lambda: reports, 'the report', meanwhile=show, period=0.3)
    report = json.loads(reports[-1].data)
    assert report['frames_scored'] == 2 and report['instances'] == 2 and report['recall'] == 0.5
    assert report['mean_angle_matched_deg'] == pytest.approx(30.0, abs=0.1)
    assert report['mean_angle_deg'] == pytest.approx(105.0, abs=0.1)
    assert report['mean_position_m'] == pytest.approx(0.55, abs=1e-3)
    assert set(report['latency_ms']) == {'p50', 'p95'}


def test_evaluator_ends_no_pause_but_its_own(graph: Graph) -> None:
    answers: dict[str, list[tuple[bool, str]]] = {'pause': [], 'resume': []}
    asked = {'pause': 0, 'resume': 0}

    def serve(name: str) -> None:
        def answer(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            asked[name] += 1
            response.success, response.message = answers[name].pop(0)
            return response
        graph.probe.create_service(Trigger, f'adaptation/{name}', answer)

    for name in answers:
        serve(name)

    def change(transition: int) -> None:
        assert graph.call(ChangeState, 'evaluator/change_state', ChangeState.Request(
            transition=Transition(id=transition))).success

    def score() -> None:
        before = asked['pause']
        assert graph.order('evaluator/start').success
        graph.until(lambda: asked['pause'] > before, 'the pause')
        del graph.diagnostics['evaluator']
        graph.until(lambda: 'evaluator' in graph.diagnostics and 'scoring: 0 of 40' in
                    graph.diagnostics['evaluator'].message, 'the scoring to begin')

    graph.start('evaluator')
    answers['pause'] = [(True, f'{messages.PAUSED_ALREADY}, at step 3')]
    score()
    change(Transition.TRANSITION_DEACTIVATE)
    graph.spin(1.0)
    assert asked == {'pause': 1, 'resume': 0}  # whose pause it is decides when it ends
    change(Transition.TRANSITION_ACTIVATE)
    answers['pause'] = [(True, 'learning is paused, at step 3'), (True, f'{messages.PAUSED_ALREADY}, at step 3')]
    answers['resume'] = [(False, f'a validation is in work; {messages.ASK_AGAIN}'), (True, '')]
    score()
    score()  # from the beginning again, the pause is still its own
    change(Transition.TRANSITION_DEACTIVATE)
    graph.until(lambda: asked['resume'] == 2, 'the second request to go on')
    change(Transition.TRANSITION_ACTIVATE)
    answers['pause'] = [(True, 'learning is paused, at step 3')]
    answers['resume'] = [(True, '')]
    score()
    graph.runner._running['evaluator'].send_signal(signal.SIGTERM)
    end = time.monotonic() + 20
    while asked['resume'] < 3 and time.monotonic() < end:  # the runner would report the node's end
        graph.spin(0.1)
    assert asked['resume'] == 3, 'a robot whose evaluator has ended must learn on'


@pytest.fixture
def lmo_like(tmp_path: Path) -> Path:
    """A BOP models folder with one lopsided tetrahedron, millimetres."""
    folder = tmp_path / 'models'
    folder.mkdir()
    corners = [(0, 0, 0), (100, 0, 0), (0, 60, 0), (0, 0, 30)]
    faces = ['3 0 2 1', '3 0 1 3', '3 1 2 3', '3 0 3 2']
    (folder / 'obj_000001.ply').write_text('\n'.join([
        'ply', 'format ascii 1.0', 'element vertex 4', 'property float x', 'property float y', 'property float z',
        'property uchar red', 'property uchar green', 'property uchar blue', 'element face 4',
        'property list uchar int vertex_indices', 'end_header',
        *[f'{x} {y} {z} 200 100 50' for x, y, z in corners], *faces, '']))
    (folder / 'models_info.json').write_text(json.dumps({'1': {
        'diameter': 116.6, 'min_x': 0, 'min_y': 0, 'min_z': 0, 'size_x': 100, 'size_y': 60, 'size_z': 30}}))
    return folder


def test_raw_image_to_pose(graph: Graph) -> None:
    from sim2real_da.simulation.objects import load_objects
    from sim2real_da.simulation.simulator import Simulator

    graph.start('perception', {'weights': 'tools'})
    simulator = Simulator(load_objects('tools'), CAMERA, seed=11)
    drawn = [simulator.sample() for _ in range(6)]
    simulator.close()
    boxes, solids = (graph.collect(Detection2DArray, 'perception/detections'),
                     graph.collect(Detection3DArray, 'perception/detections_3d'))
    poses, names = graph.collect(PoseArray, 'perception/poses'), sorted({x.name for d in drawn for x in d.labels})
    best = {n: graph.collect(PoseWithCovarianceStamped, f'perception/pose/{n}') for n in names}
    image, info = graph.publisher(Image, 'real/image'), graph.publisher(CameraInfo, 'real/camera_info')
    for number, sample in enumerate(drawn, start=1):
        def show(sample: object = sample, number: int = number) -> None:
            head = messages.header(number, 'camera')
            picture: Frame = sample.frame  # type: ignore[attr-defined]
            info.publish(messages.camera_info_message(CAMERA, head))
            image.publish(messages.image_message(picture.image, head))

        graph.until(lambda number=number: any(messages.nanoseconds(m.header.stamp) == number for m in solids),
                    'an answer', meanwhile=show, period=1.0)
    assert any(m.detections for m in boxes) and any(m.poses for m in poses) and any(best.values())
    for message in solids:
        for detection in message.detections:
            pose = detection.results[0].pose
            q = pose.pose.orientation
            assert abs(np.linalg.norm([q.x, q.y, q.z, q.w]) - 1) < 1e-6 and q.w >= 0 and pose.pose.position.z > 0
            assert detection.header == message.header and message.header.frame_id == 'camera'
            assert np.trace(np.asarray(pose.covariance).reshape(6, 6)) > 0


def test_runner_names_the_node_that_died(tmp_path: Path) -> None:
    with Runner(tmp_path, graph_environment(98)) as runner:
        runner.start(NodeSpec('perception', 'broken', {'weights': 'no such file'}))
        runner._running['broken'].wait(60)
        with pytest.raises(NodeDied, match='node broken ended with status'):
            runner.check()
