# python tools/study.py studies/bccd_unlabelled.py
# Photographs of blood cells: how many labels does a ResNet-18 from scratch need that has two
# teachers? Of 205 training photographs 20 keep their labels. Before the first run:
#   python tools/prepare_voc.py part data/BCCD --share 0.1 --seed 0
# The teachers, those of bccd_r18.py, have seen the labels of all 205, as ones that somebody else
# has trained: 20 labels are all that the student sees, and not all that was ever made.
# They have to be there for `mmkd label`:
#   mmkd study bccd_unlabelled --variants taught
#   R50=work_dirs/bccd_small/centernet_r50/epoch_72.pth
#   HOURGLASS=work_dirs/bccd_small/centernet_hourglass/epoch_24.pth
#   mmkd label data/BCCD/unlabelled_10 --out data/BCCD/pseudo_10 \
#       --teacher configs/bccd_small/centernet_r50.py=$R50 \
#       --teacher configs/bccd_small/centernet_hourglass.py=$HOURGLASS
# It chooses its threshold on the 87 validation photographs, whose labels no student sees.
# All students make 624 steps: 24 epochs of 205 photographs, or 208 of 20.
STUDENT = 'configs/bccd_small/centernet_r18.py'
R50 = 'work_dirs/bccd_small/centernet_r50/epoch_72.pth'
HOURGLASS = 'work_dirs/bccd_small/centernet_hourglass/epoch_24.pth'
FEW = dict(config=STUDENT, epochs=208, options={
    'train_dataloader.dataset.ann_file': 'ImageSets/Main/train_10.txt',
    'train_cfg.val_interval': 208})  # once, at the end, like those that see all labels
FROM_TEACHERS = {**FEW['options'], 'distill_weights.feature': 50}  # from scratch, docs/recipe.md
TAUGHT = dict(FEW, teacher=[f'configs/bccd_small/centernet_r50.py={R50}',
                            f'configs/bccd_small/centernet_hourglass.py={HOURGLASS}'])
ALL_IMAGES = ['data', 'epochs', 'schedule']

baseline = dict(FEW, title='10 % of the labels, alone')
variants = dict(
    taught=dict(TAUGHT, title='10 % of the labels, from both teachers', options=FROM_TEACHERS),
    unlabelled=dict(TAUGHT, title='and on the other images, without labels', options={
        **FROM_TEACHERS, 'unlabelled.data_root': 'data/BCCD/unlabelled_10'}),
    pseudo=dict(title="10 % of the labels, and the teachers' labels of the others",
                config='configs/bccd_small/centernet_r18_pseudo.py', may_differ=ALL_IMAGES),
    all_labels=dict(title='all labels, alone', config=STUDENT, may_differ=ALL_IMAGES),
    # The batches of `unlabelled` are twice as large, which has its own part in what it gains.
    all_labels_twice=dict(title='all labels, alone, twice the epochs', config=STUDENT, epochs=48,
                          options={'train_cfg.val_interval': 48}, may_differ=ALL_IMAGES))
teachers = dict(
    resnet50=dict(config='configs/bccd_small/centernet_r50.py', checkpoint=R50),
    hourglass=dict(config='configs/bccd_small/centernet_hourglass.py', checkpoint=HOURGLASS))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 3.0
picture = 'unlabelled'
