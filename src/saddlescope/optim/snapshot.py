"""Tensors that take other values for a while, and get their own back bit for bit."""

# torch's foreach operations, one call for many tensors, have private names; its own optimizers use them too.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from saddlescope.optim.distributed import own


class Snapshot:
    """The values of some tensors, to put back: never by subtracting, since that leaves round-off.

    A tensor on the CPU whose memory nobody else looks at is swapped: the new values go into memory of their
    own, the tensor is pointed there, and pointed back, which costs nothing. The others (on a device, where a
    captured graph may hold the address; views and tensors with views; shared memory; those of a framework that
    lays weights out itself) are copied and changed in place.

    The memory, as much as the tensors take, is allocated once: fresh pages at every step would cost more than
    the copying itself.

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
        self._memory: list[Tensor] = []
        self._swapped: list[tuple[Tensor, Tensor]] = []
        self._copied: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def take(self, tensors: Sequence[Tensor]) -> None:
        """Keep the tensors' values. Then write others to ``targets``, and `leave`."""
        self.copies, self.targets, self._swapped = [], [], []  # or these would be seen looking at the memory
        pieces = [own(t) for t in tensors]
        if len(pieces) != len(self._memory) or not all(map(_alike, pieces, self._memory)):
            self.tensors, self.pieces, self._memory, self._copied = [], [], [], []  # let go before asking for new
            self._memory = [torch.empty_like(t, requires_grad=False) for t in pieces]
        self.tensors, self.pieces, self._copied = list(tensors), pieces, []
        for tensor, piece, memory in zip(self.tensors, pieces, self._memory, strict=True):
            swap = piece is tensor and _owns_memory(tensor) and tensor.stride() == memory.stride()
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

    def _swap_back(self) -> None:
        for tensor, copy in self._swapped:
            tensor.data = copy


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and a.stride() == b.stride()


def _owns_memory(tensor: Tensor) -> bool:
    """Whether nobody else can tell that the tensor was pointed to other memory: no view, no process, no framework."""
    if torch.compiler.is_compiling() or tensor.device.type != "cpu":
        return False
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided or vars(tensor):
        return False
    storage = tensor.untyped_storage()
    return storage.resizable() and not storage.is_shared() and _holders(storage) == _HOLDERS_OF_ITS_OWN


def _holders(storage: torch.UntypedStorage) -> int:
    count = getattr(torch._C, "_storage_Use_Count", None)
    return -1 if count is None else count(storage._cdata)


_ALONE = torch.zeros(1)
_HOLDERS_OF_ITS_OWN = max(_holders(_ALONE.untyped_storage()), 0)
"""Of the memory of a tensor that nobody else looks at."""
