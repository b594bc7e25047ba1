"""Plans and the sampling loop, with networks whose answer is known."""

from types import SimpleNamespace

import pytest
import torch
from model_golden import context, error, golden, network

from ray_pose_ros.model import (
    KnownRays,
    ModelConfig,
    Plan,
    RayDiffuser,
    default_plan,
    few_step_plan,
    official_plan,
    regression_plan,
    sample,
)
from ray_pose_ros.model.denoiser import Context
from ray_pose_ros.model.sampler import normalise_prediction
from ray_pose_ros.model.schedule import NoiseSchedule

GRID = 4


def true_rays(views: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(1, views, 6, GRID, GRID, generator=generator)
    return normalise_prediction(raw, 'unit')


class Oracle:
    """Stands for a network: predicts `answer(x, t)` and remembers the calls."""

    def __init__(self, answer, steps=100, max_views=None, **settings):
        self.noise_scheduler = NoiseSchedule(steps)
        self.config = SimpleNamespace(**({'regression': False} | settings))
        self.answer, self.max_views, self.calls = answer, max_views, []

    def denoise(self, x, t, context, found=None):
        self.calls.append((t, x, context))
        return self.answer(x, t)


def empty_context(views: int = 3) -> Context:
    return Context(torch.zeros(1, views, 1, GRID, GRID))


# -- the schedule ------------------------------------------------------------------------------


def test_posterior_composes_like_the_forward_process():
    """Weights and variance of q(x_s | x_t, x_0) give back the marginal q(x_s | x_0)."""
    schedule = NoiseSchedule()
    for t, s in ((99, 98), (99, 29), (50, 20), (10, 0), (5, -1), (0, -1)):
        for_x0, for_x, variance = schedule.posterior(t, s)
        now, then = schedule.alpha_bar(t), schedule.alpha_bar(s)
        assert for_x0 + for_x * now**0.5 == pytest.approx(
            then**0.5, abs=2e-4
        )  # the tables are float32
        assert for_x**2 * (1 - now) + variance == pytest.approx(
            1 - then, abs=2e-4
        )  # the tables are float32


def test_implicit_step_with_eta_one_is_the_posterior():
    schedule = NoiseSchedule()
    for t, s in ((99, 60), (60, 59), (60, 29)):
        for_x0, for_x, deviation = schedule.implicit(t, s, eta=1.0)
        expected_x0, expected_x, variance = schedule.posterior(t, s)
        # The float32 table of betas and that of alpha_bar agree to about 1e-6.
        assert for_x0 == pytest.approx(expected_x0, abs=1e-5)
        assert for_x == pytest.approx(expected_x, abs=1e-5)
        assert deviation**2 == pytest.approx(variance, abs=1e-6)


@pytest.mark.parametrize('arguments', [(0, 0.1), (0.2, 0.1), (0.1, 1.0)])
def test_bad_betas_are_refused(arguments):
    with pytest.raises(ValueError, match='betas from'):
        NoiseSchedule(10, *arguments)


def test_times_outside_of_the_schedule_are_refused():
    schedule = NoiseSchedule(10)
    with pytest.raises(ValueError, match='time 10 is outside'):
        schedule.posterior(10)
    with pytest.raises(ValueError, match='expected less than 3'):
        schedule.posterior(3, 3)
    with pytest.raises(ValueError, match='rescale_noise'):
        schedule.official_deviation(3, 'cube', False)


def test_official_deviations():
    schedule = NoiseSchedule()
    beta = float(schedule.betas[40])
    tilde = schedule.posterior(40)[2]
    assert schedule.official_deviation(40, 'zero', False) == 0
    assert schedule.official_deviation(40, 'identity', False) == pytest.approx(beta)
    assert schedule.official_deviation(40, 'square', True) == pytest.approx(tilde**2)
    assert schedule.official_deviation(40, 'square_root', True) == pytest.approx(tilde**0.5)


# -- plans -------------------------------------------------------------------------------------


def test_early_read_out_takes_71_calls_and_is_prediction_70_of_the_full_run():
    data, model = golden(), network('diffusion')
    window = context(model, data['images'], data['crops'])
    assert len(default_plan(model.config, model.noise_scheduler).steps) == 71
    calls = []
    hook = model.ray_predictor.register_forward_hook(lambda *_: calls.append(1))
    found = sample(model, window, x_init=data['zero/x_T'])
    hook.remove()
    assert len(calls) == 71
    index = data['zero/steps'].tolist().index(70)
    assert error(found.rays, data['zero/preds'][index]) < 1e-5


def test_default_plans():
    schedule = NoiseSchedule()
    own = ModelConfig(sample_steps=4, readout=10)
    assert [step.t for step in default_plan(own, schedule).steps] == [99, 69, 40, 10]
    assert [step.t for step in default_plan(own, schedule, calls=2).steps] == [99, 10]
    assert [step.t for step in default_plan(own, schedule, calls=1).steps] == [99]
    assert [step.t for step in default_plan(own, schedule, calls=2, first=50).steps] == [50, 10]
    assert len(default_plan(own, schedule, calls=1000).steps) == 90
    assert [step.t for step in default_plan(ModelConfig(regression=True), schedule).steps] == [100]


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda s: few_step_plan(s, 0), '0 sampling steps'),
        (lambda s: few_step_plan(s, 3, first=100), 'times from 100'),
        (lambda s: official_plan(s, readout=60, first=50), 'times from 50 to 60'),
        (lambda s: official_plan(s, rescale_noise='half'), 'rescale_noise'),
        (lambda s: few_step_plan(s, 3, normalise='maybe'), 'normalise'),
        (lambda s: few_step_plan(s, 3, eta=-1), 'eta is -1'),
        (lambda s: Plan(()), 'at least one step'),
    ],
)
def test_impossible_plans_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(NoiseSchedule())


