"""Serving the page."""

from __future__ import annotations

import os
from typing import Any

# Before gradio is imported: nothing of this page tells anyone that it is used.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr

from dualcodec_jax.app.models import Models
from dualcodec_jax.app.page import CSS, Limits, build

FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]
MONO_FONTS = ["ui-monospace", "monospace"]


def serve(
    models: Models,
    first: str,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    max_megabytes: float = 50.0,
    max_waiting: int = 20,
    block: bool = True,
) -> tuple[gr.Blocks, str]:
    """Serve the page until interrupted.

    Args:
        models: to choose from.
        first: of these, what is chosen at the start; it is loaded now.
        limits: what a visitor may ask for.
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: to listen on; None: the first free one from 7860 on.
        share: also open a public link through gradio's server.
        max_megabytes: of an upload.
        max_waiting: visitors that may wait in the queue; the next ones are told to come back.
        block: False: return at once, with the page and its local address.
    """
    page = build(models, first, limits)
    page.queue(max_size=max_waiting, api_open=False)
    settings: dict[str, Any] = {
        "footer_links": [],
        "run_history": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "enable_monitoring": False,
    }
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        max_file_size=int(max_megabytes * 1e6),
        theme=gr.themes.Soft(font=FONTS, font_mono=MONO_FONTS),
        css=CSS,
        prevent_thread_lock=not block,
        quiet=True,
        **settings,
    )
    return page, url
