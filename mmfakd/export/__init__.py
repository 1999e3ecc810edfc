# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Students as files that run without the OpenMMLab libraries."""
