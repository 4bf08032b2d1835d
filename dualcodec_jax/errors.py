"""Typed errors. Every message says what is wrong and what to do about it."""


class DualCodecError(Exception):
    """Base class of all errors that this package raises on purpose."""


class ConfigError(DualCodecError, ValueError):
    """A configuration is inconsistent or has unknown fields."""


class InputError(DualCodecError, ValueError):
    """An argument has a wrong shape, type, range or length."""


class AudioError(DualCodecError, ValueError):
    """An audio file or waveform cannot be used."""


class CodeFileError(DualCodecError, ValueError):
    """A ``.dualcodec`` file is damaged, foreign, or of an unknown version."""


class WeightsError(DualCodecError, ValueError):
    """A checkpoint is missing tensors, has unexpected ones, or is damaged."""


class HubError(DualCodecError, OSError):
    """Weights are neither on disk nor to be had from the hub."""


class DualCodecWarning(UserWarning):
    """Something works, but not quite as asked."""
