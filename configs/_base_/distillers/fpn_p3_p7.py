# Every method on the five maps of an FPN, P3 to P7 of detectors of one stage. From P2
# to P6 it differs in the filters of small maps and in PKD's weight, which is that of
# mmrazor's config for RetinaNet.
_base_ = './fpn_p2_p6.py'
fakd_review = dict(
    transform=[
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=16, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=12, groups=16),
        dict(type='mmfakd.FrequencyAttention', modes=6, groups=4),
    ]
)
pkd = dict(distill_losses={f'loss_pkd{i}': dict(loss_weight=10) for i in range(4)})
