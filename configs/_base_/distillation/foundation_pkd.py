# foundation_pkd: the pattern of a foundation model's features, whatever their scale.
# When: as foundation, where each channel's pattern counts more than the direction of a cell.
terms = dict(foundation_pkd=dict(
    tap='backbone:-1', teacher_tap='features', size='student', gradient_share=0.11,
    connector=dict(type='ConvConnector'), loss=dict(type='PKDLoss')))
custom_hooks = [dict(type='DistillationHook')]
