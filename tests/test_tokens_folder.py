"""A corpus of codes on disk, made without a model: records, shards, verification, random access."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from micro import CODEC

pytest.importorskip("array_record")

from dualcodec_jax.container import CodeFile
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import CodeFileError, DualCodecError, InputError
from dualcodec_jax.lengths import code_length, samples_to_cover
from dualcodec_jax.tokens import shards
from dualcodec_jax.tokens.ids import target_path
from dualcodec_jax.tokens.manifest import read_manifest, write_manifest
from dualcodec_jax.tokens.plan import Plan, read_plan, start_plan
from dualcodec_jax.tokens.records import (
    TokenRecord,
    described,
    pack_record,
    plain,
    unpack_record,
)
from dualcodec_jax.tokens.shards import Broken, read_records, write_shard
from dualcodec_jax.tokens.source import TokenSource
from dualcodec_jax.tokens.verify import verify
from dualcodec_jax.weights import weights_digest

ITEMS, SHARD_SIZE, BROKEN = 10, 4, 5
PLAN = Plan(
    kind="folder",
    locations=("recordings",),
    split=None,
    items=ITEMS,
    digest="d" * 64,
    shard_size=SHARD_SIZE,
    model_id="micro",
    weights="w" * 64,
    codec=CODEC,
    n_quantizers=3,
    precision="float32",
    whole_seconds=120.0,
    window_seconds=None,
    overlap_seconds=None,
    parquet=False,
)


def record(number: int, **changes: Any) -> TokenRecord:
    rng = np.random.default_rng(number)
    num_samples = int(rng.integers(1, 20_000))
    frames = code_length(samples_to_cover(num_samples, CODEC), CODEC)
    sizes = PLAN.codebook_sizes
    file = CodeFile(
        codes=np.stack([rng.integers(0, size, frames) for size in sizes]),
        model_id="micro",
        sample_rate=CODEC.sample_rate,
        hop_length=CODEC.hop_length,
        num_samples=num_samples,
        codebook_sizes=sizes,
    )
    made = TokenRecord(index=number, id=f"s/{number}", file=file, weights="w" * 16)
    return dataclasses.replace(made, **changes)


def fill(folder: Path, plan: Plan = PLAN, **changes: Any) -> Path:
    """A finished corpus in which item 5 is broken; ``changes`` are made to record 6."""
    start_plan(folder, plan)
    for shard in range(plan.shards):
        indices = [index for index in plan.indices(shard) if index != BROKEN]
        records = [record(index, **(changes if index == 6 else {})) for index in indices]
        broken = [Broken(BROKEN, "s/5", "is empty")] if BROKEN in plan.indices(shard) else []
        write_shard(folder, plan, shard, records, broken)
    write_manifest(folder, plan)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return fill(tmp_path / "corpus")


# Records ------------------------------------------------------------------------------------


def test_a_record_comes_back() -> None:
    first = record(
        3,
        text="Grüße 你好",
        language="zh",
        speaker="s",
        quality=3.5,
        metadata={"a": [1, None, {"b": "c"}]},
    )
    for made in (first, record(0), record(1, id="not \udcff UTF-8")):
        assert unpack_record(pack_record(made)) == made
    assert first.codes.shape == (3, first.file.num_frames)
    assert first.seconds == first.num_samples / 24000
    assert (first.model_id, first.sample_rate) == ("micro", 24000)


def test_damaged_records_are_refused() -> None:
    data = pack_record(record(0))
    length = int.from_bytes(data[:4], "little")
    for damaged in (
        b"",
        data[:20],
        data[:-1],
        data[:-1] + bytes([data[-1] ^ 1]),
        b"\xff\xff\xff\xff" + data[4:],
        data[:4] + b"[" + data[5:],
        data[:4] + b"{}".ljust(length) + data[4 + length :],
        data[:4] + b'{"index":1,"id":2,"weights":""}'.ljust(length) + data[4 + length :],
    ):
        with pytest.raises(CodeFileError):
            unpack_record(damaged)


def test_metadata_become_json_types() -> None:
    extra = {
        "speaker": 7,
        "score": np.float32(1.5),
        "nan": float("nan"),
        "bytes": b"x",
        "array": np.arange(2),
        "path": Path("p"),
    }
    expected = {"score": 1.5, "nan": None, "bytes": "x", "array": [0, 1], "path": "p"}
    assert described(extra) == {"speaker": "7", "metadata": expected}
    assert json.loads(json.dumps(plain(extra)))["score"] == 1.5


# Plans --------------------------------------------------------------------------------------


def test_a_plan_says_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    start_plan(folder, PLAN)
    start_plan(folder, dataclasses.replace(PLAN, locations=("elsewhere",), version="9"))
    assert read_plan(folder) == PLAN
    changed = dataclasses.replace(PLAN, shard_size=5, weights="v" * 64, items=11)
    with pytest.raises(InputError, match=r"items was 10, is 11; shard_size was 4, is 5; weights"):
        start_plan(folder, changed)
    with pytest.raises(InputError, match="codec was another one"):
        start_plan(
            folder, dataclasses.replace(PLAN, codec=dataclasses.replace(CODEC, n_codebooks=2))
        )


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not empty and has no plan"):
        start_plan(tmp_path, PLAN)
    with pytest.raises(InputError, match=r"no plan\.json"):
        read_plan(tmp_path)
    path = tmp_path / "plan.json"
    start_plan(tmp_path / "x", PLAN)
    good = json.loads((tmp_path / "x" / "plan.json").read_text())
    for content, message in (
        ("{", "cannot be read"),
        ("{}", "is not the plan"),
        (json.dumps({**good, "format_version": 2}), "format version 2"),
        (json.dumps({**good, "more": 1}), "is damaged"),
        (json.dumps({**good, "codec": {}}), "is damaged"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_plan(tmp_path)


def test_shards_divide_the_items() -> None:
    indices = [index for shard in range(PLAN.shards) for index in PLAN.indices(shard)]
    assert (PLAN.shards, indices) == (3, list(range(ITEMS)))
    assert PLAN.shard_name(1) == "codes-00001-of-00003"
    for wrong in ({"shard_size": 0}, {"whole_seconds": 0.0}):
        with pytest.raises(InputError):
            dataclasses.replace(PLAN, **wrong)


def test_the_digest_of_weights_depends_on_all_of_them() -> None:
    params = {"a": {"b": np.arange(4, dtype=np.float32)}, "c": np.float32(1)}
    digest = weights_digest(params)
    assert digest == weights_digest(params, None) == weights_digest(dict(reversed(params.items())))
    others = [
        weights_digest({**params, "c": np.float32(2)}),
        weights_digest({**params, "d": np.float32(1)}),
        weights_digest({**params, "a": {"b": np.arange(4, dtype=np.float32).reshape(2, 2)}}),
        weights_digest(params, params),
        weights_digest(params, None, params),
    ]
    assert len({digest, *others}) == 6


# Random access ------------------------------------------------------------------------------


def test_the_source_has_every_record_in_order(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcodec_jax.tokens.source.MAX_OPEN", 2)
    source = TokenSource(corpus)
    expected = [record(index) for index in range(ITEMS) if index != BROKEN]
    assert len(source) == 9
    assert list(source) == expected
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[position] for position in range(9)] == expected
    assert copy[np.int64(8)].id == "s/9"
    for position in (-1, 9):
        with pytest.raises(IndexError):
            source[position]


def test_threads_share_a_source(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualcodec_jax.tokens.source.MAX_OPEN", 1)
    source = TokenSource(corpus)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for position in np.random.default_rng(seed).integers(0, 9, 200).tolist():
            if source[position].index != position + (position >= BROKEN):
                wrong.append(position)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_grain_shuffles_and_batches_it(corpus: Path) -> None:
    grain = pytest.importorskip("grain")

    def fixed(item: TokenRecord) -> dict[str, Any]:
        return {"index": item.index, "codes": np.resize(item.codes, (3, 8))}

    dataset = grain.MapDataset.source(TokenSource(corpus)).shuffle(seed=1).map(fixed)
    batches = list(dataset.batch(3))
    assert [batch["codes"].shape for batch in batches] == [(3, 3, 8)] * 3
    seen = np.concatenate([batch["index"] for batch in batches])
    assert sorted(seen.tolist()) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_an_unfinished_corpus_is_no_source(corpus: Path) -> None:
    (corpus / "manifest.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        TokenSource(corpus)
    (corpus / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        TokenSource(corpus)


def test_damage_shows_when_it_is_read(corpus: Path) -> None:
    (corpus / "codes-00000-of-00003.array_record").unlink()
    source = TokenSource(corpus)
    with pytest.raises(CodeFileError, match="codes-00000"):
        source[0]
    assert source[4].index == 4


# Verification -------------------------------------------------------------------------------


def test_a_whole_corpus_has_no_problems(corpus: Path) -> None:
    seen: list[int] = []
    verdict = verify(corpus, on_shard=seen.append)
    assert verdict.problems == []
    assert (verdict.records, verdict.missing, seen) == (9, 0, [0, 1, 2])
    manifest = read_manifest(corpus)
    assert manifest["hours"] == pytest.approx(verdict.hours)
    assert (manifest["items"], manifest["records"], manifest["broken"]) == (10, 9, 1)
    assert manifest["tokens"] == 3 * manifest["frames"]
    (line,) = (corpus / "broken.jsonl").read_text().splitlines()
    assert json.loads(line) == {"index": 5, "id": "s/5", "reason": "is empty"}


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


FIRST = "codes-00000-of-00003"
DAMAGE: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: flip(f / f"{FIRST}.array_record", 0.002), "another SHA-256"),
    (lambda f: flip(f / f"{FIRST}.array_record", 0.51), "another SHA-256"),
    (lambda f: flip(f / f"{FIRST}.array_record", 0.999), "another SHA-256"),
    (lambda f: (f / f"{FIRST}.array_record").write_bytes(b""), "has 0 bytes"),
    (lambda f: (f / f"{FIRST}.array_record").unlink(), "cannot be read"),
    (lambda f: (f / f"{FIRST}.json").unlink(), "1 of 3 shards are missing"),
    (lambda f: (f / f"{FIRST}.json").write_text("{}"), "is damaged"),
    (lambda f: (f / "manifest.json").unlink(), "no manifest.json"),
    (lambda f: (f / "broken.jsonl").write_text(""), "broken.jsonl does not agree"),
    (lambda f: (f / "codes-00000-of-00002.json").write_text("{}"), "is not of this run"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_found(damage: Callable[[Path], Any], message: str, corpus: Path) -> None:
    damage(corpus)
    assert message in "; ".join(verify(corpus).problems)


WRONG = [
    ({"id": "s/1"}, "1 records have the id of another one"),
    ({"index": 4}, "an item twice"),
    ({"weights": "v" * 16}, "says"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_records_that_lie_are_found_whatever_the_checksums(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if "id" in changes:
        with pytest.raises(DataError, match=message):
            fill(tmp_path / "c", **changes)
    else:
        fill(tmp_path / "c", **changes)
    assert message in "; ".join(verify(tmp_path / "c").problems)


def test_lengths_and_codebooks_are_those_of_the_model(tmp_path: Path) -> None:
    file = record(6).file
    longer = dataclasses.replace(file, num_samples=file.num_samples + 2 * CODEC.hop_length)
    fill(tmp_path / "a", file=longer)
    assert "frames for" in "; ".join(verify(tmp_path / "a").problems)
    larger = dataclasses.replace(file, codebook_sizes=(1024, 64, 64))
    fill(tmp_path / "b", file=larger)
    assert "codebooks (1024, 64, 64), not" in "; ".join(verify(tmp_path / "b").problems)


def test_what_does_not_read_back_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_plan(tmp_path / "c", PLAN)
    monkeypatch.setattr(shards, "read_records", lambda path: [])
    with pytest.raises(DataError, match="did not read back"):
        write_shard(tmp_path / "c", PLAN, 0, [record(i) for i in range(4)], [])
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["plan.json"]


def test_a_manifest_needs_all_shards(corpus: Path) -> None:
    (corpus / f"{FIRST}.json").unlink()
    with pytest.raises(DataError, match="is missing"):
        write_manifest(corpus, PLAN)


def test_temporary_files_of_killed_processes_go(corpus: Path) -> None:
    old, new = corpus / ".0123.tmp", corpus / ".4567.tmp"
    for path in (old, new):
        path.write_text("half a shard")
    os.utime(old, (0, 0))
    before = (corpus / "manifest.json").read_bytes()
    write_manifest(corpus, PLAN)
    assert not old.exists()
    assert new.exists()  # another process may be writing it
    assert (corpus / "manifest.json").read_bytes() == before


def test_all_items_of_a_shard_may_be_broken(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, items=1)
    start_plan(tmp_path / "c", plan)
    write_shard(tmp_path / "c", plan, 0, [], [Broken(0, "x", "is empty")])
    write_manifest(tmp_path / "c", plan)
    assert verify(tmp_path / "c").problems == []
    assert read_records(tmp_path / "c" / "codes-00000-of-00001.array_record") == []
    assert len(TokenSource(tmp_path / "c")) == 0


# Parquet ------------------------------------------------------------------------------------


def test_parquet_files_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from dualcodec_jax.tokens.parquet import read_parquet

    plan = dataclasses.replace(PLAN, parquet=True)
    folder = fill(tmp_path / "c", plan, text="Grüße", metadata={"a": 1}, id="\udcff")
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in read_parquet(path)]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    made = record(6)
    row = rows[5]
    assert np.array_equal(row["codes"], made.codes)
    assert (row["text"], row["id"], json.loads(row["metadata"])) == ("Grüße", "?", {"a": 1})
    assert (row["num_frames"], row["seconds"]) == (made.file.num_frames, made.seconds)
    assert (rows[0]["text"], rows[0]["metadata"]) == (None, None)
    assert verify(folder).problems == []
    flip(folder / f"{FIRST}.parquet", 0.5)
    assert "another SHA-256" in "; ".join(verify(folder).problems)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from dualcodec_jax.tokens.parquet import import_pyarrow

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"dualcodec-jax\[tokens\]"):
        import_pyarrow()
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(DataError, match=r"dualcodec-jax\[tokens\]"):
        shards.open_records(Path("x"))


# Names of audio files -----------------------------------------------------------------------


def test_ids_become_files_below_the_folder() -> None:
    assert target_path(Path("out"), "a/b.c", "flac") == Path("out/a/b.c.flac")
    for name in ("", "/etc/x", "../x", "a/../../x", "a//b", "a/./b", "a/", "x\0", "."):
        with pytest.raises(DualCodecError, match="not the name of a file"):
            target_path(Path("out"), name, "wav")
