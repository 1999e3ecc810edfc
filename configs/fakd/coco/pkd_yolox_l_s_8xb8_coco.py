# PKD (arXiv 2207.02039).
_base_ = '../../_base_/pairs/coco/yolox_l_s.py'
model = dict(distiller={{_base_.pkd}})
