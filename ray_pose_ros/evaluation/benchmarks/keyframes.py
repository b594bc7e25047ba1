"""What keyframes cost up to a thousand of them: the gate, the buffer, the files.

Nothing is solved here: a buffer of a thousand keyframes is filled, and a thousand cameras are
written as `~/save` writes them. `map_growth` has what it costs to join windows.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ray_pose_ros.estimation.keyframes import KeyframeBuffer, KeyframeGate, thumbnail
from ray_pose_ros.estimation.results import write_files
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.rotations import random_rotations

from .scale import end_slopes, with_slopes
from .timing import interleave, spread
from .workload import Options, random_views

COUNTS = (10, 100, 1000)
SIZES = {'VGA': (640, 480), '1080p': (1920, 1080)}


def measure(options: Options) -> dict:
    """Rows by number of keyframes: filling the buffer (ms each), its window (ms), files (ms, MiB).

    'gate' has the milliseconds of a look at one frame by image size, 'keyframe_mib' what one
    prepared keyframe with its image holds: the buffer keeps the images.
    """
    rows = []
    files = interleave({n: _write(n) for n in COUNTS}, min(options.repeats, 3))
    for count in COUNTS:
        buffer = interleave({'fill': _fill(count)}, options.repeats)['fill']
        rows.append(
            {
                'keyframes': count,
                'add': spread(buffer['wall'], 1e3 / count),
                'write': spread(files[count]['wall'], 1e3),
                'written_mib': _written_mib(count),
            }
        )
    gates = interleave({name: _look(*size) for name, size in SIZES.items()}, options.repeats)
    return {
        'rows': with_slopes(rows, 'keyframes', ('add', 'write', 'written_mib')),
        'slopes': end_slopes(rows, 'keyframes', ('add', 'write', 'written_mib')),
        'gate': {name: spread(gates[name]['wall'], 1e3) for name in SIZES},
        'keyframe_mib': {name: _keyframe_mib(options, size) for name, size in SIZES.items()},
    }


def _fill(count: int):
    def run():
        buffer = KeyframeBuffer(max(count, 2))
        for index in range(count):
            buffer.add('camera', index, 'camera_optical_frame', None)
            buffer.window()

    return run


def _look(width: int, height: int):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    gate = KeyframeGate(min_interval=0.0)
    gate.accept(0.0, thumbnail(image))

    def run():
        gate.refuses_time(1.0)
        gate.refuses_image(1.0, thumbnail(image))

    return run


def cameras(count: int) -> SimpleNamespace:
    """An estimate of `count` cameras all around, as far as the files need one."""
    R = random_rotations(count).double().numpy()
    camera = random_views(1)[0].camera
    return SimpleNamespace(
        R=R,
        t=np.tile([0.0, 0.0, 1.0], (count, 1)),
        cameras=(camera,) * count,
        intrinsics_source=('given',) * count,
        names=tuple(f'camera_{i}.png' for i in range(count)),
        stamps=tuple(float(i) for i in range(count)),
        rotation_sigma=np.full(count, 0.1),
        centre_sigma=np.full(count, 0.1),
        agreement=1.0,
        modes=1,
        metric=None,
    )


def _write(count: int):
    estimate = cameras(count)

    def run():
        with tempfile.TemporaryDirectory() as folder:
            write_files(folder, estimate)

    return run


def _written_mib(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, cameras(count))
        return sum(f.stat().st_size for f in Path(folder).rglob('*') if f.is_file()) / 2**20


def _keyframe_mib(options: Options, size: tuple[int, int]) -> float:
    """Bytes of the arrays and tensors that one keyframe keeps alive."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    view = View(image, None, box=(0, 0, *size))
    prepared = options.estimator().prepare(view)
    tensors = [x for x in vars(prepared).values() if hasattr(x, 'element_size')]
    kept = sum(x.element_size() * x.nelement() for x in tensors) + sys.getsizeof(prepared)
    return (kept + image.nbytes) / 2**20
