# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Perception and adaptation on a robot's camera, with the embedded simulator or with another one.

::

    ros2 launch sim2real_da adapt.launch.py simulator:=embedded real_image:=/camera/color/image_raw \
        real_camera_info:=/camera/color/camera_info

    ros2 launch sim2real_da adapt.launch.py source:=folder source_folder:=RENDERED

``--show-args`` lists all there is to set. An empty value leaves a parameter as the parameter file has it.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'sim2real_da'

#: launch argument -> topic in the nodes, what it carries
INPUTS = {
    'real_image': ('real/image', 'the robot\'s camera (sensor_msgs/Image)'),
    'real_camera_info': ('real/camera_info', 'its intrinsics'),
    'sim_image': ('sim/image', 'the simulator\'s camera'),
    'sim_camera_info': ('sim/camera_info', 'its intrinsics'),
    'sim_labels': ('sim/labels', 'classes and poses of what the simulator shows (vision_msgs/Detection3DArray)'),
    'sim_labels_2d': ('sim/labels_2d', 'visible boxes, optional (vision_msgs/Detection2DArray)'),
    'sim_segmentation': ('sim/segmentation', 'masks, optional (sensor_msgs/Image 16UC1)'),
    'sim_label_info': ('sim/label_info', 'label map of the masks, optional'),
    'sim_tf': ('sim/tf', 'isaac_sim, gazebo: transforms (tf2_msgs/TFMessage)'),
    'sim_tf_static': ('sim/tf_static', 'isaac_sim, gazebo: transforms that do not change'),
    'sim_boxes_3d': ('sim/boxes_3d', 'isaac_sim, gazebo: 3-D boxes (vision_msgs/Detection3DArray)'),
    'sim_boxes_2d': ('sim/boxes_2d', 'isaac_sim, gazebo: visible boxes (vision_msgs/Detection2DArray)'),
    'sim_boxes_3d_labels': ('sim/boxes_3d_labels', 'isaac_sim: names of the 3-D boxes\' numbers (std_msgs/String)'),
    'sim_boxes_2d_labels': ('sim/boxes_2d_labels', 'isaac_sim: names of the visible boxes\' numbers'),
    'sim_segmentation_labels': ('sim/segmentation_labels', 'isaac_sim: names of the masks\' numbers'),
}
PERCEPTION_OUTPUTS = {
    'detections': ('~/detections', 'boxes (vision_msgs/Detection2DArray)'),
    'detections_3d': ('~/detections_3d', 'poses with classes and scores (vision_msgs/Detection3DArray)'),
    'poses': ('~/poses', 'poses alone (geometry_msgs/PoseArray)'),
    'label_info': ('~/label_info', 'label map'),
    'vision_info': ('~/vision_info', 'version of the weights'),
    'overlay': ('~/overlay', 'the image with what was found in it'),
    'markers': ('~/markers', 'boxes and axes for RViz'),
}
ADAPTATION_OUTPUTS = {'status': ('~/status', 'state of the learner, its reason and numbers')}

#: launch argument -> what it overrides in which nodes' parameter files
OVERRIDES = {
    'weights': (('perception', 'adaptation'), 'source model: a safetensors file, or the name of a shipped one'),
    'device': (('perception', 'adaptation'), 'torch device: cpu, cuda, cuda:0'),
    'compressed': (('perception', 'adaptation', 'recorder'), 'true: listen to the compressed camera topic'),
    'rectified': (('perception', 'adaptation', 'simulator'), 'true: pictures of the camera are rectified'),
    'cameras': (('adaptation',), 'cameras to learn from, by spaces; perception answers real/image'),
    'target_frame': (('perception',), 'frame of the poses, by /tf: base_link'),
    'source': (('adaptation',), 'labelled simulation: topics, or folder (no simulator is started then)'),
    'source_folder': (('adaptation',), 'a set written by sim2real_da render, for source:=folder'),
    'class_map': (('adaptation',), 'isaac_sim, gazebo: YAML file of the simulator\'s names'),
    'sim_world_frame': (('adaptation',), 'isaac_sim: the world in sim_tf'),
    'sim_camera_frame': (('adaptation',), 'isaac_sim, gazebo: the camera in sim_tf'),
    'sim_camera_axes': (('adaptation',), 'isaac_sim, gazebo: where that frame looks: optical, forward, usd'),
    'recipe': (('adaptation',), 'how to adapt: name in config/recipes, or a file'),
    'state_dir': (('adaptation',), 'folder of the weight versions'),
    'objects': (('simulator',), 'objects of the embedded simulator: tools, or a BOP folder'),
    'autostart': (('perception', 'adaptation', 'simulator', 'recorder'), 'false: a lifecycle manager starts them'),
}
FOREIGN = ('isaac_sim', 'gazebo')  # simulators whose labels have a form and a parameter file of their own
SWITCHES = ('compressed', 'rectified', 'autostart')
CHOICES = {**dict.fromkeys(SWITCHES, ['', 'true', 'false']), 'source': ['', 'topics', 'folder']}


