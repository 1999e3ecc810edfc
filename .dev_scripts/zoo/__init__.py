# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""The model zoo: weights out of trainings, metafiles and pages out of logs."""
