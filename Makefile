# Airlock's commands. `make` alone lists them.
SHELL := bash
.DEFAULT_GOAL := help
PYTEST := .venv/bin/python -m pytest
.NOTPARALLEL:
# The index of .env, for pip and uv on the host too.
PYPI_INDEX := $(shell sed -n 's/^PYPI_INDEX=//p' .env 2>/dev/null)
ifneq ($(PYPI_INDEX),)
export PIP_INDEX_URL := $(PYPI_INDEX)
export UV_DEFAULT_INDEX := $(PYPI_INDEX)
endif

.PHONY: help
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

.PHONY: demo up down destroy urls
demo: ## everything up, a demo project trained and serving; prints where to look
	@scripts/up digits
	@scripts/demo/run
	@scripts/urls

up: ## the system without the demo; also brings a running one up to date
	@scripts/up
	@scripts/urls

down: ## stop everything, keep all data
	@scripts/down

destroy: ## remove everything with its data (asks first)
	@scripts/destroy

urls: ## addresses, and how to log in
	@scripts/urls

.PHONY: api-key
api-key: ## make api-key PROJECT=digits NAME=ann: a key for the API; DO=revoke or DO=list
	@scripts/compose exec -T airflow-scheduler python -m include.api_keys $(or $(DO),add) $(PROJECT) $(NAME)

.PHONY: alerts
alerts: ## the open incidents, and what waits for a channel
	@scripts/compose exec -T watchdog python -m include.alert_status

.PHONY: test test-unit test-integration test-e2e check
test: .venv/lock ## all tests, on real parts
	@scripts/test

test-unit: .venv/lock ## the fast tests: no Docker, no network
	@$(PYTEST) tests/unit -q

test-integration: .venv/lock ## single parts against real S3, MLflow and Docker
	@scripts/prepare digits
	@scripts/with-images $(PYTEST) tests/integration

test-e2e: .venv/lock ## the whole pipeline on one running system
	@$(PYTEST) tests/e2e

check: .venv/lock ## lint, formatting and types; every test can be collected
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
	@out=$$($(PYTEST) --collect-only -qq tests) || { printf '%s\n' "$$out"; exit 1; }

.PHONY: simulate
simulate: .venv/lock ## releases while processes die at every point, in memory: 100,000 histories
	@PYTHONPATH=. .venv/bin/python -m tests.simulation $(OPTIONS)

.PHONY: pictures
pictures: .venv/lock ## README's pictures, taken anew from the running system
	@PYTHONPATH=.:scripts .venv/bin/python -m tests.e2e.screenshots

.PHONY: bench-swap bench-serve bench-faults bench-airflow bench-pipeline bench-footprint bench-demo bench-data bench-scale bench-second-run
bench-pipeline: .venv/lock ## from upload to switched release, stage by stage (system up)
	@PYTHONPATH=.:scripts .venv/bin/python -m tests.bench.pipeline

bench-airflow: .venv/lock ## what lies around a training: waits, a long backfill, many projects, kills: 40 minutes (system up)
	@PYTHONPATH=.:scripts .venv/bin/python -m tests.bench.airflow $(OPTIONS)

bench-faults: .venv/lock ## outages at each step of a retrain and more, of which `make test` has some: half an hour
	@scripts/prepare digits >/dev/null
	@scripts/with-images $(PYTEST) -m extended tests/integration
	@$(PYTEST) -m "extended or not extended" tests/e2e/test_alerts.py tests/e2e/test_outages.py tests/e2e/test_bad_data.py

bench-footprint: .venv/lock ## image sizes, memory and processor time of the idle system (system up)
	@PYTHONPATH=.:scripts .venv/bin/python -m tests.bench.footprint

# OPTIONS, for instance: make bench-data OPTIONS='--scale small --rows pull-small memory'
bench-data: .venv/lock ## snapshots and pulls beside s5cmd, rclone, DVC, boto3
	@PYTHONPATH=.:images/trainer .venv/bin/python -m tests.bench.data $(OPTIONS)

bench-scale: .venv/lock ## how a snapshot grows with the bucket, up to a million keys
	@PYTHONPATH=.:images/trainer .venv/bin/python -m tests.bench.data.scale $(OPTIONS)

bench-second-run: .venv/lock ## from a trainer's start to its first batch, on data that the host has seen
	@scripts/prepare digits >/dev/null
	@PYTHONPATH=.:images/trainer scripts/with-images .venv/bin/python -m tests.bench.second_run

bench-serve: .venv/lock ## the API beside FastAPI + Ultralytics, LitServe, BentoML and MLflow: 20 minutes
	@scripts/prepare digits >/dev/null
	@PYTHONPATH=.:images/trainer scripts/with-images .venv/bin/python -m tests.bench.serving $(OPTIONS)

# Two runs: the timings lie outside of tests/integration/ and name its fixtures, which the second finds by itself.
bench-swap: .venv/lock ## a million requests through 100 deploys, rollbacks and kills: an hour (SWAP_REQUESTS, SWAP_ROUNDS, SWAP_SEED)
	@scripts/prepare digits >/dev/null
	@scripts/with-images $(PYTEST) -s -o timeout=0 -p tests.integration.conftest tests/bench/swap.py
	@SWAP_REQUESTS=$${SWAP_REQUESTS:-1000000} SWAP_ROUNDS=$${SWAP_ROUNDS:-100} scripts/with-images $(PYTEST) -s \
	  -o timeout=0 tests/integration/test_deployment.py::test_no_request_of_twenty_thousand_fails_whatever_happens

bench-demo: ## make demo cold and warm (removes all data, images and the build cache first)
	@tests/bench/demo

.venv/lock: tests/requirements.txt scripts/requirements.txt
	@scripts/tools
	@.airlock/host/bin/uv venv -q --clear --python 3.11 .venv
	@.airlock/host/bin/uv pip sync -q --require-hashes --python .venv/bin/python tests/requirements.txt
	@touch $@
