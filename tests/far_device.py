"""A second device for machines that have none: `far`, whose memory is apart.

torch lets a backend be written in Python (`torch.utils.backend_registration`). A tensor
here says that it lies on the device `far` and holds one of the processor's: what is
computed of it is the processor's own bits, and what mixes the two devices is refused
by the rules, and in the words, of a GPU. So a test sees each forgotten transfer, which
a stand-in that is the processor itself would not show. What it cannot show are kernels
of a real device: their rounding, what is missing there, and how fast they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "far"
CPU = torch.device("cpu")
# As CUDA has it: these may read a tensor of the other device, all others none but
# numbers without an axis.
_CROSS = {"copy_", "_to_copy"}
_BY_NUMBER = {"index", "index_put", "index_put_", "_index_put_impl_"}


class FarTensor(Tensor):
    """A tensor of the device, which holds one of the processor's."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> FarTensor:
        found: FarTensor = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        found.inner = inner
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on {NAME}"

    # torch sets the tensor's own memory and knows of no other.
    @property
    def data(self) -> Any:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: FarTensor) -> None:
        Tensor.data.__set__(self, value)
        self.inner = value.inner

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        far = [t for t in tensors if isinstance(t, FarTensor)]
        name = func.overloadpacket.__name__
        by_number = name in _BY_NUMBER and isinstance(args[0], FarTensor)
        if (
            not by_number
            and name not in _CROSS
            and any(t.dim() and not isinstance(t, FarTensor) for t in tensors)
        ):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two "
                f"devices, {NAME}:0 and cpu! ({name})"
            )
        near = name == "copy_" and not isinstance(args[0], FarTensor)
        if kwargs.get("device") is not None:
            near = torch.device(kwargs["device"]).type == "cpu"
            kwargs = {**kwargs, "device": CPU}
        of = {id(t.inner): t for t in far}

        def hold(tensor: Tensor) -> Tensor:
            if near or isinstance(tensor, FarTensor):
                return tensor
            # What is written in place is the tensor that was given.
            given = of.get(id(tensor))
            return FarTensor(tensor) if given is None else given

        args, kwargs = tree.tree_map_only(FarTensor, lambda t: t.inner, (args, kwargs))
        return tree.tree_map_only(Tensor, hold, func(*args, **kwargs))


class _Module:
    """What `torch.far` answers; its random numbers are the processor's."""

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def set_device(self, device: Any) -> None:
        pass

    def synchronize(self, device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = 0) -> Tensor:
        return torch.default_generator.get_state()

    def set_rng_state(self, state: Tensor, device: Any = 0) -> None:
        torch.default_generator.set_state(state)


def _empty(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return FarTensor(torch.empty(size, dtype=dtype, device=CPU))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return FarTensor(torch.empty_strided(size, stride, dtype=dtype, device=CPU))


def _copy_from(source: Tensor, target: Tensor, _: bool = False) -> Tensor:
    near, to = (t.inner if isinstance(t, FarTensor) else t for t in (source, target))
    to.copy_(near)
    return target


def far_device() -> torch.device:
    """Returns the device."""
    return torch.device(NAME, 0)


# As this file is read, and so while tests are collected: torch counts the devices that
# a gradient may lie on once, when the first gradient of the process is computed.
_setup_privateuseone_for_python_backend(NAME, _Module())
_KERNELS = torch.library.Library("aten", "IMPL")
for _name, _kernel in (
    ("empty.memory_format", _empty),
    ("empty_strided", _empty_strided),
    ("_copy_from", _copy_from),
):
    _KERNELS.impl(_name, _kernel, "PrivateUse1")
