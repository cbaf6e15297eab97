# mmkd study tiny_imagenet_cohorts
# 100 classes of Tiny ImageNet at 32 px: what do three ResNet-20 gain from one another? They are
# judged by their mean. Three, since OKDDip and PCL need as many.
# The images: python tools/prepare_tiny_imagenet.py data
METHODS = ('dml', 'one', 'okddip')
EPOCHS = 30  # of the recipe's 300; its cosine and warm-ups are scaled with them
ALONE = dict(config='online', data='tiny_imagenet100', members='resnet20,resnet20,resnet20',
             epochs=EPOCHS)

baseline = dict(ALONE, method='ce', title='ResNet-20s that never meet')
variants = {method: dict(ALONE, method=method) for method in METHODS}
# Every member sees a view of its own; batches have two images of each class.
variants |= {method: dict(ALONE, method=method, may_differ=['views'])
             for method in ('kdcl', 'pcl')}
variants |= {method: dict(ALONE, method=method, may_differ=['data'])
             for method in ('mcl', 'l_mcl')}
seeds = [0, 1, 2]
metric = 'accuracy/top1'
threshold = 1.0
