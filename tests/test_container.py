"""The ``.dualcodec`` container: exact bytes, exact sizes, and every way to be wrong."""

from __future__ import annotations

import dataclasses
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcodec_jax.config import PRESETS, code_bits
from dualcodec_jax.container import MAGIC, CodeFile, pack, read_codes, unpack, write_codes
from dualcodec_jax.errors import CodeFileError, InputError

# Codes [[3, 0, 2], [5, 1, 0], [4, 2, 3]] with codebooks of 4, 6 and 6 entries, so frames of
# 2 + 3 + 3 bits: 11|101|100 00|001|010 10|000|011.
GOLDEN = bytes.fromhex(
    "8944430a"  # magic
    "01"  # version
    "03"  # rows
    "c05d0000"  # sample rate 24000
    "80070000"  # hop length 1920
    "8d16000000000000"  # 5773 samples
    "03000000"  # frames
    "04000000"  # semantic codebook
    "06000000"  # acoustic codebooks
    "07"  # length of the model id
    "3132687a5f7631"  # 12hz_v1
    "19b4790a"  # CRC-32
    "ec0a83"  # codes
)
CRC_AT = 42


def code_file(**changes: Any) -> CodeFile:
    values: dict[str, Any] = {
        "codes": np.array([[3, 0, 2], [5, 1, 0], [4, 2, 3]]),
        "model_id": "12hz_v1",
        "sample_rate": 24000,
        "hop_length": 1920,
        "num_samples": 5773,
        "codebook_sizes": (4, 6, 6),
    }
    return CodeFile(**(values | changes))


def resealed(data: bytes, id_length: int = 7) -> bytes:
    """The same bytes with the checksum put right."""
    at = 35 + id_length
    crc = zlib.crc32(data[:at] + data[at + 4 :])
    return data[:at] + struct.pack("<I", crc) + data[at + 4 :]