# -- the loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize('calls', [1, 2, 7, 100])
def test_implicit_steps_keep_to_the_forward_process(calls):
    """With a perfect network, every state is the true rays with the very same noise."""
    rays = true_rays()
    model = Oracle(lambda x, t: rays)
    noise = torch.randn(1, 3, 6, GRID, GRID, generator=torch.Generator().manual_seed(1))
    start = model.noise_scheduler.add_noise(rays, noise, 99)
    plan = few_step_plan(model.noise_scheduler, calls).with_options(clamp=None)
    found = sample(model, empty_context(), plan, x_init=start)
    assert len(model.calls) == calls
    for t, x, _ in model.calls:
        assert torch.allclose(x, model.noise_scheduler.add_noise(rays, noise, t), atol=2e-3)
    assert torch.allclose(found.rays, rays, atol=1e-6)
    assert torch.allclose(found.after, rays, atol=1e-6)


def test_a_network_that_predicts_noise():
    """A perfect noise predictor finds the rays, whatever the times."""
    rays = true_rays()
    schedule = NoiseSchedule()

    def answer(x, t):
        alpha_bar = schedule.alphas_cumprod[t]
        return (x - alpha_bar.sqrt() * rays) / (1 - alpha_bar).sqrt()

    model = Oracle(answer)
    plan = few_step_plan(schedule, 10, prediction='epsilon', normalise='none')
    found = sample(model, empty_context(), plan.with_options(clamp=None))
    assert torch.allclose(found.rays, rays, atol=1e-3)


@pytest.mark.parametrize('eta', [0.5, 1.0])
def test_eta_adds_noise_of_the_right_size(eta):
    """States of many samples have the variance of the forward process."""
    rays = true_rays(views=2)
    model = Oracle(lambda x, t: rays.expand_as(x))
    plan = few_step_plan(model.noise_scheduler, 5, eta=eta).with_options(clamp=None)
    generator = torch.Generator().manual_seed(0)
    sample(model, empty_context(2), plan, samples=400, generator=generator)
    for t, x, _ in model.calls:
        alpha_bar = model.noise_scheduler.alpha_bar(t)
        noise = x - alpha_bar**0.5 * rays
        assert float(noise.var()) == pytest.approx(1 - alpha_bar, rel=0.02)


def test_a_seed_gives_the_same_answer_and_another_does_not():
    data, model = golden(), network('diffusion')
    window = context(model, data['images'], data['crops'])
    plan = few_step_plan(model.noise_scheduler, 2, eta=1.0)

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample(model, window, plan, samples=2, generator=generator).rays

    first = run(3)
    assert torch.equal(first, run(3))
    assert not torch.allclose(first, run(4), atol=1e-4)
    assert not torch.allclose(first[0], first[1], atol=1e-4)


