"""The lake's secret: created on first use beside lethe.toml, or taken from LETHE_SECRET. Never in the lake, never printed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from infra.contracts import LetheError
from infra.ids import Keys, derive_keys


class SecretError(LetheError):
    """The secret cannot be read or is not one."""


def load_keys(private_dir: Path) -> Keys:
    """The lake's keys. Without LETHE_SECRET they come from `secret` in `private_dir`, which is made (0600) if it is not there."""
    written = os.environ.get("LETHE_SECRET")
    return derive_keys(_parse(written, "LETHE_SECRET") if written else _from_file(private_dir / "secret"))


def _from_file(path: Path) -> bytes:
    if not path.exists():
        _create(path)
    return _parse(path.read_text(encoding="ascii").strip(), str(path))


def _create(path: Path) -> None:
    """Write a fresh secret under another name and link it into place: two first uses at once agree on one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"secret.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _parse(text: str, where: str) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) < 32:
        raise SecretError(f"{where} must hold at least 64 hexadecimal digits. Make one with: openssl rand -hex 32")
    return secret
