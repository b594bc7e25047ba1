"""The launch file and what it refers to; through real `launch` too where that is installed."""

import importlib.util
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import launch_stub
import pytest
import yaml

from ray_pose_ros.node.demo_processes import node_command, transport_environment
from ray_pose_ros.node.parameters import BY_NAME
from ray_pose_ros.node.settings import make_settings

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / 'launch' / 'pose.launch.py'
PROFILE = str(ROOT / 'config' / 'fastdds_shm.xml')
ARGUMENTS = {
    'cameras', 'image_topic', 'camera_info_topic', 'image_transport', 'checkpoint', 'device',
    'require_camera_info', 'rig', 'refine', 'motion_frame', 'params_file', 'namespace', 'use_rviz',
    'use_sim_time',
    'log_level', 'respawn',
}  # fmt: skip


def load():
    spec = importlib.util.spec_from_file_location('pose_launch', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute(environment=None, **arguments):
    """Run the launch file with the stand-in and return its context."""
    context = launch_stub.Context(arguments, environment or {}, ROOT)
    with launch_stub.installed():
        for entity in load().generate_launch_description().entities:
            entity.execute(context)
    return context


def parameters(node, context):
    """Return what a launched node is told: the file, then the overrides."""
    file, overrides = node.kwargs['parameters']
    return launch_stub.perform(file, context), overrides


def test_every_argument_is_described():
    context = execute()
    assert {a.name for a in context.declared} == ARGUMENTS
    assert all(a.description for a in context.declared)


def test_by_default_the_parameter_file_decides():
    context = execute()
    (node,) = context.nodes
    assert (node.kwargs['package'], node.kwargs['executable']) == ('ray_pose_ros', 'pose_node')
    file, overrides = parameters(node, context)
    assert file == str(ROOT / 'config' / 'pose.yaml')
    assert overrides == {}  # use_sim_time among them
    assert node.kwargs['remappings'] == [] and node.kwargs['respawn'] is False
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        assert node.environment[name] == PROFILE


def test_topics_of_a_camera_that_has_names_of_its_own():
    (node,) = execute(image_topic='/usb/image_rect', camera_info_topic='/usb/info').nodes
    assert dict(node.kwargs['remappings']) == {
        'camera/image_raw': '/usb/image_rect',
        'camera/image_raw/compressed': '/usb/image_rect/compressed',
        'camera/camera_info': '/usb/info',
    }
    (node,) = execute(cameras='front', image_topic='/a').nodes
    assert ('front/image_raw', '/a') in node.kwargs['remappings']
    with pytest.raises(RuntimeError, match='for one camera'):
        execute(cameras='front,rear', image_topic='/a')


def test_switches_and_lists_of_other_spelling():
    with pytest.raises(RuntimeError, match="refine is 'ture', expected true or false"):
        execute(refine='ture')
    for cameras in ('["front", "rear"]', "['front','rear']", '[front, rear]'):
        context = execute(cameras=cameras, use_sim_time='False')
        overrides = parameters(context.nodes[0], context)[1]
        assert overrides == {'cameras': ['front', 'rear'], 'use_sim_time': False}


def test_respawn():
    (node,) = execute(respawn='true').nodes
    assert node.kwargs['respawn'] is True


def test_arguments_reach_the_node_as_valid_parameters():
    context = execute(
        cameras='front, rear', image_transport='compressed', checkpoint='123', device='cpu',
        namespace='robot', use_sim_time='true', params_file='/tmp/mine.yaml', log_level='debug',
        use_rviz='true', require_camera_info='false',
        rig='true', refine='true', motion_frame='odom',
    )  # fmt: skip
    node, rviz = context.nodes
    file, overrides = parameters(node, context)
    assert file == '/tmp/mine.yaml'
    assert overrides.pop('use_sim_time') is True
    settings = make_settings(overrides)
    assert settings.cameras == ['front', 'rear'] and settings.device == 'cpu'
    assert settings.checkpoint == '123' and settings.image_transport == 'compressed'
    assert settings.require_camera_info is False
    assert settings.rig is True and settings.refine is True
    assert settings.motion_frame == 'odom'
    assert node.kwargs['namespace'] == 'robot'
    assert node.kwargs['arguments'] == ['--ros-args', '--log-level', 'debug']
    assert rviz.kwargs['package'] == 'rviz2'
    assert ('/ray_pose/markers', '/robot/ray_pose/markers') in rviz.kwargs['remappings']
    assert Path(launch_stub.perform(rviz.kwargs['arguments'][1], context)).is_file()


@pytest.mark.parametrize(
    'name', ['FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE']
)
def test_a_profile_of_the_user_stays(name):
    (node,) = execute({name: '/etc/mine.xml'}).nodes
    assert node.environment[name] == '/etc/mine.xml'
    # whichever of the two this ROS reads, it reads the user's
    assert node.environment['FASTRTPS_DEFAULT_PROFILES_FILE'] == '/etc/mine.xml'


@pytest.mark.parametrize('given', [{}, {'FASTDDS_DEFAULT_PROFILES_FILE': '/a'},
                                   {'FASTRTPS_DEFAULT_PROFILES_FILE': '/b'}])  # fmt: skip
def test_the_demo_starts_the_node_as_launch_does(given):
    context = execute(given)
    (node,) = context.nodes
    file, _ = parameters(node, context)
    command = node_command({})
    assert command[command.index('--params-file') + 1] == file
    assert f'__node:={node.kwargs["name"]}' in command
    for variable, value in transport_environment(given).items():
        assert node.environment[variable] == value


def test_profile_gives_shared_memory_room_for_images():
    names = {'d': 'http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles'}
    root = ET.parse(PROFILE).getroot()
    shm = next(
        t for t in root.iterfind('.//d:transport_descriptor', names)
        if t.find('d:type', names).text == 'SHM'
    )  # fmt: skip
    assert int(shm.find('d:segment_size', names).text) == 64 * 2**20
    assert int(shm.find('d:maxMessageSize', names).text) == 16 * 2**20
    participant = root.find('.//d:participant', names)
    assert participant.get('is_default_profile') == 'true'
    used = {t.text for t in participant.iterfind('.//d:userTransports/d:transport_id', names)}
    assert used == {
        t.text for t in root.iterfind('.//d:transport_descriptor/d:transport_id', names)
    }


def test_rviz_shows_what_the_node_publishes():
    content = yaml.safe_load((ROOT / 'rviz' / 'pose.rviz').read_text())
    manager = content['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == BY_NAME['reference_frame'].default
    topics = {d['Topic']['Value'] for d in manager['Displays'] if 'Topic' in d}
    assert {f'/ray_pose/{t}' for t in ('markers', 'path', 'poses', 'pose', 'keyframe')} <= topics


def test_foxglove_shows_what_the_node_publishes():
    layout = json.loads((ROOT / 'config' / 'pose.foxglove.json').read_text())
    panels = set()

    def leaves(tree):
        if isinstance(tree, str):
            panels.add(tree)
        else:
            leaves(tree['first'])
            leaves(tree['second'])

    leaves(layout['layout'])
    assert panels == set(layout['configById'])
    text = json.dumps(layout)
    for topic in ('markers', 'path', 'pose', 'keyframe', 'poses'):
        assert f'"/ray_pose/{topic}"' in text
    scene = next(v for k, v in layout['configById'].items() if k.startswith('3D!'))
    assert scene['followTf'] == BY_NAME['reference_frame'].default


def test_real_launch_where_installed():
    launch_ros = pytest.importorskip('launch_ros')
    import launch
    from launch.launch_context import LaunchContext

    if not hasattr(launch_ros, 'actions'):
        pytest.importorskip('launch_ros.actions')
    os.environ.setdefault('ROS_LOG_DIR', '/tmp')
    description = load().generate_launch_description()
    assert {a.name for a in description.get_launch_arguments()} == ARGUMENTS
    context = LaunchContext()
    context.launch_configurations.update(dict.fromkeys(ARGUMENTS, '') | {'use_rviz': 'false'})
    context.launch_configurations.update(params_file=str(ROOT / 'config/pose.yaml'))
    nodes = load().start(context)
    assert all(isinstance(n, launch.Action) for n in nodes)
