"""Statistics files: what is read, and that reading one never runs what it asks for."""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dualcodec_jax.convert import stats
from dualcodec_jax.convert.stats import read_statistics
from dualcodec_jax.errors import WeightsError

STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<f2": "HalfStorage"}

# -- writing .pt files as torch.save does, without torch -------------------------------------


def value(item: Any) -> bytes:
    """Opcodes that push a plain value."""
    return pickle.dumps(item, protocol=2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    """Opcodes that push what ``module.attribute`` names."""
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def items(*parts: bytes) -> bytes:
    """Opcodes that push a tuple."""
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def tensor(
    array: np.ndarray,
    key: str,
    *,
    shape: tuple[int, ...] | None = None,
    stride: tuple[int, ...] | None = None,
    offset: Any = 0,
    count: int | None = None,
    storage: str | None = None,
    rebuild: bytes | None = None,
) -> bytes:
    """Opcodes that push a tensor over the file ``data/<key>``, which holds ``array``."""
    shape = array.shape if shape is None else shape
    if stride is None:
        stride = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    reference = items(
        value("storage"),
        name("torch", storage or STORAGES[array.dtype.str]),
        value(key),
        value("cpu"),
        value(array.size if count is None else count),
    )
    arguments = items(
        reference + pickle.BINPERSID,
        value(offset),
        value(tuple(shape)),
        value(tuple(stride)),
        pickle.NEWFALSE,
        name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    )
    return (rebuild or name("torch._utils", "_rebuild_tensor_v2")) + arguments + pickle.REDUCE


def dictionary(entries: dict[str, bytes]) -> bytes:
    """A whole pickle of a dictionary of what some opcodes push."""
    body = b"".join(value(key) + opcodes for key, opcodes in entries.items())
    mapping = pickle.EMPTY_DICT + pickle.MARK + body + pickle.SETITEMS
    return pickle.PROTO + b"\x02" + mapping + pickle.STOP


def write_pt(
    path: Path, opcodes: bytes, storages: dict[str, Any], *, byteorder: bytes | None = b"little"
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", opcodes)
        if byteorder is not None:
            archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", bytes(data))
        archive.writestr("archive/version", b"3\n")
    return path


def save_pt(path: Path, mean: np.ndarray, var: np.ndarray, **changes: Any) -> Path:
    """A file with a mean as it is and a variance with ``changes``, see :func:`tensor`."""
    opcodes = dictionary({"mean": tensor(mean, "0"), "var": tensor(var, "1", **changes)})
    return write_pt(path, opcodes, {"0": mean.tobytes(), "1": var.tobytes()})


def save_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def save_safetensors(path: Path, **arrays: Any) -> Path:
    save_file(arrays, path)
    return path


RNG = np.random.default_rng(0)
MEAN = RNG.standard_normal(1024, np.float32)
VAR = RNG.random(1024, np.float32) + np.float32(0.1)
SMALL = np.arange(1, 5, dtype=np.float32)


def refusal(path: Path) -> str:
    """The message with which reading is refused; it names the file and is one line."""
    with pytest.raises(WeightsError) as caught:
        read_statistics(path)
    message = str(caught.value)
    assert type(caught.value) is WeightsError
    assert str(path) in message
    assert "\n" not in message
    return message


# -- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(1024,), (1, 1, 1024), (32, 32)])
def test_pt(tmp_path, dtype, shape):
    mean, var = (array.astype(dtype).reshape(shape) for array in (MEAN, VAR))
    read = read_statistics(save_pt(tmp_path / "a.pt", mean, var))
    assert list(read) == ["mean", "var"]
    for name, source in (("mean", mean), ("var", var)):
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], source.astype(np.float32).ravel())


def test_tensors_that_share_a_storage(tmp_path):
    """Slices of one storage, as a running-statistics module might save them."""
    both = np.concatenate([np.float32([9, 9, 9]), MEAN, VAR])
    opcodes = dictionary(
        {
            "mean": tensor(both, "0", shape=(1024,), offset=3),
            "var": tensor(both, "0", shape=(1, 1024), offset=3 + 1024),
        }
    )
    read = read_statistics(write_pt(tmp_path / "a.pt", opcodes, {"0": both.tobytes()}))
    np.testing.assert_array_equal(read["mean"], MEAN)
    np.testing.assert_array_equal(read["var"], VAR)


