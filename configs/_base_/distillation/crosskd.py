# CrossKD: the teacher's head goes on from the student's; GFL, RetinaNet, ATSS, FCOS heads.
# When: between dense heads of one kind whose widths are equal, since the student's features go
# through the teacher's head.
terms = dict(crosskd=dict(type='CrossKDTerm', convs=3, loss=dict(
    type='CrossKDLoss', box='giou', class_weight=1.0, box_weight=1.0, beta=1.0)))
distill_weights = dict(crosskd=1)
for_head = dict(
    GFLHead=dict(crosskd=dict(loss=dict(box='distribution', box_weight=4.0))),
    ATSSHead=dict(crosskd=dict(loss=dict(centerness_weight=1.0))),
    FCOSHead=dict(crosskd=dict(convs=2, loss=dict(
        box='iou', class_weight=0.4, box_weight=0.75, per='centerness'))))
custom_hooks = [dict(type='DistillationHook')]
