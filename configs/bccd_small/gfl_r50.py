# python tools/train.py configs/bccd_small/gfl_r50.py \
#     --work-dir work_dirs/bccd_small/gfl_r50
# python tools/test.py configs/bccd_small/gfl_r50.py \
#     work_dirs/bccd_small/gfl_r50/epoch_72.pth
_base_ = [
    '../_base_/models/narrow_gfl_r18.py',
    '../_base_/datasets/bccd_small_coco.py',
    '../_base_/schedules/small_72e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(
    backbone=dict(depth=50, zero_init_residual=True),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=96),
    bbox_head=dict(in_channels=96, feat_channels=96, num_classes={{_base_.num_classes}}))
