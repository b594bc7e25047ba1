"""Checkpoints: both layouts are read strictly, and everything wrong is said plainly."""

import json
import os
import pickle
import shutil

import pytest
import torch
from model_golden import (
    DATA,
    DIFFUSION,
    change_setting,
    context,
    error,
    golden,
    network,
    write_official,
)
from safetensors.torch import load_file, save_file

from ray_pose_ros.model import (
    CheckpointError,
    ModelConfig,
    RayDiffuser,
    default_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from ray_pose_ros.model.checkpoint import read_notes
from ray_pose_ros.model.layers import sinusoid_table

HEADS = {'backbone_heads': 4}


@pytest.fixture
def official(tmp_path):
    """A writable copy of an official directory."""
    return shutil.copytree(DIFFUSION, tmp_path / 'official', copy_function=shutil.copyfile)


def weights(directory):
    return next((directory / 'checkpoints').glob('*.pth'))


def edit(directory, change):
    """Rewrite the tensors of an official directory after `change(state_dict)`."""
    path = weights(directory)
    stored = torch.load(path, weights_only=True)
    change(stored['state_dict'])
    torch.save(stored, path)


# -- official layout ---------------------------------------------------------------------------


def test_official_directory():
    model = load_checkpoint(DIFFUSION, **HEADS)
    config = model.config
    assert (config.width, config.depth, config.heads, config.mlp_ratio) == (96, 2, 16, 4.0)
    assert (config.backbone_width, config.backbone_depth, config.backbone_heads) == (48, 2, 4)
    assert (config.steps, config.readout, config.geometry, config.prediction) == (
        100,
        29,
        'ndc',
        'x0',
    )
    assert not config.regression and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_regression_is_read_from_the_settings(tmp_path):
    directory = write_official(tmp_path, network('regression'), like='co3d_regression')
    assert load_checkpoint(directory, **HEADS).config.regression


def test_last_checkpoint_by_name_is_taken(official):
    shutil.copyfile(weights(official), official / 'checkpoints' / 'ckpt_00460000.pth')
    weights_of_old = official / 'checkpoints' / 'ckpt_00450000.pth'
    weights_of_old.write_bytes(b'broken')
    load_checkpoint(official, **HEADS)


def test_backbone_heads_are_those_of_the_released_widths(caplog):
    assert load_checkpoint(DIFFUSION).config.backbone_heads == 4
    assert 'give backbone_heads' in caplog.text
    from ray_pose_ros.model.official_checkpoint import _backbone_heads

    assert [_backbone_heads(width) for width in (384, 768, 1024, 1536)] == [6, 12, 16, 24]
    with pytest.raises(CheckpointError, match='not a multiple of its heads 5'):
        load_checkpoint(DIFFUSION, backbone_heads=5)


def test_more_views_extend_the_table_of_places():
    data = golden()
    model = load_checkpoint(DIFFUSION, max_views=12, **HEADS)
    table = model.ray_predictor.x_pos_enc.image_pos_table
    assert torch.equal(table, sinusoid_table(12, 96, 10000))
    window = context(model, data['images'], data['crops'])
    assert error(model.denoise(data['x'], 29, window), data['diffusion/t29']) < 1e-5
    many = data['x'][:, [0, 1, 2] * 4]
    window = context(model, data['images'].repeat(4, 1, 1, 1), data['crops'].repeat(4, 1))
    assert model.denoise(many, 29, window).shape == many.shape


def test_no_network_is_touched(official, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError('a connection was opened')

    monkeypatch.setattr(socket, 'socket', refuse)
    load_checkpoint(official, **HEADS)


def test_half_precision_official_weights_are_loaded_as_single(official):
    edit(
        official,
        lambda state: state.update({k: v.half() for k, v in state.items() if v.dim() > 2}),
    )
    model = load_checkpoint(official, **HEADS)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    table = model.ray_predictor.x_pos_enc.token_pos_table
    assert torch.equal(table, sinusoid_table(256, 96, 70007))


@pytest.mark.parametrize(
    'section, name, value, message',
    [
        ('model', 'model_type', 'unet', "model.model_type 'unet', only 'dit'"),
        ('model', 'feature_extractor', 'clip', "model.feature_extractor 'clip', only 'dino'"),
        ('model', 'append_ndc', False, 'model.append_ndc False, only True'),
        ('model', 'num_patches_y', 8, '16x8 patches'),
        ('model', 'num_patches_x', None, 'only squares|lacks model.num_patches_x'),
        ('model', 'depth', 16, 'has 2 blocks, but hydra/config.yaml says model.depth 16'),
        (
            'model',
            'num_images',
            6,
            r'image_pos_table has shape \(1, 8, 96\), expected \(1, 6, 96\)',
        ),
        ('model', 'num_images', 'many', "model.num_images 'many', expected a number"),
        ('model', 'pred_x0', None, 'lacks model.pred_x0'),
        ('noise_scheduler', 'type', 'cosine', "noise_scheduler.type 'cosine', only 'linear'"),
        ('noise_scheduler', 'max_timesteps', 50, r'betas has shape \(100,\), expected \(50,\)'),
        ('noise_scheduler', 'beta_end', 0.1, 'betas is not what the configuration says'),
        ('noise_scheduler', 'beta_end', 2, 'betas from 0.0001 to 2.0'),
        ('training', 'normalize_first_camera', True, 'normalize_first_camera True'),
    ],
)
def test_unsupported_settings(official, section, name, value, message):
    change_setting(official, section, name, value)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(official, **HEADS)


@pytest.mark.parametrize(
    'content, message',
    [
        ('{[', 'cannot be read as YAML'),
        ('- 1', 'not a mapping'),
        ('!!python/object/apply:os.system ["true"]', 'cannot be read as YAML'),
    ],
)
def test_damaged_settings(official, content, message):
    (official / 'hydra' / 'config.yaml').write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(official)


def test_missing_parts(official):
    weights(official).unlink()
    with pytest.raises(CheckpointError, match=r'has no checkpoints/\*.pth'):
        load_checkpoint(official)
    (official / 'hydra' / 'config.yaml').unlink()
    with pytest.raises(CheckpointError, match=r'config.yaml does not exist'):
        load_checkpoint(official)


@pytest.mark.parametrize('keep', [0, 100, 0.5, 0.99])
def test_truncated_weights(official, keep):
    path = weights(official)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(CheckpointError, match='damaged or not a PyTorch file'):
        load_checkpoint(official, **HEADS)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ('/nonexistent/it-ran',)


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle'])
def test_pickles_with_code_are_refused(official, form):
    content = {'state_dict': {}, 'x': Exploit()}
    if form == 'pickle':
        weights(official).write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, weights(official), _use_new_zipfile_serialization=form == 'zip')
    with pytest.raises(CheckpointError, match='is refused: it asks for the Python') as caught:
        load_checkpoint(official)
    assert 'mkdir' in str(caught.value)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: s.pop('ray_predictor.blocks.1.attn.qkv.bias'), r'1 missing \(ray_predictor.bl'),
        (lambda s: s.update(extra=torch.zeros(1)), r'1 unexpected \(extra\)'),
        (
            lambda s: (s.update(extra=torch.zeros(1)), s.pop('feature_extractor.model.cls_token')),
            r'1 missing \(feature_extractor.model.cls_token\) and 1 unexpected \(extra\)',
        ),
        (lambda s: s.clear(), 'no tensor ray_predictor.x_embedder.proj.weight'),
        (
            lambda s: s.update({'ray_predictor.final_layer.linear.bias': torch.zeros(7)}),
            r'linear.bias has shape \(7,\), expected \(6,\)',
        ),
        (
            lambda s: s['ray_predictor.final_layer.linear.bias'].fill_(float('nan')),
            'linear.bias holds numbers that are not finite',
        ),
        (
            lambda s: s.update({'ray_predictor.final_layer.linear.bias': torch.arange(6)}),
            'linear.bias is torch.int64',
        ),
        (
            lambda s: s['ray_predictor.x_pos_enc.token_pos_table'].mul_(0.9),
            'token_pos_table is not what the configuration says',
        ),
        (
            lambda s: s.update({'feature_extractor.model.pos_embed': torch.zeros(1, 50, 48)}),
            'the backbone has 50 positions, expected 1370',
        ),
    ],
)
def test_tensors_of_another_network(official, change, message):
    edit(official, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(official, **HEADS)


@pytest.mark.parametrize('content', [{'weights': {}}, [1, 2], {'state_dict': 3}])
def test_files_without_a_state(official, content):
    torch.save(content, weights(official))
    with pytest.raises(CheckpointError, match="has no mapping 'state_dict'"):
        load_checkpoint(official)


# -- anything else -----------------------------------------------------------------------------


def test_paths_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match='does not exist'):
        load_checkpoint(tmp_path / 'nowhere')
    with pytest.raises(CheckpointError, match='found an empty directory'):
        load_checkpoint(tmp_path)
    for index in range(10):
        (tmp_path / f'picture{index}.jpg').touch()
    with pytest.raises(CheckpointError, match=r'found picture0.jpg, .*, \.\.\.'):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match='is a file, expected a directory'):
        load_checkpoint(DATA / 'golden.npz')
    assert issubclass(CheckpointError, ValueError)


