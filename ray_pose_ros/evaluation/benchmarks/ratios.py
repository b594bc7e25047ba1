"""How many times faster than the plain way, both run in turns in the same process.

Two plain ways: the official sampling loop as its release runs it (reference_loop.py), on a network
of the official architecture; and, for the model that ships, a node that keeps nothing: all
keyframes' features computed anew with every new one, and every step of the schedule run.
"""

import torch

from ray_pose_ros.evaluation.reference_loop import reference_loop
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.plans import few_step_plan, official_plan
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.model.sampler import sample

from .timing import Measured, interleave, ratio, spread
from .workload import Options, random_views

# The official proportions at about a thousandth of the arithmetic.
SCALED_DOWN = {
    'backbone_width': 96,
    'backbone_depth': 4,
    'backbone_heads': 4,
    'image_size': 112,
    'grid': 8,
    'width': 144,
    'depth': 4,
    'heads': 4,
}
_READOUT = 0.29  # of the schedule: the official read-out, step 29 of 100
LOOP, BATCH = 'the official loop', 4


def official_loop(options: Options) -> dict:
    """Rows of ways to sample a network of the official architecture, random weights.

    All encode the images once, as the official code does. 'difference' is the largest one between
    an answer and the official read-out of the same noise, relative to its largest value, where the
    answer should be the same.
    """
    sizes = {} if options.official_size else SCALED_DOWN
    readout = max(1, round(_READOUT * options.loop_steps))
    config = ModelConfig(**sizes, steps=options.loop_steps, readout=readout)
    device = options.estimator_device()
    torch.manual_seed(0)
    model = RayDiffuser(config).to(device).eval().requires_grad_(False)
    schedule, views = model.noise_scheduler, min(options.views)
    images = torch.rand(1, views, 3, config.image_size, config.image_size, device=device)
    ndc = torch.rand(1, views, 2, config.grid, config.grid, device=device) * 2 - 1
    noise = torch.randn(1, views, 6, config.grid, config.grid, device=device)
    same = official_plan(schedule, readout)
    plans = {f'the same answer, {len(same.steps)} calls': same}
    plans |= {f'{count} calls': few_step_plan(schedule, count, readout) for count in (10, 4)}
    answers = {}

    def loop():
        run = reference_loop(model, images, ndc, noise)
        answers[LOOP] = run.predictions[options.loop_steps - 1 - readout]
        _wait(device)

    def ours(name, plan, samples):
        def run():
            with torch.inference_mode():
                context = model.condition(model.encode(images), ndc)
            found = sample(model, context, plan, samples=samples, x_init=noise)
            answers[name] = found.rays[:1]
            _wait(device)

        return run

    cases = {LOOP: loop} | {name: ours(name, plan, 1) for name, plan in plans.items()}
    batch = f'{BATCH} samples at once, {len(same.steps)} calls'
    cases[batch] = ours(batch, same, BATCH)
    repeats = min(options.repeats, 3)
    measured = interleave(cases, repeats, warm_up=not options.official_size)
    rows = _rows(measured, LOOP)
    for row in rows:
        row['answers'] = BATCH if row['way'] == batch else 1
        row['per_answer'] = row['ratio']['median'] * row['answers']
        exact = row['way'] in (next(iter(plans)), batch)
        row['difference'] = _difference(answers[row['way']], answers[LOOP]) if exact else None
    settings = {
        'official_size': options.official_size,
        'parameters': sum(p.numel() for p in model.parameters()),
        'views': views,
        'patches': config.grid**2,
        'loop_steps': options.loop_steps,
        'device': str(device),
    }
    return {'settings': settings, 'rows': rows}


def naive_use(options: Options) -> dict:
    """Rows of ways to answer each new keyframe of a full window with the model in use."""
    usual = options.estimator()
    count = max(options.views)
    views = random_views(count)
    every = usual.model.config.steps
    full = options.estimator(usual.model, steps=every, samples=1)
    single = options.estimator(usual.model, samples=1)
    kept = [usual.prepare(view) for view in views]
    naive = f'nothing kept, {len(full.plan.steps)} calls, 1 answer'

    def plainly():
        full.estimate(views)

    def reusing(estimator):
        def run():
            estimator.solve([*kept[:-1], estimator.prepare(views[-1])])

        return run

    cases = {
        naive: plainly,
        f'features kept, {len(full.plan.steps)} calls, 1 answer': reusing(full),
        f'features kept, {len(single.plan.steps)} calls, 1 answer': reusing(single),
        f'as shipped: features kept, {len(usual.plan.steps)} calls, '
        f'up to {usual.samples} answers': reusing(usual),
    }
    measured = interleave(cases, min(options.repeats, 3))
    settings = {'views': count, 'device': str(usual.device), 'schedule': every}
    return {'settings': settings, 'rows': _rows(measured, naive)}


def _rows(measured: dict[str, Measured], plain: str) -> list[dict]:
    """Milliseconds of each way, and how many times longer the plain one took, round by round."""
    return [
        {
            'way': name,
            'time': spread(runs['wall'], 1e3),
            'ratio': ratio(measured[plain]['wall'], runs['wall']),
            'cpu_ratio': ratio(measured[plain]['cpu'], runs['cpu']),
        }
        for name, runs in measured.items()
    ]


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
