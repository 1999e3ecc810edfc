# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""Names of models: their configs, weights and scores."""
