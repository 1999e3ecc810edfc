# What every training of this project shares, with and without a teacher.
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmfakd.SafeCheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    resume=dict(type='mmfakd.ResumeHook'),
    provenance=dict(type='mmfakd.ProvenanceHook'),
    preemption=dict(type='mmfakd.PreemptionHook'),
    learning_rate=dict(type='mmfakd.LearningRateHook'),
    student=dict(type='mmfakd.StudentCheckpointHook'),
    check_finite=dict(type='mmfakd.CheckFiniteHook'),
    first_step=dict(type='mmfakd.FirstStepHook'),
    epoch_seed=dict(type='mmfakd.EpochSeedHook'),
    # Draws what `mmfakd test --show-dir` or `--show` asks for, enlarged for the text.
    visualization=dict(type='mmpretrain.VisualizationHook', resize=256),
)
visualizer = dict(
    type='mmpretrain.UniversalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# As long as the logger's interval, so that the logged times miss no iteration.
log_processor = dict(window_size=50)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
