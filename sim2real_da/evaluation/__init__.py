# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""How good the detections and poses are, and pictures of it."""
