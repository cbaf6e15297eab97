# python tools/train.py configs/demo/centernet_mt_source_r18.py --data-root demo/data
# Needs the teachers that `make demo` trains.
_base_ = ['./centernet_r18.py', '../_base_/teachers/drawn.py', '../_base_/distillation/source.py']
