# mmkd study tiny_imagenet_offline_shufflenetv2
# As tiny_imagenet_offline.py, with a student of another family. FSP needs equal widths.
_base_ = './tiny_imagenet_offline.py'
STUDENT = 'shufflenetv2_1x'

baseline = dict(title='ShuffleNetV2, alone', student=STUDENT)
variants = dict(_delete_=True, **{
    method: dict(cell, student=STUDENT)
    for method, cell in _base_.variants.items() if method != 'fsp'})
