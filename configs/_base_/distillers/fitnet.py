# The loss of FitNet (arXiv 1412.6550): the mean squared error, times 100.
fitnet_loss = dict(
    type='mmrazor.L2Loss', loss_weight=100, normalize=False, div_element=True
)
