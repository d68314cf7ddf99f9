"""Checkpoints in the format of `transformers`: config.json, safetensors, and what goes with them.

Read into encoders of our own, and written back. Nothing is unpickled, and nothing in a checkpoint names code to import.
"""
