# python tools/train.py configs/centernet/centernet_r18_dcn_voc.py
# python tools/test.py configs/centernet/centernet_r18_dcn_voc.py \
#     work_dirs/centernet_r18_dcn_voc/epoch_100.pth
# python tools/export.py configs/centernet/centernet_r18_dcn_voc.py \
#     work_dirs/centernet_r18_dcn_voc/epoch_100.pth
# Deformable convolutions (DCNv2) in the upsampling, as in the original CenterNet.
_base_ = './centernet_r18_voc.py'

model = dict(neck=dict(use_dcn=True))
