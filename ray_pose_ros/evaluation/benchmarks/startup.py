"""Time from nothing to the first answer, and peak memory, each in fresh processes."""

from .fresh import in_fresh_process
from .timing import spread
from .workload import Options

SECONDS = (
    'import_torch_s',
    'import_rest_s',
    'load_s',
    'first_s',
    'second_s',
    'start_to_first_answer_s',
)
MEMORY = ('imported_mib', 'loaded_mib', 'peak_mib', 'gpu_peak_mib')


def measure(options: Options) -> list[dict]:
    """A row for each device and number of views, of up to three processes each.

    Seconds: 'first' is the first estimate, that warms up; 'second' the next one. MiB: resident
    high-water marks after imports, after loading and at the end, and the allocator's on a GPU.
    """
    rows = []
    for device in options.devices:
        for count in options.views:
            runs = [
                in_fresh_process(
                    views=count,
                    device=device,
                    checkpoint=options.checkpoint and str(options.checkpoint),
                    steps=options.steps,
                    samples=options.samples,
                )
                # the start is the same whatever N: the memory is what the others are for
                for _ in range(min(options.repeats, 3) if count == options.views[0] else 1)
            ]
            row = {'device': device, 'views': count}
            row |= {name: spread([run[name] for run in runs]) for name in SECONDS}
            for name in MEMORY:
                values = [run[name] for run in runs if run[name] is not None]
                row[name] = max(values) if values else None
            rows.append(row)
    return rows
