# mmkd study tiny_imagenet_offline
# 100 classes of Tiny ImageNet at 32 px: by which methods does a ResNet-20 gain from a ResNet-56?
# The images: python tools/prepare_tiny_imagenet.py data
METHODS = ('kd', 'fitnet', 'at', 'fsp', 'nst', 'pkt', 'ft', 'ab', 'rkd', 'vid', 'ofd', 'spkd', 'cc',
           'crd', 'review_kd', 'dkd', 'dist', 'fsecd', 'fsecd_class')
EPOCHS = 30  # of the recipe's 240; its steps, warm-ups and ends of terms are scaled with them
ALONE = dict(config='classifier', data='tiny_imagenet100', student='resnet20', epochs=EPOCHS)
TEACHER = f'work_dirs/tiny_imagenet100/ce_resnet56_{EPOCHS}_epochs/epoch_{EPOCHS}.pth'

baseline = dict(ALONE, title='ResNet-20, alone')
variants = {method: dict(ALONE, method=method, teacher=f'resnet56={TEACHER}')
            for method in METHODS}
teachers = dict(resnet56=dict(ALONE, student='resnet56', checkpoint=TEACHER))
seeds = [0, 1, 2]
metric = 'accuracy/top1'
threshold = 1.0
