# python tools/study.py studies/voc_animals_unlabelled.py
# Photographs of people and animals: how many labels does a ResNet-18 need that has a teacher?
# Of 1 697 training images 170 keep their labels. Before the first run:
#   python tools/prepare_voc.py part data/VOC_animals --share 0.1 --seed 0
# Elsewhere than data/VOC_animals: VOC_ANIMALS_ROOT=/path/to/VOC_animals/ before the command, and
# its folder unlabelled_10 below.
# The teacher has seen the labels of all 1 697, as one that somebody else has trained: 170 labels
# are all that the student sees, and not all that was ever made.
# It has to be there for `mmkd label`:
#   mmkd study voc_animals_unlabelled --variants taught
#   TEACHER=work_dirs/voc_animals/centernet_r18_wide/epoch_30.pth
#   mmkd label data/VOC_animals/unlabelled_10 --out data/VOC_animals/pseudo_10 \
#       --teacher configs/voc_animals/centernet_r18_wide.py=$TEACHER
# It chooses its threshold on the 864 validation images, whose labels no student sees.
# Of 10 % of the images an epoch is a tenth as long, so there are ten times as many: all students
# make about as many steps, 1 712 or 1 760.
STUDENT = 'configs/voc_animals/centernet_r18.py'
TEACHER = 'work_dirs/voc_animals/centernet_r18_wide/epoch_30.pth'
EPOCHS = 16
FEW = dict(config=STUDENT, epochs=10 * EPOCHS, options={
    'train_dataloader.dataset.ann_file': 'ImageSets/Main/train_10.txt',
    'train_cfg.val_interval': 10 * EPOCHS})  # once, at the end, like those that see all labels
TAUGHT = dict(FEW, teacher=f'configs/voc_animals/centernet_r18_wide.py={TEACHER}', options={
    **FEW['options'], 'teachers.centernet_r18_wide.precision': 'bf16'})
AT_THE_END = {'train_cfg.val_interval': EPOCHS}
ALL_IMAGES = ['data', 'epochs', 'schedule']

baseline = dict(FEW, title='10 % of the labels, alone')
variants = dict(
    taught=dict(TAUGHT, title='10 % of the labels, from the teacher'),
    unlabelled=dict(TAUGHT, title='and on the other images, without labels', options={
        **TAUGHT['options'], 'unlabelled.data_root': 'data/VOC_animals/unlabelled_10'}),
    pseudo=dict(title="10 % of the labels, and the teacher's labels of the others",
                config='configs/voc_animals/centernet_r18_pseudo.py', epochs=EPOCHS,
                options=AT_THE_END, may_differ=ALL_IMAGES),
    all_labels=dict(title='all labels, alone', config=STUDENT, epochs=EPOCHS, options=AT_THE_END,
                    may_differ=ALL_IMAGES))
teachers = dict(resnet18=dict(config='configs/voc_animals/centernet_r18_wide.py',
                              checkpoint=TEACHER))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 3.0
picture = 'unlabelled'
