"""How many samples, filterbank frames and codes an utterance has.

The functions that take ``Int`` work on Python integers, numpy arrays and traced JAX
integers alike, so that padded batches carry their true lengths through every stage.
Source: torchaudio's resampler, ``SeamlessM4TFeatureExtractor``, ``avg_pool1d`` and the
convolutions of upstream ``dac_model.py``; see ``docs/lengths.md``.
"""

from __future__ import annotations

import math
from typing import Any

from dualcodec_jax.config import DualCodecConfig

SEMANTIC_SAMPLE_RATE = 16000
"""Sample rate of the semantic model's input, in Hz."""
FBANK_LENGTH, FBANK_HOP, FBANK_STACK = 400, 160, 2
"""Window and hop in samples at 16 kHz, of w2v-BERT's filterbank and of Whisper's spectrogram alike,
and frames that become one: stacked before w2v-BERT, by the second convolution of Whisper."""
WHOLE_SECONDS = 120.0
"""Longest audio file that is encoded whole unless told otherwise, in seconds."""

Int = Any
"""A Python int, a numpy integer array or a JAX integer array."""


def ceil_div(a: Int, b: int) -> Int:
    """⌈a / b⌉ for integers."""
    return -(-a // b)


def resampled_length(num_samples: Int, orig_rate: int, new_rate: int) -> Int:
    """Samples after resampling: ⌈N · new / orig⌉ (torchaudio)."""
    common = math.gcd(orig_rate, new_rate)
    return ceil_div(num_samples * (new_rate // common), orig_rate // common)


def fbank_frames(num_samples_16k: Int) -> Int:
    """Filterbank frames without edge padding; negative input lengths give 0."""
    frames = 1 + (num_samples_16k - FBANK_LENGTH) // FBANK_HOP
    return frames * (frames > 0)


def whisper_frames(num_samples_16k: Int) -> Int:
    """Frames of Whisper's log-mel spectrogram: one for each whole hop."""
    return num_samples_16k // FBANK_HOP


def semantic_frames(num_samples: Int, config: DualCodecConfig) -> Int:
    """Frames of the semantic model (50 Hz): pairs of spectral frames, rounded up."""
    num_16k = resampled_length(num_samples, config.sample_rate, SEMANTIC_SAMPLE_RATE)
    frames = whisper_frames if config.semantic_model == "whisper" else fbank_frames
    return ceil_div(frames(num_16k), FBANK_STACK)


def pooled_frames(num_samples: Int, config: DualCodecConfig) -> Int:
    """Frames of the semantic features after average pooling to the code frame rate."""
    return semantic_frames(num_samples, config) // config.semantic_downsample_factor


def code_length(num_samples: Int, config: DualCodecConfig) -> Int:
    """Code frames T of an utterance, semantic and acoustic alike.

    Upstream drops the last one or two hops: T = ⌈num_samples / hop⌉ − (1 or 2). Without a semantic
    stream it drops none.
    """
    frames = pooled_frames if config.is_dual else acoustic_frames
    return frames(num_samples, config)


def acoustic_frames(num_samples: Int, config: DualCodecConfig) -> Int:
    """Frames of the waveform encoder: ⌈num_samples / hop⌉."""
    return ceil_div(num_samples, config.hop_length)


def upsampled_length(length: Int, stride: int) -> Int:
    """Length after a transposed convolution of kernel 2s, stride s, padding ⌈s/2⌉.

    It is s·L for even strides and s·L − 1 for odd ones.
    """
    return length * stride - stride % 2


def decoded_samples(num_frames: Int, config: DualCodecConfig) -> Int:
    """Samples decoded from T > 0 code frames: T · hop − 4 for the released models."""
    length = num_frames
    for stride in config.decoder_rates:
        length = upsampled_length(length, stride)
    return length


def samples_for_codes(num_frames: int, config: DualCodecConfig) -> int:
    """The shortest utterance, in samples, that has ``num_frames`` > 0 code frames."""
    if not config.is_dual:
        return (num_frames - 1) * config.hop_length + 1
    frames = FBANK_STACK * num_frames * config.semantic_downsample_factor - (FBANK_STACK - 1)
    if config.semantic_model == "whisper":
        num_16k = FBANK_HOP * frames
    else:
        num_16k = FBANK_LENGTH + FBANK_HOP * (frames - 1)
    common = math.gcd(config.sample_rate, SEMANTIC_SAMPLE_RATE)
    orig, new = config.sample_rate // common, SEMANTIC_SAMPLE_RATE // common
    return orig * (num_16k - 1) // new + 1


def min_samples(config: DualCodecConfig) -> int:
    """The shortest utterance, in samples, that can be encoded at all."""
    return samples_for_codes(1, config)


def samples_to_cover(num_samples: int, config: DualCodecConfig) -> int:
    """Length to zero-pad to, so that the decoded audio is at least ``num_samples`` long.

    This is what ``pad_end=True`` does: upstream's frame count loses the last hops.
    """
    frames = ceil_div(num_samples, config.hop_length)
    while decoded_samples(frames, config) < num_samples:
        frames += 1
    return max(num_samples, samples_for_codes(frames, config))


def bucket(length: int) -> int:
    """The smallest bucket that holds ``length``: k · 2^e with k in 8…15 (below 8: itself).

    Eight buckets an octave keep the padding under 12.5 % and the number of compiled
    shapes small: under a hundred cover everything from one frame to 10 minutes.
    """
    if length <= 8:
        return length
    unit = 1 << (length - 1).bit_length() - 4
    return ceil_div(length, unit) * unit
