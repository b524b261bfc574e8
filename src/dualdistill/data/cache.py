"""Folders that can be made again: where they are, and how they come into being all at once."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dualdistill.errors import UserError


def cache_root() -> Path:
    """Folder of what may be deleted and made again: `$DUALDISTILL_CACHE` or `~/.cache/dualdistill`."""
    chosen = os.environ.get("DUALDISTILL_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "dualdistill"


def store_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill `folder`: it is there completely or not at all, also with several processes at it.

    Raises:
        UserError: if the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent.parent))
        draft.chmod(0o755)  # mkdtemp keeps others out; a cache may be shared
    except OSError as error:
        raise UserError(f"cannot write the cache {folder.parent} ({error}): set DUALDISTILL_CACHE") from error
    try:
        write(draft)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
