# Multi-level logit distillation (CVPR 2023) with standardised logits
# (arXiv 2403.01427): weight 9 at temperatures around 2. The labels have 0.1 for each of
# the two views: 0.2 of their mean (set in the leaves, at the head's loss).
mlkd = dict(
    type='mmrazor.ConfigurableDistiller',
    student_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    teacher_recorders=dict(fc=dict(type='mmrazor.ModuleOutputs', source='head.fc')),
    distill_losses=dict(
        loss_mlkd=dict(
            type='mmfakd.MultiLevelLogitsLoss',
            taus=(2, 3, 5),
            weak_taus=(2, 6),
            standardize=True,
            loss_weight=9,
        )
    ),
    loss_forward_mappings=dict(
        loss_mlkd=dict(
            preds_S=dict(recorder='fc', from_student=True),
            preds_T=dict(recorder='fc', from_student=False),
        )
    ),
)
# A weak and a strong view of every image: crops and flips, and two operations of
# RandAugment with a square cut out besides, as the published recipe has them.
# Strengths, and sides of squares up to half the image, are drawn anew each time.
crop = dict(type='RandomCrop', crop_size=32, padding=4)
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
strong = [
    crop,
    flip,
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=10,
        magnitude_std='inf',
    ),
    dict(
        type='Cutout',
        magnitude_range=(1, 17),
        total_level=10,
        magnitude_level=10,
        magnitude_std='inf',
        prob=1.0,
    ),
]
two_views = [
    dict(type='MultiView', num_views=[1, 1], transforms=[[crop, flip], strong]),
    dict(type='PackInputs'),
]
del crop, flip, strong
