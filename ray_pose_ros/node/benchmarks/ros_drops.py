"""What a frame costs the node that does not become a keyframe. A ROS program.

    python -m ray_pose_ros.node.benchmarks.ros_drops '{"compressed": false}'

prints one line of JSON with a row for each size and reason. Most frames are dropped by their time
stamp ('too_soon'), the rest after a look at a thumbnail ('unchanged'). CPU time is that of the
node's whole process, less what it takes when idle, over the frames that reached it: transport,
deserialisation, callback and gate together.
"""

import json
import sys
import time

from ray_pose_ros.node.benchmarks.ros_probe import Probe
from ray_pose_ros.node.benchmarks.ros_publisher import Publisher, picture

SIZES = {'VGA': (640, 480), '1080p': (1920, 1080)}
REASONS = ('too_soon', 'unchanged')
_FOREVER_S = 3600.0


def main(
    compressed=False, frames=60, rate=15.0, sizes=('VGA', '1080p'), idle=2.0, checkpoint=''
) -> list[dict]:
    """Play `frames` frames for each size and reason; rows with milliseconds of CPU a frame."""
    parameters = {
        'image_transport': 'compressed' if compressed else 'raw',
        'device': 'cpu',
        'checkpoint': checkpoint,
        'keyframe_min_interval': 0.0,
    }
    rows = []
    with Probe(parameters) as probe:
        publisher = Publisher(probe.node, 'camera', compressed)
        publisher.wait()
        for name in sizes:
            message = publisher.message(picture(*SIZES[name]))
            for reason in REASONS:
                probe.set(keyframe_min_interval=_FOREVER_S if reason == 'too_soon' else 0.0)
                _play(probe, publisher, message, SIZES[name], 3, rate)  # the keyframe, if any
                rest = _cost(probe, lambda: probe.listen(idle))
                worked = _cost(
                    probe,
                    lambda: _play(probe, publisher, message, SIZES[name], frames, rate),  # noqa: B023
                )
                cpu = worked['cpu'] - rest['cpu'] / rest['wall'] * worked['wall']
                received = worked['images received']
                rows.append(
                    {
                        'transport': 'compressed' if compressed else 'raw',
                        'size': name,
                        'kilobytes': len(message.data) / 1e3,
                        'reason': reason,
                        'published': frames,
                        'received': received,
                        'dropped': worked[f'dropped: {reason}'],
                        'keyframes': worked['keyframes'],
                        'cpu_ms': 1e3 * cpu / received if received else None,
                    }
                )
    return rows


def _play(probe, publisher, message, size, frames: int, rate: float) -> None:
    begin = time.monotonic()
    for index in range(frames):
        probe.listen(max(0.0, begin + index / rate - time.monotonic()))
        publisher.show(message, size)


def _cost(probe: Probe, work) -> dict[str, float]:
    """CPU and wall seconds of the node while it works, and what it counted."""
    before = _counts(probe)
    cpu, wall = probe.cpu_seconds(), time.monotonic()
    work()
    after = _counts(probe)
    found = {k: after[k] - before.get(k, 0) for k in after}
    return found | {'cpu': probe.cpu_seconds() - cpu, 'wall': time.monotonic() - wall}


def _counts(probe: Probe) -> dict[str, int]:
    values = probe.fresh_diagnostics()
    names = ['images received', 'keyframes', *(f'dropped: {r}' for r in REASONS)]
    return {name: int(values.get(name, 0)) for name in names}


if __name__ == '__main__':
    print(json.dumps(main(**json.loads(sys.argv[1]))), flush=True)