def test_samples_of_a_batch_are_those_drawn_alone():
    data, model = golden(), network('diffusion')
    window = context(model, data['images'], data['crops'])
    plan = few_step_plan(model.noise_scheduler, 3)
    x = torch.randn(3, 3, 6, 16, 16, generator=torch.Generator().manual_seed(5))
    together = sample(model, window, plan, samples=3, x_init=x).rays
    for index in range(3):
        alone = sample(model, window, plan, x_init=x[index : index + 1]).rays
        assert error(together[index : index + 1], alone) < 1e-5


def test_warm_start_begins_at_the_noised_earlier_answer():
    rays = true_rays()
    model = Oracle(lambda x, t: rays)
    noise = torch.randn(1, 3, 6, GRID, GRID, generator=torch.Generator().manual_seed(2))
    plan = few_step_plan(model.noise_scheduler, 3, readout=10, first=50)
    sample(model, empty_context(), plan, x_init=noise, warm_start=rays)
    assert [call[0] for call in model.calls] == [50, 30, 10]
    assert torch.equal(model.calls[0][1], model.noise_scheduler.add_noise(rays, noise, 50))


def test_known_views_are_held_at_their_noised_rays():
    rays, wrong = true_rays(), true_rays(seed=9)
    model = Oracle(lambda x, t: wrong)
    noise = torch.randn(1, 3, 6, GRID, GRID, generator=torch.Generator().manual_seed(2))
    known = KnownRays(rays, torch.tensor([True, False, False]))
    plan = few_step_plan(model.noise_scheduler, 4)
    found = sample(model, empty_context(), plan, x_init=noise, known=known)
    for t, x, _ in model.calls:
        expected = model.noise_scheduler.add_noise(rays, noise, t)
        assert torch.allclose(x[:, 0], expected[:, 0], atol=1e-6)
        assert not torch.allclose(x[:, 1], expected[:, 1], atol=1e-6) or t == 99
    assert torch.equal(found.rays[:, 0], rays[:, 0])
    assert torch.allclose(found.rays[:, 1:], wrong[:, 1:], atol=1e-6)


def test_known_views_can_be_set_free():
    rays, other = true_rays(), true_rays(seed=9)
    model = Oracle(lambda x, t: other)
    known = KnownRays(rays, torch.tensor([True, False, False]), until=50)
    seen = []
    plan = few_step_plan(model.noise_scheduler, 100)
    found = sample(model, empty_context(), plan, known=known, callback=seen.append)
    held = {step.t for step in seen if torch.equal(step.prediction[:, 0], rays[:, 0])}
    assert held == set(range(50, 100))
    assert torch.allclose(found.rays, other, atol=1e-6)


def test_known_views_of_a_regression():
    rays, other = true_rays(), true_rays(seed=9)
    model = Oracle(lambda x, t: other)
    known = KnownRays(rays, torch.tensor([True, False, False]))
    found = sample(model, empty_context(), regression_plan(model.noise_scheduler), known=known)
    assert torch.equal(found.rays[:, 0], rays[:, 0])
    assert torch.equal(found.rays[:, 1:], other[:, 1:])


def test_every_view_is_in_one_group_and_the_first_in_all():
    model = Oracle(lambda x, t: x, max_views=3)
    rays = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 6, GRID, GRID)
    plan = regression_plan(model.noise_scheduler)
    found = sample(model, empty_context(8), plan, x_init=rays)
    assert len(model.calls) == 4
    assert all(x[0, 0, 0, 0, 0] == 0 for _, x, _ in model.calls)
    assert torch.equal(found.rays, rays)


def test_clamp_bounds_the_state():
    model = Oracle(lambda x, t: 100 * torch.ones_like(x))
    plan = official_plan(model.noise_scheduler, readout=1, normalise='none')
    assert float(sample(model, empty_context(), plan).after.max()) == 5


