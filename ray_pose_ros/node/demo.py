"""
The whole job, shown: camera topics go in, poses come out, a picture tells where the cameras were.

Starts the pose node as the launch file does and a pretended camera as a second process, listens
as any ROS program would, writes poses.png and poses.json and ends by itself. What it runs is real:
the node, its model, the messages between them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HOPELESS = 'the model cannot be loaded'  # what the node says in /diagnostics


class DemoError(RuntimeError):
    """Why the demo cannot go on, in words for its user."""


def make_parser() -> argparse.ArgumentParser:
    """Declare the arguments."""
    parser = argparse.ArgumentParser(
        prog='scripts/demo',
        description='Shows the pose node at work on a rendered object, photographs or a bag.',
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--images', metavar='DIR', help='photographs of one object; a poses.json '
                        'there gives intrinsics and, if known, the true poses')  # fmt: skip
    source.add_argument('--bag', metavar='BAG', help='a rosbag2 with images and camera_info')
    parser.add_argument('--bag-topic', default='', help='image topic in the bag; else the first')
    parser.add_argument('--views', type=int, default=8, help='how many views (default 8)')
    parser.add_argument('--out', metavar='DIR', default='demo_out', help='where the results go')
    parser.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    parser.add_argument('--checkpoint', default='', help='weights; else those of the package')
    parser.add_argument('--scene', type=int, default=3, help='which rendered object')
    parser.add_argument('--timeout', type=float, default=240.0, help='seconds to give up after')
    parser.add_argument('--smoke', action='store_true', help='a smaller, faster one, for tests')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the demo: 0 when poses came out and files were written, 1 or 2 with a reason if not."""
    args = make_parser().parse_args(argv)
    # SIGTERM ends it in good order too: the children must not outlive it
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(143))
    try:
        return run(args)
    except DemoError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except ValueError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('demo: interrupted', file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    """Start both processes, wait, write the results, end both."""
    if args.views < 2:
        raise ValueError(f'--views is {args.views}, expected at least 2: poses are relative')
    from ray_pose_ros.node.demo_listener import Listener, shown_views
    from ray_pose_ros.node.demo_processes import (
        Process,
        camera_command,
        isolated_environment,
        node_command,
    )

    camera, node = parameters(args)
    from ray_pose_ros.synthetic.camera_publisher import DEFAULTS, make_source

    source = make_source(DEFAULTS | camera)  # a bad folder or bag is found here, not in a child
    if not getattr(source, 'calibrated', True):
        node['require_camera_info'] = False
        print('These images come without intrinsics: the node works them out itself.')
    if getattr(source, 'compressed', False):
        node['image_transport'] = 'compressed'
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix='ray_pose_demo_'))
    camera['index_file'], node['output_directory'] = str(scratch / 'shown'), str(scratch / 'saved')
    environment, domain = isolated_environment()
    processes: list[Process] = []
    listener = None
    try:
        print(f'1. Starting the pose node and a camera (ROS domain {domain}, this machine only).')
        started = time.monotonic()
        listener = Listener(domain)
        processes.append(Process('node', node_command(node), environment, scratch / 'node.log'))
        processes.append(
            Process('camera', camera_command(camera), environment, scratch / 'camera.log')
        )
        expected = 0 if args.bag else min(len(source), node['window_size'])
        print('2. The camera publishes; the node picks keyframes and estimates.')
        wait(
            listener, processes, scratch / 'shown', len(source) if expected else 0, expected, args
        )
        seconds = time.monotonic() - started
        saved = save(listener)
        write(listener, source, shown_views(scratch / 'shown'), saved, out, args)
        print(f'   {seconds:.0f} s from start to poses; ', end='')
        print(f'latency of the last estimate {latency(listener)}')
        codes = {p.name: p.end() for p in processes}
        if any(codes.values()):
            raise DemoError(f'a process ended badly, exit codes {codes}, expected 0')
        return 0
    finally:
        for process in processes:
            process.end(signal.SIGTERM)
        if listener is not None:
            listener.close()
        shutil.rmtree(scratch, ignore_errors=True)


def parameters(args: argparse.Namespace) -> tuple[dict, dict]:
    """Say what the camera and the node are told beyond their defaults."""
    camera: dict = {'views': args.views, 'scene_seed': args.scene}
    if args.images:
        camera |= {'source': 'images', 'path': str(Path(args.images).resolve())}
    elif args.bag:
        camera |= {'source': 'bag', 'path': str(Path(args.bag).resolve())}
        camera['bag_topic'] = args.bag_topic
    node: dict = {'window_size': max(8, args.views), 'device': args.device}
    node['lost_rotation_sigma'] = 0.0  # show what the model gives, however uncertain it is
    if args.bag:
        node['window_size'] = args.views
    if args.checkpoint:
        node['checkpoint'] = str(Path(args.checkpoint).resolve())
    if args.smoke:
        camera |= {'views': min(args.views, 4), 'width': 320, 'height': 240}
        node['samples'] = 2
    return camera, node


