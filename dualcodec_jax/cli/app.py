"""``app``: the page in the browser."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from dualcodec_jax.cli.common import chosen_model, console, reports_errors, show_note
from dualcodec_jax.errors import ConfigError, HubError, InputError

if TYPE_CHECKING:
    from dualcodec_jax.inference import Inference

OFFERED = ("demo", "12hz_v1", "25hz_v1")


@reports_errors
def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME_OR_FOLDER",
            help="A model to offer: a name, a checkpoint or the folder of a training run. Can be "
            "repeated; the first is loaded at the start. Default: demo, 12hz_v1 and 25hz_v1.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Default: the first free one from 7860 on."),
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Open a public link through gradio's server too.")
    ] = False,
    max_seconds: Annotated[float, typer.Option("--max-seconds", help="Of a recording.")] = 60.0,
    max_megabytes: Annotated[float, typer.Option("--max-megabytes", help="Of an upload.")] = 50.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Visitors that are served at once.")
    ] = 1,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", min=1, help="Visitors that may wait in the queue.")
    ] = 20,
) -> None:
    """Encode and decode in the browser: hear, see and compare. Nothing leaves this machine."""
    for name, value in (("--max-seconds", max_seconds), ("--max-megabytes", max_megabytes)):
        if not value > 0:
            raise InputError(f"{name} must be positive; got {value:g}")
    try:
        from dualcodec_jax.app.page import Limits
        from dualcodec_jax.app.server import serve
    except ImportError as error:
        raise ConfigError(
            f"the app needs {error.name or 'gradio'}: pip install 'dualcodec-jax[app]'"
        ) from error
    from dualcodec_jax.app.models import Models
    from dualcodec_jax.compilation import enable_cache

    enable_cache()
    places = list(model or OFFERED)
    models = Models(places, _open)
    first = models.names[0] if model else chosen_model(None, None, instead="choosing one there")
    with console.status(f"loading {first} …"):
        models.get(first)
    if share:
        show_note("whoever knows the public link can use this machine until the app ends")
    console.print(f"serving {', '.join(models.names)} on {host}; Ctrl-C ends", highlight=False)
    try:
        serve(
            models,
            first,
            Limits(max_seconds, workers),
            host=host,
            port=port,
            share=share,
            max_megabytes=max_megabytes,
            max_waiting=max_waiting,
        )
    except OSError as error:
        raise InputError(f"cannot listen on {host}: {error}; choose another --port") from error


def _open(place: str) -> Inference:
    from dualcodec_jax.opening import open_model

    if os.sep in place and not os.path.exists(os.path.expanduser(place)):
        raise HubError(f"{place}: no such folder; check --model")
    return open_model(place)[0]
