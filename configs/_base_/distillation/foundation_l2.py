# foundation_l2: the mean square between features and those of a foundation model.
# When: where scale matters, too: the student shall give the teacher's features themselves.
terms = dict(foundation_l2=dict(
    tap='backbone:-1', teacher_tap='features', size='student', gradient_share=0.11,
    connector=dict(type='ConvConnector'), loss=dict(type='FitNetLoss')))
custom_hooks = [dict(type='DistillationHook')]
