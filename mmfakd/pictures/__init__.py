# Copyright (c) mmfakd contributors. Licensed under Apache-2.0.
"""What a distillation has learned, in numbers and in figures."""
