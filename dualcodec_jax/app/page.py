"""The page: components and what connects them. All computing is in :mod:`.work`."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from dualcodec_jax import __version__
from dualcodec_jax.app import drawing
from dualcodec_jax.app.models import LoadedModel, Models
from dualcodec_jax.app.session import Entry, Session
from dualcodec_jax.app.work import Run, encode, open_codes
from dualcodec_jax.errors import DualCodecError, InputError

CLIP = "librivox.flac"
IDLE_SECONDS = 3600
"""A session that does nothing for so long is forgotten; uploads are deleted after as long."""
COMPUTE = "compute"
"""Events of this name share the workers."""
CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important}
#facts table {width: 100%}
.picture img {object-fit: contain}
"""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a visitor may ask for.

    Attributes:
        max_seconds: of a recording, or of what a code file stands for.
        workers: visitors that are served at once; the others wait in a queue.
    """

    max_seconds: float = 60.0
    workers: int = 1


def build(models: Models, first: str, limits: Limits) -> gr.Blocks:
    """The page.

    Args:
        models: to choose from; ``first`` of them is loaded.
        first: the one that is chosen at the start.
        limits: what a visitor may ask for.
    """
    return _Page(models, first, limits).blocks


class _Page:
    """Components by name, and the handlers of their events. Holds nothing of a visitor's."""

    def __init__(self, models: Models, first: str, limits: Limits) -> None:
        self._models, self._limits = models, limits
        with gr.Blocks(
            title="dualcodec_jax",
            analytics_enabled=False,
            delete_cache=(IDLE_SECONDS // 4, IDLE_SECONDS),
        ) as self.blocks:
            gr.Markdown(
                "# dualcodec_jax\nSpeech to discrete codes and back. Everything is computed on the "
                "machine that serves this page."
            )
            self._session = gr.State(None, time_to_live=IDLE_SECONDS, delete_callback=_forget)
            self._chosen = gr.State(first)
            self._lay_out(models.get(first))
            self._connect()

    def _lay_out(self, model: LoadedModel) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._model = gr.Dropdown(
                    self._models.names, value=model.name, label="Model", elem_id="model"
                )
                self._about = gr.Markdown(_about(model), elem_id="about")
                self._count = gr.Slider(
                    1,
                    model.n_quantizers,
                    value=model.n_quantizers,
                    step=1,
                    label="Codes a frame",
                    info="1: the semantic code alone",
                    elem_id="count",
                )
                with gr.Tab("Recording"):
                    self._recording = gr.Audio(
                        sources=["upload", "microphone"],
                        type="filepath",
                        buttons=[],
                        label=f"Up to {self._limits.max_seconds:g} s",
                        elem_id="recording",
                    )
                    self._run = gr.Button("Encode and decode", variant="primary", elem_id="run")
                    self._sample = gr.Button("Use the sample recording", elem_id="sample")
                with gr.Tab("Code file", elem_id="codes_tab"):
                    self._codes = gr.File(
                        file_types=[".dualcodec"], label="A .dualcodec file", elem_id="codes"
                    )
                    self._decode = gr.Button("Decode", variant="primary", elem_id="decode")
            with gr.Column(scale=5, min_width=320):
                with gr.Row():
                    with gr.Column(min_width=300):
                        self._original = gr.Audio(
                            label="Original", buttons=["download"], elem_id="original"
                        )
                        self._original_picture = _picture(
                            "waveform and mel spectrogram of the original", "original_picture"
                        )
                    with gr.Column(min_width=300):
                        self._decoded = gr.Audio(
                            label="Decoded", buttons=["download"], elem_id="decoded"
                        )
                        self._decoded_picture = _picture(
                            "waveform and mel spectrogram of what was decoded", "decoded_picture"
                        )
                self._facts = gr.Markdown(
                    "Upload or record speech, or use the sample.", elem_id="facts"
                )
                self._tokens = _picture(
                    "codes: a row for each quantizer, a column for each frame", "tokens"
                )
                self._download = gr.DownloadButton(
                    "Download the code file", interactive=False, elem_id="download"
                )
        with gr.Accordion("Compare all numbers of codes", open=False, elem_id="compare"):
            self._compare = gr.Button("Decode with every number of codes", elem_id="compare_run")
            self._compared_count = gr.Slider(
                1, model.n_quantizers, value=1, step=1, label="Hear", elem_id="compared_count"
            )
            self._compared = gr.Audio(label="Decoded", buttons=["download"], elem_id="compared")
            self._compared_picture = _picture(
                "mel spectrograms for each number of codes", "compared_picture"
            )
        with gr.Accordion("History of this session", open=False, elem_id="history_box"):
            self._history = gr.Dataframe(
                headers=["time", "recording", "s", "model", "codes a frame", "kbit/s"],
                interactive=False,
                label="Choose a row to see it again",
                elem_id="history",
            )
        gr.Markdown(
            f"Uploads and results are deleted after {IDLE_SECONDS // 60} minutes without use. "
            f"dualcodec_jax {__version__}"
        )

    def _connect(self) -> None:
        result = [
            self._session,
            self._original,
            self._original_picture,
            self._decoded,
            self._decoded_picture,
            self._facts,
            self._tokens,
            self._download,
            self._count,
            self._history,
            self._compared_count,
            self._compared,
            self._compared_picture,
        ]
        heavy: dict[str, Any] = {
            "concurrency_limit": self._limits.workers,
            "concurrency_id": COMPUTE,
            "api_visibility": "private",
        }
        light: dict[str, Any] = {"api_visibility": "private"}
        self._model.change(
            self.on_model,
            [self._model, self._chosen, self._count],
            [self._model, self._chosen, self._about, self._count],
            show_progress_on=self._about,
            **heavy,
        )
        self._sample.click(_sample_path, None, self._recording, **light)
        self._run.click(
            self.on_run,
            [self._recording, self._chosen, self._count, self._session],
            result,
            show_progress_on=[self._decoded, self._facts],
            **heavy,
        )
        self._decode.click(
            self.on_decode,
            [self._codes, self._chosen, self._session],
            result,
            show_progress_on=[self._decoded, self._facts],
            **heavy,
        )
        self._count.release(
            self.on_count,
            [self._count, self._session],
            result,
            show_progress_on=self._decoded,
            **heavy,
        )
        self._history.select(self.on_history, self._session, result, **heavy)
        self._compare.click(
            self.on_compare,
            [self._session],
            [self._compared_count, self._compared, self._compared_picture],
            show_progress_on=self._compared,
            **heavy,
        )
        self._compared_count.release(
            self.on_compared_count, [self._compared_count, self._session], self._compared, **heavy
        )

    # Handlers: values of components in, values out.

    def on_model(
        self, name: str, chosen: str, count: int, progress: gr.Progress = gr.Progress()
    ) -> tuple[Any, ...]:
        """Load the chosen model; if that fails, say why and go back to the one before."""
        if name == chosen:
            return gr.skip(), chosen, gr.skip(), gr.skip()
        progress(0.1, desc=f"loading {name}")
        try:
            model = self._models.get(name)
        except DualCodecError as error:
            gr.Warning(f"{name} cannot be loaded. {error}", duration=20)
            return chosen, chosen, gr.skip(), gr.skip()
        most = model.n_quantizers
        value = most if count == self._models.get(chosen).n_quantizers else min(count, most)
        return name, name, _about(model), gr.update(maximum=most, value=value)

    def on_run(
        self,
        recording: str | None,
        name: str,
        count: int,
        session: Session | None,
        progress: gr.Progress = gr.Progress(),
    ) -> list[Any]:
        """Encode a recording with all codes, and decode ``count`` of them."""
        with _shown_errors():
            if recording is None:
                raise InputError("there is no recording yet: upload, record, or use the sample")
            model = self._models.get(name)
            run = encode(Path(recording), model, self._limits.max_seconds, _told(progress))
            return _result(session, run, min(count, model.n_quantizers), progress)

    def on_decode(
        self,
        path: str | None,
        name: str,
        session: Session | None,
        progress: gr.Progress = gr.Progress(),
    ) -> list[Any]:
        """Decode a code file with the model that it names."""
        with _shown_errors():
            if path is None:
                raise InputError("there is no code file yet: drop one in")
            codes = open_codes(Path(path), self._limits.max_seconds)
            progress(0.2, desc=f"loading {codes.model_id}")
            model = self._models.for_codes(codes, name)
            return _result(
                session, Run(Path(path).name, model, codes), codes.n_quantizers, progress
            )

    def on_count(
        self, count: int, session: Session | None, progress: gr.Progress = gr.Progress()
    ) -> Any:
        """Decode the current codes anew."""
        if session is None or session.current is None:
            return [gr.skip()] * 13
        with _shown_errors():
            entry = session.current
            entry.count = min(count, entry.run.codes.n_quantizers)
            return _shown(session, entry, progress)

    def on_history(
        self,
        session: Session | None,
        event: gr.SelectData,
        progress: gr.Progress = gr.Progress(),
    ) -> Any:
        """Show an earlier run."""
        entry = session.show(event.index[0]) if session is not None else None
        if session is None or entry is None:
            return [gr.skip()] * 13
        with _shown_errors():
            return _shown(session, entry, progress)

    def on_compare(
        self, session: Session | None, progress: gr.Progress = gr.Progress()
    ) -> tuple[Any, ...]:
        """Decode the current codes with 1, 2, … of them."""
        with _shown_errors():
            if session is None or session.current is None:
                raise InputError("there is nothing to compare yet: encode a recording first")
            run = session.current.run
            most = run.codes.n_quantizers
            signals = {} if run.original is None else {"original": run.original}
            for count in range(1, most + 1):
                progress((count - 1) / most, desc=f"decoding {count} of {most} codes")
                title = f"{count} of {most}, {run.bitrate(count) / 1000:.3f} kbit/s"
                signals[title] = run.audio(count)
            picture = drawing.spectrograms(signals, run.codes.sample_rate)
            return gr.update(maximum=most, value=1), _audio(run, run.audio(1)), picture

    def on_compared_count(self, count: int, session: Session | None) -> Any:
        """Hear one of the compared; decoded already, as a rule."""
        if session is None or session.current is None:
            return gr.skip()
        with _shown_errors():
            run = session.current.run
            return _audio(run, run.audio(min(count, run.codes.n_quantizers)))


def _result(session: Session | None, run: Run, count: int, progress: gr.Progress) -> list[Any]:
    session = session or Session()
    return _shown(session, session.add(run, count), progress)


def _shown(session: Session, entry: Entry, progress: gr.Progress) -> list[Any]:
    """Values of all components that show a run."""
    run, count = entry.run, entry.count
    progress(0.6, desc="decoding")
    audio = run.audio(count)
    progress(0.9, desc="drawing")
    rate, most = run.codes.sample_rate, run.codes.n_quantizers
    reference = audio if run.original is None else run.original
    original, picture = None, None
    if run.original is not None:
        original = _audio(run, run.original)
        picture = drawing.sound(run.original, rate, reference)
    return [
        session,
        original,
        picture,
        _audio(run, audio),
        drawing.sound(audio, rate, reference),
        _facts(entry),
        drawing.tokens(run.codes, count),
        gr.update(value=str(session.code_file(entry)), interactive=True),
        gr.update(maximum=most, value=count),
        session.rows(),
        gr.update(maximum=most, value=1),
        None,
        None,
    ]


def _facts(entry: Entry) -> str:
    run, count = entry.run, entry.count
    codes, seconds = run.codes, run.codes.seconds
    decoding = run.decode_seconds[count]
    rows = [
        ("recording", f"{run.title}, {seconds:.2f} s"),
        ("model", run.model.name),
        ("codes", f"{count} of {codes.n_quantizers} × {codes.num_frames} frames"),
        ("bitrate", f"{run.bitrate(count) / 1000:.3f} kbit/s"),
        ("code file", f"{len(run.code_file(count)):,} bytes"),
    ]
    if run.encode_seconds is not None:
        rows.append(("encoding", _speed(run.encode_seconds, seconds)))
    rows.append(("decoding", _speed(decoding, seconds)))
    head, *rest = [f"| {name} | {_plain(value)} |" for name, value in rows]
    table = "\n".join([head, "| --- | --- |", *rest, ""])
    return table + "".join(f"\n*{_plain(note)}*\n" for note in run.notes)


def _speed(elapsed: float, seconds: float) -> str:
    return f"{elapsed:.2f} s, {elapsed / seconds:.3f} × real time"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: file names come from visitors."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~$])", r"\\\1", text)


