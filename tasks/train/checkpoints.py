"""Checkpoints of slices: safetensors files named by what they were trained on, checked by what they hold.

The name digests the inputs (see `plan.checkpoint_names`), so it says what a file ought to be; a digest of the content inside says
whether it still is. A damaged file counts as absent and is trained again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from infra.files import filesystem
from tasks.train.weights import content_digest

_LOG = logging.getLogger("lethe.train")
_END = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The state after a slice: weights with buffers, the optimizer's state, and the mean loss of every epoch so far."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    losses: tuple[float, ...]


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The one form of a checkpoint as a file: equal checkpoints are equal bytes."""
    tensors = {f"weights/{k}": v for k, v in checkpoint.weights.items()} | {
        f"optimizer/{k}": v for k, v in checkpoint.optimizer.items()
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(tensors.items())}
    losses = list(checkpoint.losses)
    # One key only: safetensors writes several in no fixed order.
    notes = json.dumps({"content": _sealed(tensors, losses), "losses": losses}, sort_keys=True)
    return save_tensors(tensors, {"lethe": notes})


def _sealed(tensors: Mapping[str, Tensor], losses: Sequence[float]) -> str:
    return hashlib.sha256((content_digest(tensors) + json.dumps(losses)).encode()).hexdigest()


def from_bytes(data: bytes) -> Checkpoint | None:
    """The checkpoint in a file's bytes, or None where they are damaged."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        notes: dict[str, Any] = json.loads(header["__metadata__"]["lethe"])
        content, losses = str(notes["content"]), [float(loss) for loss in notes["losses"]]
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if _sealed(tensors, losses) != content:
        return None
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    optimizer = {k.removeprefix("optimizer/"): v for k, v in tensors.items() if k.startswith("optimizer/")}
    return Checkpoint(weights, optimizer, tuple(losses))


# --- the store -----------------------------------------------------------------------------------------------------------------


def save(store: str, name: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that its name appears with its whole content or not at all."""
    fs, folder = filesystem(store)
    data = to_bytes(checkpoint)
    if "://" in store and not store.startswith("file://"):
        fs.pipe_file(f"{folder}/{name}{_END}", data)
        return
    fs.makedirs(folder, exist_ok=True)
    draft = f"{folder}/draft-{uuid.uuid4().hex}"
    fs.pipe_file(draft, data)
    fs.mv(draft, f"{folder}/{name}{_END}")


def load(store: str, name: str) -> Checkpoint | None:
    """The checkpoint of that name; None where there is none or it is damaged."""
    fs, folder = filesystem(store)
    try:
        data = fs.cat_file(f"{folder}/{name}{_END}")
    except FileNotFoundError:
        return None
    found = from_bytes(data)
    if found is None:
        _LOG.warning("checkpoint %s is damaged: its slice is trained again", name[:16])
    return found


def longest(store: str, names: Sequence[str]) -> tuple[int, Checkpoint | None]:
    """(number of slices done, the checkpoint after them): the last of the names that is there and whole."""
    for n_done in range(len(names), 0, -1):
        found = load(store, names[n_done - 1])
        if found is not None:
            return n_done, found
    return 0, None


def delete_except(store: str, keep: Collection[str]) -> int:
    """Delete every file in the store but the checkpoints of these names; returns how many went."""
    fs, folder = filesystem(store)
    if not fs.exists(folder):
        return 0
    kept = {f"{name}{_END}" for name in keep}
    doomed = [path for path in fs.find(folder) if str(path).rsplit("/", 1)[-1] not in kept]
    for path in doomed:
        fs.rm_file(path)
    return len(doomed)
