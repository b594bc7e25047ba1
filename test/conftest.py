"""What every test run shares: slow tests on request, and a ROS of its own for the node's tests."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

# Before anything imports rclpy: own domain, this machine only, checked message fields.
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')
os.environ.setdefault('ROS_LOG_DIR', tempfile.mkdtemp(prefix='ray_pose_ros_log_'))
# The tests' networks are small: a second thread gains nothing, and spins where the other core is
# taken. Before anything imports torch.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# ROS from wheels needs no prefix to run, but ament_index_python does to look things up.
if sys.prefix not in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
    _prefixes = [sys.prefix, os.environ.get('AMENT_PREFIX_PATH', '')]
    os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join(filter(None, _prefixes))

HAS_ROS = importlib.util.find_spec('rclpy') is not None

# Where ROS is missing its tests are left out, and the header says so. scripts/test demands them.
if not HAS_ROS and not os.environ.get('RAY_POSE_REQUIRE_ROS'):
    collect_ignore_glob = ['test_node*.py']


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--slow', action='store_true', help='run the slow tests too')


def pytest_report_header() -> str:
    distro = os.environ.get('ROS_DISTRO', 'unnamed')
    return f'ROS: {distro}' if HAS_ROS else 'ROS: none, test_node*.py left out'


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow tests unless asked for; run fast tests first and the node's after others."""
    if not config.getoption('--slow') and not config.getoption('-m'):
        slow = [item for item in items if item.get_closest_marker('slow')]
        if slow:
            config.hook.pytest_deselected(items=slow)
            items[:] = [item for item in items if item not in slow]
    items.sort(key=_speed_class)


def _speed_class(item: pytest.Item) -> tuple[bool, bool]:
    is_node_test = Path(str(item.path)).name.startswith('test_node')
    return item.get_closest_marker('slow') is not None, is_node_test
