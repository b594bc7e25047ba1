"""Runs methods on subsets of sequences: same subsets for all, in parallel, and resumably."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ray_pose_ros.estimation.processes import one_thread_each

from .draws import Draw, draw_subsets, identity
from .methods import Answer, Method, MethodUnavailable, NotApplicable, create_method
from .metrics import SolveErrors, solve_errors
from .parts import Part, Settings, part_keys, part_path, read_part, store_part
from .sequences import Sequence as ViewSequence
from .sources import Source


def evaluate_source(
    source: Source,
    settings: Settings,
    wanted: Sequence[tuple[str, int]],
    create: Callable[[str], Method],
) -> Iterator[Part]:
    """Parts of one sequence for each wanted (spec of a method, N), as they are ready.

    A method that raises has failed on that subset: nothing is placed, the error is kept.
    """
    sequence = source.load()
    given = None
    subsets = max(1, settings.subsets // source.share)
    draws: dict[int, tuple[list[Draw], str]] = {}
    for spec in dict.fromkeys(spec for spec, _ in wanted):
        method = create(spec)
        applies, broken = True, ''
        try:
            method.begin(sequence)
        except NotApplicable:
            applies = False
        except MethodUnavailable:
            raise
        except Exception as error:  # whatever it is, the run goes on
            broken = _one_line(error)
        for views in (n for of, n in wanted if of == spec):
            if views not in draws:
                how = settings.within, settings.seed, settings.tour
                drawn = draw_subsets(sequence, views, subsets, *how)
                draws[views] = drawn, identity(sequence, drawn)
            drawn, same = draws[views]
            part = Part(spec, views, same)
            for draw in drawn if applies else ():
                truth = sequence.R[draw.indices], sequence.t[draw.indices]
                answer, failure = _solve(method, draw, broken)
                focal = None
                if answer.K is not None:
                    given = given or source.with_intrinsics().load()
                    focal = _focals(given, draw.indices)
                try:
                    errors = solve_errors(answer, *truth, sequence.centres, focal, failure)
                except ValueError as error:  # an answer that is none
                    nothing = Answer.nothing(views, answer.seconds)
                    reason = _one_line(error)
                    errors = solve_errors(nothing, *truth, sequence.centres, failure=reason)
                # as it is stored, so that a resumed run gives the very same figures
                part.solves.append(SolveErrors.from_dict(errors.as_dict()))
            yield part


def run(
    sources: Sequence[Source],
    settings: Settings,
    specs: Sequence[str],
    jobs: int = 1,
    parts_dir: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[tuple[int, str, int], Part]:
    """Every method on every sequence at every N; parts by (index of the source, spec, N).

    Torch computes with one thread in each process, so that the answers do not depend on `jobs`.

    Args:
        sources: the sequences.
        settings: see there.
        specs: of the methods.
        jobs: processes; 1 for this one.
        parts_dir: where finished parts are stored at once.
        resume: take parts from there that were made with the same settings, data, weights, code.
        progress: called with (parts done, parts in all, what was done last).

    Raises ValueError for methods that cannot be made or sequences that cannot be read.
    """
    import torch

    everything = [
        (index, spec, views)
        for index in range(len(sources))
        for spec in specs
        for views in settings.views
    ]
    keys = part_keys(sources, settings, specs)
    found: dict[tuple[int, str, int], Part] = {}
    if parts_dir is not None and resume:
        for index, spec, views in everything:
            part = read_part(part_path(parts_dir, keys[index, spec], views))
            if part is not None:
                found[index, spec, views] = part
    tasks = []
    for index, source in enumerate(sources):
        wanted = [(s, n) for i, s, n in everything if i == index and (i, s, n) not in found]
        # photographs are read faster than a worker waits for another's slow method
        apart = jobs > 1 and source.kind != 'rendered'
        for group in _by_method(wanted) if apart else [wanted] if wanted else []:
            paths = {
                (s, n): str(part_path(parts_dir, keys[index, s], n)) if parts_dir else ''
                for s, n in group
            }
            tasks.append((index, source, group, paths))

    def done(index: int, part: Part) -> None:
        found[index, part.spec, part.views] = part
        if progress:
            progress(len(found), len(everything), f'{sources[index].label} {part.spec}')

    if progress:
        progress(len(found), len(everything), '')
    methods = {spec: create_method(spec, settings.options()) for spec in specs} if tasks else {}
    if jobs > 1 and len(tasks) > 1:
        methods.clear()  # made to know early that they can be; the workers make their own
        _run_parallel(tasks, settings, min(jobs, len(tasks)), done)
    elif tasks:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for index, source, wanted, paths in tasks:
                for part in evaluate_source(source, settings, wanted, methods.__getitem__):
                    store_part(paths[part.spec, part.views], part)
                    done(index, part)
        finally:
            torch.set_num_threads(threads)
    return {key: found[key] for key in everything}


def _by_method(wanted: list[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    return [[w for w in wanted if w[0] == spec] for spec in dict.fromkeys(s for s, _ in wanted)]


def _run_parallel(tasks, settings: Settings, jobs: int, done) -> None:
    with one_thread_each():
        # spawned: neither CUDA nor OpenMP survives a fork
        pool = ProcessPoolExecutor(jobs, mp_context=get_context('spawn'))
        try:
            futures = {
                pool.submit(_work, source, settings, wanted, paths): index
                for index, source, wanted, paths in tasks
            }
            for future in as_completed(futures):
                for part in future.result():
                    done(futures[future], part)
        except BrokenProcessPool as error:
            raise ValueError(
                'a worker process died (out of memory?); try fewer --jobs, and --resume to go on'
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_made: dict[str, Method] = {}  # of a worker process, which has one settings for its whole life


def _work(source: Source, settings: Settings, wanted, paths) -> list[Part]:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    def create(spec: str) -> Method:
        if spec not in _made:
            _made[spec] = create_method(spec, settings.options())
        return _made[spec]

    parts = []
    for part in evaluate_source(source, settings, wanted, create):
        store_part(paths[part.spec, part.views], part)
        parts.append(part)
    return parts


def _solve(method: Method, draw: Draw, broken: str) -> tuple[Answer, str]:
    """The answer, and what the method raised instead of one."""
    if broken:
        return Answer.nothing(len(draw.indices)), broken
    begin = time.perf_counter()
    try:
        return method.solve(draw.indices, copy.deepcopy(draw.rng)), ''
    except Exception as error:
        seconds = time.perf_counter() - begin
        return Answer.nothing(len(draw.indices), seconds), _one_line(error)


def _focals(sequence: ViewSequence, indices: np.ndarray) -> np.ndarray:
    """True focal lengths (N,) in pixels; nan where the sequence does not know them."""
    cameras = [sequence.views[int(index)].camera for index in indices]
    return np.array([
        np.nan if c is None else float((c.matrix[0, 0] * c.matrix[1, 1]).sqrt()) for c in cameras
    ])  # fmt: skip


def _one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
