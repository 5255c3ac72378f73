"""A model's eyes: pictures are taken in, encoded once, and found again by their tokens' ids."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from model.checkpoint.stored import StoredTensor, stored_parts
from model.checkpoint.weights import add_samples
from model.errors import PictureError
from model.vision.encoder import Encoder
from model.vision.image_ids import image_ids
from model.vision.picture import Picture
from model.vision.preparing import Grid, Preparing
from model.vision.tower_config import VisionConfig

Item = TypeVar("Item")

KEPT_BYTES = 256 << 20
"""The bytes of embeddings, and again of pictures' files, that are kept; the oldest go first."""


class Sight(Protocol):
    """A source of the pictures whose tokens a network runs."""

    def grid(self, digest: str) -> Grid:
        """Return the grid of a picture. Raises ``PictureError`` if it was never taken in."""
        ...

    def rows(self, digest: str) -> Tensor:
        """Return a picture's embeddings ``[tokens, hidden]``. Raises ``PictureError``."""
        ...


@dataclass(frozen=True)
class Tower:
    """A vision tower as its file holds it: nothing is copied before the first picture comes."""

    config: VisionConfig
    preparing: Preparing
    tensors: Mapping[str, StoredTensor]

    def fingerprint(self, base: str, dtype: torch.dtype) -> str:
        """Hash the tower's tensors and settings together with a network's fingerprint ``base``."""
        digest = hashlib.sha256(repr((base, self.config, self.preparing, dtype)).encode())
        add_samples(digest, stored_parts(self.tensors.values()))
        return digest.hexdigest()

    def place(self, dtype: torch.dtype, device: torch.device) -> Encoder:
        """Bring the weights onto ``device`` to compute in ``dtype``."""
        tensors = {
            name: stored.read(dtype).to(device, dtype) for name, stored in self.tensors.items()
        }
        return Encoder(self.config, tensors)


class Eyes:
    """The pictures that sessions of one engine were shown. Threads may share it."""

    def __init__(self, tower: Tower, dtype: torch.dtype, device: torch.device) -> None:
        """Compute in ``dtype`` on ``device``; the weights are read when they are needed."""
        self.preparing = tower.preparing
        self.encoded = 0
        self.encode_s = 0.0
        self._tower = tower
        self._dtype = dtype
        self._device = device
        self._encoder: Encoder | None = None
        self._pictures = Kept[Picture]()
        self._rows = Kept[Tensor]()
        self._grids: dict[str, Grid] = {}
        self._lock = threading.RLock()

    def take(self, picture: Picture) -> list[int]:
        """Take ``picture`` in, and return the ids of its tokens.

        Raises ``PictureError`` if it cannot be shown to the model.
        """
        grid = self.preparing.grid(picture.height, picture.width)
        with self._lock:
            self._grids[picture.digest] = grid
            size = len(picture.source) if isinstance(picture.source, bytes) else 1
            self._pictures.put(picture.digest, picture, size)
        return image_ids(picture.digest, grid.tokens)

    def grid(self, digest: str) -> Grid:
        """Return the grid of a picture. Raises ``PictureError`` if it was never taken in."""
        found = self._grids.get(digest)
        if found is None:
            raise _absent(digest)
        return found

    def rows(self, digest: str) -> Tensor:
        """Return a picture's embeddings ``[tokens, hidden]``, encoded at the first call.

        Raises ``PictureError`` if it is not at hand.
        """
        with self._lock:
            found = self._rows.get(digest)
            if found is not None:
                return found
            picture = self._pictures.get(digest)
            if picture is None:
                raise _absent(digest)
            started = perf_counter()
            with torch.inference_mode():
                patches, grid = self.preparing.patches(picture.pixels())
                if self._encoder is None:
                    self._encoder = self._tower.place(self._dtype, self._device)
                found = self._encoder(patches.to(self._device), grid)
            self.encoded += 1
            self.encode_s += perf_counter() - started
            self._rows.put(digest, found, found.nbytes)
            return found


class Kept(Generic[Item]):
    """Items by name, up to ``KEPT_BYTES``; those that were used longest ago go first."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, tuple[Item, int]] = OrderedDict()
        self._size = 0

    def get(self, name: str) -> Item | None:
        """Return an item, which is then the one used last; None if it is not there."""
        if name not in self._items:
            return None
        self._items.move_to_end(name)
        return self._items[name][0]

    def put(self, name: str, item: Item, size: int) -> None:
        """Keep ``item`` of ``size`` bytes; what was kept last always stays."""
        if name in self._items:
            self._size -= self._items.pop(name)[1]
        self._items[name] = item, size
        self._size += size
        while self._size > KEPT_BYTES and len(self._items) > 1:
            _, (_, gone) = self._items.popitem(last=False)
            self._size -= gone


def _absent(digest: str) -> PictureError:
    return PictureError(
        f"the picture {digest[:12]} is not at hand any more; show it again, or resume the session"
    )
