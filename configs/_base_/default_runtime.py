# What every detector's run shares. Leaf configs add `custom_hooks` (the distillation) themselves.
_base_ = './runtime.py'

default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer')
