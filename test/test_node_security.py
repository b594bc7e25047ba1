"""Limits: what a message, a name or a policy may and may not do."""

import resource
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from node_harness import EVERY_FRAME, IMAGES, SECOND, show, starter

from ray_pose_ros.estimation.views import View
from ray_pose_ros.node import saving
from ray_pose_ros.node.diagnostics import Health

start = pytest.fixture(starter)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Collecting garbage takes its while in a process with torch in it."""
    monkeypatch.setattr(saving.gc, 'collect', lambda: 0)


def test_the_policy_is_what_the_node_has_in_the_graph(start):
    # a namespace of its own: other tests' nodes of this name linger in the graph for a while
    harness = start(parameters=EVERY_FRAME, ready=False, namespace='policy')
    assert harness.until(lambda: harness.node.state == 'active')
    profile = ET.parse(ROOT / 'config' / 'sros2_policy.xml').find('.//profile')
    allowed = {
        f'{group.tag} {kind}': {e.text for e in group}
        for group in profile
        for kind in group.attrib
    }
    client, name = harness.client, 'ray_pose'
    for rule, ask, optional in (
        ('topics publish', client.get_publisher_names_and_types_by_node, set()),
        ('topics subscribe', client.get_subscriber_names_and_types_by_node,
         {'/clock', '/parameter_events', '/camera/image_raw/compressed'}),
        ('services reply', client.get_service_names_and_types_by_node,
         {'/ray_pose/get_type_description'}),  # not in Humble
    ):  # fmt: skip
        # the other node's list comes from discovery, and grows
        deadline = time.monotonic() + 20
        while True:
            has = {n.removeprefix('/policy') for n, _ in ask(name, '/policy')}
            if allowed[rule] - has <= optional or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert has <= allowed[rule], f'{rule}: {has - allowed[rule]} is missing'
        assert allowed[rule] - has <= optional, f'{rule}: {allowed[rule] - has} is too much'


@pytest.mark.parametrize('name', ['../a.png', '/etc/a.png', 'a/b.png', '.hidden', '', 'a\x00.png'])
def test_names_cannot_lead_out_of_the_folder(name, tmp_path):
    with pytest.raises(ValueError, match='expected letters'):
        saving.inside(name)
    view = SimpleNamespace(name=name, image=IMAGES[0])
    solved = SimpleNamespace(keyframes=[SimpleNamespace(view=view)], estimate=None, mapped=None)
    out = tmp_path / 'out'
    success, message = saving.save(solved, SimpleNamespace(output_directory=str(out)))
    assert not success and 'expected letters' in message
    assert list(tmp_path.rglob('*')) == [out]  # nothing half done is left


def test_saving_says_when_it_cannot(tmp_path):
    (tmp_path / 'file').write_text('')
    view = SimpleNamespace(name='a.png', image=IMAGES[0])
    solved = SimpleNamespace(keyframes=[SimpleNamespace(view=view)], estimate=None, mapped=None)
    settings = SimpleNamespace(output_directory=str(tmp_path / 'file' / 'below'))
    success, message = saving.save(solved, settings)
    assert not success and str(tmp_path / 'file' / 'below') in message
    assert saving.save(None, settings) == (False, 'there is no estimate yet')


def test_saving_says_why_an_image_cannot_be_written(tmp_path):
    keyframe = SimpleNamespace(view=View(IMAGES[0], name='a.png'))
    solved = SimpleNamespace(keyframes=[keyframe], estimate=None, mapped=None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        success, message = saving.save(solved, SimpleNamespace(output_directory=str(tmp_path)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not success and 'File too large' in message


def test_each_result_has_a_folder_of_its_own_that_appears_complete(tmp_path, monkeypatch):
    seen = []

    def write(folder, solved):
        assert folder.name.startswith('.')
        seen.append(sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith('.')))
        (folder / 'poses.json').write_text('{}')
        return 'poses.json'

    monkeypatch.setattr(saving, '_write', write)
    monkeypatch.setattr(saving.time, 'strftime', lambda form: '2026-01-02_03-04-05')
    settings = SimpleNamespace(output_directory=str(tmp_path))
    answers = [saving.save(object(), settings) for _ in range(3)]
    assert all(success for success, _ in answers)
    names = ['2026-01-02_03-04-05', '2026-01-02_03-04-05_2', '2026-01-02_03-04-05_3']
    assert [m for _, m in answers] == [f'{tmp_path / n}: poses.json' for n in names]
    assert seen == [[], names[:1], names[:2]]
    assert all((tmp_path / n / 'poses.json').is_file() for n in names)


def test_saving_does_not_keep_the_executor(start, monkeypatch):
    """While files are written, images are taken, poses published, services answered."""
    harness = start(parameters=EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)
    waits = []

    def slow(solved, settings):
        time.sleep(1.5)
        waits.append(time.monotonic())
        return True, 'written'

    monkeypatch.setattr(saving, 'save', slow)
    from std_srvs.srv import Trigger

    client = harness.client.create_client(Trigger, '/ray_pose/save')
    assert harness.until(client.service_is_ready)
    future = client.call_async(Trigger.Request())
    harness.until(lambda: False, 0.2)
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)
    assert harness.trigger('capture').success
    assert not waits and not future.done()
    assert harness.until(future.done) and future.result().message == 'written'
    assert harness.diagnosed('last save', 'written')


def test_texts_from_outside_are_cut(start):
    health = Health()
    health.refuse('bad_image', 'x' * 100_000)
    worker = SimpleNamespace(busy_since=None, waiting=0, lost=0, lenses='assumed', matching='')
    from builtin_interfaces.msg import Time

    settings = SimpleNamespace(camera_timeout=5.0)
    array = health.status_array('/n', Time(), [], settings, worker, 'active')
    assert max(len(s.message) for s in array.status) == 300
    node = start(parameters=EVERY_FRAME, ready=False).node
    node.refuse('camera', '/image', 'bad_image', 'x' * 100_000)  # said in the log as well
    assert len(node.health.last_refusal[1]) == 300 + len('/image: ')


def test_an_image_too_large_is_refused_before_it_is_decoded(start):
    harness = start(parameters=EVERY_FRAME | {'max_image_megapixels': 0.01})
    large = np.zeros((110, 100, 3), np.uint8)
    harness.client.show(large, 100 * SECOND, None)
    assert harness.diagnosed('refused: bad_image', '1')
    assert 'max_image_megapixels' in harness.client.levels['/ray_pose: input'][1]
    assert not harness.estimator.prepared
