"""`ray-pose checkpoint` and the sha256 sums beside weights; the network is a server of its own."""

import functools
import http.server
import json
import shutil
import sys
import threading
import zipfile

import numpy as np
import pytest
import torch
from estimation_fixtures import checkpoint, estimate, photos
from model_golden import DIFFUSION

from ray_pose_ros import cli
from ray_pose_ros.estimation import official_release
from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.pins import PINS, check_pins, read_pins, sha256, write_pins
from ray_pose_ros.estimation.views import View
from ray_pose_ros.model.checkpoint import default_checkpoint, load_checkpoint
from ray_pose_ros.model.checkpoint_error import CheckpointError

__all__ = ['checkpoint', 'photos']  # fixtures


def run(*arguments):
    return cli.main(['checkpoint', *map(str, arguments)])


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run(*arguments) == cli.BAD_INPUT
    captured = capsys.readouterr()
    assert 'Traceback' not in captured.err
    return captured.err


@pytest.fixture
def own(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / 'own')


# -- sums ---------------------------------------------------------------------------------------


def test_what_ships_is_what_was_pinned():
    pins = check_pins(default_checkpoint(), required=True)
    assert set(pins) == {'config.json', 'model.safetensors'}, 'run: ray-pose checkpoint pin'


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors'])
def test_another_file_is_not_loaded(own, name):
    write_pins(own)
    Estimator(own)
    text = (own / name).read_bytes()
    # spaces around JSON change nothing but the sum; the weights' change would be noticed later too
    (own / name).write_bytes(text + b' ' if name == 'config.json' else text[:-1] + b'\x01')
    with pytest.raises(CheckpointError, match=f'{name} is damaged or was replaced: its sha256'):
        Estimator(own)


def test_sums_have_the_format_of_sha256sum(own):
    pins = write_pins(own)
    lines = (own / PINS).read_text().splitlines()
    assert lines == [f'{sha256(own / n)}  {n}' for n in ('config.json', 'model.safetensors')]
    assert read_pins(own) == pins == check_pins(own)


def test_sums_that_cannot_be_relied_on(own, monkeypatch):
    assert check_pins(own) == {}
    with pytest.raises(CheckpointError, match='SHA256SUMS is missing'):
        check_pins(own, required=True)
    monkeypatch.setattr('ray_pose_ros.estimation.pins.default_checkpoint', lambda: own)
    with pytest.raises(CheckpointError, match='SHA256SUMS is missing'):
        Estimator()
    line = (f'{sha256(own / "config.json")}  config.json\n')  # fmt: skip
    for text, words in (
        (line, 'has no sum of model.safetensors'),
        ('rubbish', "'rubbish', expected"),
        (f'{"0" * 64}  ../config.json', 'expected'),
        (f'{"0" * 64}  /etc/passwd', 'expected'),
        (line + f'{"0" * 64}  checkpoints/gone.pth', 'has no sum of model'),
    ):
        (own / PINS).write_text(text)
        with pytest.raises(CheckpointError, match=words):
            check_pins(own)


def test_pin_and_show(own, capsys):
    assert run('pin', own) == 0
    assert f'{sha256(own / "model.safetensors")}  model.safetensors' in capsys.readouterr().out
    assert run('show', own) == 0
    said = capsys.readouterr().out
    assert 'own format' in said and 'width: 48' in said and 'as pinned' in said
    (own / 'model.safetensors').write_bytes(b'x')
    assert 'damaged or was replaced' in refused(capsys, 'show', own)
    assert 'sha256' in refused(capsys, 'pin', own)  # the config knows better
    assert 'does not exist' in refused(capsys, 'show', own / 'nothing')


def test_the_command_line_checks_too(own, photos, tmp_path, capsys):
    write_pins(own)
    (own / 'config.json').write_bytes((own / 'config.json').read_bytes() + b' ')
    out = tmp_path / 'out'
    assert estimate(photos / 'images', '--checkpoint', own, '--out', out) == cli.BAD_INPUT
    assert 'config.json is damaged' in capsys.readouterr().err and not out.exists()


# -- convert ------------------------------------------------------------------------------------


def test_converted_weights_give_the_same_poses(tmp_path, capsys):
    out = tmp_path / 'converted'
    assert run('convert', DIFFUSION, '--out', out) == 0
    assert {p.name for p in out.iterdir()} == {'config.json', 'model.safetensors', PINS}
    assert load_checkpoint(out).config == load_checkpoint(DIFFUSION).config
    image = np.random.default_rng(0).integers(0, 255, (2, 80, 60, 3), dtype=np.uint8)
    views = [View(i, name=str(k)) for k, i in enumerate(image)]
    a, b = (Estimator(p, samples=1, steps=2).estimate(views) for p in (DIFFUSION, out))
    assert np.array_equal(a.R, b.R) and np.array_equal(a.t, b.t)
    notes = json.loads((out / 'config.json').read_text())['notes']
    assert notes['converted_from'] == DIFFUSION.name
    assert 'exists already' in refused(capsys, 'convert', DIFFUSION, '--out', out)
    half = tmp_path / 'half'
    assert run('convert', DIFFUSION, '--out', half, '--half') == 0
    sizes = [(p / 'model.safetensors').stat().st_size for p in (half, out)]
    assert sizes[0] < 0.6 * sizes[1]


