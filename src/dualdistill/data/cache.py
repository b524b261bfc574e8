"""Cached folders: where they lie, and how they are written atomically."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dualdistill.errors import UserError
from dualdistill.files import problem


def cache_root() -> Path:
    """Folder whose contents may be deleted and are made again: `$DUALDISTILL_CACHE` or `~/.cache/dualdistill`."""
    chosen = os.environ.get("DUALDISTILL_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "dualdistill"


ROOM_REMEDY = "Free some, or set DUALDISTILL_CACHE to another folder."
"""Where a cache does not fit."""


def store_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a draft that becomes `folder`, which is complete or absent even if several processes write it.

    Raises:
        UserError: if the cache cannot be written.
    """
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent.parent))
        draft.chmod(0o755)  # mkdtemp keeps others out; a cache may be shared
        write(draft)
        draft.rename(folder)
    except (OSError, UserError) as error:
        if not folder.is_dir():  # else another process was faster, with the same content
            why = error if isinstance(error, UserError) else problem(error, folder)
            advice = "Or set DUALDISTILL_CACHE to another folder."
            raise UserError(f"The cache {folder.parent} cannot be written: {why}. {advice}") from None
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
