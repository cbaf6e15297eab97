"""The DETRs of MMDetection, small enough for one CPU core: 16 numbers wide, 7 queries, 2 layers."""

import functools

import dense_zoo
from zoo import build, model

WIDTH, QUERIES = 16, 7
DETRS = ('DETR', 'Conditional DETR', 'DAB-DETR', 'Deformable DETR', 'DINO')


def tiny(name, layers=2, queries=QUERIES, width=None, dropout=0.1, **bbox_head):
    """Config of a DETR of the zoo, with so many decoder layers."""
    cfg = model(name)
    if width is None:  # MMDetection's Conditional DETR codes positions in 256 numbers
        width = 256 if name == 'Conditional DETR' else WIDTH
    cfg.backbone.update(base_channels=4)
    cfg.num_queries = queries
    channels = [4, 8, 16, 32]
    cfg.neck.update(in_channels=[channels[i] for i in cfg.backbone.out_indices],
                    out_channels=width)
    if cfg.neck.get('norm_cfg'):
        cfg.neck.norm_cfg = dict(type='GN', num_groups=4)
    cfg.positional_encoding.num_feats = width // 2
    cfg.encoder.num_layers, cfg.decoder.num_layers = 1, layers
    for part in (cfg.encoder.layer_cfg, cfg.decoder.layer_cfg):
        for key, own in part.items():
            if key.endswith('attn_cfg'):
                own.embed_dims = width
                own.update({name: dropout for name in own if name.endswith('drop')
                            or name == 'dropout'})
        part.ffn_cfg.update(embed_dims=width, feedforward_channels=32, ffn_drop=dropout)
    if name == 'DAB-DETR':
        cfg.decoder.query_dim = 4
    if 'dn_cfg' in cfg:
        cfg.dn_cfg.group_cfg.num_dn_queries = 6
    cfg.bbox_head.update(embed_dims=width, **bbox_head)
    cfg.test_cfg.max_per_img = 5
    return cfg


saved = functools.partial(dense_zoo.saved, build=build)