def test_other_entries_and_old_files(tmp_path):
    """Files without ``byteorder`` are older than that entry."""
    entries = {
        "mean": tensor(SMALL, "0"),
        "count": value(12345),
        "note": value("über"),
        "rate": value(0.5),
        "var": tensor(SMALL, "0"),
    }
    path = tmp_path / "a.pt"
    write_pt(path, dictionary(entries), {"0": SMALL.tobytes()}, byteorder=None)
    np.testing.assert_array_equal(read_statistics(str(path))["var"], SMALL)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_npz_and_safetensors(tmp_path, dtype):
    arrays = {"mean": MEAN.astype(dtype)[None, None], "var": VAR.astype(dtype)}
    for path in (
        save_npz(tmp_path / "a.npz", **arrays),
        save_safetensors(tmp_path / "a.safetensors", **arrays),
    ):
        read = read_statistics(path)
        for name in ("mean", "var"):
            np.testing.assert_array_equal(read[name], arrays[name].astype(np.float32).ravel())


# -- refusing: content -----------------------------------------------------------------------


def test_not_a_statistics_file(tmp_path):
    path = tmp_path / "a.pt"
    assert "not a readable statistics file" in refusal(path)
    for content in (b"", b"x", b"PK\3\4" + bytes(100), pickle.dumps({"mean": 1, "var": 2})):
        path.write_bytes(content)
        assert "not a readable statistics file: File is not a zip file" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something", b"else")
    assert "not a file written by torch.save" in refusal(path)


@pytest.mark.parametrize("suffix", ["pt", "npz", "safetensors"])
def test_missing_entry(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    match suffix:
        case "pt":
            opcodes = dictionary({"mean": tensor(SMALL, "0"), "std": tensor(SMALL, "0")})
            write_pt(path, opcodes, {"0": SMALL.tobytes()})
        case "npz":
            save_npz(path, mean=SMALL, std=SMALL)
        case "safetensors":
            save_safetensors(path, mean=SMALL, std=SMALL)
    assert "expected a dictionary with the tensors 'mean' and 'var'" in refusal(path)


def test_not_a_dictionary(tmp_path):
    for opcodes in (value((1, 2)), value("mean var"), pickle.EMPTY_TUPLE):
        path = write_pt(tmp_path / "a.pt", b"\x80\x02" + opcodes + pickle.STOP, {})
        assert "expected a dictionary" in refusal(path)


@pytest.mark.parametrize(
    ("mean", "var", "message"),
    [
        (SMALL, SMALL * 0, "'var' has values that are not positive"),
        (SMALL, -SMALL, "'var' has values that are not positive"),
        (SMALL, SMALL * np.float32(np.nan), "'var' is empty or has values that are not finite"),
        (SMALL * np.float32(np.inf), SMALL, "'mean' is empty or has values that are not finite"),
        (SMALL, SMALL[:0], "'var' is empty"),
        (SMALL[:2], SMALL, "differ in size"),
        (SMALL.astype(np.float64) * 1e300, SMALL, "'mean' is empty or has values that are not"),
        (SMALL, SMALL.astype(np.float64) * 1e-300, "'var' has values that are not positive"),
    ],
)
def test_values(tmp_path, mean, var, message):
    assert message in refusal(save_pt(tmp_path / "a.pt", mean, var))
    assert message in refusal(save_npz(tmp_path / "a.npz", mean=mean, var=var))


def test_not_floats(tmp_path):
    integers = np.arange(1, 5)
    assert "'var' is not a tensor of floats" in refusal(
        save_npz(tmp_path / "a.npz", mean=SMALL, var=integers)
    )
    opcodes = dictionary({"mean": tensor(SMALL, "0"), "var": value(5)})
    path = write_pt(tmp_path / "a.pt", opcodes, {"0": SMALL.tobytes()})
    assert "'var' is not a tensor of floats" in refusal(path)
    path = save_pt(tmp_path / "b.pt", SMALL, SMALL, storage="LongStorage")
    assert "it asks for torch.LongStorage" in refusal(path)


def test_big_endian(tmp_path):
    opcodes = dictionary({"mean": tensor(SMALL, "0"), "var": tensor(SMALL, "0")})
    path = write_pt(tmp_path / "a.pt", opcodes, {"0": SMALL.tobytes()}, byteorder=b"big")
    assert "big-endian tensors are not supported" in refusal(path)


def test_objects_in_npz(tmp_path):
    path = save_npz(tmp_path / "a.npz", mean=SMALL, var=np.array([Evil(tmp_path)], object))
    assert "not a readable statistics file" in refusal(path)
    assert sorted(os.listdir(tmp_path)) == ["a.npz"]


# -- refusing: tensors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 3},
        {"count": 5},
        {"count": -4},
        {"count": 2**62},
        {"storage": "DoubleStorage"},
        {"offset": -1},
        {"offset": 1},
        {"offset": 2**70},
        {"offset": 0.0},
        {"offset": None},
        {"shape": (5,)},
        {"shape": (2, 3)},
        {"shape": (-4,)},
        {"shape": (-2, -2)},
        {"shape": (2**40, 2**40)},
        {"shape": (0, 2**70)},
        {"shape": (4.0,), "stride": (1,)},
        {"shape": (1,) * 100, "stride": (1,) * 100},
        {"shape": (2, 2), "stride": (1, 2)},
        {"shape": (2,), "stride": (2,)},
        {"shape": (4,), "stride": (0,)},
        {"shape": (4,), "stride": (-1,)},
        {"shape": (4,), "stride": ()},
        {"shape": (4,), "stride": (1, 1)},
        {"rebuild": name("collections", "OrderedDict")},
        {"rebuild": name("torch", "FloatStorage")},
        {"rebuild": value("_rebuild_tensor_v2")},
    ],
    ids=str,
)
def test_malformed_tensors(tmp_path, changes):
    assert read_statistics(save_pt(tmp_path / "good.pt", SMALL, SMALL))["var"].size == 4
    assert "statistics file" in refusal(save_pt(tmp_path / "a.pt", SMALL, SMALL, **changes))


