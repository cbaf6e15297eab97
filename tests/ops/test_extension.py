"""mmcv without its compiled extension."""

import sys

import pytest
import torch

import mmkd  # noqa: F401
from mmkd.ops import extension
from mmkd.ops.extension import PROVIDED, has_compiled_extension

uncompiled = pytest.mark.skipif(has_compiled_extension(), reason='this mmcv was compiled')


@uncompiled
def test_mmdet_models_import_and_name_what_is_missing():
    import mmdet.models  # noqa: F401
    from mmcv.ops import RoIPool
    with pytest.raises(NotImplementedError, match=r"roi_pool_forward.*\(deform_conv, "):
        RoIPool(2)(torch.rand(1, 1, 8, 8), torch.tensor([[0., 0, 0, 4, 4]]))


@uncompiled
def test_mmcv_finds_each_operator_that_is_provided():
    import mmcv.ops  # noqa: F401
    stand_in = sys.modules['mmcv._ext']
    for file, names in PROVIDED.items():
        for name in names:
            assert getattr(stand_in, name).__module__ == f'mmkd.ops.{file}'


def test_a_compiled_extension_comes_first(tmp_path, monkeypatch):
    package = tmp_path / 'standing_for_mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(extension, 'NAME', f'{package.name}._ext')
    assert not has_compiled_extension()
    (package / '_ext.py').write_text('compiled = True\n')
    assert has_compiled_extension()