def wait(listener, processes, index_file: Path, views: int, expected: int, args) -> None:
    """Wait until all that was shown is estimated; DemoError when that does not come about."""
    from ray_pose_ros.node.demo_listener import shown_views

    end, told = time.monotonic() + args.timeout, 0
    while time.monotonic() < end:
        listener.spin(0.3)
        over = False
        for process in processes:
            if args.bag and process.name == 'camera' and process.exit_code == 0:
                over = True  # a bag has an end, the other cameras stand still on the last view
            elif process.exit_code is not None:
                raise DemoError(
                    f'the {process.name} ended with exit code {process.exit_code}:\n'
                    f'{process.tail()}'
                )
        if any(p.startswith(HOPELESS) for p in listener.problems):
            break
        count = len(listener.stamps_ns)
        if count > told:
            told = count
            print(f'   {count} cameras located')
        # better answers follow the first one
        rest = time.monotonic() - listener.changed if listener.idle else 0.0
        if views:
            over = len(set(shown_views(index_file).values())) == views
        if count and (rest > 2.5 if count == expected else over and rest > 4.0):
            listener.spin(1.5)  # the transforms and the diagnostics of this estimate
            if len(listener.stamps_ns) < expected:
                print(f'   of {expected} views {count} became keyframes')
            return
    problems = '\n'.join(f'  the node says: {p}' for p in listener.problems[-5:])
    logs = '\n'.join(p.tail(8) for p in processes)
    waited = args.timeout - max(0.0, end - time.monotonic())
    raise DemoError(f'no result after {waited:.0f} s\n{problems}\n{logs}')


def save(listener) -> Path:
    """Have the node save, and return the folder once no other estimate came meanwhile."""
    for _ in range(5):
        before = listener.changed
        saved = Path(listener.save().split(': ')[0])
        listener.spin(1.0)
        if listener.changed == before:
            return saved
    raise DemoError('the node does not come to rest: estimates came during each of five saves')


def write(listener, source, shown: dict[int, int], saved: Path, out: Path, args) -> None:
    """Write poses.json and poses.png and print the errors, where the truth is known."""
    from ray_pose_ros.estimation import picture, results
    from ray_pose_ros.estimation.views import View
    from ray_pose_ros.geometry.so3 import camera_centres
    from ray_pose_ros.node.conversions import camera_from_pose, image_from_message, nanoseconds
    from ray_pose_ros.node.diagnostics import UNCALIBRATED
    from ray_pose_ros.node.point_cloud import points_of_message
    from ray_pose_ros.synthetic.camera_sources import Frame

    poses = [camera_from_pose(p) for p in listener.poses.poses]
    content = json.loads((saved / 'poses.json').read_text(encoding='utf-8'))
    check_agreement(listener, *map(np.stack, zip(*poses, strict=True)), content['frames'])
    # of a bag the whole map, of which ~/poses are the last
    R, t = (np.array([f[key] for f in content['frames']]) for key in 'Rt')
    stamps = [int(Path(f['file']).stem.rpartition('_')[2]) for f in content['frames']]
    if shown:
        frames = [source[shown[s]] for s in stamps]
    else:
        found = {nanoseconds(m.header.stamp): m for m in source.decoded(set(stamps))}
        frames = [Frame(f'{s * 1e-9:.3f}', image_from_message(found[s])) for s in stamps]
    for entry, frame in zip(content['frames'], frames, strict=True):
        entry['file'] = frame.name
    truth = None
    if all(f.R is not None and f.t is not None for f in frames):
        truth = np.stack([f.R for f in frames]), np.stack([f.t for f in frames])
    errors = None
    if truth is not None and len(frames) > 1:
        placed = SimpleNamespace(R=R, centres=camera_centres(R, t))
        errors = results.compare(placed, truth)
        content['errors'] = errors.summary()
    (out / 'poses.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    picture.draw(
        out / 'poses.png',
        [f.image for f in frames],
        R,
        t,
        np.stack([np.asarray(f['K']) for f in content['frames']]),
        names=[f.name for f in frames],
        crops=[View(f.image).crop() for f in frames],
        truth=truth,
        sigmas=np.array([f['centre_sigma'] for f in content['frames']]),
        cloud=points_of_message(listener.points) if listener.points else None,
    )
    print(f'3. {len(frames)} cameras, from {listener.poses.header.frame_id} on /tf:')
    for i, frame in enumerate(frames):
        c = -R[i].T @ t[i]
        print(f'   {i + 1:2d}  {frame.name:24s} at {c[0]:6.2f} {c[1]:6.2f} {c[2]:6.2f}')
    if errors is not None:
        print(f'   against the truth: {errors.line()}')
    if listener.points:
        print(f'   {listener.points.width} points that matches show, on ~/points')
    if not getattr(source, 'calibrated', True):
        print(f'   focal length: {listener.diagnostics.get(UNCALIBRATED, "unknown")}')
    print(f'   The picture is {out / "poses.png"}, the numbers are in {out / "poses.json"}.')


def check_agreement(listener, R: np.ndarray, t: np.ndarray, saved: list[dict]) -> None:
    """Compare ~/poses, /tf and the last of what ~/save wrote; DemoError when they tell different
    things."""
    from ray_pose_ros.node.conversions import camera_from_pose

    frames = listener.frames()
    newest = [frames[k] for k in sorted(frames)[-len(R):]]  # fmt: skip
    saved = saved[-len(R) :]
    if len(newest) != len(R) or len(saved) != len(R):
        raise DemoError(f'{len(R)} poses, but {len(newest)} frames on /tf, {len(saved)} saved')
    worst = 0.0
    for i, pose in enumerate(newest):
        for a, b in zip(camera_from_pose(pose), (R[i], t[i]), strict=True):
            worst = max(worst, float(np.abs(a - b).max()))
        worst = max(worst, float(np.abs(np.asarray(saved[i]['R']) - R[i]).max()))
        worst = max(worst, float(np.abs(np.asarray(saved[i]['t']) - t[i]).max()))
    if worst > 1e-6:
        raise DemoError(f'~/poses, /tf and ~/save differ by {worst:.2g}, expected under 1e-6')


def latency(listener) -> str:
    """Give the split of the last estimate's latency, from the diagnostics."""
    names = ('queue', 'features', 'denoise', 'recover', 'total')
    found = {n: listener.diagnostics.get(f'latency {n} [ms]') for n in names}
    return ', '.join(f'{n} {v} ms' for n, v in found.items() if v)


if __name__ == '__main__':
    sys.exit(main())
