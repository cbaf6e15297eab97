# dkd: what proposals show, right class and others apart; Faster and Mask R-CNN.
# When: between Faster or Mask R-CNNs, with a method for features beside it: --method dkd,reviewkd.
terms = dict(dkd=dict(type='ProposalTerm', loss=dict(
    type='DKDLoss', alpha=1.0, beta=0.25, temperature=1.0)))
distill_weights = dict(dkd=1)
custom_hooks = [dict(type='DistillationHook')]
