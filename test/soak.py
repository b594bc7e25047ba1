"""
The node for a long time: a camera at 30 Hz, services now and then, the lifecycle now and then.

    scripts/soak [--minutes 20] [--rate 30] [--size 640x480] [--out soak.json]

Watches the node's process from outside: resident memory, threads, open files, and what it has in
the ROS graph. Everything is asked of it twice before the time begins to count: see `warm_up`. Ends
with exit code 1 when memory has grown by more than 2 % between the first quarter and the last,
when threads, files or entities have become more, when the poses stopped, or when the node did not
end with 0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]
os.environ.setdefault('ROS_DOMAIN_ID', str(101 + os.getpid() % 50))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
for _name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
    os.environ.setdefault(_name, str(ROOT / 'config' / 'fastdds_shm.xml'))

import rclpy  # noqa: E402  (reads the environment)
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from node_harness import Client, pictures, pinhole, save_tiny_model  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

GROWTH = 0.02
ACT_S = 10.0
DOWN_AND_UP = 11
NODE = '/ray_pose'


class Soak:
    """One run: the node as a process, this process as its camera and its observer."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        self.args, self.samples, self.answers, self.poses = args, [], {}, 0
        self.before, self.after = {}, {}
        parameters = {
            'checkpoint': save_tiny_model(scratch / 'model'),
            'device': 'cpu',
            'output_directory': str(scratch / 'saved'),
            'keyframe_min_interval': 0.2,
            'window_size': 4,
            'samples': 1,
        }
        command = [sys.executable, '-m', 'ray_pose_ros.node.main', '--ros-args']
        for name, value in parameters.items():
            command += ['-p', f'{name}:={value}']
        environment = os.environ | {'PYTHONPATH': str(ROOT), 'ROS_LOG_DIR': str(scratch)}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=int(os.environ['ROS_DOMAIN_ID']))
        self.client = Client(self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        self.services = {
            'save': (Trigger, Trigger.Request()),
            'reset': (Trigger, Trigger.Request()),
            'capture': (Trigger, Trigger.Request()),
            'enable': (SetBool, SetBool.Request(data=True)),
        }
        self.clients = {
            n: self.client.create_client(kind, f'{NODE}/{n}')
            for n, (kind, _) in self.services.items()
        }
        self.change = self.client.create_client(ChangeState, f'{NODE}/change_state')
        width, height = (int(x) for x in args.size.split('x'))
        self.images, self.camera = pictures(64, width, height), pinhole(width, height)
        self.published = 0

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def show_until(self, condition, timeout: float) -> None:
        """Be the camera until something holds; a new picture for six frames."""
        begin, first = time.monotonic(), self.published
        while not condition():
            assert self.process.poll() is None, 'the node has ended'
            assert time.monotonic() - begin < timeout, f'nothing for {timeout:g} s'
            picture = self.images[self.published // 6 % len(self.images)]
            self.client.show(picture, time.time_ns(), self.camera)
            self.published += 1
            due = begin + (self.published - first) / self.args.rate
            self.spin(max(0.0, due - time.monotonic()))
            self.poses += len(self.client.poses)
            for kept in (self.client.poses, self.client.paths, self.client.newest):
                kept.clear()
            self.client.markers.clear()
            self.client.tf.clear()

    def warm_up(self) -> None:
        """
        Have everything done twice that the run will ask for.

        The first save loads matplotlib (60 MB), the first keyframes fill the window, the first
        activation takes memory that the next ones use again. None of it is growth.
        """
        self.show_until(self.client.images.get_subscription_count, 60)
        for _ in range(2):
            known = self.poses
            self.show_until(lambda n=known: self.poses > n, 60)
            for number in (*range(len(self.services)), DOWN_AND_UP):
                futures = self.act(number)
                self.show_until(lambda f=futures: all(future.done() for future in f), 60)
                assert all(future.result().success for future in futures), number

    def run(self) -> None:
        """Warm up, then publish until the time is over."""
        self.warm_up()
        begin = time.monotonic()
        self.published = self.poses = 0
        next_sample, next_act, acts = begin, begin + ACT_S, 0
        self.before = self.counts()
        while (now := time.monotonic()) - begin < 60 * self.args.minutes:
            if now >= next_sample:
                next_sample = now + self.args.every
                self.sample(now - begin)
            if now >= next_act:
                next_act = now + ACT_S
                self.act(acts)
                acts += 1
            later = min(next_sample, next_act)
            self.show_until(lambda end=later: time.monotonic() >= end, self.args.every + 60)
        self.sample(time.monotonic() - begin)
        self.after = self.counts()

    def counts(self) -> dict[str, int]:
        """Return what the node's diagnostics count since its start (not since its activation)."""
        said = self.client.diagnostics
        names = [n for n in said if n.startswith(('dropped: ', 'refused: '))]
        return {n: int(said.get(n, 0)) for n in [*names, 'keyframes', 'estimates', 'failures']}

    def act(self, number: int) -> list:
        """One service every ten seconds; every two minutes down and up again."""
        if number % 12 == DOWN_AND_UP:
            return [
                self.change.call_async(ChangeState.Request(transition=Transition(id=transition)))
                for transition in (
                    Transition.TRANSITION_DEACTIVATE,
                    Transition.TRANSITION_ACTIVATE,
                )
            ]
        name = list(self.services)[number % 4]
        future = self.clients[name].call_async(self.services[name][1])
        future.add_done_callback(
            lambda f, n=name: self.answers.update({n: self.answers.get(n, 0) + 1})
        )
        return [future]

    def sample(self, seconds: float) -> None:
        """Look at the process and at the graph."""
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        fields = dict(line.split(':', 1) for line in status.splitlines())
        graph = [
            self.client.get_publisher_names_and_types_by_node('ray_pose', '/'),
            self.client.get_subscriber_names_and_types_by_node('ray_pose', '/'),
            self.client.get_service_names_and_types_by_node('ray_pose', '/'),
        ]
        row = {
            'seconds': round(seconds),
            'resident_kB': int(fields['VmRSS'].split()[0]),
            'threads': int(fields['Threads']),
            'files': len(os.listdir(f'/proc/{self.process.pid}/fd')),
            'entities': sum(len(g) for g in graph),
            'poses': self.poses,
            'estimates': int(self.client.diagnostics.get('estimates', 0)),
        }
        self.samples.append(row)
        print(json.dumps(row), flush=True)

    def end(self) -> int:
        """End the node as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.executor.shutdown()
        self.client.destroy_node()
        rclpy.try_shutdown(context=self.context)
        return code


def judge(samples: list[dict], code: int) -> tuple[dict, list[str]]:
    """Compare the last quarter with the first: (numbers, complaints)."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[:quarter], samples[-quarter:]
    middle = {
        key: [statistics.median(row[key] for row in rows) for rows in (early, late)]
        for key in ('resident_kB', 'threads', 'files', 'entities')
    }
    before, after = middle['resident_kB']
    growth = after / before - 1
    wrong = []
    if growth > GROWTH:
        wrong.append(f'resident memory has grown by {100 * growth:.1f} %')
    for key in ('threads', 'files', 'entities'):
        if middle[key][1] > middle[key][0]:
            wrong.append(f'{key}: {middle[key][0]:g} became {middle[key][1]:g}')
    if samples[-1]['poses'] <= samples[-quarter - 1]['poses']:
        wrong.append('no poses towards the end')
    if code != 0:
        wrong.append(f'the exit code is {code}')
    return {'growth_percent': round(100 * growth, 2), 'medians': middle}, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=float, default=20.0)
    parser.add_argument('--rate', type=float, default=30.0, help='images a second')
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--every', type=float, default=5.0, help='seconds between two samples')
    parser.add_argument('--out', type=Path, help='JSON with all samples')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='ray_pose_soak_') as scratch:
        soak = Soak(args, Path(scratch))
        try:
            soak.run()
        finally:
            code = soak.end()
        saved = len(list((Path(scratch) / 'saved').glob('*')))
    numbers, wrong = judge(soak.samples, code)
    numbers |= {'images': soak.published, 'poses': soak.poses, 'answers': soak.answers}
    counted = {n: count - soak.before.get(n, 0) for n, count in soak.after.items()}
    numbers |= {'saved': saved, 'exit_code': code, 'minutes': args.minutes, 'node': counted}
    print(json.dumps(numbers))
    for complaint in wrong:
        print(f'soak: {complaint}', file=sys.stderr)
    if args.out:
        args.out.write_text(json.dumps(numbers | {'samples': soak.samples}, indent=1) + '\n')
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
