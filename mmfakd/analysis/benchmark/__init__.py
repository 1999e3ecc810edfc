# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What layers, pyramids and steps cost: what is measured, how, and how it is shown."""

import os

# Before torch is loaded. Where there is no driver the profiler of a CUDA build
# complains, and of memory that it has not seen being allocated.
os.environ.setdefault('KINETO_LOG_LEVEL', '5')
os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')