@st.composite
def code_files(draw: st.DrawFn) -> CodeFile:
    rows = draw(st.one_of(st.integers(1, 12), st.integers(1, 255)))
    frames = draw(st.integers(1, 60))
    size = st.one_of(st.integers(2, 70), st.integers(2, 2**31))
    semantic, acoustic = draw(size), draw(size)
    sizes = (semantic,) + (acoustic,) * (rows - 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = rng.integers(0, np.array(sizes)[:, None], (rows, frames))
    codes[0, 0], codes[-1, -1] = 0, sizes[-1] - 1
    return CodeFile(
        codes=codes,
        model_id=draw(st.sampled_from(["a", "12hz_v1", "25hz_v1", "x" * 24, "ä" * 12])),
        sample_rate=draw(st.integers(1, 2**32 - 1)),
        hop_length=draw(st.integers(1, 2**32 - 1)),
        num_samples=draw(st.integers(0, 2**63 - 1)),
        codebook_sizes=sizes,
    )


# -- good files ------------------------------------------------------------------------------


def test_golden_bytes():
    assert pack(code_file()) == GOLDEN
    assert unpack(GOLDEN) == code_file()


@given(code_files())
@settings(deadline=None)
def test_round_trip_and_size(original):
    data = pack(original)
    restored = unpack(data)
    assert restored == original
    assert restored.codes.dtype == np.int32
    header = 39 + len(original.model_id.encode())
    assert header < 64
    bits = original.num_frames * sum(code_bits(size) for size in original.codebook_sizes)
    assert len(data) == header + (bits + 7) // 8


@pytest.mark.parametrize("batch", [1, 1000, 10**6])
def test_batches_do_not_show(monkeypatch, batch):
    rng = np.random.default_rng(0)
    file = code_file(codes=rng.integers(0, 4, (3, 1001)))
    expected = pack(file)
    monkeypatch.setattr("dualcodec_jax.container._BITS_AT_ONCE", batch)
    assert pack(file) == expected
    assert unpack(expected) == file


@pytest.mark.parametrize("model_id", ["12hz_v1", "25hz_v1"])
def test_an_hour_is_quick_and_has_the_nominal_bitrate(model_id):
    config = PRESETS[model_id].codec
    sizes = config.codebook_sizes
    frames = int(3600 * config.frame_rate)
    rng = np.random.default_rng(0)
    file = code_file(
        codes=rng.integers(0, np.array(sizes)[:, None], (len(sizes), frames)),
        model_id=model_id,
        hop_length=config.hop_length,
        num_samples=3600 * config.sample_rate,
        codebook_sizes=sizes,
    )
    start = time.perf_counter()
    data = pack(file)
    assert unpack(data) == file
    assert time.perf_counter() - start < 5
    assert file.bitrate == config.bitrate()
    assert len(data) == 46 + 3600 * config.bitrate() / 8


def test_properties():
    file = code_file()
    assert (file.n_quantizers, file.num_frames) == (3, 3)
    assert (file.frame_rate, file.bitrate) == (12.5, 100)
    assert file.seconds == 5773 / 24000


def test_equality():
    assert code_file() == code_file()
    assert code_file() != code_file(num_samples=1)
    assert code_file() != code_file(codes=np.zeros((3, 3), int))
    assert code_file() != "codes"


def test_codes_are_copied_and_fixed():
    codes = np.zeros((3, 4), np.int32)
    file = code_file(codes=codes)
    codes[:] = 1
    assert not file.codes.any()
    with pytest.raises(ValueError, match="read-only"):
        file.codes[0, 0] = 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_integer_types(dtype):
    assert pack(code_file(codes=code_file().codes.astype(dtype))) == GOLDEN


def test_array_likes():
    class Device:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return code_file().codes

    assert pack(code_file(codes=Device())) == GOLDEN
    assert pack(code_file(codes=code_file().codes.tolist())) == GOLDEN
    jnp = pytest.importorskip("jax.numpy")
    assert pack(code_file(codes=jnp.asarray(code_file().codes))) == GOLDEN


def test_one_row_has_no_acoustic_size():
    file = code_file(codes=[[0, 1, 0]], codebook_sizes=[2])
    data = pack(file)
    assert data[30:34] == bytes(4)
    assert data[-1] == 0b010_00000
    assert unpack(data) == file


def test_prefix_of_the_payload_holds_the_first_frames():
    first = code_file(codes=code_file().codes[:, :2])
    assert pack(code_file())[46:].startswith(pack(first)[46:])


# -- bad arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros((1, 3, 3), int)}, r"shape \[n, T\].*\(1, 3, 3\).*batch"),
        ({"codes": np.zeros(3, int)}, r"shape \[n, T\]"),
        ({"codes": [[1], [1, 2]]}, r"integer array \[n, T\]"),
        ({"codes": np.zeros((3, 3))}, "codes must be integers; got float64"),
        ({"codes": np.zeros((3, 3), bool)}, "codes must be integers; got bool"),
        ({"codes": np.zeros((0, 3), int)}, "1 to 255 rows; got 0"),
        ({"codes": np.zeros((256, 3), int)}, "1 to 255 rows; got 256"),
        ({"codes": np.zeros((3, 0), int)}, r"at least one frame; got shape \(3, 0\)"),
        ({"codes": [[0, 4], [0, 0], [0, 0]]}, r"row 0 has the value 4.*size 4 \(0 to 3\)"),
        ({"codes": [[0, 3], [0, 0], [-1, 0]]}, "row 2 has the value -1"),
        (
            {"codes": np.full((3, 1), 2**64 - 1, np.uint64)},
            "row 0 has the value 18446744073709551615",
        ),
        ({"codebook_sizes": (4, 6)}, "one entry for each of the 3 rows of codes; got 2"),
        ({"codebook_sizes": (4, 6, 8)}, r"must all be equal; got \(6, 8\)"),
        ({"codebook_sizes": (1, 6, 6)}, r"codebook_sizes\[0\] must be 2 to 2147483648; got 1"),
        ({"codebook_sizes": (4, 6.0, 6)}, r"codebook_sizes\[1\] must be an integer; got 6.0"),
        ({"codebook_sizes": 4}, "must be a tuple"),
        ({"model_id": "x" * 25}, "at most 24 bytes of UTF-8.*has 25"),
        ({"model_id": "ä" * 13}, "has 26"),
        ({"model_id": ""}, "non-empty"),
        ({"model_id": "a\n"}, "printable"),
        ({"model_id": "\ud800"}, "printable"),
        ({"model_id": b"12hz_v1"}, "string"),
        ({"num_samples": -1}, "num_samples must be 0 to .*; got -1"),
        ({"num_samples": 2**63}, "num_samples must be"),
        ({"num_samples": 1.5}, "num_samples must be an integer; got 1.5"),
        ({"sample_rate": 0}, "sample_rate must be 1 to"),
        ({"hop_length": 2**32}, "hop_length must be 1 to"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(InputError, match=message):
        code_file(**changes)


# -- bad files -------------------------------------------------------------------------------


def changed(at: int, new: bytes, *, seal: bool = True) -> bytes:
    data = GOLDEN[:at] + new + GOLDEN[at + len(new) :]
    return resealed(data) if seal else data


PADDED = pack(code_file(codes=[[1, 1]], codebook_sizes=(2,)))

BAD_FILES = [
    (b"", "empty"),
    (b"\x89DC", "truncated"),
    (b"RIFF" + bytes(60), "not a .dualcodec file"),
    (b"\x89PNG\r\n\x1a\n" + bytes(60), "not a .dualcodec file"),
    (GOLDEN.replace(b"\n", b"\r\n"), "text mode"),
    (b"\xc2" + GOLDEN, "text mode"),
    (changed(4, b"\x02"), r"newer version of dualcodec_jax \(file format 2.*upgrade"),
    (changed(4, b"\x02")[:5], "newer version"),
    (changed(4, b"\x00"), "damaged: there is no format version 0"),
    (GOLDEN[:4], "truncated: 4 bytes"),
    (GOLDEN[:34], "truncated: 34 bytes"),
    (GOLDEN[:40], "truncated: 40 bytes, but the header announces 49"),
    (GOLDEN[:-1], "truncated: 48 bytes, but the header announces 49"),
    (GOLDEN + b"\0\0", "2 bytes follow the end of the codes at byte 49"),
    (changed(22, b"\xff\xff\xff\xff"), "truncated: 49 bytes, but the header announces 4294967341"),
    (changed(7, b"\xff", seal=False), "CRC-32 checksum does not match"),
    (changed(48, b"\x82", seal=False), "CRC-32 checksum does not match"),
    (changed(CRC_AT, b"\0\0\0\0", seal=False), "CRC-32 checksum does not match"),
    # From here on with a right checksum, as only a faulty writer makes them.
    (changed(46, b"\xff"), r"row 1 has the value 7, outside its codebook of size 6 \(0 to 5\)"),
    (changed(30, b"\x05"), r"row 1 has the value 5, outside its codebook of size 5"),
    (changed(6, bytes(4)), "sample_rate must be 1"),
    (changed(10, bytes(4)), "hop_length must be 1"),
    (changed(21, b"\x80"), "num_samples must be 0 to"),
    (changed(35, b"\xff"), "invalid: .*utf-8"),
    (changed(35, b"\n"), "printable"),
    (resealed(GOLDEN[:22] + bytes(4) + GOLDEN[26:46]), "3 rows of 0 frames"),
    (resealed(GOLDEN[:5] + b"\0" + GOLDEN[6:46] + b"\0"), "0 rows"),
    (resealed(PADDED[:30] + b"\x01" + PADDED[31:]), "acoustic codebook size 1"),
    (resealed(PADDED[:-1] + bytes([PADDED[-1] | 1])), "padding bits"),
    (resealed(PADDED[:26] + b"\x01" + PADDED[27:]), r"codebook_sizes\[0\] must be 2"),
    (resealed(PADDED[:26] + b"\x00" + PADDED[27:]), r"codebook_sizes\[0\] must be 2"),
    (resealed(GOLDEN[:34] + b"\0" + GOLDEN[42:], 0), "non-empty"),
    (resealed(GOLDEN[:34] + b"\x19" + b"x" * 25 + GOLDEN[42:], 25), "at most 24 bytes"),
]


@pytest.mark.parametrize(("data", "message"), BAD_FILES)
def test_bad_files(tmp_path, data, message):
    with pytest.raises(CodeFileError, match=message) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)
    path = tmp_path / "a.dualcodec"
    path.write_bytes(data)
    with pytest.raises(CodeFileError, match=message) as caught:
        read_codes(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_every_bit_counts():
    for at in range(len(GOLDEN)):
        for bit in range(8):
            data = bytearray(GOLDEN)
            data[at] ^= 1 << bit
            with pytest.raises(CodeFileError):
                unpack(bytes(data))


@given(st.binary(max_size=100), st.sampled_from([b"", MAGIC, MAGIC + b"\x01", GOLDEN[:35]]))
def test_fuzz_arbitrary_bytes(data, start):
    code_file_or_error(start + data)


@given(
    code_files(),
    st.lists(
        st.tuples(
            st.sampled_from(["set", "insert", "cut"]), st.integers(0, 90), st.binary(max_size=5)
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_fuzz_damaged_files(original, edits, seal):
    data = bytearray(pack(original))
    for kind, at, new in edits:
        if kind == "set":
            data[at : at + len(new)] = new
        elif kind == "insert":
            data[at:at] = new
        else:
            del data[at:]
    code_file_or_error(resealed(bytes(data), data[34]) if seal and len(data) > 34 else bytes(data))


def code_file_or_error(data: bytes) -> None:
    try:
        restored = unpack(data)
    except CodeFileError:
        return
    assert pack(restored) == data


# -- files -----------------------------------------------------------------------------------


def test_write_and_read(tmp_path):
    path = tmp_path / "new" / "folder" / "a.dualcodec"
    assert write_codes(path, code_file()) == len(GOLDEN)
    assert path.read_bytes() == GOLDEN
    assert read_codes(str(path)) == code_file()
    assert os.listdir(path.parent) == ["a.dualcodec"]


def test_overwrite_only_when_asked(tmp_path):
    path = tmp_path / "a.dualcodec"
    path.write_text("old")
    with pytest.raises(InputError, match=r"exists already.*overwrite=True.*--overwrite"):
        write_codes(path, code_file())
    assert path.read_text() == "old"
    write_codes(path, code_file(), overwrite=True)
    assert path.read_bytes() == GOLDEN


@pytest.mark.parametrize("step", ["write", "replace"])
def test_failure_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a.dualcodec"
    path.write_text("old")

    def fail(target: Path, *_args: Any) -> None:
        with open(target, "wb") as stream:
            stream.write(b"half")
        raise OSError(28, "No space left on device")

    if step == "write":
        monkeypatch.setattr(Path, "write_bytes", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_codes(path, code_file(), overwrite=True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.dualcodec"]


def test_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_codes(tmp_path / "a.dualcodec", code_file())
    assert os.listdir(tmp_path) == []


def test_unusable_paths(tmp_path):
    with pytest.raises(CodeFileError, match="no such file"):
        read_codes(tmp_path / "a.dualcodec")
    with pytest.raises(CodeFileError, match="cannot be read"):
        read_codes(tmp_path)
    with pytest.raises(CodeFileError, match="not a path"):
        read_codes("null\0")
    with pytest.raises(InputError, match="null character"):
        write_codes("null\0", code_file())
    with pytest.raises(InputError, match="is a folder"):
        write_codes(tmp_path, code_file(), overwrite=True)


def test_fields_are_what_the_documentation_lists():
    names = [field.name for field in dataclasses.fields(CodeFile)]
    text = (Path(__file__).parents[1] / "docs" / "container.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in names)
    assert GOLDEN.hex() in text.replace(" ", "").replace("\n", "")
