# FAM-KD in the review pyramid; the student starts with all of the teacher but its
# backbone ("inheriting strategy").
_base_ = './fakd_review_gfl_r101_r50_8xb2_coco.py'
model = dict(inherit=['neck', 'bbox_head'])
