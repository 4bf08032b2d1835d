"""Batches of recordings: few shapes, all recordings once, the same whatever the devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from micro import CODEC as MICRO

from dualcodec_jax.config import DEMO, DUALCODEC_12HZ_V1, DUALCODEC_25HZ_V1, TINY, DualCodecConfig
from dualcodec_jax.lengths import samples_to_cover
from dualcodec_jax.tokens.batches import Group, Grouper, Stacker, padded_frames


@dataclass(frozen=True)
class Clip:
    index: int
    num_samples: int


@pytest.mark.parametrize("codec", [DUALCODEC_12HZ_V1, DUALCODEC_25HZ_V1, DEMO, TINY, MICRO])
def test_padding_holds_the_recording_and_shapes_are_few(codec: DualCodecConfig) -> None:
    lengths = np.unique(np.geomspace(1, 120 * codec.sample_rate, 2000).astype(int))
    shapes = set()
    for length in lengths.tolist():
        frames = padded_frames(length, codec)
        needed = samples_to_cover(length, codec)
        assert frames * codec.hop_length >= needed
        if length > 4 * codec.sample_rate:
            assert frames * codec.hop_length <= 1.3 * needed
        shapes.add(frames)
    assert len(shapes) <= 27  # 2 s to 2 minutes
    assert padded_frames(1, codec) * codec.hop_length >= 2 * codec.sample_rate


def clips(shard: int, count: int = 100) -> list[Clip]:
    seconds = np.random.default_rng(shard).uniform(0.1, 30, count)
    return [Clip(100 * shard + i, int(s * TINY.sample_rate)) for i, s in enumerate(seconds)]


def groups_of(shard: int, batch_seconds: float = 60.0) -> list[Group[Clip]]:
    grouper: Grouper[Clip] = Grouper(shard, TINY, batch_seconds)
    groups = [group for clip in clips(shard) for group in grouper.add(clip)]
    return [*groups, *grouper.finish()]


def test_every_recording_is_in_one_group_that_has_room_for_it() -> None:
    groups = groups_of(0)
    assert sorted(clip.index for group in groups for clip in group.items) == list(range(100))
    for group in groups:
        assert 1 <= len(group.items) <= group.rows
        assert group.rows == 1 or group.rows * group.frames <= 60 * TINY.frame_rate
        assert all(padded_frames(clip.num_samples, TINY) <= group.frames for clip in group.items)
    # A shape has one number of rows: one program.
    assert len({(group.frames, group.rows) for group in groups}) == len({g.frames for g in groups})
    # Only the last group is not full.
    assert sum(len(group.items) < group.rows for group in groups) <= 1


def test_a_recording_longer_than_a_batch_goes_alone() -> None:
    assert all(len(group.items) == 1 for group in groups_of(0, batch_seconds=0.1))


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_stacks_are_groups_of_one_shape_and_every_group_is_in_one(devices: int) -> None:
    stacker: Stacker[Clip] = Stacker(devices)
    stacks = []
    for shard in range(4):
        stacks += [stack for group in groups_of(shard) for stack in stacker.add(group)]
        if shard:
            stacks += list(stacker.flush(shard - 1))
            left = [group for waiting in stacker._waiting.values() for group in waiting]
            assert all(group.shard == shard for group in left)
    stacks += list(stacker.flush())
    assert all(len(stack) <= devices for stack in stacks)
    assert all(len({group.frames for group in stack}) == 1 for stack in stacks)
    seen = [group for stack in stacks for group in stack]
    # Which recordings are batched together does not depend on the devices.
    assert sorted(seen, key=lambda group: group.items[0].index) == sorted(
        (group for shard in range(4) for group in groups_of(shard)),
        key=lambda group: group.items[0].index,
    )
    assert list(stacker.flush()) == []
