# ONE between separate networks: a gate on all embeddings joins the logits, and everyone imitates
# the whole, T = 3, 80 epochs of warm-up. The paper's branches of one network: ../../selfdistill.
# When: where a gate is to find out which member says what is true; the gate looks at all
# embeddings.
_base_ = '../../_base_/classification/cifar_300e.py'

terms = dict(one=dict(
    type='SelfTerm', tap=['members.*.backbone.embedding', 'members.*.head.fc'], weight=1.0,
    warmup_epochs=80, warmup='gaussian', loss=dict(type='ONELoss', temperature=3.0),
    connector=dict(type='CohortGate')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
