"""Windows joined in the node: frames that stay, `~/map`, `~/save` of everything."""

import json
import threading

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Path
from node_harness import (
    EVERY_FRAME,
    IMAGES,
    SECOND,
    FakeEstimate,
    FakeEstimator,
    save_tiny_model,
    show,
    starter,
)
from test_estimation_keyframe_map import CENTRES, R

from ray_pose_ros.node.conversions import camera_from_pose, nanoseconds
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.outputs import LATCHED

start = pytest.fixture(starter)
WINDOW = 4


class OfOneWorld(FakeEstimator):
    """Knows where each of IMAGES was taken; tells it as the estimator does, from the first."""

    def solve(self, prepared, progress=None):
        super().solve(prepared, progress)
        ids = [next(k for k, x in enumerate(IMAGES) if np.array_equal(x, v.image))
               for v in prepared]  # fmt: skip
        first, unit = R[ids[0]], np.linalg.norm(CENTRES[ids[0]])
        rotations, centres = R[ids] @ first.T, CENTRES[ids] @ first.T / unit
        n = len(ids)
        return FakeEstimate(
            R=rotations,
            t=-np.einsum('nij,nj->ni', rotations, centres),
            K=np.stack([np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])] * n),
            rotation_sigma=np.full(n, 0.02),
            centre_sigma=np.full(n, 0.02),
            rays=np.zeros((n, 6, 1, 1), np.float32),
            timings={'denoise': 0.001, 'recover': 0.002},
        )


@pytest.fixture
def of_one_world(start):
    """Start a node whose window holds four keyframes, with a subscription to its map."""

    def make(**parameters):
        harness = start(
            lambda settings: OfOneWorld(), EVERY_FRAME | {'window_size': WINDOW} | parameters
        )
        harness.maps = []
        name = f'{harness.client.name}/map'
        harness.client.create_subscription(Path, name, harness.maps.append, LATCHED)
        return harness

    return make


def one_by_one(harness, numbers) -> None:
    """Show images, each when the one before has its pose."""
    for k in numbers:
        show(harness, [k])
        if k:
            assert harness.until(lambda k=k: harness.seconds[-1:] == [100 + k])


def centres_of(poses) -> np.ndarray:
    return np.array([[p.position.x, p.position.y, p.position.z] for p in poses])


def test_frames_stay_while_the_window_slides(of_one_world):
    harness = of_one_world()
    one_by_one(harness, range(8))
    first = np.linalg.norm(CENTRES[0])
    for array, path in zip(harness.client.poses, harness.client.paths, strict=False):
        ids = [round(nanoseconds(p.header.stamp) / SECOND) - 100 for p in path.poses]
        assert np.allclose(centres_of(array.poses), CENTRES[ids] / first, atol=1e-6)
        for k, pose in zip(ids, array.poses, strict=True):
            assert np.allclose(camera_from_pose(pose)[0], R[k], atol=1e-6)
    assert harness.until(lambda: harness.maps and len(harness.maps[-1].poses) == 8)
    poses = harness.maps[-1].poses
    assert harness.maps[-1].header.frame_id == 'ray_pose_world'
    assert [round(nanoseconds(p.header.stamp) / SECOND) for p in poses] == [*range(100, 108)]
    assert np.allclose(centres_of(p.pose for p in poses), CENTRES[:8] / first, atol=1e-6)
    drawn = {m.ns for m in harness.client.markers[-1].markers}
    assert 'map' in drawn
    last = {t.child_frame_id for t in harness.client.tf[-1].transforms}
    assert 'camera_keyframe_7' in last and 'camera_keyframe_3' not in last  # of the window only


def test_a_reset_forgets_the_map(of_one_world):
    harness = of_one_world()
    one_by_one(harness, range(6))
    assert harness.until(lambda: harness.maps and len(harness.maps[-1].poses) == 6)
    assert harness.trigger('reset').success
    assert harness.until(lambda: not harness.maps[-1].poses)
    show(harness, [6, 7])
    assert harness.until(lambda: len(harness.maps[-1].poses) == 2)
    assert np.allclose(centres_of([harness.client.poses[-1].poses[0]])[0], [0, 0, -1])