def declare_arguments() -> list[DeclareLaunchArgument]:
    """Declare all arguments, at top level: ``--show-args`` sees them there."""
    declared = [
        DeclareLaunchArgument('simulator', default_value='none', choices=['embedded', 'none', *FOREIGN],
                              description='embedded: start the package\'s own; none: another one publishes sim/... '
                              'in the same form; isaac_sim, gazebo: in its own form'),
        DeclareLaunchArgument('namespace', default_value='', description='of all nodes and their relative topics'),
        DeclareLaunchArgument('log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
                              description='of all nodes'),
        DeclareLaunchArgument('use_sim_time', default_value='false', choices=['true', 'false'],
                              description='for the embedded simulator; the robot\'s side keeps its own clock'),
    ]
    for node in ('perception', 'adaptation', 'simulator', 'recorder'):
        default = PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', f'{node}.yaml'])
        declared.append(DeclareLaunchArgument(f'{node}_params', default_value=default,
                                              description=f'parameter file of the {node} node'))
    declared.append(DeclareLaunchArgument('labels_params', default_value='', description=(
        'parameter file over that of the adaptation node, with isaac_sim and gazebo; empty: the package\'s own')))
    for name, (nodes, text) in OVERRIDES.items():
        choices = {'choices': CHOICES[name]} if name in CHOICES else {}
        declared.append(DeclareLaunchArgument(name, default_value='', **choices,
                                              description=f'{text} (over the file of {", ".join(nodes)})'))
    declared.append(DeclareLaunchArgument('record', default_value='false', choices=['true', 'false'],
                                          description='write the session to an MCAP file, for sim2real_da report'))
    for kind, table in (('topic in', INPUTS), ('topic out, perception', PERCEPTION_OUTPUTS),
                        ('topic out, adaptation', ADAPTATION_OUTPUTS)):
        for name, (topic, text) in table.items():
            declared.append(DeclareLaunchArgument(name, default_value=topic, description=f'{kind}: {text}'))
    declared += [
        DeclareLaunchArgument('real_image_compressed', default_value=[LaunchConfiguration('real_image'), '/compressed'],
                              description='topic in: the camera\'s JPEG or PNG (sensor_msgs/CompressedImage)'),
        DeclareLaunchArgument('weights_topic', default_value='adaptation/weights',
                              description='topic from adaptation to perception (std_msgs/UInt8MultiArray)'),
    ]
    return declared


def make_nodes(context: LaunchContext) -> list[Node]:
    """Make the nodes; the values of the arguments are known here."""
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def node(name: str, topics: dict[str, str], parameters: dict[str, object], *files: object) -> Node:
        overrides: dict[str, object] = dict(parameters)
        for argument, (nodes, _) in OVERRIDES.items():
            if name in nodes and value(argument):
                overrides[argument] = value(argument) == 'true' if argument in SWITCHES else value(argument)
        return Node(
            package=PACKAGE, executable=name, name=name, namespace=value('namespace'), output='screen',
            parameters=[value(f'{name}_params'), *files, *([overrides] if overrides else [])],
            # a rule that renames nothing (~/poses:=~/poses) is left out
            remappings=[(old, new) for old, new in topics.items() if old != new],
            ros_arguments=['--log-level', value('log_level')],
        )

    inputs = {topic: value(name) for name, (topic, _) in INPUTS.items()}
    inputs['real/image/compressed'] = value('real_image_compressed')
    weights = value('weights_topic')
    perception = {topic: value(name) for name, (topic, _) in PERCEPTION_OUTPUTS.items()}
    adaptation = {topic: value(name) for name, (topic, _) in ADAPTATION_OUTPUTS.items()}
    nodes = [
        node('perception', {**inputs, **perception, 'weights': weights}, {}),
        node('adaptation', {**inputs, **adaptation, '~/weights': weights}, {}, *[
            value('labels_params') or PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', f'{simulator}.yaml'])
            for simulator in FOREIGN if simulator == value('simulator')]),
    ]
    if value('record') == 'true':
        heard = {topic.replace('~', node_name): name.replace('~', node_name)
                 for node_name, table in (('perception', perception), ('adaptation', adaptation))
                 for topic, name in table.items()}
        nodes.append(node('recorder', {**inputs, **heard}, {}))
    if value('simulator') == 'embedded' and value('source') != 'folder':
        nodes.append(node('simulator', inputs, {'use_sim_time': value('use_sim_time') == 'true'}))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Return what ``ros2 launch`` starts."""
    return LaunchDescription([*declare_arguments(), OpaqueFunction(function=make_nodes)])
