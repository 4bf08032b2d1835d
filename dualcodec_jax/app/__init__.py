"""The app: a page in the browser that encodes and decodes. Needs gradio, matplotlib.

models → work → drawing → session → page → server; only the last two know gradio.
"""
