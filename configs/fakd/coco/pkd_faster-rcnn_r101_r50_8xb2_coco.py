# PKD (arXiv 2207.02039).
_base_ = '../../_base_/pairs/coco/faster-rcnn_r101_r50.py'
model = dict(distiller={{_base_.pkd}})
