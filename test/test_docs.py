"""The documents say what the code says: reasons, messages, files, and examples that run."""

import ast
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from estimation_fixtures import checkpoint, estimate, photos

from ray_pose_ros.estimation import colmap_files, export

__all__ = ['checkpoint', 'photos']  # fixtures

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
NODE = sorted((ROOT / 'ray_pose_ros' / 'node').glob('*.py'))
# What a status' text or a log line begins with or contains, in the code and in the document.
MESSAGES = (
    'no images on', 'images arrive', 'waiting for keyframes', 'the model cannot be loaded',
    'the last estimate failed', 'memory ran out, working with', 'has hung for',
    'the worker thread has died', 'another is begun', 'no further one is begun',
    'have the name of this one', 'the node is',
)  # fmt: skip


def reasons() -> dict[str, str]:
    """Find every reason that the node counts under: {reason: file}."""
    found = {}
    for path in NODE:
        for node in ast.walk(ast.parse(path.read_text())):
            texts, pattern = [], r'[a-z]+(_[a-z]+)*'
            if isinstance(node, ast.Call):
                name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
                if name in ('refuse', '_refuse', 'drop'):
                    texts = node.args
            elif isinstance(node, ast.Subscript) and getattr(node.value, 'attr', '') == 'drops':
                texts = [node.slice]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
                # what mismatch() and its kind return: (reason, text)
                texts, pattern = node.elts[:1], r'[a-z]+(_[a-z]+)+'
            for text in texts:
                parts = [text.body, text.orelse] if isinstance(text, ast.IfExp) else [text]
                for part in parts:
                    value = getattr(part, 'value', None)
                    if isinstance(value, str) and re.fullmatch(pattern, value):
                        found[value] = path.name
    return found


def test_every_reason_is_explained():
    text = (DOCS / 'troubleshooting.md').read_text()
    found = reasons()
    assert {'bad_image', 'no_camera_info', 'wrong_size', 'time_jump', 'out_of_order'} <= set(found)
    missing = {r: f for r, f in found.items() if f'`{r}`' not in text}
    assert not missing, f'docs/troubleshooting.md does not explain {missing}'


@pytest.mark.parametrize('words', MESSAGES)
def test_every_message_is_explained(words):
    source = ''.join(p.read_text() for p in NODE)
    assert words in source.replace("'\n                '", ''), 'the code says something else now'
    assert words in (DOCS / 'troubleshooting.md').read_text()


@pytest.mark.parametrize('page', sorted(DOCS.glob('*.md')), ids=lambda p: p.name)
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r'\]\(([^)#\s]+)', text):
        if '://' not in target:
            assert (page.parent / target).exists(), target
    for file in re.findall(r'`((?:config|launch|docs|scripts|rviz)/[\w./]+)`', text):
        assert (ROOT / file).exists(), file


def test_the_example_of_using_poses_runs(photos, checkpoint, tmp_path, monkeypatch):
    out = tmp_path / 'result'
    shutil.copytree(photos / 'images', out)
    arguments = [out, '--intrinsics', photos / 'poses.json', '--checkpoint', checkpoint]
    assert estimate(*arguments, '--out', out) == 0
    monkeypatch.chdir(out)
    names = {}
    blocks = re.findall(r'```python\n(.*?)```', (DOCS / 'using_poses.md').read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, 'using_poses.md', 'exec'), names)
    posed = export.read_transforms('transforms.json')
    assert np.allclose(names['centres'], -np.einsum('nji,nj->ni', posed.R, posed.t), atol=1e-9)
    distance = np.linalg.norm(names['metres'] * (names['centres'][1] - names['centres'][0]))
    assert distance == pytest.approx(0.5)
    assert colmap_files.read_colmap('sparse/0').names == colmap_files.read_colmap('colmap').names
    points = np.loadtxt('sparse/0/points3D.txt')
    assert points.shape == (5000, 8) and len(set(points[:, 0])) == 5000


def test_the_example_of_python_runs(tmp_path, monkeypatch, capsys):
    from ray_pose_ros.evaluation.sequences import render_scene
    from ray_pose_ros.geometry.so3 import angle_between

    scene = render_scene(0, size=224)
    order = np.argsort(angle_between(scene.R, scene.R[:1]))[:4]
    (tmp_path / 'photos').mkdir()
    for n, view in enumerate(order):
        image = cv2.cvtColor(scene.views[view].image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(tmp_path / f'photos/{n}.png'), image)
    [block] = re.findall(r'```python\n(.*?)```', (DOCS / 'python.md').read_text(), re.S)
    own = re.search(r'np\.array\(\[\[260.*\]\)', block).group()
    K = scene.views[order[0]].camera.matrix.tolist()
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block.replace(own, f'np.array({K})'), 'python.md', 'exec'), names)
    found, truth = names['estimate'].R, scene.R[order]
    assert np.degrees(angle_between(found, truth @ truth[0].T)).max() < 10
    assert capsys.readouterr().out.startswith('0.png: centre [')
    assert {'poses.json', 'colmap', 'poses.png'} <= {p.name for p in Path('result').iterdir()}
