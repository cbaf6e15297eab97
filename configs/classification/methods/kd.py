# Hinton et al.: 0.1 CE + 0.9 KD at T = 4. With several TEACHERs it is the mean of their losses,
# whose gradient is that of their averaged probabilities.
model = dict(ce_weight=0.1)
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(type='DistillHook', tap='head.fc', weight=0.9, loss=dict(type='KDLoss', temperature=4.0)),
]
