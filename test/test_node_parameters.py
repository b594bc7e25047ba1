"""The list of parameters, its documents, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.validate_topic_name import validate_topic_name

from ray_pose_ros.node.parameter import ANY, START, ParameterError
from ray_pose_ros.node.parameter_docs import markdown, yaml_text
from ray_pose_ros.node.parameters import BY_NAME, PARAMETERS
from ray_pose_ros.node.ros_parameters import declare, descriptor, on_set, unknown_overrides
from ray_pose_ros.node.settings import Settings, make_settings

ROOT = Path(__file__).resolve().parents[1]


def test_documents_agree_with_the_list():
    how = 'run python3 -m ray_pose_ros.node.parameter_docs'
    assert (ROOT / 'docs/parameters.md').read_text() == markdown(), f'{how} markdown'
    assert (ROOT / 'config/pose.yaml').read_text() == yaml_text(), f'{how} yaml'


def test_config_file_holds_every_default_with_its_type():
    values = yaml.safe_load(yaml_text())['/**']['ros__parameters']
    assert values == {p.name: p.default for p in PARAMETERS}
    for p in PARAMETERS:
        assert type(values[p.name]) is type(p.default)


def test_every_default_is_allowed_and_described():
    assert make_settings({}) == Settings()
    for p in PARAMETERS:
        p.check(p.default)
        assert len(p.description) > 20
        assert (p.minimum is None) == (p.maximum is None)
        assert descriptor(p).read_only == (p.change == START)
        assert descriptor(p).description == p.description


@pytest.mark.parametrize(
    'values, message',
    [
        ({'window_size': 1}, 'window_size is 1, expected integer from 2 to 64'),
        ({'window_size': 8.0}, 'window_size is 8.0, expected integer'),
        ({'samples': True}, 'samples is True'),
        ({'device': 'gpu'}, "device is 'gpu', expected one of 'auto', 'cpu', 'cuda'"),
        ({'keyframe_min_interval': float('nan')}, 'keyframe_min_interval is nan'),
        ({'image_transport': 'theora'}, "expected one of 'raw', 'compressed'"),
        ({'cameras': []}, 'expected different, non-empty names'),
        ({'cameras': ['a', '/a/']}, 'expected different, non-empty names'),
        ({'cameras': ['a/b', 'a_b']}, 'expected different, non-empty names'),
        ({'cameras': ['rear-cam']}, "cameras names 'rear-cam', expected a topic name of ROS"),
        ({'cameras': ['front/']}, "'front/', expected .* none at its end"),
        ({'cameras': ['a//b']}, "'a//b', expected"),
        ({'cameras': ['2nd']}, "'2nd', expected .* begins with a digit"),
        ({'cameras': 'camera'}, r"cameras is 'camera', expected string\[\]"),
        ({'min_views': 9}, 'min_views is 9, expected at most window_size, 8'),
        ({'keyframe_max_interval': 0.1}, 'expected 0 or at least keyframe_min_interval'),
        ({'box': [0.0, 0.0, 0.0]}, 'expected four numbers'),
        ({'box': [5.0, 0.0, 4.0, 9.0]}, 'expected x_min < x_max'),
        ({'object_frame': 'ray_pose_world'}, 'two different names'),
        ({'windowsize': 3}, 'parameter windowsize is not known'),
    ],
)
def test_nonsense_is_refused_with_name_value_and_expectation(values, message):
    with pytest.raises(ParameterError, match=message):
        make_settings(values)


@pytest.mark.parametrize('name', ['/front', 'robot/front_2', '~', '~/front', '{node}/front'])
def test_cameras_may_have_every_name_that_ros_takes(name):
    assert make_settings({'cameras': [name]}).cameras == [name]
    validate_topic_name(f'{name}/image_raw')


def test_what_a_node_does_not_have_is_told():
    values = {'windw_size': 5, 'samples': 2, 'use_sim_time': False, 'qos_overrides./tf.depth': 3}
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node(
        'misspelt',
        context=context,
        parameter_overrides=[RosParameter(k, value=v) for k, v in values.items()],
    )
    try:
        declare(node)
        (text,) = unknown_overrides(node)
        (of_topic,) = unknown_overrides(node, of_topics=True)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert text == 'parameter windw_size is not known and does nothing; is window_size meant?'
    assert of_topic == 'parameter qos_overrides./tf.depth is not known and does nothing'


def test_changes_at_run_time():
    settings = Settings()
    result, changed = on_set(settings, [RosParameter('keyframe_min_change', value=0.2)], 'active')
    assert result.successful and changed.keyframe_min_change == 0.2
    assert dataclasses.replace(changed, keyframe_min_change=0.05) == settings

    result, changed = on_set(settings, [RosParameter('window_size', value=4)], 'active')
    assert not result.successful and changed is None
    assert 'only while the node is unconfigured, but it is active' in result.reason
    result, changed = on_set(settings, [RosParameter('window_size', value=4)], 'unconfigured')
    assert result.successful and changed.window_size == 4

    result, _ = on_set(settings, [RosParameter('tf_rate', value=-1.0)], 'active')
    assert not result.successful and 'tf_rate is -1.0, expected double' in result.reason
    result, changed = on_set(settings, [RosParameter('use_sim_time', value=True)], 'active')
    assert result.successful and changed == settings


def test_live_parameters_are_those_that_need_no_reload():
    live = {p.name for p in PARAMETERS if p.change == ANY}
    assert {'keyframe_min_interval', 'box', 'publish_tf', 'stale_timeout'} <= live
    assert not live & {'checkpoint', 'device', 'cameras', 'window_size', 'reference_frame'}
    assert BY_NAME['autostart'].read_only
