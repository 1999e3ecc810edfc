# FAM-KD layer to layer with weights by measurement, as `mmfakd pair` writes them.
_base_ = './fakd_layer_gfl_r18_r18w16_1xb8_bccd.py'
model = dict(distiller=dict(loss_weight='balance'))
