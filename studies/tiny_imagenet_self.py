# mmkd study tiny_imagenet_self
# 100 classes of Tiny ImageNet at 32 px: what does a ResNet-20 gain as its own teacher?
# The images: python tools/prepare_tiny_imagenet.py data
METHODS = ('scd', 'sad', 'spkd', 'byot', 'one')
EPOCHS = 30  # of the recipe's 240; its steps and warm-ups are scaled with them
ALONE = dict(config='selfdistill', data='tiny_imagenet100', student='resnet20', epochs=EPOCHS)

baseline = dict(ALONE, method='ce', title='ResNet-20, alone')
variants = {method: dict(ALONE, method=method) for method in METHODS} | dict(
    # Two views of every image; as many partners of the same class as images.
    ddgsd=dict(ALONE, method='ddgsd', may_differ=['views']),
    cs_kd=dict(ALONE, method='cs_kd', may_differ=['batch', 'data', 'views']))
seeds = [0, 1, 2]
metric = 'accuracy/top1'
threshold = 1.0
