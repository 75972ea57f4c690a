# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Learning while the robot works: buffer, learner, gate, store, and the session that ties them together."""
