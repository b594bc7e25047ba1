"""`ray-pose estimate`: the estimator's command, and refinement after it."""

import argparse

from ray_pose_ros.estimation import command


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Declare the arguments; imports nothing heavy."""
    parser = command.add_parser(subparsers)
    parser.add_argument(
        '--refine',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='make the answer exact by feature matches where views overlap (default); without, '
        'the model alone, in about a quarter of the time',
    )
    parser.add_argument(
        '--matcher',
        metavar='NAME',
        help='of the refinement: sift, xfeat, lighterglue, disk or aliked; default: aliked where '
        'its package is, else lighterglue, which is faster, else sift (which always takes part)',
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it. Bad input raises ValueError before the model is loaded."""
    if not args.refine:
        if args.matcher:
            raise ValueError(f'--matcher is {args.matcher!r}, with --no-refine nothing is matched')
        return command.run(args)
    from ray_pose_ros.estimation.devices import usable_device
    from ray_pose_ros.matching import MatcherUnavailable

    from .focal import unknown
    from .refine import default_matchers, keyframe
    from .refining import prepared_for_refinement, refined

    try:
        matchers = default_matchers(args.matcher, str(usable_device(args.device)))
    except MatcherUnavailable as error:
        raise ValueError(str(error)) from error

    def solve(estimator, prepared, views):
        with command.progress_bar('denoise', 'step', len(estimator.plan.steps)) as progress:
            look = estimator.look(prepared, progress)
        pairs = len(views) * (len(views) - 1) // 2
        keyframes = [keyframe(view) for view in views]
        with command.progress_bar('match', 'pair', pairs) as progress:
            found = refined(estimator, look, views, keyframes, matchers, progress=progress)
        names = ', '.join(matcher.name for matcher in matchers)
        print(
            f'refined with {names}: {len(found.pairs)} of {pairs} pairs of views joined, '
            f'{int(found.sure.sum())} of {len(views)} views sure'
        )
        if unknown(found).any() or 'matches' in found.intrinsics_source:
            print(_of_focal(found))
        return found

    return command.run(args, solve, prepared_for_refinement)


def _of_focal(found) -> str:
    """What to say of a focal length that nobody told, for a `RefinedEstimate`."""
    from .focal import HARDLY

    sigma, remedy = found.focal_sigma, '(--intrinsics FILE, or more photographs that overlap)'
    if sigma is not None and sigma <= HARDLY:
        return f'focal length by matches, to about {100 * sigma:.0f} %'
    if 'matches' in found.intrinsics_source:
        return (
            f'the matches hardly tell the focal length, to about {100 * sigma:.0f} %: if it is '
            f'another, poses are wrong {remedy}'
        )
    return (
        'the matches do not tell the focal length: if it is not as assumed, poses are wrong '
        f'{remedy}'
    )
