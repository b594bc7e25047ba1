"""A picture of a run: losses and held-out accuracy over the sets seen."""

from pathlib import Path


def draw_curves(history: list[dict], path: Path) -> None:
    """Draw `history` (of Trainer) into the image file `path`."""
    from matplotlib.figure import Figure

    sets = [entry['sets'] for entry in history]
    figure = Figure(figsize=(12, 3.6), layout='constrained')
    losses, medians, shares = figure.subplots(1, 3)
    for name in history[0]['losses']:
        losses.plot(sets, [entry['losses'].get(name, float('nan')) for entry in history])
        losses.annotate(name, (sets[-1], history[-1]['losses'].get(name, 1.0)), fontsize=6)
    losses.set(yscale='log', title='training losses', xlabel='sets')
    for name in history[0]['held_out']:
        found = [entry['held_out'][name] for entry in history]
        medians.plot(sets, [case['median'] for case in found], label=name)
        shares.plot(sets, [100 * case['R@15'] for case in found], label=name)
    medians.set(title='held out: median rotation error, degrees', xlabel='sets', ylim=(0, None))
    shares.set(title='held out: R@15, %', xlabel='sets', ylim=(0, None))
    medians.legend(title='within, degrees')
    figure.savefig(path, dpi=110)
