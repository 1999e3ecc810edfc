# What a distillation adds to the hooks of a stock config, whose other hooks stay:
# default_hooks = {{_base_.distill_hooks}}
distill_hooks = dict(
    checkpoint=dict(type='mmfakd.SafeCheckpointHook', max_keep_ckpts=3),
    resume=dict(type='mmfakd.ResumeHook'),
    provenance=dict(type='mmfakd.ProvenanceHook'),
    preemption=dict(type='mmfakd.PreemptionHook'),
    learning_rate=dict(type='mmfakd.LearningRateHook'),
    student=dict(type='mmfakd.StudentCheckpointHook'),
    check_finite=dict(type='mmfakd.CheckFiniteHook'),
    first_step=dict(type='mmfakd.FirstStepHook'),
    epoch_seed=dict(type='mmfakd.EpochSeedHook'),
)
