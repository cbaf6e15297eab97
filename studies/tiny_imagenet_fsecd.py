# mmkd study tiny_imagenet_fsecd
# As tiny_imagenet_offline.py: FSECD's two policies at the batch sizes of its own table. The
# baseline has batch 128; the learning rate is the same for all.
_base_ = './tiny_imagenet_offline.py'
BATCHES = (128, 512, 1024)

baseline = dict(title='ResNet-20, alone, batch 128', options={'train_dataloader.batch_size': 128})
variants = dict(_delete_=True, **{
    f'{method}_{batch}': dict(
        _base_.variants[method], title=f'{method}, batch {batch}',
        options={'train_dataloader.batch_size': batch}, may_differ=['batch'])
    for batch in BATCHES for method in ('fsecd_class', 'fsecd')})
