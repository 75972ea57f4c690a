# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
#
# make demo                 everything from set-up to report, in demo_output/
# make demo DATA=folder     the same with a BOP data set (CAD models and photographs)
# make test                 all tests
# make soak                 two to four hours: long hostile streams, and faults on running graphs
# ROS=kilted with any       ROS 2 Kilted wheels instead of Jazzy's, in an environment of their own

ROS ?= jazzy
VENV ?= $(if $(filter jazzy,$(ROS)),.venv,.venv-$(ROS))
OUT ?= demo_output
RUN = tools/with_env.sh $(VENV)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-grasp test lint benchmarks benchmark-lmo soak clean

help: ## say what there is
	@echo 'make TARGET [ROS=jazzy|kilted] [PYTHON=/path/to/python3]'
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST)

setup: ## make the environment (.venv): libraries, ROS 2, messages, this package; seconds when it is there
	@tools/setup_env.sh --ros $(ROS) --venv $(VENV)

demo: setup ## a ROS 2 graph that adapts, under 10 minutes: [DATA=BOP folder] [OUT=demo_output]
	@$(RUN) python -m sim2real_da.nodes.demo --out '$(OUT)' $(if $(DATA),--data '$(DATA)')

demo-grasp: setup ## a gripper picks tools by the published poses, before and after adaptation, 15 minutes
	@$(RUN) python examples/tabletop_gripper.py

test: setup ## all tests: [TESTS='test/test_geometry.py -k quaternion']
	@$(RUN) python -m pytest $(TESTS)

lint: setup ## style and types only
	@$(RUN) ruff check .
	@$(RUN) mypy

benchmarks: setup ## every table and figure of the docs anew, from the files in benchmarks/results
	@$(RUN) python benchmarks/tables.py
	@$(RUN) python benchmarks/figures.py

benchmark-lmo: setup ## LineMOD-Occluded: DATA=BOP folder scores benchmarks/weights; PHOTOS=folder trains them first
	@$(RUN) python benchmarks/lmo.py --data '$(or $(DATA),$(error DATA=folder of LineMOD-Occluded in BOP layout is missing))' \
		$(if $(PHOTOS),--photos '$(PHOTOS)',--measure)

soak: setup ## hostile streams against online recipes, faults on running graphs: [RECIPES='dann mmd'] [KILLS=200]
	@for recipe in $(or $(RECIPES),source_continued dann mmd coral self_training self_training_unique minent advent daformer mic); do \
		$(RUN) python benchmarks/soak.py --recipe $$recipe || exit 1; done
	@$(RUN) python benchmarks/faults.py --kills $(or $(KILLS),200)

clean: ## remove what was built here, except the environments (.venv, .venv-kilted)
	rm -rf build install log demo_output .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
