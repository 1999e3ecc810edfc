# What a distillation adds to the hooks of a stock config.
custom_hooks = [
    dict(type='mmfakd.CheckFiniteHook'),
    dict(type='mmfakd.StudentCheckpointHook'),
]
