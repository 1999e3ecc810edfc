# CWD (arXiv 2011.13256) on the maps of the neck.
_base_ = '../../_base_/pairs/coco/yolox_l_s.py'
model = dict(distiller={{_base_.cwd}})
