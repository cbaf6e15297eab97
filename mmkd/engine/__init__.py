"""What a run needs around the model: command line, configs, checkpoints, hooks.

The registries import this package to find its hooks. ``mmkd.engine.cli`` is imported by the tools
before anything heavy, so the hooks are loaded on demand.
"""
