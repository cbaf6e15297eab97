# Photographs of people and animals: 3 426 images of PASCAL VOC 2012, cut out by
#   python tools/prepare_voc.py subset data/VOCdevkit/VOC2012 \
#       --lists configs/voc_animals/lists --out data/VOC_animals
# Elsewhere: VOC_ANIMALS_ROOT=/path/to/VOC_animals/ before the command.
_base_ = './voc_layout.py'
classes = ('person', 'cat', 'cow', 'dog', 'horse', 'sheep')
num_classes = len(classes)
image_size = 160
data_root = '{{$VOC_ANIMALS_ROOT:data/VOC_animals/}}'


def at_this_size(step: dict) -> dict:
    return {key: (image_size, image_size) if key in ('scale', 'crop_size') else value
            for key, value in step.items()}


# As in voc_layout.py, at this size.
train_pipeline = [at_this_size(step) for step in _base_.train_pipeline]
test_pipeline = [at_this_size(step) for step in _base_.test_pipeline]

train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    dataset=dict(
        data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline))
val_dataloader = test_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    dataset=dict(
        data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline))
