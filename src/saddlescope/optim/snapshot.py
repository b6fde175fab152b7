"""Tensors that take other values for a while, and get their own back bit for bit."""

# torch's foreach operations, one call for many tensors, have private names; its own optimizers use them too.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from saddlescope.optim.distributed import PLAIN, own


class Snapshot:
    """The values of some tensors, to put back: never by subtracting, since that leaves round-off.

    A tensor on the CPU whose memory nobody else looks at is swapped: the new values go into memory of their
    own, the tensor is pointed there, and pointed back, which costs nothing. The others (on a device, where a
    captured graph may hold the address; views and tensors with views; shared memory; those of a framework that
    lays weights out itself) are copied and changed in place.

    The memory, as much as the tensors take, is allocated once, unless it is handed in: fresh pages at every
    step would cost more than the copying itself.

    >>> w = torch.tensor([1.0, 2.0])
    >>> snapshot = Snapshot()
    >>> snapshot.take([w])
    >>> _ = torch.add(w, 0.5, out=snapshot.targets[0])
    >>> snapshot.leave()
    >>> w
    tensor([1.5000, 2.5000])
    >>> snapshot.put_back()
    >>> w
    tensor([1., 2.])
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        """What has other values for a while."""
        self.pieces: list[Tensor] = []
        """Of these what this rank holds: the tensors themselves, unless they are distributed."""
        self.copies: list[Tensor] = []
        """The values to come back to, tensor by tensor."""
        self.targets: list[Tensor] = []
        """Where to write the other values: memory not yet in use, or the tensor itself."""
        self.away = False
        """Whether the tensors may hold other values than these."""
        self._memory: list[Tensor | None] = []
        self._swapped: list[tuple[Tensor, Tensor]] = []
        self._copied: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def take(self, tensors: Sequence[Tensor], spare: Sequence[Tensor | None] = ()) -> None:
        """Keep the tensors' values. Then write others to ``targets``, and `leave`.

        Args:
            tensors: to move.
            spare: for each of them memory that may hold the other values, if it is like the tensor's; None for none.
        """
        self.copies, self.targets, self._swapped, self._copied = [], [], [], []  # these too look at the memory
        self.tensors, self.pieces = list(tensors), [own(t) for t in tensors]
        if len(self.pieces) != len(self._memory):
            self._memory = [None] * len(self.pieces)
        for i, (tensor, piece) in enumerate(zip(self.tensors, self.pieces, strict=True)):
            swap = piece is tensor and _owns_memory(tensor)
            memory = self._memory_for(i, piece, spare[i] if swap and spare else None)
            swap = swap and tensor.stride() == memory.stride()
            copy = tensor.data if swap else memory
            (self._swapped if swap else self._copied).append((piece, copy))
            self.copies.append(copy)
            self.targets.append(memory if swap else piece)
        if self._copied:
            tensors, copies = zip(*self._copied, strict=True)
            torch._foreach_copy_(copies, tensors)
        self.away = True

    @torch.no_grad()
    def leave(self) -> None:
        """Let the tensors have the values written to ``targets``."""
        for tensor, target in zip(self.pieces, self.targets, strict=True):
            if tensor is not target:
                tensor.data = target
        # A graph that saved the old values refuses to run with the new ones, as after any change in place.
        increment_version([tensor for tensor, _ in self._swapped])

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the tensors their values back, if they are away; an error on the way is raised afterwards."""
        if not self.away:
            return
        try:
            self._swap_back()
            if self._copied:
                tensors, copies = zip(*self._copied, strict=True)
                torch._foreach_copy_(tensors, copies)
        except BaseException:
            self._swap_back()
            for tensor, copy in self._copied:
                tensor.copy_(copy)  # asks for no memory
            raise
        finally:
            self.away = False
            self.targets = []  # may be all that keeps the spare memory

    def _memory_for(self, i: int, piece: Tensor, spare: Tensor | None) -> Tensor:
        if spare is not None and _alike(piece, spare):
            self._memory[i] = None
            return spare
        memory = self._memory[i]
        if memory is None or not _alike(piece, memory):
            self._memory[i] = memory = None  # let go before asking for new
            self._memory[i] = memory = torch.empty_like(piece, requires_grad=False)
        return memory

    def _swap_back(self) -> None:
        for tensor, copy in self._swapped:
            tensor.data = copy


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and a.stride() == b.stride()


def unshared_gradient(parameter: Tensor) -> Tensor | None:
    """Return a parameter's gradient if nobody else could tell that it was written over: no variable, view or graph."""
    gradient = parameter.grad
    if gradient is None or gradient.requires_grad or not _owns_memory(gradient):
        return None
    return gradient if _references(gradient) == _REFERENCES_TO_A_GRADIENT else None


def _references(tensor: Tensor) -> tuple[int, int]:
    return sys.getrefcount(tensor), tensor._use_count()  # pyright: ignore[reportAttributeAccessIssue]


def _owns_memory(tensor: Tensor) -> bool:
    """Whether nobody else can tell that the tensor was pointed to other memory: no view, no process, no framework."""
    if type(tensor) not in PLAIN or not tensor.is_cpu or tensor.layout is not torch.strided or tensor.__dict__:
        return False
    if torch.compiler.is_compiling():
        return False
    storage = tensor.untyped_storage()
    return storage.resizable() and _holders(storage) == _HOLDERS_OF_ITS_OWN and not storage.is_shared()


_count = getattr(torch._C, "_storage_Use_Count", None)


def _holders(storage: torch.UntypedStorage) -> int:
    return -1 if _count is None else _count(storage._cdata)


_ALONE = torch.zeros(1)
_HOLDERS_OF_ITS_OWN = max(_holders(_ALONE.untyped_storage()), 0)
"""Of the memory of a tensor that nobody else looks at."""


def _references_to_a_gradient() -> tuple[int, int]:
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    gradient = parameter.grad
    return _references(gradient)


_REFERENCES_TO_A_GRADIENT = _references_to_a_gradient()
"""As `unshared_gradient` sees them where there are no others."""
