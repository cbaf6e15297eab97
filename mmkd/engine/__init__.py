"""What a run needs around the model: command line, configs, checkpoints, hooks.

This file imports nothing, so that the tools can import :mod:`mmkd.engine.cli` before anything
heavy; the registry of hooks imports :mod:`mmkd.engine.hooks`.
"""
