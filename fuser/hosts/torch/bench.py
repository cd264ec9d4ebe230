"""Torch models against one another, called as they are or compiled by Inductor, on the processor or a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from fuser.errors import InputError
from fuser.hosts.host import Call, Clock, Contest, Fed, Place, seconds
from fuser.hosts.torch.callables import bound, device_of, module_of, opened, require_model
from fuser.hosts.torch.front import first_line
from fuser.hosts.torch.verification import TorchModels
from fuser.judge.inputs import LARGE, NOMINAL

BACKENDS: Final = ("eager", "inductor", "inductor-freezing")
"""`inductor-freezing` also folds what follows from the weights, which nobody may change any more."""

DEVICES: Final = ("cpu", "cuda")


@contextmanager
def contest(original: Any, result: Any, fed: Fed, place: Place) -> Iterator[Contest]:
    """Two models, each compiled and run once, to be timed within the block; both are copies.

    Raises:
        InputError: a model cannot be loaded, compiled or run, or there is no such backend or device.
    """
    backend, device = place.backend or BACKENDS[0], place.device
    require_backend(backend)
    if device is not None:
        require_device(device)
    for model, name in ((original, "the original"), (result, "the result")):
        require_model(model, name)
    models = TorchModels(
        original, result, fed.inputs, 1, sizes=fed.sizes, shapes=fed.shapes, order=(NOMINAL, *LARGE)
    )
    with models.original(precise=False) as runner:
        ((feeds, _),) = models.samples(runner)
    first, second = (module_on(model, device) for model in (models.first, opened(result, "the result")))
    where = torch.device(device) if device else device_of(first) or models.arguments.tensors[0].device
    require_device(where.type)
    with inference(place.threads):
        arguments = models.arguments.filled(feeds, where)
        yield Contest(
            calls=(
                prepared(first, arguments, backend, "the original"),
                prepared(second, arguments, backend, "the result"),
            ),
            inputs={name: array.shape for name, array in feeds.items()},
            provider=backend,
            runtime=f"torch {torch.__version__} {backend}, {_described(arguments)} on {_title(where)}",
            clock=clock(where),
        )


def require_backend(backend: str) -> None:
    """Refuse a backend that is not known.

    Raises:
        InputError: with those that are.
    """
    if backend not in BACKENDS:
        raise InputError(f"no backend {backend!r}: there are {', '.join(BACKENDS)}")


def require_device(device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: it is not one of `DEVICES`, or a GPU where torch finds none.
    """
    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise InputError(f"no device {device!r}: timings are taken on {' or '.join(DEVICES)}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"there is no GPU to run on: torch {torch.__version__} finds no CUDA device here")


def module_on(model: nn.Module | ExportedProgram, device: str | None) -> nn.Module:
    """A copy of a model as a module, on `device` or else where it is."""
    module = module_of(model)
    if device is None or device_of(module) == torch.device(device):
        return module
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            _move(part, torch.device(device))
    return module.to(device)


def _move(module: fx.GraphModule, device: torch.device) -> None:
    """Make tensors that a graph creates on `device`: where they were created is written in it."""
    for node in module.graph.nodes:
        node.kwargs = node.kwargs | ({"device": device} if "device" in node.kwargs else {})
        node.args = tuple(device if isinstance(arg, torch.device) else arg for arg in node.args)
    module.recompile()


@contextmanager
def inference(threads: int) -> Iterator[None]:
    """So many threads for one operator, and no gradients, within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def prepared(module: nn.Module, arguments: tuple[Any, Any], backend: str, name: str) -> Call:
    """A call of a module, compiled by `backend`, that has been made once; `name` is what errors call it.

    Raises:
        InputError: torch cannot compile or run it.
    """
    args, kwargs = bound(module, *arguments)
    run = module if backend == "eager" else _compiled(module, freezing=backend == "inductor-freezing")
    try:
        with _configured(backend):
            run(*args, **kwargs)
    except Exception as error:
        raise InputError(f"{name}: torch fails in {backend}: {first_line(error)}") from error
    return lambda: run(*args, **kwargs)


def _compiled(module: nn.Module, *, freezing: bool) -> Callable[..., Any]:
    # The option keeps apart what is compiled with and without; Dynamo asks the setting in `_configured`.
    compiled: Callable[..., Any] = torch.compile(module, dynamic=False, options={"freezing": freezing})
    return compiled


@contextmanager
def _configured(backend: str) -> Iterator[None]:
    """Torch's settings while it compiles."""
    import torch._dynamo.config
    import torch._inductor.config

    if backend == "eager":
        yield
        return
    # Models of one class share their code; past the limit it would not be compiled, without a word.
    limits = {"recompile_limit": 1000, "accumulated_recompile_limit": 1000}
    with (
        torch._dynamo.config.patch(limits),
        torch._inductor.config.patch(freezing=backend == "inductor-freezing"),
    ):
        yield


def clock(device: torch.device) -> Clock:
    """What takes the time of a call on this device."""
    return _CudaClock(device) if device.type == "cuda" else seconds


class _CudaClock:
    """Times by events of the GPU, which finds nothing of the run before in its L2 cache."""

    def __init__(self, device: torch.device) -> None:
        size = 2 * torch.cuda.get_device_properties(device).L2_cache_size
        self._device = device
        self._flushed = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self, call: Call) -> float:
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._flushed.zero_()
            start.record()
            call()
            end.record()
            end.synchronize()
            return 1e-3 * float(start.elapsed_time(end))


def _title(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def _described(arguments: tuple[Any, Any]) -> str:
    """Type and memory format of the first tensor that is fed."""
    tensors = (leaf for leaf in torch.utils._pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
    tensor = next(tensors)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(tensor.ndim)
    last = wanted is not None and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=wanted)
    return f"{str(tensor.dtype).removeprefix('torch.')}{' channels last' if last else ''}"
