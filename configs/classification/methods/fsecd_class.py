# FSECD, class-level: the student's embedding, brought into the teacher's feature space, against
# the teacher's embeddings of the batch. The source prints neither weight nor temperature.
# Paper: Ye, Chen, Lai, Journal of South China University of Technology 51(5), 2023.
# When: to draw an embedding to those of its class in the teacher; its weight and temperature are
# ours.
terms = dict(fsecd_class=dict(
    tap='backbone.embedding', weight=1.0,
    loss=dict(type='FSECDLoss', policy='class', temperature=0.1),
    connector=dict(type='LinearConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
