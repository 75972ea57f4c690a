# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Networks: a detector for frames, a pose network for crops, and the bundle that carries both."""
