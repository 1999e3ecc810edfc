# PKD (arXiv 2207.02039).
_base_ = '../../_base_/pairs/coco/mask-rcnn_r50_mv2.py'
model = dict(distiller={{_base_.pkd}})
