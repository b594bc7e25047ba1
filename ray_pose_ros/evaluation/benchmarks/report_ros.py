"""The tables of what was measured through ROS 2."""

from collections.abc import Callable

_STAGES = ('end_to_end', 'transport', 'queue', 'decode', 'features', 'denoise', 'recover')
_AFTER = ('refine_and_join', 'publish')


def ros(section: dict, table: Callable[[list[str], list[list]], str]) -> list[str]:
    """Latency, dropped frames, lost frames."""
    settings = section['settings']
    rows = [[r['size'], *(r[s] for s in (*_STAGES, *_AFTER))] for r in section['latency']]
    columns = ['image', 'published to transform', 'transport', 'queue', 'decode', 'features']
    columns += ['denoise', 'recover', 'refine and join', 'publish']
    parts = [
        f'### From image to transform\n\nRaw images, a full window of {settings["window"]}, one '
        'image at a time, camera and node in processes of their own, shared-memory profile. '
        'Stages are the diagnostics of the node; transport is what it cannot see: the way of the '
        'image to its callback and of the transform back. Before the first poses are published '
        'they are refined by known matches and joined to the map.',
        table(columns, rows),
        '### A frame that does not become a keyframe\n\nCPU time of the whole node, less what it '
        f'takes when idle, for each frame that reached it, at {settings["rate"]:g} Hz.',
    ]
    rows = [
        [r['transport'], r['size'], f'{r["kilobytes"]:.0f} kB', r['reason'].replace('_', ' ')]
        + [r['cpu_ms'], f'{r["received"]} of {r["published"]}', r['keyframes']]
        for r in section['drops']
    ]
    columns = [
        'image',
        'size',
        'bytes',
        'dropped as',
        'CPU time',
        'arrived',
        'keyframes meanwhile',
    ]
    parts.append(table(columns, rows))
    parts.append(
        f'### Frames lost on the way\n\n{settings["frames"]} raw images, best effort, depth 5, '
        f'from one process to another at {settings["rate"]:g} Hz.'
    )
    rows = [
        [r['size'], r['transport'], f'{r["received"]} of {r["published"]}', float(r['rate'])]
        for r in section['loss']
    ]
    parts.append(table(['size', 'transport', 'arrived', 'published at, Hz'], rows))
    return parts
