import errno
import json
import os
import pickle
import stat
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from ctrnn._files import FileFormatError, atomic_write, read_tensors, write_tensors


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def full_disk(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_bytes_and_writers_arrive_whole(tmp_path):
    atomic_write(tmp_path / "a", b"one")
    atomic_write(str(tmp_path / "b"), lambda file: file.write(b"two"))
    assert (tmp_path / "a").read_bytes() == b"one"
    assert (tmp_path / "b").read_bytes() == b"two"
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path, monkeypatch, step):
    path = tmp_path / "model.safetensors"
    atomic_write(path, b"old")
    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(OSError, match=r"model\.safetensors.*No space left.*free space.*unchanged") as caught:
        atomic_write(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.safetensors"]


def test_a_disk_that_fills_while_writing_leaves_no_temporary_file(tmp_path):
    def writer(file):
        file.write(b"half")
        full_disk()

    with pytest.raises(OSError, match="free space"):
        atomic_write(tmp_path / "a", writer)
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=rf"{name}: there is a device, a pipe or a socket.*name a regular file"):
            atomic_write(tmp_path / name, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["link", "pipe"]


def test_ctrl_c_while_writing_leaves_the_old_file_only(tmp_path):
    def writer(file):
        file.write(b"half")
        raise KeyboardInterrupt

    atomic_write(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a", writer)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_the_bytes_and_the_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"), sync(handle)),
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    atomic_write(tmp_path / "a", b"x")
    assert calls == ["file", "rename", "folder"]


def test_a_missing_folder_is_named_with_its_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="create its folder first"):
        atomic_write(tmp_path / "none" / "a", b"x")


def test_a_replaced_file_keeps_its_permissions_and_its_link(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("a")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_tensors_of_every_shape_stride_and_dtype_come_back_bit_for_bit(tmp_path, generator):
    x = torch.randn(4, 3, generator=generator)
    x.requires_grad_()
    tensors = {
        "x": x,
        "transposed": x.mT,
        "row": x[1],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(5),
        "strided": x[::2, ::2],
        "nan": torch.tensor([float("nan"), float("inf")]),
        "conjugate": torch.tensor([1 + 2j], dtype=torch.complex64).conj(),
    } | {str(d): torch.ones(2, dtype=d) for d in (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8)}
    metadata = {"seed": 3, "names": ["a", "ß"], "nested": {"none": None, "real": 0.1}}
    write_tensors(tmp_path / "t", tensors, metadata)
    read, document = read_tensors(tmp_path / "t")
    assert document == metadata
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].nan_to_num(7), tensor.detach().nan_to_num(7)), name


def test_no_tensor_at_all_can_be_saved(tmp_path):
    write_tensors(tmp_path / "t", {}, {"a": 1})
    assert read_tensors(tmp_path / "t") == ({}, {"a": 1})


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"x": [1.0]}, {}, "'x'.*no dense tensor"),
        ({"x": torch.eye(2).to_sparse()}, {}, "to_dense"),
        ({"x": torch.ones(2, dtype=torch.complex128)}, {}, r"x: torch\.complex128"),
        ({}, {"a": float("nan")}, "not JSON.*finite"),
        ({}, {"a": object()}, "not JSON"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_a_byte_is_written(tmp_path, tensors, metadata, message):
    with pytest.raises(TypeError, match=message):
        write_tensors(tmp_path / "t", tensors, metadata)
    assert names(tmp_path) == []


def header(document: object, body: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + body


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


ONE = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
BAD_FILES = {
    "empty": b"",
    "text": b"time,x\n0,1\n",
    "pickle": pickle.dumps(Hostile()),
    "a header longer than the file": struct.pack("<Q", 2**63) + b"{}",
    "a header of a hundred gigabytes": struct.pack("<Q", 10**11) + b"{}",
    "a header that is no JSON": header(b"{'a': __import__('os')}"),
    "a header that is a list": header([1, 2]),
    "data beyond the end": header({"x": {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}, bytes(8)),
    "a shape that overflows": header(
        {"x": {"dtype": "F64", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)
    ),
    "a negative shape": header({"x": {"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}}, bytes(8)),
    "tensors that overlap": header({"x": ONE, "y": ONE}, bytes(8)),
    "an unknown dtype": header({"x": ONE | {"dtype": "OBJECT"}}, bytes(8)),
    "no metadata": save({"x": torch.ones(1)}),
    "foreign metadata": save({"x": torch.ones(1)}, metadata={"format": "pt"}),
    "metadata that is code": save({}, metadata={"ctrnn": "__import__('os').mkdir('executed')"}),
    "metadata that is a list": save({}, metadata={"ctrnn": "[]"}),
    "metadata nested without end": save({}, metadata={"ctrnn": "[" * 100_000}),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_foreign_or_hostile_file_is_named_refused_and_never_executed(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given.safetensors"
    path.write_bytes(BAD_FILES[what])
    with pytest.raises(FileFormatError, match=r"given\.safetensors.*Give a file that ctrnn saved"):
        read_tensors(path)
    assert names(tmp_path) == ["given.safetensors"]


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "t"
    write_tensors(path, {"x": torch.ones(3)}, {"a": 1})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match="cannot read"):
            read_tensors(path)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(header))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(tmp_path, content):
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(FileFormatError):
        read_tensors(path)


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_with_one_byte_changed_is_read_or_refused_but_never_worse(tmp_path, data):
    path = tmp_path / "t"
    write_tensors(path, {"x": torch.ones(3), "y": torch.ones(2, 2)}, {"a": 1})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        tensors, metadata = read_tensors(path)
    except FileFormatError:
        return
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert isinstance(metadata, dict)


def test_a_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_tensors(tmp_path / "none")
