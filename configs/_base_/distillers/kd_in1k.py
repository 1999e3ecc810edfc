# KD (arXiv 1503.02531) as the recipes for ImageNet have it: temperature 1, half of the
# weight on the labels (set in the leaves, at the head's loss), half on the teacher.
_base_ = './kd.py'
kd = dict(distill_losses=dict(loss_kl=dict(tau=1, loss_weight=0.5)))
