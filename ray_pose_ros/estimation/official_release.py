"""Fetching the official release: one zip from the authors' Google Drive, only when asked to.

The authors publish no checksum. The first fetch therefore tells the sum of what came, and every
later load is checked against it; who knows the sum already demands it.
"""

import hashlib
import http.client
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ray_pose_ros.estimation.pins import write_pins

FILE_ID = '1anIKsm66zmDiFuo8Nmm1HupcitM6NY7e'  # models.zip, in the README of the official code
URL = f'https://drive.usercontent.google.com/download?id={FILE_ID}&export=download&confirm=t'
NAMES = ('co3d_diffusion', 'co3d_regression')
LICENCE = """\
Ray Diffusion (https://github.com/jasonyzhang/RayDiffusion), Copyright (c) 2024 Jason Y. Zhang.
The repository is under the MIT License; the archive of weights has no licence file of its own.
The weights contain DINOv2 ViT-S/14 (Meta Platforms, Apache License 2.0) and were trained on CO3Dv2
(Meta Platforms), whose own terms restrict commercial use: read them before you sell anything.
None of this is part of this package, which only reads the files."""

SCHEMES = ('https://',)
MOST_BYTES = 20 * 2**30  # two models with their optimisers' state are under 10 GB
_BLOCK = 1 << 20
_TIMEOUT_S = 60.0


class FetchError(ValueError):
    """The release cannot be had, or is not what was expected; the text says why."""


def fetch(
    folder: Path,
    url: str = URL,
    expected: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Path], str]:
    """Download the archive and unpack its models below `folder`.

    Args:
        folder: made if need be; a model that is already there is never overwritten.
        url: https of the zip, and of all that it redirects to.
        expected: sha256 of the zip, where it is known.
        progress: called with (bytes so far, bytes in all or None).

    Returns:
        Folders of the models, and the archive's sha256.

    Raises:
        FetchError: not https, no network, another sum, not a zip, or nothing of use in it.
    """
    _demand_https(url)
    there = [name for name in NAMES if (folder / name).exists()]
    if there:
        raise FetchError(f'{folder / there[0]} exists already, expected a folder without it')
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    # beside the destination: a rename within one file system is whole or not at all
    scratch = Path(tempfile.mkdtemp(prefix='.fetch-', dir=folder))
    try:
        archive = scratch / 'models.zip'
        found = _download(url, archive, progress)
        if expected is not None and found != expected.lower():
            raise FetchError(f'the archive has sha256 {found}, expected {expected}')
        models = _unpack(archive, scratch)
        for model in models:
            write_pins(model)
        return [model.rename(folder / model.name) for model in models], found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _demand_https(url: str) -> None:
    if not url.lower().startswith(SCHEMES):
        raise FetchError(f'url is {url!r}, expected one that begins with https://')


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows none that leave https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _demand_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, path: Path, progress: Callable | None) -> str:
    digest, count = hashlib.sha256(), 0
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, headers={'User-Agent': 'ray-pose'})
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer, path.open('wb') as out:
            length = answer.headers.get('Content-Length')
            length = int(length) if length and length.isdigit() else None
            while block := answer.read(_BLOCK):
                count += len(block)
                if count > MOST_BYTES:
                    raise FetchError(f'{url} is longer than {MOST_BYTES} bytes')
                digest.update(block)
                out.write(block)
                if progress:
                    progress(count, length)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
        reason = getattr(error, 'reason', error)
        raise FetchError(
            f'{url} cannot be fetched ({reason}). Without a network: fetch it elsewhere, unpack '
            'it and give the folder as checkpoint'
        ) from error
    if length is not None and count != length:
        raise FetchError(f'{url} ended after {count} of {length} bytes')
    return digest.hexdigest()


def _unpack(archive: Path, scratch: Path) -> list[Path]:
    """Unpack the files that make a checkpoint, wherever in the archive its models are."""
    try:
        with zipfile.ZipFile(archive) as content:
            chosen = [(info, _place(info)) for info in content.infolist()]
            chosen = [(info, place) for info, place in chosen if place is not None]
            if sum(info.file_size for info, _ in chosen) > MOST_BYTES:
                raise FetchError(f'the archive unpacks to more than {MOST_BYTES} bytes')
            for info, place in chosen:
                target = scratch / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(info) as source, target.open('wb') as out:
                    shutil.copyfileobj(source, out, _BLOCK)
    except zipfile.BadZipFile as error:
        with archive.open('rb') as file:
            head = file.read(15)
        raise FetchError(
            f'what came is not a zip archive but begins with {head!r}: a web page, if the server '
            'has a quota or asks for a confirmation. Fetch it with a browser then'
        ) from error
    models = [scratch / name for name in NAMES if _is_whole(scratch / name)]
    if not models:
        raise FetchError(f'the archive holds none of {", ".join(NAMES)}')
    return models


def _place(info: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where a member of the archive goes; None for what is not needed or not to be trusted."""
    parts = PurePosixPath(info.filename).parts
    if info.is_dir() or '..' in parts or stat.S_ISLNK(info.external_attr >> 16):
        return None
    for name in NAMES:
        if name in parts:
            inside = parts[parts.index(name) :]
            wanted = inside[1:] == ('hydra', 'config.yaml')
            wanted |= len(inside) == 3 and inside[1] == 'checkpoints' and inside[2][-4:] == '.pth'
            return PurePosixPath(*inside) if wanted else None
    return None


def _is_whole(model: Path) -> bool:
    return (model / 'hydra' / 'config.yaml').is_file() and any(model.glob('checkpoints/*.pth'))
