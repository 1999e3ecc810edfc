# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What layers compute with, in pure torch."""
