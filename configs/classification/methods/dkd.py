# Decoupled KD as in mdistiller: alpha 1, T = 4, 20 epochs of warm-up, beta 8 or what it takes for a
# pair; on ImageNet T = 1 without warm-up, beta 0.5 or 2 (MobileNetV1).
# When: where the logits of the teacher are all that is to be taught: its temperature and beta have
# published values for many pairs.
on_imagenet = '{{$MMKD_DATA:cifar100}}' == 'imagenet'
student = '{{$MMKD_STUDENT:resnet8x4}}'
beta = dict(
    resnet20=2.0, resnet32=2.0, vgg8=6.0, wrn_16_2=6.0, wrn_40_1=6.0, imagenet_mobilenetv1=2.0,
    mobilenetv2_half=6.0 if '{{$MMKD_TEACHER:resnet32x4}}'.partition('=')[0] == 'vgg13' else 8.0,
).get(student, 0.5 if on_imagenet else 8.0)
terms = dict(dkd=dict(
    tap='head.fc', weight=1.0, warmup_epochs=0 if on_imagenet else 20,
    loss=dict(
        type='DKDLoss', alpha=1.0, beta=beta, temperature=1.0 if on_imagenet else 4.0)))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