def test_default_checkpoint_is_in_the_package():
    path = default_checkpoint()
    assert path.parts[-3:] == ('ray_pose_ros', 'weights', 'default')


# -- own layout --------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    save_checkpoint(network('diffusion'), tmp_path / 'own', notes={'data': 'none'})
    return tmp_path / 'own'


def test_single_precision_comes_back_exactly(tmp_path):
    save_checkpoint(network('diffusion'), tmp_path, half=False)
    model = load_checkpoint(tmp_path)
    assert model.config == network('diffusion').config
    expected = network('diffusion').state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_half_precision_is_loaded_as_single(own):
    model = load_checkpoint(own)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(
        model.noise_scheduler.alphas_cumprod, network('diffusion').noise_scheduler.alphas_cumprod
    )
    data = golden()
    window = context(model, data['images'], data['crops'])
    assert error(model.denoise(data['x'], 29, window), data['diffusion/t29']) < 1e-2
    assert read_notes(own) == {'data': 'none'}


def test_buffers_of_the_small_backbone_come_back(tmp_path):
    config = ModelConfig(
        backbone='efficientnet_lite0', image_size=64, grid=2, width=16, depth=1, heads=2
    )
    model = RayDiffuser(config)
    model.feature_extractor.feature_mean.uniform_()
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded.feature_extractor.feature_mean, model.feature_extractor.feature_mean)


