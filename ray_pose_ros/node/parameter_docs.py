"""Writes docs/parameters.md and config/pose.yaml from the list of parameters."""

from __future__ import annotations

import json
import sys
from typing import Any

from ray_pose_ros.node.parameters import PARAMETERS


def _cell(value: Any) -> str:
    return '`' + json.dumps(value).replace('|', '\\|') + '`'


def markdown() -> str:
    """Write docs/parameters.md."""
    lines = [
        '# Parameters',
        '',
        'Written by `python3 -m ray_pose_ros.node.parameter_docs markdown` from '
        '`ray_pose_ros/node/parameters.py`. The last column says when a parameter may change: at '
        'the start only, while the node is unconfigured, or at any time.',
        '',
        '| name | type | default | expected | meaning | change |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for p in PARAMETERS:
        lines.append(
            f'| `{p.name}` | {p.type_name} | {_cell(p.default)} | {p.expectation} | '
            f'{p.description} | {p.change} |'
        )
    return '\n'.join(lines) + '\n'


def yaml_text() -> str:
    """Write config/pose.yaml: every parameter at its default, for any node name."""
    lines = [
        '# Every parameter of the pose node at its default; docs/parameters.md explains them.',
        '/**:',
        '  ros__parameters:',
    ]
    lines += [f'    {p.name}: {json.dumps(p.default)}' for p in PARAMETERS]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.stdout.write(yaml_text() if sys.argv[1:] == ['yaml'] else markdown())
