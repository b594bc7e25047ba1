"""Latency and throughput of the estimator by views, steps, samples, precision and device."""

from .timing import interleave, spread
from .workload import Options, random_views

STAGES = ('features', 'denoise', 'recover')
STEPS, SAMPLES = (1, 2, 4, 10), (1, 2, 4, 8, 16)
PRECISIONS = {'cpu': ('float32', 'bfloat16'), 'cuda': ('float32', 'float16', 'bfloat16')}


def measure(options: Options) -> list[dict]:
    """A row a case: one thing is varied at a time, around the model's own settings.

    Times are milliseconds (`timing.spread`): 'features' of all N views, 'denoise', 'recover',
    'all', and 'keyframe', what a node pays for a new keyframe in a full window: its features and
    one solution. 'samples' is the number of answers asked for; models that answer in one pass
    take at most one a view.
    """
    rows = []
    for device in options.devices:
        rows += _on_device(options, device)
    return rows


def _on_device(options: Options, device: str) -> list[dict]:
    base = options.estimator(device=device)
    device = base.device.type
    count = max(options.views)
    views = random_views(count)
    # real samples differ from each other only where there are several steps
    several = max(4, len(base.plan.steps)) if not base.model.config.regression else None
    settings = [{'views': n} for n in options.views]
    if several:
        settings += [{'views': count, 'steps': k} for k in STEPS if k != len(base.plan.steps)]
        settings += [{'views': count, 'steps': several, 'samples': s} for s in SAMPLES]
    settings += [{'views': count, 'precision': p} for p in PRECISIONS[device][1:]]
    estimators, rows = {}, {}
    for setting in settings:
        changes = {k: v for k, v in setting.items() if k != 'views'}
        name = repr(setting)
        estimators[name] = options.estimator(base.model, device=device, **changes)
        rows[name] = {
            'device': device,
            'views': setting['views'],
            'steps': len(estimators[name].plan.steps),
            'samples': estimators[name].samples,
            'precision': estimators[name].precision,
        }
    cases = {name: _case(estimators[name], views[: rows[name]['views']]) for name in estimators}
    for name, measured in interleave(cases, options.repeats).items():
        row = rows[name]
        whole = [sum(run) for run in zip(*(measured[s] for s in STAGES), strict=True)]
        one = [
            f / row['views'] + d + r
            for f, d, r in zip(*(measured[s] for s in STAGES), strict=True)
        ]
        row |= {stage: spread(measured[stage], 1e3) for stage in STAGES}
        row |= {'all': spread(whole, 1e3), 'keyframe': spread(one, 1e3)}
        row['cpu'] = spread(measured['cpu'], 1e3)
        row['windows_per_second'] = 1e3 / row['all']['median']
        row['views_per_second'] = row['views'] * row['windows_per_second']
        row['samples_per_second'] = row['samples'] * 1e3 / row['denoise']['median']
    return list(rows.values())


def _case(estimator, views):
    def run():
        return estimator.estimate(views).timings

    return run
