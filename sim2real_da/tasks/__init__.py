# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""What ``sim2real_da benchmark`` measures techniques on."""
