# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's graph on one machine: embedded simulator, a replayed camera, adaptation, perception, evaluator.

::

    ros2 launch sim2real_da demo.launch.py                                    # surrogate camera, five tools
    ros2 launch sim2real_da demo.launch.py data:=/path/to/lmo weights:=lmo.safetensors   # a BOP data set

It runs until it is stopped. To score what perception publishes now, on frames the learner never saw::

    ros2 param set /camera stream scoring
    ros2 service call /evaluator/start std_srvs/srv/Trigger
    ros2 topic echo --once /evaluator/report
    ros2 param set /camera stream adaptation

``make demo`` does the same in order and compares with the control.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    SetLaunchConfiguration,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'sim2real_da'

# Raw images do not fit Fast DDS's default shared-memory segment (config/fastdds.xml). For the demo's processes alone.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def choose_objects(context: LaunchContext) -> list[SetLaunchConfiguration]:
    """Give the simulator the data set's objects, unless others were named."""
    data = LaunchConfiguration('data').perform(context)
    objects = LaunchConfiguration('objects').perform(context)
    return [SetLaunchConfiguration('objects', data)] if data and not objects else []


def make_nodes(context: LaunchContext) -> list[Node]:
    """Make camera and evaluator; the values of the arguments are known here."""
    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    data = value('data')
    camera_topics = {
        'real/image': value('real_image'), 'real/camera_info': value('real_camera_info'),
        'real/image/compressed': value('real_image_compressed'), 'ground_truth': value('ground_truth'),
    }
    evaluator_topics = {
        **camera_topics,
        # private names of perception, seen from outside
        **{topic: value(topic).replace('~/', 'perception/') for topic in ('detections', 'detections_3d')},
    }
    common: dict[str, object] = {'compressed': True} if value('compressed') == 'true' else {}

    def node(name: str, topics: dict[str, str], parameters: dict[str, object]) -> Node:
        return Node(
            package=PACKAGE, executable=name, name=name, namespace=value('namespace'), output='screen',
            parameters=[value(f'{name}_params'), *([parameters] if parameters else [])],
            remappings=[(old, new) for old, new in topics.items() if old != new],
            ros_arguments=['--log-level', value('log_level')],
        )

    return [
        node('camera', camera_topics, {**common, **({'source': data} if data else {})}),
        node('evaluator', evaluator_topics, {**common, **({'objects': data} if data else {})}),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return what ``ros2 launch`` starts."""
    share = FindPackageShare(PACKAGE)
    return LaunchDescription([
        DeclareLaunchArgument('data', default_value='',
                              description='a BOP data set; empty: surrogate camera and tools'),
        DeclareLaunchArgument('objects', default_value='',
                              description='objects of the simulator; empty: those of data'),
        DeclareLaunchArgument('simulator', default_value='embedded', choices=['embedded', 'none'],
                              description='as in adapt.launch.py'),
        DeclareLaunchArgument('ground_truth', default_value='ground_truth',
                              description='topic from camera to evaluator (vision_msgs/Detection3DArray)'),
        *(DeclareLaunchArgument(f'{node}_params', description=f'parameter file of the {node} node',
                                default_value=PathJoinSubstitution([share, 'config', f'{node}.yaml']))
          for node in ('camera', 'evaluator')),
        *(SetEnvironmentVariable(name, PathJoinSubstitution([share, 'config', 'fastdds.xml']))
          for name in PROFILE_VARIABLES),
        OpaqueFunction(function=choose_objects),
        # its arguments are this file's as well
        IncludeLaunchDescription(PythonLaunchDescriptionSource([share, '/launch/adapt.launch.py'])),
        OpaqueFunction(function=make_nodes),
    ])