def test_weights_too_large_for_half_precision_are_not_written(tmp_path):
    model = RayDiffuser(network('diffusion').config)
    with torch.no_grad():
        model.ray_predictor.final_layer.linear.weight.fill_(1e6)
    with pytest.raises(ValueError, match=r'linear.weight is not finite as torch.float16'):
        save_checkpoint(model, tmp_path)


def edit_settings(own, **changes):
    path = own / 'config.json'
    settings = json.loads(path.read_text())
    settings.update(changes)
    path.write_text(json.dumps(settings))


def test_missing_files_of_the_own_layout(own):
    (own / 'model.safetensors').unlink()
    with pytest.raises(CheckpointError, match=r'lacks model\.safetensors'):
        load_checkpoint(own)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'format_version': 7}, 'format_version 7, expected 1'),
        ({'model': 3}, "lacks the mapping 'model'"),
        ({'model': {'wings': 2}}, r"unknown model settings \['wings'\]"),
        ({'model': {'backbone': 'resnet'}}, "backbone is 'resnet'"),
        ({'model': {'width': 'wide'}}, 'unsupported setting'),
        ({'model': {}}, 'is of another network: .* missing'),
        ({'sha256': '0' * 64}, 'damaged or was replaced'),
    ],
)
def test_wrong_own_settings(own, changes, message):
    edit_settings(own, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(own)


@pytest.mark.parametrize('content', ['{', '[1]'])
def test_damaged_own_settings(own, content):
    (own / 'config.json').write_text(content)
    with pytest.raises(CheckpointError, match=r'config\.json'):
        load_checkpoint(own)


def test_truncated_own_weights(own):
    path = own / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match='damaged or was replaced'):
        load_checkpoint(own)
    edit_settings(own, sha256=None)
    with pytest.raises(CheckpointError, match='cannot be read'):
        load_checkpoint(own)


def test_own_weights_of_another_network(own):
    path = own / 'model.safetensors'
    tensors = load_file(path)
    tensors['ray_predictor.blocks.0.attn.proj.bias'] = torch.zeros(5)
    save_file(tensors, path)
    edit_settings(own, sha256=None)
    with pytest.raises(CheckpointError, match=r'has shape \(5,\), expected \(96,\)'):
        load_checkpoint(own)


def test_options_of_official_checkpoints_are_refused(own):
    with pytest.raises(CheckpointError, match='only be given for official'):
        load_checkpoint(own, max_views=12)
