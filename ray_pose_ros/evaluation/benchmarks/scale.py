"""How cost grows: with the number of views, with the number of samples, with keyframes kept."""

import torch

from ray_pose_ros.estimation.consensus import consensus
from ray_pose_ros.geometry.rotations import rotation_from_vector

from .fresh import in_fresh_process
from .timing import interleave, slope, spread
from .workload import Options, random_views

STAGES = ('features', 'denoise', 'recover')
SAMPLES = (4, 16, 64, 256)
LINEAR = 1.15  # a slope above is called faster than linear
_FEW = 16  # from so many views on, two rounds are enough
_OPERATORS = 6


def by_views(options: Options) -> dict:
    """Rows of times (ms), memory (MiB, a fresh process each), and the slope since the row before.

    'slopes' are those over the larger half of the sizes, on log-log axes: 1 is linear. For the
    stages that grow faster, 'operators' names what torch spends its time on at the largest size.
    """
    estimator = options.estimator()
    sizes = sorted(set(options.scale))
    views = random_views(max(sizes))
    rows = []
    for group in ([n for n in sizes if n < _FEW], [n for n in sizes if n >= _FEW]):
        if not group:
            continue
        repeats = options.repeats if group[0] < _FEW else min(options.repeats, 2)
        cases = {n: _estimate(estimator, views[:n]) for n in group}
        for count, runs in interleave(cases, repeats, warm_up=group[0] < _FEW).items():
            row = {'views': count} | {s: spread(runs[s], 1e3) for s in STAGES}
            rows.append(
                row | {'all': spread([sum(x) for x in zip(*(runs[s] for s in STAGES))], 1e3)}
            )
    for row in rows:
        fresh = in_fresh_process(
            views=row['views'],
            device=options.device,
            checkpoint=options.checkpoint and str(options.checkpoint),
            steps=options.steps,
            samples=options.samples,
            runs=1,
        )
        row['peak_mib'], row['gpu_peak_mib'] = fresh['peak_mib'], fresh['gpu_peak_mib']
        row['working_mib'] = fresh['peak_mib'] - fresh['loaded_mib']
    return {
        'rows': with_slopes(rows, 'views', (*STAGES, 'all', 'working_mib')),
        'slopes': end_slopes(rows, 'views', (*STAGES, 'all', 'working_mib')),
        'operators': operators(estimator, views),
        'settings': {'device': str(estimator.device), 'samples': estimator.samples},
    }


def by_samples(options: Options) -> dict:
    """Rows of the time (ms) that the consensus of S samples of max(views) cameras takes."""
    generator, count = torch.Generator().manual_seed(0), max(options.views)
    cases = {}
    for samples in SAMPLES:
        vectors = 0.2 * torch.randn(samples, count, 3, generator=generator, dtype=torch.float64)
        R = rotation_from_vector(vectors)
        t = torch.randn(samples, count, 3, generator=generator, dtype=torch.float64) * 0.1
        t[..., 2] += 1
        cases[samples] = lambda R=R, t=t: consensus(R, t) and None
    measured = interleave(cases, options.repeats)
    rows = [{'samples': s, 'time': spread(measured[s]['wall'], 1e3)} for s in SAMPLES]
    return {
        'rows': with_slopes(rows, 'samples', ('time',)),
        'slopes': end_slopes(rows, 'samples', ('time',)),
        'settings': {'views': count},
    }


def with_slopes(rows: list[dict], size: str, columns: tuple[str, ...]) -> list[dict]:
    """Add to each row but the first 'slopes' since the row before, by column."""
    for before, row in zip(rows, rows[1:]):
        pair = [before[size], row[size]]
        row['slopes'] = {c: slope(pair, [_value(before[c]), _value(row[c])]) for c in columns}
    return rows


def end_slopes(rows: list[dict], size: str, columns: tuple[str, ...]) -> dict[str, float] | None:
    """Slope by column over the larger half of the sizes; None for a single row."""
    if len(rows) < 2:
        return None
    end = rows[-max(2, len(rows) // 2) :]
    return {c: slope([r[size] for r in end], [_value(r[c]) for r in end]) for c in columns}


def operators(estimator, views) -> list[dict]:
    """The operators that most of one solution's time is spent in, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    prepared = [estimator.prepare(view) for view in views]
    kinds = [ProfilerActivity.CPU]
    if estimator.device.type == 'cuda':
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as profiled:
        estimator.solve(prepared)
    on_gpu = estimator.device.type == 'cuda'

    def own(event) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    events = sorted(profiled.key_averages(), key=own, reverse=True)
    total = sum(own(event) for event in events) or 1.0
    return [
        {'operator': e.key, 'share': own(e) / total, 'calls': e.count} for e in events[:_OPERATORS]
    ]


def _value(cell) -> float:
    return cell['median'] if isinstance(cell, dict) else cell


def _estimate(estimator, views):
    return lambda: estimator.estimate(views).timings
