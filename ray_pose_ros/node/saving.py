"""
`~/save`: the map, or without one the last window, as files that `ray-pose estimate` writes too.

The files appear all at once, under a name that says when: they are written to a hidden folder that
is renamed when it is complete. Writing takes seconds (pictures), so a thread does it, and the
service answers when that is done, without keeping the executor meanwhile.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2

_SLICE_S = 0.005  # the executor asks again and again; this keeps it from doing nothing but that
_NAME = re.compile(r'[\w.-]+')
_MOST_A_SECOND = 100
_THREAD = 'ray_pose_save'


def output_directory(settings) -> Path:
    """Return where files go: the parameter, or `ray_pose` in $ROS_HOME (~/.ros)."""
    if settings.output_directory:
        return Path(settings.output_directory).expanduser()
    return Path(os.environ.get('ROS_HOME') or Path.home() / '.ros') / 'ray_pose'


class _Job:
    """A call on a thread of its own, to be awaited in a callback of any rclpy executor."""

    def __init__(self, function, *args) -> None:
        self._done = threading.Event()
        self._answer = None
        # a daemon: what is half written at the end of the process stays hidden
        threading.Thread(
            target=self._run, args=(function, args), name=_THREAD, daemon=True
        ).start()

    def _run(self, function, args) -> None:
        try:
            self._answer = function(*args)
        finally:
            self._done.set()

    def __await__(self):
        while not self._done.wait(_SLICE_S):
            yield
        return self._answer


async def in_background(solved, settings) -> tuple[bool, str]:
    """Call `save` on another thread and return what it returns."""
    return await _Job(save, solved, settings)


def wait(timeout: float) -> bool:
    """
    Wait until nothing is being written; false when that takes longer.

    Python must not be shut down before: it ends daemon threads by unwinding them, and C++ code in
    between (image writers, fonts) answers that with std::terminate.
    """
    end = time.monotonic() + timeout
    for thread in threading.enumerate():
        if thread.name == _THREAD:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                return False
    return True


def save(solved, settings) -> tuple[bool, str]:
    """
    Write poses, picture and keyframe images to a new folder; return (success, what to say).

    `solved` is the worker's last Solved, or None. Raises nothing.
    """
    if solved is None:
        return False, 'there is no estimate yet'
    parent = output_directory(settings)
    partial = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix='.', suffix='.partial', dir=parent))
        partial.chmod(0o755)
        written = _write(partial, solved)
        folder = _rename(partial)
    except Exception as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        return False, f'{parent}: {error}'
    finally:
        # a figure is a cycle, and holds 10 to 50 MB until Python looks for such: after many saves
        gc.collect()
    return True, f'{folder}: {written}'


def _rename(partial: Path) -> Path:
    """Name a folder after the present second."""
    second = time.strftime('%Y-%m-%d_%H-%M-%S')
    for number in range(1, _MOST_A_SECOND):
        folder = partial.with_name(second if number == 1 else f'{second}_{number}')
        if folder.exists():
            continue
        try:
            return partial.rename(folder)
        except FileExistsError:
            continue
        except OSError as error:  # another process was faster
            if error.errno != errno.ENOTEMPTY:
                raise
    raise OSError(f'{_MOST_A_SECOND} results within a second')


def _write(folder: Path, solved) -> str:
    """Return what was written, and what was left out and why."""
    from ray_pose_ros.estimation import results  # matplotlib comes with it
    from ray_pose_ros.estimation.packed_view import Unpacked

    everything = solved.mapped or solved
    names = _names(everything.keyframes)
    views = Unpacked(
        [replace(k.view, name=n) for k, n in zip(everything.keyframes, names, strict=True)]
    )
    for view in views:
        _, data = cv2.imencode('.png', cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR))
        (folder / view.name).write_bytes(data)  # says why not, where imwrite does not
    left_out: list[str] = []
    written = results.write_all(
        folder, replace(everything.estimate, names=names), views, say=left_out.append
    )
    return '; '.join([', '.join(written), *left_out])


def _names(keyframes) -> tuple[str, ...]:
    """Return file names of keyframes; stamps come again where a bag loops."""
    names = []
    for keyframe in keyframes:
        name = Path(inside(keyframe.view.name))
        again = name.name in names
        names.append(f'{name.stem}_k{keyframe.id}{name.suffix}' if again else name.name)
    return tuple(names)


def inside(name: str) -> str:
    """Return a file name that cannot lead out of a folder; ValueError for any other."""
    if not _NAME.fullmatch(name) or name.startswith('.'):
        raise ValueError(f'file name {name!r}, expected letters, digits, _, - and . only')
    return name
