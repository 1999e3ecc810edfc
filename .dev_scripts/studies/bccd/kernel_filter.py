# A filter in cycles per pixel, as large as a kernel of 9 x 9 pixels.
_base_ = 'any_transform.py'
custom_imports = dict(imports=['studies.kernel_filter'])
model = dict(
    distiller=dict(
        connector=dict(transform=dict(_delete_=True, type='mmengine.KernelFilter'))
    )
)
