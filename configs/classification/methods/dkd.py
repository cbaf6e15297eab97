# Decoupled KD: alpha 1, T = 4, 20 epochs of warm-up; beta 8, or what the paper takes for a student.
student = '{{$STUDENT:resnet8x4}}'
beta = dict(resnet20=2.0, resnet32=2.0, vgg8=6.0, wrn_40_1=6.0).get(student, 8.0)
custom_hooks = [
    dict(type='TeacherHook'),
    dict(type='BestAndLastHook'),
    dict(
        type='DistillHook', tap='head.fc', weight=1.0, warmup_epochs=20,
        loss=dict(type='DKDLoss', alpha=1.0, beta=beta, temperature=4.0)),
]
