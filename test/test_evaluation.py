"""`ray-pose evaluate` from end to end, on a small rendered set."""

import json
import subprocess
import sys

import pytest

from ray_pose_ros import cli

SMALL = ['evaluate', '--rendered', '1', '--views', '2', '--subsets', '10', '--device', 'cpu']


def test_the_command_writes_all_figures(tmp_path, capsys):
    out = tmp_path / 'run'
    assert cli.main([*SMALL, '--errors', '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert '| rendered | 2 | model |' in printed and ' ± ' in printed
    stored = json.loads((out / 'results.json').read_text())
    assert [row['method'] for row in stored['results']] == ['model', 'same', 'azimuth']
    model = stored['results'][0]
    assert model['solves'] == 1 and model['pairs'] == 2 and model['placed'] == 1
    assert model['seconds'] > 0 and set(model['ci95']) == set(model['se'])
    assert stored['settings']['checkpoint'] == 'shipped' and stored['settings']['intrinsics']
    assert (out / 'results.md').read_text().count('| rendered | 2 | model |') == 3
    assert (out / 'cumulative.png').is_file() and len(list((out / 'parts').iterdir())) == 3
    # again, from what is there: not even the scene is rendered
    assert cli.main([*SMALL, '--errors', '--no-plots', '--resume', '--out', str(out)]) == 0
    assert capsys.readouterr().out == printed


def test_without_intrinsics_focal_errors_appear(capsys):
    assert cli.main([*SMALL, '--no-intrinsics', '--methods', 'model', 'same']) == 0
    head, _, model, same = capsys.readouterr().out.strip().splitlines()
    assert 'focal error' in head
    assert model.rsplit('|', 2)[1].strip().endswith('%') and same.rsplit('|', 2)[1].strip() == '-'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'nothing to evaluate'),
        (['--rendered', '1', '--views', '1'], 'expected 2 or more'),
        (['--rendered', '1', '--jobs', '0'], '--jobs is 0, expected 1 or more'),
        (['--rendered', '1', '--resume'], '--resume needs --out'),
        (['--rendered', '1', '--out', '/proc/none'], 'results.json cannot be written'),
        (['--rendered', '1', '--methods', 'nobody'], 'expected one of'),
        (['--rendered', '1', '--methods', 'same', 'same'], 'same twice'),
        (['--rendered', '1', '--checkpoint', 'nowhere'], 'nowhere'),
        (['nowhere'], 'no poses.json'),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert cli.main(['evaluate', '--device', 'cpu', *arguments]) == 2
    assert message in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        'import sys; from ray_pose_ros.cli import build_parser; build_parser(); '
        "heavy = {'torch', 'numpy', 'matplotlib', 'scipy', 'cv2', 'yaml'} & set(sys.modules); "
        'sys.exit(f"imported: {heavy}" if heavy else 0)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
