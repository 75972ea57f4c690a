# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Where samples come from."""
