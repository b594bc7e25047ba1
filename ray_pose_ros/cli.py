"""`ray-pose`: the command line.

Each subcommand lives in a module of its own with two functions: `add_parser(subparsers)`, which
must import nothing heavy so that `--help` answers at once, and `run(args)`, which returns the exit
code (None is 0). To add one, name its module in COMMANDS.
"""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from ray_pose_ros import __version__

COMMANDS = (
    'ray_pose_ros.refinement.command',
    'ray_pose_ros.evaluation.command',
    'ray_pose_ros.evaluation.benchmark',
    'ray_pose_ros.evaluation.calibrate',
    'ray_pose_ros.evaluation.report_command',
    'ray_pose_ros.training.command',
    'ray_pose_ros.estimation.checkpoint_command',
)
BAD_INPUT, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code: 0, 2 for bad input, 130 for Ctrl-C.

    Bad input (ValueError, EstimationError, OSError) becomes one line on stderr; anything else is a
    mistake in the program and keeps its traceback.
    """
    args = build_parser().parse_args(argv)
    try:
        return args.handler(args) or 0
    except KeyboardInterrupt:
        print('ray-pose: interrupted', file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        return _refuse(error, args.debug)
    except RuntimeError as error:
        if type(error).__name__ != 'EstimationError':  # its module imports torch
            raise
        return _refuse(error, args.debug)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog='ray-pose', description='Camera poses from a few photographs of an object.'
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    parser.add_argument('--debug', action='store_true', help='show tracebacks for bad input too')
    subparsers = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')
    for name in COMMANDS:
        module = importlib.import_module(name)
        module.add_parser(subparsers).set_defaults(handler=module.run)
    return parser


def _refuse(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f'ray-pose: error: {" ".join(str(error).split())}', file=sys.stderr)
    return BAD_INPUT


if __name__ == '__main__':
    sys.exit(main())