def _about(model: LoadedModel) -> str:
    config = model.inference.config.codec
    low, high = config.bitrate(1) / 1000, config.bitrate() / 1000
    demo = " The small demo, not the DualCodec release." if model.name == "demo" else ""
    return (
        f"**{model.name}** is loaded: {config.frame_rate:g} frames a second, up to "
        f"{model.n_quantizers} codes each, {low:.3f} to {high:.3f} kbit/s.{demo}"
    )


def _audio(run: Run, samples: np.ndarray) -> tuple[int, np.ndarray]:
    """As gradio plays it; 16 bits, because it rescales floats."""
    clipped = np.clip(samples, -1, 1)
    return run.codes.sample_rate, np.rint(32767 * clipped).astype(np.int16)


def _picture(what: str, name: str) -> gr.Image:
    return gr.Image(
        label=what,
        alt_text=what,
        show_label=False,
        format="png",
        image_mode="RGBA",
        interactive=False,
        buttons=["fullscreen"],
        elem_id=name,
        elem_classes="picture",
    )


def _sample_path() -> str:
    return str(resources.files("dualcodec_jax") / "assets" / CLIP)


def _told(progress: gr.Progress) -> Callable[[float, str], None]:
    return lambda share, what: progress(share, desc=what)


@contextlib.contextmanager
def _shown_errors() -> Iterator[None]:
    """Typed errors become a message on the page; other ones are faults of ours, and are logged."""
    try:
        yield
    except DualCodecError as error:
        raise gr.Error(str(error), duration=20, print_exception=False) from error


def _forget(session: Session | None) -> None:
    if session is not None:
        session.close()