# -- fetch --------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path/www over HTTP, which is allowed there; gives (folder, url)."""
    monkeypatch.setattr(official_release, 'SCHEMES', ('http://127.0.0.1:',))
    folder = tmp_path / 'www'
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            if self.path == '/elsewhere':
                self.send_response(302)
                self.send_header('Location', 'http://localhost/models.zip')
                return self.end_headers()
            return super().do_GET()

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """A client that hangs up, as `fetch` does where there is too much, is no error here;
            what it says of that is tested, and a traceback of the server's would stand between."""
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    handler = functools.partial(Quiet, directory=str(folder))
    with Server(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{httpd.server_address[1]}'
        httpd.shutdown()


def pack(path, extra=()):
    with zipfile.ZipFile(path, 'w') as archive:
        for name in official_release.NAMES:
            for file in DIFFUSION.rglob('*'):
                if file.is_file():
                    archive.write(file, f'models/{name}/{file.relative_to(DIFFUSION)}')
        for name, text in extra:
            archive.writestr(name, text)


def test_fetch_unpacks_what_it_needs_and_pins_it(server, tmp_path, capsys):
    folder, url = server
    evil = [('../evil.txt', 'x'), ('models/co3d_diffusion/../../../../evil.txt', 'x'),
            ('/evil.txt', 'x'), ('models/co3d_diffusion/run.py', 'x'),
            ('models/co3d_diffusion/checkpoints/../../evil.pth', 'x')]  # fmt: skip
    pack(folder / 'models.zip', evil)
    out = tmp_path / 'models'
    url += '/models.zip'
    assert run('fetch', '--out', out, '--url', url) == 0
    said = capsys.readouterr().out
    found = sha256(folder / 'models.zip')
    assert found in said and 'MIT License' in said and 'Jason Y. Zhang' in said
    assert sorted(p.name for p in out.iterdir()) == ['co3d_diffusion', 'co3d_regression']
    assert not list(tmp_path.rglob('evil*')) and not list(tmp_path.rglob('run.py'))
    Estimator(out / 'co3d_diffusion')
    weights = next((out / 'co3d_diffusion' / 'checkpoints').glob('*.pth'))
    weights.write_bytes(weights.read_bytes() + b' ')
    with pytest.raises(CheckpointError, match='damaged or was replaced'):
        Estimator(out / 'co3d_diffusion')
    assert 'exists already' in refused(capsys, 'fetch', '--out', out, '--url', url)
    again = tmp_path / 'again'
    assert run('fetch', '--out', again, '--url', url, '--sha256', found.upper()) == 0
    third = tmp_path / 'third'
    message = refused(capsys, 'fetch', '--out', third, '--url', url, '--sha256', '0' * 64)
    assert f'has sha256 {found}' in message and not third.exists()


def test_fetch_fails_plainly(server, tmp_path, capsys, monkeypatch):
    folder, url = server
    out = tmp_path / 'models'
    assert 'cannot be fetched' in refused(capsys, 'fetch', '--out', out, '--url', url + '/none')
    (folder / 'page').write_text('<html>Too many users have viewed this file</html>')
    message = refused(capsys, 'fetch', '--out', out, '--url', url + '/page')
    assert 'not a zip archive' in message and 'browser' in message
    with zipfile.ZipFile(folder / 'empty.zip', 'w') as archive:
        archive.writestr('readme', 'nothing')
    assert 'holds none of' in refused(capsys, 'fetch', '--out', out, '--url', url + '/empty.zip')
    assert 'begins with https' in refused(capsys, 'fetch', '--out', out, '--url', 'file:///etc')
    dead = 'http://127.0.0.1:9/models.zip'
    message = refused(capsys, 'fetch', '--out', out, '--url', dead)
    assert 'Without a network' in message and not out.exists()
    # longer than what sockets hold, so that the server is cut off in the midst of it
    pack(folder / 'models.zip', [('padding', bytes(32 << 20))])
    monkeypatch.setattr(official_release, 'MOST_BYTES', 1000)
    message = refused(capsys, 'fetch', '--out', out, '--url', url + '/models.zip')
    assert 'longer than 1000 bytes' in message and not out.exists()


def test_nothing_but_https_is_fetched(tmp_path, capsys):
    given = ['fetch', '--out', tmp_path / 'models', '--url', 'http://127.0.0.1:9/models.zip']
    assert 'expected one that begins with https' in refused(capsys, *given)


def test_no_redirect_leads_away_from_https(server, tmp_path, capsys):
    message = refused(capsys, 'fetch', '--out', tmp_path / 'a', '--url', server[1] + '/elsewhere')
    assert "url is 'http://localhost/models.zip', expected" in message


def test_nothing_is_fetched_to_see_the_licence(tmp_path, capsys):
    assert run('fetch', '--out', tmp_path / 'x', '--licence') == 0
    assert 'DINOv2' in capsys.readouterr().out and not (tmp_path / 'x').exists()
    assert run('fetch', '--licence') == 0
    assert 'fetch needs --out' in refused(capsys, 'fetch')


def test_a_fetched_pickle_is_not_executed(server, tmp_path, capsys):
    """The archive may come from anybody: a .pth that asks for code is refused when loaded."""
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "owned"}',)

    folder, url = server
    pack(folder / 'models.zip')
    out = tmp_path / 'models'
    assert run('fetch', '--out', out, '--url', url + '/models.zip') == 0
    model = out / 'co3d_diffusion'
    path = next((model / 'checkpoints').glob('*.pth'))
    torch.save({'state_dict': Evil()}, path, pickle_module=pickle)
    write_pins(model)
    with pytest.raises(CheckpointError, match='refused'):
        Estimator(model)
    assert not (tmp_path / 'owned').exists()
