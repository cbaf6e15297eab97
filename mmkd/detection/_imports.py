"""MMDetection, imported first and once: what it says of optional packages is not for users."""

import contextlib
import io
import warnings

with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    import mmdet.datasets
    import mmdet.engine
    import mmdet.evaluation
    import mmdet.models  # noqa: F401
