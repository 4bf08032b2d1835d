"""The app's models, work, pictures and session, without a page; the page is in tests/browser."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from dualcodec_jax.app import drawing
from dualcodec_jax.app.models import LoadedModel, Models
from dualcodec_jax.app.session import KEPT, Session
from dualcodec_jax.app.work import Run, encode, open_codes
from dualcodec_jax.cli.main import app
from dualcodec_jax.container import read_codes, write_codes
from dualcodec_jax.errors import AudioError, CodeFileError, HubError, InputError
from dualcodec_jax.inference import Inference


def quiet(share: float, what: str) -> None:
    assert 0 <= share <= 1
    assert what


@pytest.fixture(scope="module")
def model(tiny_inference: Inference) -> LoadedModel:
    return LoadedModel("tiny", tiny_inference)


@pytest.fixture(scope="module")
def run(model: LoadedModel, speech: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("upload") / "spoken.wav"
    soundfile.write(path, speech[:24000], 24000, subtype="FLOAT")
    return encode(path, model, 10, quiet)


def test_a_run_decodes_any_number_of_codes(run: Run, model: LoadedModel) -> None:
    most = model.n_quantizers
    assert run.codes.n_quantizers == most
    assert run.title == "spoken.wav"
    assert run.encode_seconds is not None
    assert run.encode_seconds > 0
    audio = [run.audio(count) for count in range(1, most + 1)]
    assert {part.shape for part in audio} == {(24000,)}
    assert not np.array_equal(audio[0], audio[1])
    assert run.audio(1) is audio[0]
    assert set(run.decode_seconds) == set(range(1, most + 1))


def test_the_first_time_is_not_of_the_compiler(model: LoadedModel) -> None:
    calls = []
    assert model.timed("a shape", lambda: calls.append(1))[1] < 1
    model.timed("a shape", lambda: calls.append(1))
    assert len(calls) == 3


def test_a_model_is_loaded_once(tiny_inference: Inference) -> None:
    loads = []

    def load(place: str) -> Inference:
        loads.append(place)
        return tiny_inference

    models = Models(["demo", "/some/where/mine/"], load)
    assert models.names == ["demo", "mine"]
    found = []
    threads = [threading.Thread(target=lambda: found.append(models.get("mine"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["/some/where/mine/"]
    assert all(model is found[0] for model in found)
    with pytest.raises(InputError, match="no model '/etc' here"):
        models.get("/etc")
    with pytest.raises(InputError, match="both be called mine"):
        Models(["a/mine", "b/mine"], load)


def test_a_model_that_does_not_load_can_be_tried_again() -> None:
    def load(place: str) -> Inference:
        raise HubError("no connection")

    models = Models(["12hz_v1"], load)
    for _ in range(2):
        with pytest.raises(HubError):
            models.get("12hz_v1")


def test_codes_find_their_model(run: Run, tiny_inference: Inference) -> None:
    models = Models(["other", run.codes.model_id], lambda place: tiny_inference)
    assert models.for_codes(run.codes, "other").name == run.codes.model_id
    models.get("other")
    assert models.for_codes(run.codes, "other").name == "other"
    with pytest.raises(InputError, match="start the app with --model"):
        Models(["other"], lambda place: tiny_inference).for_codes(run.codes, "other")


def test_messages_do_not_say_where_uploads_lie(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"noise\.wav") as error:
        encode(path, model, 10, quiet)
    assert str(tmp_path) not in str(error.value)
    with pytest.raises(CodeFileError, match=r"noise\.wav") as other:
        open_codes(path, 10)
    assert str(tmp_path) not in str(other.value)
    soundfile.write(path, np.zeros(24000 * 3), 24000)
    with pytest.raises(AudioError, match=r"3\.000 s"):
        encode(path, model, 2, quiet)


def test_long_code_files_are_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.dualcodec"
    write_codes(path, run.codes)
    assert open_codes(path, 2).n_quantizers == run.codes.n_quantizers
    with pytest.raises(CodeFileError, match="stands for 1"):
        open_codes(path, 0.5)


def test_a_session(run: Run) -> None:
    session = Session()
    entry = session.add(run, 2)
    path = session.code_file(entry)
    assert path.name == "spoken.dualcodec"
    assert np.array_equal(read_codes(path).codes, run.codes.codes[:2])
    assert session.rows()[0][1:5] == ["spoken.wav", "1.0", "tiny", "2"]
    for _ in range(KEPT + 2):
        session.add(run, 1)
    assert len(session.rows()) == KEPT
    assert session.show(KEPT) is None
    assert session.show(1) is session.current
    session.close()
    assert not path.exists()


def test_pictures(run: Run) -> None:
    codes, audio = run.codes, run.audio(1)
    for picture in (
        drawing.sound(audio, 24000, audio),
        drawing.tokens(codes, 1),
        drawing.spectrograms({"one": audio, "two": audio}, 24000),
    ):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 4
        assert (picture[..., 3] == 0).any()  # see-through, for light and dark
        assert (picture[..., 3] == 255).any()
    assert (drawing.tokens(codes, 1) != drawing.tokens(codes, 2)).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-seconds", "0"], "--max-seconds must be positive"),
        (["--model", "no/where"], "no such folder"),
    ],
)
def test_wrong_options(options: list[str], said: str) -> None:
    pytest.importorskip("gradio")
    result = CliRunner().invoke(app, ["app", *options])
    assert result.exit_code == 2
    assert said in result.output


def test_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in ("page", "server"):
        monkeypatch.delitem(sys.modules, f"dualcodec_jax.app.{name}", raising=False)
    result = CliRunner().invoke(app, ["app"])
    assert result.exit_code == 2
    assert "pip install 'dualcodec-jax[app]'" in result.output
