"""From an image being published to its transform being heard, in a real ROS graph. A ROS program.

    python -m ray_pose_ros.node.benchmarks.ros_latency '{"images": 6}'

prints one line of JSON: for each image size, a list of milliseconds by stage for each image. The
node is another process. One image at a time, so that none waits for another. 'transport' is what
the node does not see: the way of the image to its callback and of the transform back;
'refine_and_join', what it does with the model's poses before it publishes them.
"""

import json
import sys
import time

from ray_pose_ros.node.benchmarks.ros_probe import Probe
from ray_pose_ros.node.benchmarks.ros_publisher import Publisher, picture

SIZES = {'VGA': (640, 480), '1080p': (1920, 1080)}
STAGES = ('queue', 'decode', 'features', 'denoise', 'recover', 'solve', 'publish', 'total')
# Of STAGES those that do not overlap. What is left of the total are refining by known matches and
# joining the map, whose own latencies are told for the answers after the first, too.
_TOLD = ('queue', 'decode', 'features', 'denoise', 'recover', 'publish')
_QUIET_S = 2.0  # without a transform, before the node is asked whether it is at work
_ATTEMPTS = 3


def main(images=6, sizes=('VGA', '1080p'), window=8, device='auto', checkpoint='') -> dict:
    """Fill the window, then measure `images` images of each size."""
    parameters = {
        'window_size': window,
        'device': device,
        'checkpoint': checkpoint,
        'keyframe_min_interval': 0.0,
        'keyframe_min_change': 0.0,
        'tf_rate': 0.0,
        # the same picture again and again tells little: its transforms count all the same
        'lost_rotation_sigma': 0.0,
    }
    found = {}
    with Probe(parameters) as probe:
        publisher = Publisher(probe.node, 'camera', compressed=False)
        pictures = {name: picture(*SIZES[name]) for name in sizes}
        publisher.wait()
        for name in sizes:
            message = publisher.message(pictures[name])
            while len(probe.keyframes) < window:
                _answer(probe, publisher, message, SIZES[name])
            _answer(probe, publisher, message, SIZES[name])  # the first of this size
            found[name] = [
                _answer(probe, publisher, message, SIZES[name], True) for _ in range(images)
            ]
    return found


def _answer(probe: Probe, publisher: Publisher, message, size, split: bool = False) -> dict:
    """Show an image and wait for its transform; milliseconds by stage.

    An image that leaves the node idle and without a new transform is shown again: the first of
    all, whose keyframe is alone, and those lost on the way, counted in 'resent'.
    """
    known = max(probe.keyframes, default=-1)

    def newer() -> bool:
        return max(probe.keyframes, default=-1) > known

    for resent in range(_ATTEMPTS):  # noqa: B007 (used after)
        begin = time.monotonic()
        publisher.show(message, size)
        while not probe.wait(newer, _QUIET_S) and not probe.idle:
            pass
        if newer():
            break
    else:
        raise RuntimeError(f'{_ATTEMPTS} images in turn came to nothing')
    newest = max(probe.keyframes)
    found = {'end_to_end': 1e3 * (probe.keyframes[newest] - begin), 'resent': resent}
    if split:
        values = probe.fresh_diagnostics()
        found |= {s: float(values[f'latency {s} [ms]']) for s in STAGES}
        found['transport'] = found['end_to_end'] - found['total']
        found['refine_and_join'] = found['total'] - sum(found[s] for s in _TOLD)
    return found


if __name__ == '__main__':
    print(json.dumps(main(**json.loads(sys.argv[1]))), flush=True)
