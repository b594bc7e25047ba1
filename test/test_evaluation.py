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
    head, *_, same, _ = (line.split(' | ') for line in printed.strip().splitlines())
    assert dict(zip(head, same))['sure'] == '100 %'  # it tells no uncertainty
    assert head[-1] == 'sure and wrong |' and float(same[-1].split()[0]) > 50
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
        (['--rendered', '1', '--within', 'nan'], '--within is nan, expected 0 or more'),
        (['--rendered', '-1', 'nowhere'], '--rendered is -1, expected 0 or more'),
        (['--rendered', '1', '--seed', str(2**70)], f'seed is {2**70}, expected'),
        (['--rendered', '1', '--resume'], '--resume needs --out'),
        (['--rendered', '1', '--out', '/proc/none'], 'results.json cannot be written'),
        (['--rendered', '1', '--scale', '--tf-noise', 'nan', '0'], '--tf-noise is [nan, 0.0]'),
        (['--rendered', '1', '--tf-noise', '1', '0'], '--tf-noise is of --scale'),
        (['--rendered', '1', '--scale', '--tour', '--out', 'x'], '--out, --tour cannot go'),
        (['--rendered', '1', '--scale', '--steps', '1', '2'], '--steps is [1, 2], --scale takes'),
        (['--rendered', '1', '--methods', 'same', '--steps', '4'], '--methods has same only'),
        (['--rendered', '1', '--methods', 'nobody'], 'expected one of'),
        (['--rendered', '1', '--methods', 'same', 'same'], 'same twice'),
        (['--rendered', '1', '--checkpoint', 'nowhere'], 'nowhere'),
        (['nowhere'], 'no poses.json'),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert cli.main(['evaluate', '--device', 'cpu', *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('sets', [('--views', '99'), ('--views', '3', '--within', '0')])
def test_why_nothing_was_measured(sets, tmp_path, capsys):
    arguments = ['evaluate', '--rendered', '1', *sets, '--methods', 'same']
    assert cli.main([*arguments, '--out', str(tmp_path)]) == 2
    expected = f'no sequence has {sets[1]} views within {180 if len(sets) == 2 else 0} degrees'
    assert f'nothing was measured: {expected}' in capsys.readouterr().err
    assert not (tmp_path / 'results.json').exists()


def test_help_imports_nothing_heavy():
    code = (
        'import sys; from ray_pose_ros.cli import build_parser; build_parser(); '
        "heavy = {'torch', 'numpy', 'matplotlib', 'scipy', 'cv2', 'yaml'} & set(sys.modules); "
        'sys.exit(f"imported: {heavy}" if heavy else 0)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
