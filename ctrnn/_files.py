"""Files that are whole or absent: atomic writing, and tensors with JSON metadata that are safe to read."""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "ctrnn"


class FileFormatError(ValueError):
    """A file is not what it should be: truncated, foreign or hostile. Nothing of it has been used."""


def atomic_write(path: str | os.PathLike, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that a crash, a full disk or Ctrl-C at any moment leaves the old file or the new one, whole.

    The bytes go to a temporary file in the target folder, reach the disk (fsync), and replace the target in one rename.

    Args:
        path: the file to write; its folder must exist. A file that is replaced hands its permissions on;
            what is no regular file (a device, a pipe) is never replaced.
        data: the bytes, or a function that writes them into the open binary file it is given.

    Raises:
        OSError: the file could not be written; the message says why and what helps, and a file that stood there stands.
    """
    # Writing through a symbolic link must change the file it names, and the rename must stay within one file system.
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".ctrnn-{secrets.token_hex(8)}.tmp")
    try:
        if target.exists() and not target.is_file() and not target.is_dir():  # a folder is refused by the rename
            raise OSError(errno.EEXIST, "there is a device, a pipe or a socket of that name")
        with open(temporary, "xb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as problem:
        temporary.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            _explain(problem, path)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and its renames need no such help.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(problem: OSError, path: str | os.PathLike) -> NoReturn:
    fixes = {
        errno.ENOSPC: "free space on that disk or choose another folder",
        errno.EDQUOT: "free some of your quota or choose another folder",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a folder on a disk that can be written to",
        errno.ENOENT: "create its folder first",
        errno.ENOTDIR: "choose a folder, not a file, to put it in",
        errno.EEXIST: "name a regular file or a new one",
        errno.EISDIR: "name a file, not a folder",
    }
    fix = fixes.get(problem.errno or 0, "see to the disk or choose another folder")
    reason = problem.strerror or str(problem)
    message = f"could not write {os.fspath(path)}: {reason}; {fix}. A file that stood there is unchanged"
    raise OSError(problem.errno, message) from problem


def write_tensors(path: str | os.PathLike, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any]) -> None:
    """Save named tensors and a JSON document in one safetensors file, atomically.

    Tensors of any strides and of no dimension are allowed, and so are tensors that share memory: each is stored whole.

    Args:
        path: the file to write.
        tensors: what to store; they come back on the CPU.
        metadata: anything `json` can write, without NaN or infinity.

    Raises:
        TypeError: a value is no dense tensor or has a dtype that safetensors lacks, or the metadata is not JSON.
        OSError: as `atomic_write`.
    """
    import safetensors.torch  # brings torch, and the command line needs atomic_write without it
    import torch

    try:
        document = json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise TypeError(
            f"the metadata for {os.fspath(path)} is not JSON ({problem}): "
            "use str, int, finite float, bool, None, list and dict only"
        ) from problem
    copies = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise TypeError(f"{name!r} for {os.fspath(path)} is no dense tensor: convert it with to_dense or as_tensor")
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        copies[name] = plain.clone(memory_format=torch.contiguous_format)
    try:
        content = safetensors.torch.save(copies, metadata={METADATA_KEY: document})
    except (KeyError, ValueError) as problem:
        dtypes = ", ".join(f"{name}: {copy.dtype}" for name, copy in copies.items())
        raise TypeError(f"a dtype for {os.fspath(path)} cannot be stored: convert it first ({dtypes})") from problem
    atomic_write(path, content)


def read_tensors(path: str | os.PathLike) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read what `write_tensors` saved: (tensors, metadata). Nothing in the file is ever executed.

    Raises:
        FileFormatError: the file is truncated, foreign or hostile; says which file, what is wrong and what helps.
        OSError: there is no such file, or it cannot be read.
    """
    import safetensors.torch  # as in write_tensors

    content = Path(path).read_bytes()
    try:
        tensors = safetensors.torch.load(content)
    except Exception as problem:
        # The reader is fed untrusted bytes, and whichever way it trips the answer is the same.
        raise _unreadable(path, f"it is no whole safetensors file ({problem})") from problem
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        document = json.loads(header["__metadata__"][METADATA_KEY])
    except (KeyError, ValueError, RecursionError) as problem:
        raise _unreadable(path, f"its {METADATA_KEY!r} metadata is missing or no JSON ({problem})") from problem
    if not isinstance(document, dict):
        raise _unreadable(path, f"its {METADATA_KEY!r} metadata is a JSON {type(document).__name__}, not an object")
    return tensors, document


def _unreadable(path: str | os.PathLike, problem: str) -> FileFormatError:
    return FileFormatError(f"cannot read {os.fspath(path)}: {problem}. Give a file that ctrnn saved, or save it again")
