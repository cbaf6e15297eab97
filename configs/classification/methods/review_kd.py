# ReviewKD: every stage (the teacher's before its last ReLU) and the embedding. The weight depends
# on the pair: from 0.6 to 8 on CIFAR-100, where 5 is for ResNet-32x4 and 8x4, with 20 epochs of
# warm-up; on ImageNet, as in mdistiller, 1, for MobileNetV1 8, without warm-up, and the student's
# stages are taken before their last ReLU as well.
# When: where features of all stages are to be taught at once; the weight depends on the pair, from
# 0.6 to 8 on CIFAR-100.
on_imagenet = '{{$MMKD_DATA:cifar100}}' == 'imagenet'
imagenet_weight = 8.0 if '{{$MMKD_STUDENT:resnet8x4}}' == 'imagenet_mobilenetv1' else 1.0
preact = ['backbone.stage?.preact', 'backbone.embedding']
terms = dict(review_kd=dict(
    tap=preact if on_imagenet else ['backbone.stage?', 'backbone.embedding'],
    teacher_tap=preact, weight=imagenet_weight if on_imagenet else 5.0,
    warmup_epochs=0 if on_imagenet else 20,
    loss=dict(type='ReviewKDLoss'), connector=dict(type='ReviewConnector')))
custom_hooks = [dict(type='DistillationHook'), dict(type='BestAndLastHook')]
