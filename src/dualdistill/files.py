"""Files of the user, and cached folders: every failure of reading or writing is a UserError, and what is written is
whole or absent."""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from typing import IO, Any, TypeVar

import msgspec

from dualdistill.errors import UserError

Cached = TypeVar("Cached")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = (
    "No space left",
    "quota exceeded",
    "File too large",
    "file write failed",
    "write failed",
    "requested and",
)
"""In errors of libraries that write files themselves."""
_MEMORY_TEXTS = ("can't allocate memory", "out of memory", "bad_alloc")
_PROCESS_TEXTS = ("DataLoader worker", "closed by peer", "reset by peer", "terminated abruptly")
_REMEDIES = {
    errno.EACCES: "get the permission, or give another path",
    errno.EPERM: "get the permission, or give another path",
    errno.EROFS: "its file system is read-only: give another path",
    errno.EEXIST: "a file is in the way: move it, or give another path",
    errno.ENOTDIR: "a file is where a folder is needed: give another path",
    errno.EISDIR: "a folder is where a file is needed: give another path",
    errno.ENOENT: "check the path",
    errno.ELOOP: "its symbolic links lead in a circle: correct them",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENXIO: "nothing reads this pipe: give another path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_FREE = "Free space (checkpoints of old runs, teacher caches, the folder $DUALDISTILL_CACHE or ~/.cache/dualdistill)"
_UMASK = os.umask(0)
os.umask(_UMASK)


def read_bytes(path: Path) -> bytes:
    """Content of a regular file: a pipe or a device, which might never end, is refused.

    Raises:
        UserError: for a file that is missing, of another kind, or cannot be read.
    """
    try:
        # Not blocking: to open a pipe would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path} is a folder, a pipe or a device: expected a regular file.")
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise UserError(f"{path} cannot be read: {problem(error)}.") from None


def read_json(path: Path, kind: Any, what: str) -> Any:
    """The JSON value of a file, with NaN as Python writes it.

    Args:
        kind: Type that it must fit, such as a TypedDict; keys beyond it are kept.
        what: What the file should hold, and the way to a good one, for the message.

    Raises:
        UserError: for a file that cannot be read, is no JSON, or lacks something of `kind`.
    """
    return decode_json(read_bytes(path), kind, f"{path} ({what})")


def decode_json(content: bytes | str, kind: Any, name: str) -> Any:
    """As `read_json`, of a text; `name` stands for the file in the message."""
    try:
        value = json.loads(content)
        msgspec.convert(value, kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"{name} is damaged: {error}. Restore it from a copy, or make it again.") from None
    return value


@contextmanager
def draft(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Context that writes a temporary file beside `path`, which replaces it at the end.

    A reader sees the old file or the new one, never a half, also after a power failure (with `sync`). Pipes and devices
    are written directly.

    Raises:
        UserError: where it cannot be written, the disk being full for one; the old file is untouched then.
    """
    with writing(path):
        if path.is_fifo():
            held = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # fails without a reader, for whom a writer would wait
            try:
                yield path
            finally:
                os.close(held)
            return
        if path.is_relative_to("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
            yield path
            return
        require_writable(path)
        target = Path(os.path.realpath(path))
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        temporary = target.with_name(f".{target.stem[:200]}.{os.getpid()}{target.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_UMASK)
            if sync:
                synchronise(temporary)
            temporary.replace(target)
            if sync:
                synchronise(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def require_writable(path: Path | None) -> Path | None:
    """The path, if a file can be made there, as far as that is known before.

    Raises:
        UserError: for a folder, or a path below a file.
    """
    if path is not None:
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        require_folder(path.absolute().parent)
    return path


def require_folder(path: Path | None) -> None:
    """Check that a folder is there or can be made, as far as that is known before.

    Raises:
        UserError: where a file, pipe, device or broken link is in the way.
    """
    for each in (path.absolute(), *path.absolute().parents) if path is not None else ():
        with writing(path or each):
            if not each.is_dir() and os.path.lexists(each):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context in which a failure to write becomes a UserError that names `path`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or is_full(error):
            raise UserError(f"{path} cannot be written: {problem(error, path)}.") from None
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file in one step: see `draft`. Texts are UTF-8."""
    with draft(path) as temporary:
        temporary.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def append_to(path: Path) -> IO[str]:
    """A text file to append to; a pipe that nobody reads fails at once instead of waiting for a reader."""
    return open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o666))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON in one step: see `draft`."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems without it
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # which would wait for the writer of a pipe
    else:
        path.unlink(missing_ok=True)


