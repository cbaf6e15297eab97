# DRAWN_ROOT=demo/data/ python tools/study.py studies/drawn_r18.py
# Drawn shapes: what does a ResNet-18 from scratch gain? Needs the images that `make demo` draws;
# takes its teachers where they are there.
baseline = dict(title='ResNet-18, alone', config='configs/demo/centernet_r18.py')
variants = dict(
    resnet50=dict(title='from the ResNet-50',
                  config='configs/demo/centernet_st_r50_r18.py'),
    hourglass=dict(title='from the Hourglass',
                   config='configs/demo/centernet_st_hourglass_r18.py'),
    two_teachers=dict(title='from both', config='configs/demo/centernet_mt_r18.py'),
    source=dict(title="from both, the source's recipe",
                config='configs/demo/centernet_mt_source_r18.py'))
teachers = dict(
    resnet50=dict(config='configs/demo/centernet_r50.py',
                  checkpoint='demo/centernet_r50/epoch_14.pth'),
    hourglass=dict(config='configs/demo/centernet_hourglass.py',
                   checkpoint='demo/centernet_hourglass/epoch_8.pth'))
seeds = [0, 1, 2]
metric = 'pascal_voc/mAP'
scale = 100
threshold = 12.0
picture = 'two_teachers'
