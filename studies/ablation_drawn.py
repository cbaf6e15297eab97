# DRAWN_ROOT=demo/data/ python tools/study.py studies/ablation_drawn.py
# Drawn shapes, validation images: what does each part of the recommended recipe bring? Needs the
# images that `make demo` draws and its student alone, which is the weak teacher here.
CONFIG = 'configs/demo/centernet_mt_r18.py'
RULES = ('terms.heatmap.joint', 'terms.wh.joint', 'terms.offset.joint', 'terms.feature.joint')
WEAK = {'teachers.weak.config': 'configs/demo/centernet_r18.py',
        'teachers.weak.checkpoint': 'demo/seed0/centernet_r18/epoch_8.pth'}
SHARES = {'terms.heatmap.gradient_share': 0.3, 'terms.feature.gradient_share': 0.3}


def only(*kept: str) -> dict:
    """Weights of 0 for the terms that are not kept."""
    return {f'distill_weights.{name}': 0 for name in ('heatmap', 'wh', 'offset', 'feature')
            if name not in kept}


baseline = dict(title='ResNet-18, alone', config='configs/demo/centernet_r18.py')
variants = dict(
    recipe=dict(title='the recipe', config=CONFIG),
    heatmap=dict(title='heatmap alone', config=CONFIG, options=only('heatmap')),
    sizes=dict(title='sizes and offsets alone', config=CONFIG, options=only('wh', 'offset')),
    feature=dict(title='features alone', config=CONFIG, options=only('feature')),
    no_feature=dict(title='without features', config=CONFIG,
                    options=only('heatmap', 'wh', 'offset')),
    each=dict(title='each teacher the same say', config=CONFIG,
              options=dict.fromkeys(RULES, 'each')),
    certainty=dict(title='say by certainty', config=CONFIG,
                   options=dict.fromkeys(RULES, 'certainty')),
    shares=dict(title='weights that set themselves', config=CONFIG, options=SHARES),
    weak=dict(title='a weak teacher added', config=CONFIG, options=WEAK),
    weak_each=dict(title='a weak teacher added, the same say', config=CONFIG,
                   options=WEAK | dict.fromkeys(RULES, 'each')))
teachers = dict(
    resnet50=dict(config='configs/demo/centernet_r50.py',
                  checkpoint='demo/centernet_r50/epoch_14.pth'),
    hourglass=dict(config='configs/demo/centernet_hourglass.py',
                   checkpoint='demo/centernet_hourglass/epoch_8.pth'),
    weak=dict(config='configs/demo/centernet_r18.py',
              checkpoint='demo/seed0/centernet_r18/epoch_8.pth'))
seeds = [1, 2]  # seed 0 is the weak teacher
metric = 'pascal_voc/mAP'
scale = 100
split = 'val'
threshold = 2.0
