# python tools/train.py configs/bccd_small/retinanet_r18.py \
#     --work-dir work_dirs/bccd_small/retinanet_r18
# python tools/test.py configs/bccd_small/retinanet_r18.py \
#     work_dirs/bccd_small/retinanet_r18/epoch_24.pth
_base_ = [
    '../_base_/models/narrow_retinanet_r18.py',
    '../_base_/datasets/bccd_small_coco.py',
    '../_base_/schedules/small_24e.py',
    '../_base_/cpu_runtime.py',
]

model = dict(bbox_head=dict(num_classes={{_base_.num_classes}}))
