"""
Starts the pose node, with rviz on request.

    ros2 launch ray_pose_ros pose.launch.py cameras:=front,rear device:=cuda use_rviz:=true
    ros2 launch ray_pose_ros pose.launch.py image_topic:=/usb_cam/image_raw \\
        camera_info_topic:=/usb_cam/camera_info

For rectified images (image_rect) the parameter file has to set `rectified: true` as well.
Arguments left empty are as the parameter file says.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

PACKAGE, NODE = 'ray_pose_ros', 'ray_pose'
# name, default, description
ARGUMENTS = (
    ('cameras', '', 'topic prefixes of the cameras, separated by commas: front,rear'),
    (
        'image_topic',
        '',
        'images of the one camera, where not on <camera>/image_raw; cameras:= has to name that '
        'camera where params_file names another one than camera',
    ),
    ('camera_info_topic', '', 'calibration of the one camera, where not on <camera>/camera_info'),
    ('image_transport', '', 'raw or compressed'),
    ('require_camera_info', '', 'false: take images without calibration, too'),
    ('checkpoint', '', 'directory of the weights instead of the model in the package'),
    ('device', '', 'auto, cpu or cuda'),
    ('rig', '', 'true: the cameras look at once and are taken as a set'),
    ('refine', '', 'false: the model alone, no feature matches where views overlap'),
    ('motion_frame', '', 'frame in which TF knows where the camera is (odom): metric scale'),
    ('namespace', '', 'namespace of the node and of the camera topics'),
    ('use_rviz', 'false', 'start rviz2 with a view of the result'),
    ('use_sim_time', '', 'true: take the time from /clock (simulation, ros2 bag play --clock)'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
    ('respawn', 'false', 'start the node again when its process has ended'),
)


def generate_launch_description():
    """Declare the arguments, set the transport profile, start the node."""
    share = FindPackageShare(PACKAGE)
    profile = PathJoinSubstitution([share, 'config', 'fastdds_shm.xml'])
    # Humble and Jazzy read the first name, Kilted the second; what the user has set stays.
    own = EnvironmentVariable(
        'FASTRTPS_DEFAULT_PROFILES_FILE',
        default_value=[
            EnvironmentVariable('FASTDDS_DEFAULT_PROFILES_FILE', default_value=[profile])
        ],
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    declared.append(
        DeclareLaunchArgument(
            'params_file',
            default_value=PathJoinSubstitution([share, 'config', 'pose.yaml']),
            description='YAML file with the parameters of the node',
        )
    )
    return LaunchDescription(
        [
            *declared,
            SetEnvironmentVariable('FASTRTPS_DEFAULT_PROFILES_FILE', own),
            SetEnvironmentVariable('FASTDDS_DEFAULT_PROFILES_FILE', own),
            OpaqueFunction(function=start),
        ]
    )


def start(context):
    """Make the nodes; a function, because an empty argument must not override the file."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides = {}
    for name in ('image_transport', 'checkpoint', 'device', 'motion_frame'):
        if value[name]:
            overrides[name] = value[name]
    for name in ('require_camera_info', 'rig', 'refine', 'use_sim_time'):
        if value[name]:
            overrides[name] = is_true(name, value[name])
    listed = [name.strip(' \'"') for name in value['cameras'].strip('[] ').split(',')]
    cameras = [name for name in listed if name]
    if cameras:
        overrides['cameras'] = cameras
    node = Node(
        package=PACKAGE,
        executable='pose_node',
        name=NODE,
        namespace=value['namespace'],
        parameters=[LaunchConfiguration('params_file'), overrides],
        arguments=['--ros-args', '--log-level', value['log_level']],
        remappings=topics_of_one_camera(cameras, value['image_topic'], value['camera_info_topic']),
        respawn=is_true('respawn', value['respawn']),
        respawn_delay=2.0,
        output='screen',
        emulate_tty=True,
    )
    prefix = '/' + value['namespace'].strip('/') if value['namespace'].strip('/') else ''
    topics = ('markers', 'poses', 'path', 'map', 'pose', 'points', 'keyframe')
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', PathJoinSubstitution([FindPackageShare(PACKAGE), 'rviz', 'pose.rviz'])],
        parameters=[{'use_sim_time': overrides.get('use_sim_time', False)}],
        remappings=[(f'/{NODE}/{t}', f'{prefix}/{NODE}/{t}') for t in topics] if prefix else [],
        condition=IfCondition(LaunchConfiguration('use_rviz')),
    )
    return [node, rviz]


def is_true(name, text):
    """Read a switch; RuntimeError for what is none."""
    words = {'true': True, '1': True, 'yes': True, 'on': True}
    words |= {'false': False, '0': False, 'no': False, 'off': False}
    if text.strip().lower() not in words:
        raise RuntimeError(f'{name} is {text!r}, expected true or false')
    return words[text.strip().lower()]


def topics_of_one_camera(cameras, image_topic, camera_info_topic):
    """Make the remappings for a camera whose topics have other names."""
    if not (image_topic or camera_info_topic):
        return []
    if len(cameras) > 1:
        raise RuntimeError(
            f'image_topic and camera_info_topic are for one camera, and cameras names {cameras}'
        )
    camera = cameras[0] if cameras else 'camera'
    pairs = []
    if image_topic:
        pairs.append((f'{camera}/image_raw', image_topic))
        pairs.append((f'{camera}/image_raw/compressed', f'{image_topic}/compressed'))
    if camera_info_topic:
        pairs.append((f'{camera}/camera_info', camera_info_topic))
    return pairs
