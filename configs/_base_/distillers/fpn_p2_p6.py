# Every method on the five maps of an FPN, P2 to P6 of R-CNNs, with 256 channels in
# student and teacher. They have negative values: predictions have no activation.
channels = [256, 256, 256, 256, 256]
# Filters for images of any size: the 16 lowest frequencies of each axis, or as many as
# the short side of a map has (12 of P6 at 800 x 1333), in groups that keep each filter
# at or below 2^20 weights. Layer to layer as many weights go to 4 frequencies of all
# channels.
fakd_review = dict(
    type='mmfakd.ReviewConnector',
    in_channels=channels,
    out_channels=channels,
    transform=[
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=12, groups=16),
    ],
    act_cfg=None,
)
fakd_layer = dict(
    type='mmfakd.LayerwiseConnector',
    in_channels=channels,
    out_channels=channels,
    connector=dict(type='mmfakd.FrequencyAttentionConnector', modes=4, high_pass=0),
)
reviewkd = dict(
    type='mmfakd.ReviewConnector',
    in_channels=channels,
    out_channels=channels,
    mid_channels=256,
    fusion=dict(type='mmfakd.AttentionBasedFusion'),
    transform=dict(type='mmfakd.ConvTransform'),
    always_match=True,
    match_act_cfg=None,
    act_cfg=None,
)
# PKD (arXiv 2207.02039) and CWD (arXiv 2011.13256) have maps and weights of mmrazor's
# configs for Faster R-CNN.
neck = dict(type='mmrazor.ModuleOutputs', source='neck')
pkd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(neck=neck),
    teacher_recorders=dict(neck=neck),
    distill_losses={
        f'loss_pkd{i}': dict(type='mmrazor.PKDLoss', loss_weight=6) for i in range(4)
    },
    loss_forward_mappings={
        f'loss_pkd{i}': dict(
            preds_S=dict(recorder='neck', from_student=True, data_idx=i),
            preds_T=dict(recorder='neck', from_student=False, data_idx=i),
        )
        for i in range(4)
    },
)
cwd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(neck=neck),
    teacher_recorders=dict(neck=neck),
    distill_losses={
        f'loss_cwd{i}': dict(
            type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=10
        )
        for i in range(5)
    },
    loss_forward_mappings={
        f'loss_cwd{i}': dict(
            preds_S=dict(recorder='neck', from_student=True, data_idx=i),
            preds_T=dict(recorder='neck', from_student=False, data_idx=i),
        )
        for i in range(5)
    },
)
