"""What makes a file of a trained student: its graph, the file's format, the check, quantisation.

What a program calls is here, and imported when it is asked for: it needs ``mmkd[deploy]``, and one
graph alone does not.
"""

from typing import Any

__all__ = ['ExportableCenterNet', 'ExportableClassifier', 'export_onnx', 'export_pt2',
           'exportable', 'load_model', 'model_metadata']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmkd.deploy.export' has no attribute '{name}'")
    from mmkd.deploy.export import exporter

    return getattr(exporter, name)