def test_a_map_has_a_size(of_one_world):
    harness = of_one_world(map_size=6)
    one_by_one(harness, range(9))
    assert harness.until(
        lambda: harness.maps and harness.maps[-1].poses[-1].header.stamp.sec == 108
    )
    stamps = [p.header.stamp.sec - 100 for p in harness.maps[-1].poses]
    assert len(stamps) == 6 and stamps[0] == 0 and stamps[-WINDOW:] == [5, 6, 7, 8]


def test_without_a_map_each_window_has_a_world_of_its_own(of_one_world):
    harness = of_one_world(map_size=0)
    one_by_one(harness, range(6))
    assert np.allclose(centres_of([harness.client.poses[-1].poses[0]])[0], [0, 0, -1])
    assert harness.until(lambda: len(harness.maps[-1].poses) == WINDOW)
    assert 'map' not in {m.ns for m in harness.client.markers[-1].markers}


class Matching(OfOneWorld):
    """Refines what the model told, and has matched 12 of 40 pairs until the event is set."""

    refines = True

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()

    def looks(self, prepared, progress=None):
        progress(3, 10)  # steps of the model, not pairs
        for _ in range(2):
            told = self.solve(prepared)
            if self.refines:
                told.model = told
            yield told
            progress(12, 40)
            self.go_on.wait()
            progress(40, 40)


def test_how_far_matching_is_can_be_seen(start):
    estimator = Matching()
    # a name of its own: a node of a test before may still be in the graph for a while
    harness = start(lambda settings: estimator, EVERY_FRAME, name='matching')
    statuses = []
    harness.client.create_subscription(
        DiagnosticStatus, '/matching/status', statuses.append, LATCHED
    )
    try:
        show(harness, range(2))
        assert harness.until(
            lambda: statuses and statuses[-1].message == 'tracking; matching 12 of 40 pairs'
        )
        assert harness.diagnosed('matching', '12 of 40 pairs')
    finally:
        estimator.go_on.set()
    assert harness.until(lambda: statuses[-1].message == 'tracking')
    assert harness.diagnosed('matching', 'nothing')
    estimator.go_on.clear()
    estimator.refines = False  # a second look of the model alone
    try:
        show(harness, [2])
        assert harness.until(lambda: harness.count == 3)
        assert not harness.node.worker.matching and harness.node.worker.busy_since
    finally:
        estimator.go_on.set()


def test_save_writes_all_keyframes_of_the_map(start, tmp_path):
    checkpoint = save_tiny_model(tmp_path / 'checkpoint')
    harness = start(
        make_estimator,
        EVERY_FRAME
        | {'checkpoint': checkpoint, 'device': 'cpu', 'window_size': 3}
        | {'output_directory': str(tmp_path / 'out')},
    )
    one_by_one(harness, range(6))
    answer = harness.trigger('save')
    assert answer.success, answer.message
    (folder,) = (tmp_path / 'out').iterdir()
    frames = json.loads((folder / 'poses.json').read_text())['frames']
    assert len(frames) == 6
    # a bag that begins anew: the same stamps, and all images are there
    one_by_one(harness, range(6))
    assert harness.until(lambda: harness.node.health.keyframes == 12)
    assert harness.until(lambda: not harness.node.worker.waiting, 5)
    answer = harness.trigger('save')
    assert answer.success, answer.message
    again = max((tmp_path / 'out').iterdir(), key=lambda path: path.stat().st_mtime_ns)
    saved = [f['file'] for f in json.loads((again / 'poses.json').read_text())['frames']]
    assert len(set(saved)) == 12 and all((again / name).is_file() for name in saved)
    assert saved[6].endswith('_k6.png') and saved[:6] == [f['file'] for f in frames]
    for k, frame in enumerate(frames):
        image = cv2.imread(str(folder / frame['file']))[..., ::-1]
        assert image.shape == IMAGES[k].shape
        # those that have left the window were kept as JPEG
        assert np.abs(image.astype(int) - IMAGES[k]).mean() < (1e-9 if k > 2 else 12)
    assert (folder / 'poses.png').is_file() and (folder / 'colmap').is_dir()
