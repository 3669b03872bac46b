"""What weights are, as a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor


def content_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of named tensors: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