def test_missing_storage(tmp_path):
    opcodes = dictionary({"mean": tensor(SMALL, "0"), "var": tensor(SMALL, "../version")})
    path = write_pt(tmp_path / "a.pt", opcodes, {"0": SMALL.tobytes()})
    assert "There is no item named 'archive/data/../version'" in refusal(path)


@pytest.mark.parametrize(
    "reference",
    [value(()), value("storage"), value(("module", 1, "0", "cpu", 4)), value(None)],
)
def test_malformed_storage_references(tmp_path, reference):
    opcodes = dictionary({"mean": reference + pickle.BINPERSID})
    assert "unknown storage reference" in refusal(write_pt(tmp_path / "a.pt", opcodes, {}))


# -- refusing: code --------------------------------------------------------------------------


class Evil:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {folder}/marker"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_does_not_run(tmp_path, protocol):
    opcodes = pickle.dumps({"mean": Evil(tmp_path), "var": SMALL}, protocol)
    message = refusal(write_pt(tmp_path / "a.pt", opcodes, {}))
    assert "could run code" in message
    assert os.listdir(tmp_path) == ["a.pt"]


CALL = pickle.TUPLE1 + pickle.REDUCE


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (name("builtins", "eval") + value("1/0") + CALL, "asks for builtins.eval"),
        (name("builtins", "getattr") + value("x") + CALL, "asks for builtins.getattr"),
        (name("torch", "load") + value("x") + CALL, "asks for torch.load"),
        (name("torch", "FloatTensor"), "asks for torch.FloatTensor"),
        (name("torch._utils", "_rebuild_parameter"), "asks for torch._utils._rebuild_parameter"),
        (name("numpy", "load") + value("x") + CALL, "asks for numpy.load"),
        (name("numpy._core.multiarray", "_reconstruct"), "asks for numpy._core.multiarray"),
        (name("os", "system"), "asks for os.system"),
        (name("collections", "OrderedDict.fromkeys"), "asks for collections.OrderedDict.fromkeys"),
        # A name put together from strings on the stack, dotted to reach what it leads to.
        (
            value("torch") + value("FloatStorage.__class__") + pickle.STACK_GLOBAL,
            "asks for torch.FloatStorage.__class__",
        ),
        (value("os") + value("system") + pickle.STACK_GLOBAL, "asks for os.system"),
        # Opcodes that make objects or set their state, by allowed names.
        (name("collections", "OrderedDict") + b")" + pickle.NEWOBJ, "opcode NEWOBJ"),
        (b"(icollections\nOrderedDict\n", "opcode INST"),
        (b"(" + name("collections", "OrderedDict") + pickle.OBJ, "opcode OBJ"),
        (name("torch._utils", "_rebuild_tensor_v2") + value({}) + pickle.BUILD, "opcode BUILD"),
        (pickle.EXT1 + b"\x01", "opcode EXT1"),
        (b"Pstorage\n", "opcode PERSID"),
        # A memo of 2^32 entries.
        (value("x") + pickle.LONG_BINPUT + b"\xfe\xff\xff\xff", "memo index"),
        (pickle.BINBYTES8 + b"\xff" * 7 + b"\x0f", "expected"),
        (pickle.BINUNICODE + b"\xff\xff\xff\x7f", "expected"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_else_could_run_code(tmp_path, opcodes, message):
    content = pickle.PROTO + b"\x04" + opcodes + pickle.STOP
    assert message in refusal(write_pt(tmp_path / "a.pt", content, {}))


# -- refusing: size --------------------------------------------------------------------------


def test_large_files_are_not_read(tmp_path, monkeypatch):
    """A hundred megabytes of zeros, which take a hundred kilobytes on disk."""
    for suffix, prefix in ((".pt", "archive/data/0"), (".npz", "mean.npy")):
        with zipfile.ZipFile(tmp_path / f"a{suffix}", "w", zipfile.ZIP_DEFLATED, True, 1) as file:
            file.writestr("archive/data.pkl", dictionary({}))
            with file.open(prefix, "w") as entry:
                for _ in range(100):
                    entry.write(bytes(2**20))
    (tmp_path / "a.safetensors").touch()
    os.truncate(tmp_path / "a.safetensors", 100 * 2**20)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("was read"))
    monkeypatch.setattr(np, "load", lambda *_: pytest.fail("was read"))
    for suffix in (".pt", ".npz", ".safetensors"):
        assert "larger than 67108864 bytes; not a statistics" in refusal(tmp_path / f"a{suffix}")