def test_a_callback_can_abandon_the_run():
    model = Oracle(lambda x, t: x)

    def stop(progress):
        assert progress.total == 71
        if progress.index == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(model, empty_context(), official_plan(model.noise_scheduler), callback=stop)
    assert len(model.calls) == 3


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'x_init': torch.zeros(1, 2, 6, GRID, GRID)}, 'x_init has shape'),
        ({'warm_start': torch.zeros(2, 3, 6, GRID, GRID)}, 'warm_start has shape'),
        ({'noises': torch.zeros(3, 1, 3, 6, GRID, GRID)}, '3 recorded noises for 71'),
        ({'known': KnownRays(true_rays(), torch.tensor([True]))}, 'known views have shape'),
        ({'max_views': 1}, 'max_views is 1'),
    ],
)
def test_what_does_not_fit_the_window_is_refused(arguments, message):
    model = Oracle(lambda x, t: x)
    with pytest.raises(ValueError, match=message):
        sample(model, empty_context(), official_plan(model.noise_scheduler), **arguments)


def test_normalised_predictions_are_pluecker_rays():
    raw = torch.randn(2, 3, 6, GRID, GRID, generator=torch.Generator().manual_seed(0))
    direction, moment = normalise_prediction(raw, 'unit').split(3, dim=2)
    assert torch.allclose(direction.norm(dim=2), torch.ones(()), atol=1e-6)
    assert float((direction * moment).sum(dim=2).abs().max()) < 1e-5
    # With unit directions to begin with, the official quirk makes no difference.
    unit = torch.cat([direction, raw[:, :, 3:]], dim=2)
    assert torch.allclose(
        normalise_prediction(unit, 'official'), normalise_prediction(unit, 'unit'), atol=1e-5
    )
    assert normalise_prediction(raw, 'none') is raw
    assert normalise_prediction(torch.zeros(1, 1, 6, 1, 1), 'unit').isfinite().all()


# -- the project's own models ------------------------------------------------------------------


def own_model(**settings) -> RayDiffuser:
    torch.manual_seed(0)
    base = {
        'backbone': 'efficientnet_lite0',
        'image_size': 64,
        'grid': 2,
        'width': 24,
        'depth': 2,
        'heads': 2,
        'geometry': 'directions',
        'attention': 'alternating',
        'view_code': 'reference',
        'matching': 8,
        'residual': True,
        'anchor_reference': True,
        'scale_input': True,
        'sample_steps': 3,
        'max_views': 4,
    }
    return RayDiffuser(ModelConfig(**(base | settings))).eval().requires_grad_(False)


@pytest.mark.parametrize('views', [2, 6])
@pytest.mark.parametrize('regression', [False, True])
def test_own_models_run_with_samples_beside_each_other(views, regression):
    model = own_model(regression=regression)
    directions = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 3, 1, 1).expand(1, views, 3, 2, 2)
    window = model.condition(model.encode(torch.rand(1, views, 3, 64, 64)), directions)
    calls = []
    model.ray_predictor.register_forward_hook(lambda *_: calls.append(1))
    found = sample(model, window, samples=3)
    assert found.rays.shape == (3, views, 6, 2, 2)
    assert found.rays.isfinite().all()
    # The reference view is the gauge: axes of the world, at distance 1.
    assert torch.allclose(found.rays[:, 0, :3], directions[:, 0], atol=1e-6)
    assert len(calls) == (1 if regression else 3)


def test_half_precision_keeps_states_in_single():
    data = golden()
    exact = network('diffusion')
    noise = data['zero/x_T'][:, :2]
    views = slice(0, 2)
    plan = few_step_plan(exact.noise_scheduler, 3)
    expected = sample(
        exact, context(exact, data['images'], data['crops'], views), plan, x_init=noise
    )
    model = RayDiffuser(exact.config)
    model.load_state_dict(exact.state_dict())
    model.eval().set_precision(torch.bfloat16)
    window = context(model, data['images'], data['crops'], views)
    assert window.embedded.dtype == torch.bfloat16
    found = sample(model, window, plan, x_init=noise)
    assert found.rays.dtype == torch.float32
    assert model.noise_scheduler.betas.dtype == torch.float32
    assert error(found.rays, expected.rays) < 0.1


def test_wrong_shapes_are_refused():
    model = own_model()
    with pytest.raises(ValueError, match=r'expected \(B, N, 3, 64, 64\)'):
        model.encode(torch.zeros(1, 2, 3, 32, 32))
    with pytest.raises(ValueError, match='geometry have shape'):
        model.condition(torch.zeros(1, 2, 928, 2, 2), torch.zeros(1, 2, 2, 2, 2))
    with pytest.raises(ValueError, match='features have shape'):
        model.condition(torch.zeros(1, 2, 5, 2, 2), torch.zeros(1, 2, 3, 2, 2))
