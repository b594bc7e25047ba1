"""What describes the package agrees with what is in it, and the floors stay in order."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'ray_pose_ros'

# Each floor, and the floors it may import from (docs and the README show the same order).
FLOORS = {
    'geometry': set(),
    'model': {'geometry'},
    'matching': {'geometry'},
    'multiview': {'geometry'},
    'estimation': {'geometry', 'model', 'matching', 'multiview'},
    'refinement': {'geometry', 'matching', 'multiview', 'estimation'},
    'node': {'geometry', 'model', 'matching', 'estimation', 'refinement', 'synthetic'},
    'synthetic': {'geometry'},
    'training': {'geometry', 'model', 'multiview', 'estimation', 'synthetic'},
    'evaluation': {
        'geometry',
        'model',
        'matching',
        'multiview',
        'estimation',
        'refinement',
        'synthetic',
        'node',
    },  # fmt: skip
    'cli': {
        'geometry',
        'model',
        'estimation',
        'refinement',
        'synthetic',
        'training',
        'evaluation',
    },  # fmt: skip
}
# Files outside node/ that may import ROS: the synthetic camera is a node itself.
ROS_OUTSIDE_NODE = {PACKAGE / 'synthetic' / 'camera_publisher.py'}
ROS_MODULE = re.compile(
    r'(rclpy|rcl_interfaces|builtin_interfaces|\w+_msgs|std_srvs|cv_bridge|tf2_\w+|rosidl_\w+'
    r'|launch|launch_ros|launch_testing\w*|message_filters|tf_transformations'
    r'|ament_index_python|diagnostic_updater)'
)
TF_MESSAGE_HASH = 'RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087'
# What the launch files and the package need that no Python file imports.
NOT_IMPORTED = {'ros2launch', 'cv_bridge', 'tf_transformations'}


def _sources() -> list[Path]:
    return sorted(PACKAGE.rglob('*.py'))


def _imports(path: Path, root: Path = ROOT) -> list[tuple[str, int]]:
    """All modules a file imports, also inside functions, as absolute names with their lines."""
    package = ('.'.join(path.relative_to(root).with_suffix('').parts)).split('.')[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            name = '.'.join(base + ([node.module] if node.module else []))
            # `from ray_pose_ros import node` and `from . import x` name modules, too.
            found += [(f'{name}.{alias.name}', node.lineno) for alias in node.names]
    return found


def _floor(parts: tuple[str, ...]) -> str | None:
    """The floor of `ray_pose_ros.<floor>...`; None for the package itself."""
    return parts[1] if len(parts) > 1 else None


def _manifest() -> ET.Element:
    return ET.parse(ROOT / 'package.xml').getroot()


def _setup_arguments() -> dict:
    """The arguments setup.py gives to setuptools, caught without building anything."""
    import setuptools

    caught: dict = {}
    original = setuptools.setup
    setuptools.setup = caught.update
    try:
        code = compile((ROOT / 'setup.py').read_text(encoding='utf-8'), 'setup.py', 'exec')
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            exec(code, {'__name__': '__main__'})
    finally:
        setuptools.setup = original
    return caught


def test_manifest_follows_rep_149():
    root = _manifest()
    assert root.tag == 'package' and root.get('format') == '3'
    for tag in ('name', 'version', 'description', 'maintainer', 'license'):
        assert (root.findtext(tag) or '').strip(), f'package.xml: no <{tag}>'
    assert root.findtext('name') == 'ray_pose_ros'
    assert root.findtext('license') == 'Apache-2.0'
    assert root.findtext('export/build_type') == 'ament_python'
    dependencies = [e.text for e in root.iter() if e.tag.endswith('_depend')]
    assert len(dependencies) == len(set(dependencies)), 'package.xml: a dependency twice'


def test_catkin_pkg_reads_the_manifest():
    package_reader = pytest.importorskip('catkin_pkg.package')
    warnings: list[str] = []
    package = package_reader.parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    package.validate()
    assert not warnings


def test_one_version_everywhere():
    version = _manifest().findtext('version')
    assert re.fullmatch(r'\d+\.\d+\.\d+', version)
    assert _setup_arguments()['version'] == version
    changelog = (ROOT / 'CHANGELOG.rst').read_text(encoding='utf-8')
    newest = re.search(r'^(\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)\n-+$', changelog, re.MULTILINE)
    assert newest is not None and newest[1] == version


def test_licence_is_whole():
    text = (ROOT / 'LICENSE').read_text(encoding='utf-8')
    assert 'Apache License' in text and 'Version 2.0, January 2004' in text
    assert 'END OF TERMS AND CONDITIONS' in text
    assert (ROOT / 'NOTICE').is_file()


@pytest.mark.parametrize(
    'destination',
    [
        'share/ament_index/resource_index/packages',
        'share/ray_pose_ros',
        'share/ray_pose_ros/launch',
        'share/ray_pose_ros/config',
        'share/ray_pose_ros/rviz',
    ],
)
def test_data_files_exist(destination):
    files = dict(_setup_arguments()['data_files'])[destination]
    assert files, f'nothing is installed in {destination}'
    for file in files:
        assert (ROOT / file).is_file(), file


def test_node_finds_its_files_by_name():
    files = [f for _, group in _setup_arguments()['data_files'] for f in group]
    assert {'launch/pose.launch.py', 'config/pose.yaml', 'config/fastdds_shm.xml'} <= set(files)


def test_default_model_is_package_data():
    default = PACKAGE / 'weights' / 'default'
    for name in ('model.safetensors', 'config.json', 'MODEL_CARD.md'):
        assert (default / name).is_file(), f'{default.relative_to(ROOT)} lacks {name}'
    assert (PACKAGE / 'training' / 'default.yaml').is_file()
    installed = {'ray_pose_ros': ['weights/default/*', 'training/*.yaml']}
    assert _setup_arguments()['package_data'] == installed


def test_every_folder_of_modules_is_installed():
    """A folder without __init__.py works in the source tree and is missing once installed."""
    packages = set(_setup_arguments()['packages'])
    for path in _sources():
        assert '.'.join(path.parent.relative_to(ROOT).parts) in packages, path.relative_to(ROOT)


@pytest.mark.parametrize('script', ['pose_node', 'ray-pose', 'camera_publisher'])
def test_console_script_has_a_main(script):
    scripts = _setup_arguments()['entry_points']['console_scripts']
    target = dict(line.split(' = ') for line in scripts)[script]
    name, function = target.split(':')
    # Read and not imported, so that this also runs where ROS is missing.
    path = ROOT.joinpath(*name.split('.')).with_suffix('.py')
    tree = ast.parse(path.read_text(encoding='utf-8'))
    assert function in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_imports_point_down_only():
    wrong = []
    for path in _sources():
        own = _floor(path.relative_to(ROOT).with_suffix('').parts)
        if own == '__init__':
            own = None
        else:
            assert own in FLOORS, f'{path.relative_to(ROOT)} is on no floor'
        for name, line in _imports(path):
            parts = tuple(name.split('.'))
            if parts[0] != 'ray_pose_ros':
                continue
            other = _floor(parts)
            # A name of ray_pose_ros/__init__.py itself, such as __version__, is no floor.
            if other not in FLOORS or other == own:
                continue
            if own is None or other not in FLOORS[own]:
                wrong.append(f'{path.relative_to(ROOT)}:{line} imports {name}')
    assert not wrong, '\n'.join(wrong)


def test_only_the_node_imports_ros():
    wrong = []
    for path in _sources():
        if PACKAGE / 'node' in path.parents or path in ROS_OUTSIDE_NODE:
            continue
        for name, line in _imports(path):
            if ROS_MODULE.fullmatch(name.split('.')[0]):
                wrong.append(f'{path.relative_to(ROOT)}:{line} imports {name}')
    assert not wrong, '\n'.join(wrong)


def test_ros_imports_are_declared():
    """What rosdep would not install must not be imported."""
    declared = {e.text for e in _manifest().iter() if e.tag.endswith('depend')}
    files = [*_sources(), *sorted((ROOT / 'launch').glob('*.py'))]
    files += sorted((ROOT / 'test').glob('test_*.py'))
    used = {name.split('.')[0] for path in files for name, _ in _imports(path)}
    used_of_ros = {name for name in used if ROS_MODULE.fullmatch(name)}
    assert used_of_ros <= declared
    stale = {d for d in declared if ROS_MODULE.fullmatch(d)} - used_of_ros - NOT_IMPORTED
    assert not stale, f'package.xml: nothing imports {sorted(stale)}'


def test_the_library_imports_without_ros():
    """Everything but the node: with ROS blocked, in a fresh interpreter."""
    modules = ['ray_pose_ros', *(f'ray_pose_ros.{floor}' for floor in FLOORS if floor != 'node')]
    block = "import sys; sys.modules['rclpy'] = None; sys.modules['sensor_msgs'] = None; "
    code = block + '; '.join(f'import {name}' for name in modules)
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120, cwd=ROOT)


def test_installed_package_is_found_by_ament():
    """After scripts/setup, or colcon, the share folder has what launch looks for."""
    packages = pytest.importorskip('ament_index_python.packages')
    share = Path(packages.get_package_share_directory('ray_pose_ros'))
    assert (share / 'package.xml').is_file()
    assert (share / 'launch' / 'pose.launch.py').is_file()
    assert (share / 'config' / 'pose.yaml').is_file()


@pytest.mark.slow
def test_colcon_installs_it(tmp_path):
    """What `ros2 run`, `ros2 launch` and the node look for is there after colcon build."""
    pytest.importorskip('colcon_ros')
    command = [sys.executable, '-m', 'colcon', '--log-base', 'log', 'build']
    command += ['--paths', str(ROOT), '--merge-install']
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)
    prefix = tmp_path / 'install'
    for script in ('pose_node', 'ray-pose', 'camera_publisher'):
        assert (prefix / 'lib' / 'ray_pose_ros' / script).is_file()
    for file in ('package.xml', 'launch/pose.launch.py', 'config/pose.yaml', 'rviz/pose.rviz'):
        assert (prefix / 'share' / 'ray_pose_ros' / file).is_file()
    assert (prefix / 'share/ament_index/resource_index/packages/ray_pose_ros').is_file()
    (model,) = prefix.rglob('weights/default/model.safetensors')
    source = PACKAGE / 'weights' / 'default' / 'model.safetensors'
    assert model.stat().st_size == source.stat().st_size


def test_tf2_msgs_is_the_real_one():
    """The type hash of the real tf2_msgs/TFMessage: with another, nothing on /tf would match."""
    packages = pytest.importorskip('ament_index_python.packages')
    share = Path(packages.get_package_share_directory('tf2_msgs'))
    description = share / 'msg' / 'TFMessage.json'
    if not description.is_file():
        pytest.skip('this ROS is older than type hashes')
    hashes = json.loads(description.read_text(encoding='utf-8'))['type_hashes']
    assert {'type_name': 'tf2_msgs/msg/TFMessage', 'hash_string': TF_MESSAGE_HASH} in hashes
