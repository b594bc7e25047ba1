"""The full-size official network."""

import time

import pytest
import torch
from model_golden import DATA, error, fill_with_keyed_weights

from ray_pose_ros.evaluation.reference_loop import reference_forward
from ray_pose_ros.model import ModelConfig, RayDiffuser
from ray_pose_ros.model.weights import build


def test_all_350_names_and_shapes():
    with torch.device('meta'):
        model = RayDiffuser(ModelConfig())
    found = {key: str(tuple(tensor.shape)) for key, tensor in model.state_dict().items()}
    lines = (DATA / 'full_state_dict_keys.tsv').read_text().splitlines()
    expected = dict(line.split('\t')[:2] for line in lines)
    assert len(expected) == 350
    assert found == expected
    assert sum(p.numel() for p in model.parameters()) == 409_279_494


@pytest.mark.slow
@torch.inference_mode()
def test_one_call_of_the_full_size_network():
    """Prepared and plain forward agree at full size; a step is timed for the record."""
    model = build(ModelConfig()).eval()
    fill_with_keyed_weights(model, salt=3)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 2, 3, 224, 224, generator=generator)
    x = torch.randn(1, 2, 6, 16, 16, generator=generator)
    ndc = torch.rand(1, 2, 2, 16, 16, generator=generator)
    features = model.encode(images)
    context = model.condition(features, ndc)
    begin = time.process_time()
    found = model.denoise(x, 29, context)
    print(f'one step of 2 views: {time.process_time() - begin:.1f} CPU seconds')
    assert found.shape == x.shape
    assert found.isfinite().all()
    assert error(found, reference_forward(model, features, x, ndc, 29)) < 1e-5
