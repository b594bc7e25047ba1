"""Checks of what `ray-pose` is given; imports nothing heavy."""

import argparse


def check_least(args: argparse.Namespace, **least: float) -> None:
    """Raise ValueError for the first of these options that is below its least value, or nan."""
    for name, bound in least.items():
        _check(args, name, f'{bound} or more', bound)


def check_shares(args: argparse.Namespace, *names: str) -> None:
    """Raise ValueError for the first of these options that is not within 0 to 1."""
    for name in names:
        _check(args, name, '0 to 1', 0, 1)


def check_seeds(args: argparse.Namespace, *names: str) -> None:
    """Raise ValueError for the first of these options that no generator takes as a seed."""
    for name in names:
        _check(args, name, '0 to 2^62', 0, 2**62)  # and seeds beside it stay within 64 bits


def _check(
    args: argparse.Namespace, name: str, expected: str, least: float, most: float = float('inf')
) -> None:
    value = getattr(args, name)
    if not least <= value <= most:
        option = '--' + name.replace('_', '-')
        raise ValueError(f'{option} is {value}, expected {expected}')
