# Every method on the three maps, strides 8 to 32, of RTMDet's and YOLOX's PAFPN: 128
# channels in the small model, 256 in the large one. Filters, weights and activations
# are chosen as for an FPN.
student_channels = [128, 128, 128]
teacher_channels = [256, 256, 256]
fakd_review = dict(
    type='mmfakd.ReviewConnector',
    in_channels=student_channels,
    out_channels=teacher_channels,
    transform=dict(type='mmfakd.FrequencyAttention', modes=16, groups=8),
    act_cfg=None,
)
fakd_layer = dict(
    type='mmfakd.LayerwiseConnector',
    in_channels=student_channels,
    out_channels=teacher_channels,
    connector=dict(type='mmfakd.FrequencyAttentionConnector', modes=5, high_pass=0),
)
reviewkd = dict(
    type='mmfakd.ReviewConnector',
    in_channels=student_channels,
    out_channels=teacher_channels,
    mid_channels=128,
    fusion=dict(type='mmfakd.AttentionBasedFusion'),
    transform=dict(type='mmfakd.ConvTransform'),
    always_match=True,
    match_act_cfg=None,
    act_cfg=None,
)
# A 1x1 convolution brings each map of the student to the teacher's channels for PKD and
# CWD. Both take the mean of a channel away, so a bias would learn nothing.
neck = dict(type='mmrazor.ModuleOutputs', source='neck')
wider = {
    f'wider{i}': dict(
        type='mmrazor.ConvModuleConnector',
        in_channel=128,
        out_channel=256,
        bias=False,
        act_cfg=None,
    )
    for i in range(3)
}
pkd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(neck=neck),
    teacher_recorders=dict(neck=neck),
    connectors=wider,
    distill_losses={
        f'loss_pkd{i}': dict(type='mmrazor.PKDLoss', loss_weight=10) for i in range(3)
    },
    loss_forward_mappings={
        f'loss_pkd{i}': dict(
            preds_S=dict(
                recorder='neck', from_student=True, data_idx=i, connector=f'wider{i}'
            ),
            preds_T=dict(recorder='neck', from_student=False, data_idx=i),
        )
        for i in range(3)
    },
)
cwd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(neck=neck),
    teacher_recorders=dict(neck=neck),
    connectors=wider,
    distill_losses={
        f'loss_cwd{i}': dict(
            type='mmrazor.ChannelWiseDivergence', tau=1, loss_weight=10
        )
        for i in range(3)
    },
    loss_forward_mappings={
        f'loss_cwd{i}': dict(
            preds_S=dict(
                recorder='neck', from_student=True, data_idx=i, connector=f'wider{i}'
            ),
            preds_T=dict(recorder='neck', from_student=False, data_idx=i),
        )
        for i in range(3)
    },
)
