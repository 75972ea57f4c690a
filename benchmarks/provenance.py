# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What every result file says about where its numbers come from: the package's own, under the scripts' name for it."""

from sim2real_da.evaluation.provenance import provenance

__all__ = ['provenance']
