# The filter starts near the identity.
_base_ = 'any_transform.py'
custom_imports = dict(imports=['studies.identity_filter'])
model = dict(
    distiller=dict(
        connector=dict(
            transform=dict(_delete_=True, type='mmengine.IdentityFilter', modes=16)
        )
    )
)
