# FAM-KD in the review pyramid; the student starts with the teacher's head and the 3x3
# convolutions of its neck ("inheriting strategy").
_base_ = './fakd_review_gfl_r18_r18w16_1xb8_bccd.py'
model = dict(inherit=['neck.fpn_convs', 'bbox_head'])
