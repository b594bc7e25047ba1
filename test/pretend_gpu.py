"""A pretended CUDA GPU, to run the path through a GPU where there is none.

Inside `pretend_gpu()` torch says that there is a GPU, and tensors put on it say that they are
there while they lie in the CPU's memory. As with CUDA, an operator raises when it is given tensors
of both (but for single numbers and indices), and so does what reads a GPU's tensor as if it were
the CPU's. Autocast is the GPU's, too. Threads begun inside it take part.

It tells nothing of kernels, memory or speed, and has no backward pass. Where there is a real GPU
that is used instead.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

GPU = torch.device('cuda:0')
_aten = torch.ops.aten
_ACROSS = {_aten.copy_.default, _aten._to_copy.default}
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
}
_SOFTMAX = {_aten._softmax.default, _aten._log_softmax.default}
_READING = {
    getattr(torch.Tensor, name)
    for name in ('item', 'tolist', '__float__', '__int__', '__bool__', '__index__', '__repr__')
}


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU; `held` is what it really is."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=GPU,
            requires_grad=held.requires_grad,
        )

    def __init__(self, held: torch.Tensor):
        self.held = held.detach()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f'{func} outside of pretend_gpu')


class _Counting:
    """What both modes tell."""

    def __init__(self, counts: Counter):
        super().__init__()
        self.counts = counts


class _Operators(_Counting, TorchDispatchMode):
    """Runs what torch asks of a GPU on the CPU, if a GPU would do it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat, spec = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, torch.Tensor)]
        ours = [x for x in tensors if isinstance(x, OnGpu)]
        if ours and func not in _ACROSS:
            self._refuse_others(func, args, tensors)
        real = [x.held if isinstance(x, OnGpu) else x for x in flat]
        real = [torch.device('cpu') if isinstance(x, torch.device) else x for x in real]
        args, kwargs_ = tree_unflatten(real, spec)
        device = kwargs.get('device')
        on_gpu = bool(ours) if device is None else torch.device(device).type == 'cuda'
        self.counts['operators'] += on_gpu
        self.counts['to the GPU'] += on_gpu and func in _ACROSS and len(ours) < len(tensors)
        if on_gpu and func is _aten._fused_sdp_choice.default:
            return 0  # plain arithmetic: the CPU has no kernel by the GPU's name
        if func in _SOFTMAX and args[2]:  # in single precision of half: no such kernel either
            args = args[0].float(), args[1], False
        out = func(*args, **kwargs_)
        if not on_gpu:
            self.counts['to the CPU'] += bool(ours)
            return out
        same = {id(x.held): x for x in ours}  # what works in place returns what it was given

        def placed(x):
            if not isinstance(x, torch.Tensor):
                return x
            return same[id(x)] if id(x) in same else OnGpu(x)

        return tree_map(placed, out)

    @staticmethod
    def _refuse_others(func, args, tensors) -> None:
        indices = {id(x) for x in args[1] if x is not None} if func in _INDEXING else ()
        for x in tensors:
            if not isinstance(x, OnGpu) and x.dim() and id(x) not in indices:
                seen = ', '.join(f'{tuple(x.shape)} on {x.device}' for x in tensors)
                raise RuntimeError(f'{func}: tensors on different devices: {seen}')


class _Functions(_Counting, TorchFunctionMode):
    """What never becomes an operator, or asks for CUDA before it does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.to:
            return _to(*args, **kwargs)
        if func in (torch.Tensor.cuda, torch.Tensor.cpu):
            return _to(args[0], GPU if func is torch.Tensor.cuda else 'cpu')
        if args and isinstance(args[0], OnGpu):
            held, rest = args[0].held, args[1:]
            if func in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError(f'cannot convert a tensor on {GPU} to numpy')
            if func in _READING:
                self.counts['to the CPU'] += 1
                return func(held, *rest)
            if func is torch.Tensor.new_tensor:
                made = held.new_tensor(*rest, **{**kwargs, 'device': 'cpu'})
                return _to(made, kwargs.get('device', GPU))
        elif torch.device(kwargs.get('device') or 'cpu').type == 'cuda':  # makes a tensor
            return _to(func(*args, **{**kwargs, 'device': 'cpu'}), GPU)
        return func(*args, **kwargs)


def _to(x, *args, device=None, dtype=None, non_blocking=False, copy=False, memory_format=None):
    """`Tensor.to`."""
    for arg in args:
        if isinstance(arg, torch.Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, torch.dtype):
            dtype = arg
        elif isinstance(arg, (str, torch.device)):
            device = arg
    device = torch.device(x.device if device is None else device)
    changes = device.type != x.device.type or dtype not in (None, x.dtype)
    if not (changes or copy or memory_format):
        return x
    settings = {'device': device, 'dtype': dtype or x.dtype, 'memory_format': memory_format}
    return _aten._to_copy.default(x, **settings)


def _enter_no_grad(mode) -> None:
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _leave_no_grad(mode, *_) -> None:
    torch.set_grad_enabled(mode.before)


def _let_cuda_pass() -> None:
    """Give CUDA the device guard of 'meta', which does nothing, where torch was built without."""
    torch._C._ensureCUDADeviceGuardSet()
    try:
        core = ctypes.CDLL(str(Path(torch.__file__).parent / 'lib' / 'libc10.so'))
        guards = (ctypes.c_void_p * 16).in_dll(core, '_ZN3c104impl26device_guard_impl_registryE')
    except (OSError, ValueError) as error:
        pytest.skip(f'this torch cannot pretend: {error}')
    cuda, meta = 1, 14  # c10::DeviceType
    guards[cuda] = guards[cuda] or guards[meta]


@contextmanager
def pretend_gpu():
    """Have torch say that there is a GPU. Gives counts, 'operators' on it and times that something
    was brought 'to the CPU' or 'to the GPU', which waits for it; empty with a real GPU."""
    counts = Counter()
    if torch.cuda.is_available():
        yield counts
        return
    _let_cuda_pass()

    def run(thread, run=threading.Thread.run):
        with _Operators(counts), _Functions(counts):  # modes are each thread's own
            run(thread)

    conversion = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:

        def replace(owner, **values):
            for name, value in values.items():
                stack.enter_context(mock.patch.object(owner, name, value))

        replace(
            torch.cuda,
            is_available=lambda: True,
            is_initialized=lambda: True,
            is_bf16_supported=lambda *_: True,
            _lazy_init=lambda: None,
            synchronize=lambda device=None: None,
            empty_cache=lambda: None,
            memory_allocated=lambda device=None: 0,
            max_memory_allocated=lambda device=None: 0,
            reset_peak_memory_stats=lambda device=None: None,
            get_device_name=lambda device=None: 'pretended GPU',
        )
        # its tensors cannot be views of others
        replace(torch.inference_mode, __enter__=_enter_no_grad, __exit__=_leave_no_grad)
        replace(threading.Thread, run=run)
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, conversion)
        stack.enter_context(_Operators(counts))
        stack.enter_context(_Functions(counts))
        yield counts