def test_understated_size(tmp_path):
    """The directory says 16 bytes, the entry unpacks to a megabyte: no more is unpacked."""
    path = tmp_path / "a.pt"
    opcodes = dictionary({"mean": tensor(SMALL, "0"), "var": tensor(SMALL, "0")})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", opcodes)
        archive.writestr("archive/data/0", bytes(2**20))
    data = bytearray(path.read_bytes())
    size_at = data.rindex(b"PK\1\2") + 24
    assert int.from_bytes(data[size_at : size_at + 4], "little") == 2**20
    data[size_at : size_at + 4] = SMALL.nbytes.to_bytes(4, "little")
    path.write_bytes(data)
    assert "Bad CRC-32" in refusal(path)


def test_large_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(stats, "MAX_PICKLE_BYTES", 100)
    assert "pickle is larger than 100 bytes" in refusal(save_pt(tmp_path / "a.pt", SMALL, SMALL))


def test_storage_is_read_once(tmp_path, monkeypatch):
    """A small pickle cannot take the memory of many copies of a storage."""
    entries = {f"x{number}": tensor(SMALL, "0") for number in range(50)}
    entries |= {"mean": tensor(SMALL, "0"), "var": tensor(SMALL, "0")}
    path = write_pt(tmp_path / "a.pt", dictionary(entries), {"0": SMALL.tobytes()})
    read, names = zipfile.ZipFile.read, []

    def count(self: zipfile.ZipFile, entry: str) -> bytes:
        names.append(entry)
        return read(self, entry)

    monkeypatch.setattr(zipfile.ZipFile, "read", count)
    read_statistics(path)
    assert names.count("archive/data/0") == 1


# -- fuzz ------------------------------------------------------------------------------------

# (kind, position as a share of the data, bytes).
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "cut"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    data = bytearray(content)
    for kind, share, payload in edits:
        at = int(share * len(data))
        match kind:
            case "flip":
                data[at : at + len(payload)] = payload
            case "insert":
                data[at:at] = payload
            case "delete":
                del data[at : at + len(payload)]
            case _:
                del data[at:]
    return bytes(data)


def read_or_refuse(path: Path) -> None:
    start = time.monotonic()
    try:
        read = read_statistics(path)
    except WeightsError as error:
        message = str(error)
        assert str(path) in message
    else:
        assert set(read) == {"mean", "var"}
        assert all(array.dtype == np.float32 and array.ndim == 1 for array in read.values())
        assert all(np.isfinite(array).all() for array in read.values())
        assert read["mean"].shape == read["var"].shape
        assert (read["var"] > 0).all()
    assert time.monotonic() - start < 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(suffix=st.sampled_from([".pt", ".npz", ".safetensors"]), edits=EDITS)
def test_fuzz_files(folder, suffix, edits):
    path = folder / f"a{suffix}"
    match suffix:
        case ".pt":
            save_pt(path, SMALL, SMALL)
        case ".npz":
            save_npz(path, mean=SMALL, var=SMALL)
        case ".safetensors":
            save_safetensors(path, mean=SMALL, var=SMALL)
    path.write_bytes(edited(path.read_bytes(), edits))
    read_or_refuse(path)


@FUZZ
@given(edits=EDITS)
def test_fuzz_pickles(folder, edits):
    """Damage inside the archive, which the checksums of a zip file would catch."""
    opcodes = dictionary({"mean": tensor(SMALL, "0"), "var": tensor(SMALL[None], "1")})
    storages = {"0": SMALL.tobytes(), "1": SMALL.tobytes()}
    read_or_refuse(write_pt(folder / "b.pt", edited(opcodes, edits), storages))


@FUZZ
@given(opcodes=st.lists(st.sampled_from([bytes([code]) for code in range(256)]), max_size=30))
def test_fuzz_opcodes(folder, opcodes):
    """Any opcodes after a tensor and the allowed names, which are what they could misuse."""
    start = name("collections", "OrderedDict") + name("torch", "FloatStorage")
    start += name("torch._utils", "_rebuild_tensor_v2") + tensor(SMALL, "0") + value((4,))
    content = pickle.PROTO + b"\x04" + start + b"".join(opcodes) + pickle.STOP
    read_or_refuse(write_pt(folder / "c.pt", content, {"0": SMALL.tobytes()}))