def require_room(folder: Path, needed: float, what: str, remedy: str) -> None:
    """Check that a disk has room before something is written.

    Args:
        folder: Where it will be written; it need not exist.
        needed: Bytes.

    Raises:
        UserError: if it has not.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free = disk_usage(there).free
    if needed > free:
        raise UserError(f"{what} needs {size_text(needed)} in {folder}, whose disk has {size_text(free)}. {remedy}")


def require_room_for_rest(folder: Path, done: int, total: int, written: int, what: str, remedy: str) -> None:
    """`require_room` for what is left of many items, whose size is not known in advance: by the mean of those done.

    Checked each time their number doubles; call it after every item.

    Args:
        written: Bytes of the items done.
    """
    if done & (done - 1) == 0:
        require_room(folder, written / done * (total - done), f"{what} ({total - done} more)", remedy)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a file: not empty, not only dots, without slashes and control characters."""
    return bool(text.strip(".")) and text.isprintable() and "/" not in text and "\\" not in text


def size_text(count: float) -> str:
    """Bytes for a reader."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def is_full(error: BaseException) -> bool:
    """Whether an error, of any library, comes from a full disk."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return not isinstance(error, UserError) and any(text in str(error) for text in _FULL_TEXTS)


def problem(error: BaseException, path: Path | None = None) -> str:
    """An error of the file system in words, with a remedy."""
    if is_full(error):
        folder = next((each for each in (path.absolute().parents if path else ()) if each.is_dir()), None)
        free = f" ({size_text(disk_usage(folder).free)} left)" if folder else ""
        return f"the disk is full{free}. {_FREE} and give the same command again"
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    remedy = _REMEDIES.get(error.errno)
    return f"{error.strerror}" + (f"; {remedy}" if remedy else "")


def as_user_error(error: BaseException) -> UserError | None:
    """The message for an error that is the machine's or the input's, whichever code met it; None for all others."""
    if isinstance(error, UserError):
        return error
    if (isinstance(error, OSError) and error.errno is not None) or is_full(error):
        name = getattr(error, "filename", None)
        path = Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else None
        return UserError(f"{path or 'A file'}: {problem(error, path)}.")
    if isinstance(error, MemoryError) or any(text in str(error) for text in _MEMORY_TEXTS):
        return UserError(
            f"There is not enough memory ({str(error)[:200]}): take a smaller training.batch_size, data.image_size or "
            "network."
        )
    if any(text in str(error) for text in _PROCESS_TEXTS):
        return UserError(
            f"Another process of this command ended ({str(error).strip().splitlines()[-1][:200]}): its own message is "
            "above, or it was killed for want of memory: take fewer --workers or a smaller training.batch_size."
        )
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of pathlib before Python 3.13
        return UserError(f"{error}: {_REMEDIES[errno.ELOOP]}.")
    if isinstance(error, UnicodeError):
        return UserError(f"A text is not UTF-8 ({error}): correct its encoding, or name the file in plain letters.")
    if type(error).__name__ == "DecompressionBombError":
        return UserError(f"An image is far larger than a camera's ({error}): replace the file.")
    return None


def cache_root() -> Path:
    """Folder whose contents may be deleted and are made again: `$DUALDISTILL_CACHE` or `~/.cache/dualdistill`."""
    chosen = os.environ.get("DUALDISTILL_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "dualdistill"


ROOM_REMEDY = "Free some, or set DUALDISTILL_CACHE to another folder."
"""Where a cache does not fit."""


def cached(folder: Path, load: Callable[[Path], Cached], write: Callable[[Path], None]) -> Cached:
    """What `load` makes of a cached folder, where it is missing or damaged after `write` has filled a draft of it.

    The folder is complete or absent even if several processes write it.

    Raises:
        UserError: if the cache cannot be written.
    """
    if folder.is_dir():
        try:
            return load(folder)
        except Exception:  # whatever a damaged file leads to
            shutil.rmtree(folder, ignore_errors=True)
    target = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent.parent))
        target.chmod(0o755)  # mkdtemp keeps others out; a cache may be shared
        write(target)
        target.rename(folder)
    except (OSError, UserError) as error:
        if not folder.is_dir():  # else another process was faster, with the same content
            why = error if isinstance(error, UserError) else problem(error, folder)
            advice = "Or set DUALDISTILL_CACHE to another folder."
            raise UserError(f"The cache {folder.parent} cannot be written: {why}. {advice}") from None
    finally:
        if target is not None:
            shutil.rmtree(target, ignore_errors=True)
    return load(folder)
