"""Each section's measurement, with the machine it was made on."""

import time

from . import (
    accuracy,
    keyframes,
    latency,
    machine,
    many,
    map_growth,
    ratios,
    refinement,
    ros,
    scale,
    setup_time,
    startup,
)
from .workload import Options

MEASURE = {
    'latency': lambda options: {'rows': latency.measure(options)},
    'startup': lambda options: {'rows': startup.measure(options)},
    'ratios': lambda options: {
        'loop': ratios.official_loop(options),
        'naive': ratios.naive_use(options),
    },
    'accuracy': lambda options: {'rows': accuracy.measure(options)},
    'scale': lambda options: {
        'views': scale.by_views(options),
        'samples': scale.by_samples(options),
        'keyframes': keyframes.measure(options),
        'map': map_growth.measure(options),
    },
    'refinement': refinement.measure,
    'many': many.measure,
    'ros': ros.measure,
    'setup': lambda options: setup_time.measure(),
}


def measure(name: str, options: Options) -> dict:
    """The section's figures, with 'machine', 'loads' before and after, 'warning' and 'seconds'."""
    before, begin = machine.load(), time.perf_counter()
    figures = MEASURE[name](options)
    seconds = time.perf_counter() - begin
    loads = [before, machine.load()]
    where = machine.describe(str(options.estimator_device()))
    return figures | {
        'machine': where,
        'loads': loads,
        'warning': machine.warning(loads),
        'seconds': seconds,
        'repeats': figures.get('repeats', options.repeats),
        'model': str(options.checkpoint) if options.checkpoint else 'shipped',
    }
