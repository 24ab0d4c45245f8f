# Two commands: `make demo` and `make test`. Everything else is for developers.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
ON_BOTH_CORES := --numprocesses 2 --dist loadgroup
RESOLVE := uv pip compile --quiet --universal --generate-hashes --no-annotate --no-emit-index-url \
	--python-version 3.11 --custom-compile-command "make lock"
MEASURED = env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -W ignore

.PHONY: help demo test test-faults simulate test-soak test-tls test-debezium bench bench-encoder bench-matcher bench-compaction bench-outbox bench-replay \
	bench-metrics bench-erasure bench-status check check-deploy lock generate clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 27

demo: $(INSTALLED) ## the whole system on real servers and photos; PHOTOS=folder for your own, ENCODER=face_recognition
	@$(BIN)/facematch demo $(if $(PHOTOS),--photos "$(PHOTOS)") $(if $(ENCODER),--encoder "$(ENCODER)")

test: check ## every check and every test, on real servers that the tests start
	@$(BIN)/pytest -m "not faults and not tls and not debezium and not kustomize" $(ON_BOTH_CORES)

test-faults: $(INSTALLED) ## the longer fault tests
	@$(BIN)/pytest -m faults --timeout 1800 $(ON_BOTH_CORES)

simulate: $(INSTALLED) ## the matcher and the sink in memory, with faults from seeds: SEEDS=1000, or SEED=7 for one, in full
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

test-soak: $(INSTALLED) ## a load on real servers while everything is killed in turn, compared with the oracle: SECONDS=600
	@$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600)

test-tls: $(INSTALLED) ## TLS of Redis and Postgres; needs Debian's: apt-get install postgresql redis-server
	@$(BIN)/pytest -m tls

test-debezium: $(INSTALLED) ## Debezium in the place of the outbox's relay; needs Debian's postgresql
	@$(BIN)/pytest -m debezium

bench: bench-encoder bench-matcher bench-compaction bench-outbox bench-replay bench-metrics bench-erasure bench-status ## the figures of the documents again; SMALL=1: only whether they run

bench-encoder: $(INSTALLED) ## figures of the encoder
	@$(MEASURED) -m tests.bench.encoder

bench-matcher: $(INSTALLED) ## figures of the matcher, 20 minutes; PARTS="throughput latency" for some of them
	@OPENBLAS_NUM_THREADS=1 $(MEASURED) -m tests.bench.matcher $(PARTS)

bench-compaction: $(INSTALLED) ## figures of compaction, half an hour; PARTS="latency" for some of them
	@OPENBLAS_NUM_THREADS=1 $(MEASURED) -m tests.bench.compaction $(PARTS)

bench-outbox: $(INSTALLED) ## figures of the outbox, 2 minutes
	@$(MEASURED) -m tests.bench.outbox

bench-replay: $(INSTALLED) ## figures of a replay, 3 minutes
	@$(MEASURED) -m tests.bench.replay

bench-metrics: $(INSTALLED) ## what metrics cost a worker, 2 minutes
	@OPENBLAS_NUM_THREADS=1 $(MEASURED) -m tests.bench.metrics

bench-erasure: $(INSTALLED) ## figures of an erasure, of one person and of 500, 3 minutes
	@$(MEASURED) -m tests.bench.erasure

bench-status: $(INSTALLED) ## how long `facematch status` counts, with a million pairs; 2 minutes
	@$(MEASURED) -m tests.bench.status

check: $(INSTALLED) ## lint, format, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check-deploy: $(INSTALLED) ## the Kubernetes manifests as Kustomize builds them, which Go compiles: 3 minutes the first time
	@command -v go > /dev/null || { echo "make check-deploy needs Go, https://go.dev/dl: nothing was checked"; exit 1; }
	@$(BIN)/pytest -m kustomize --timeout 900

generate: $(INSTALLED) ## write JSON Schemas, examples and the AsyncAPI document again
	@$(BIN)/python -m schemas.generate

lock: $(INSTALLED) ## resolve the lock files anew, of packages (needs uv), for the images, and of Kafka's jars
	$(RESOLVE) --all-extras --output-file requirements.lock pyproject.toml
	$(RESOLVE) --constraint requirements.lock --output-file deploy/image/requirements-cpu.lock pyproject.toml
	echo 'onnxruntime-gpu[cuda,cudnn]' | $(RESOLVE) --constraint requirements.lock --no-emit-package onnxruntime \
		--output-file deploy/image/requirements-gpu.lock pyproject.toml -
	$(BIN)/python -m deploy.local.jars

clean: ## remove the environment and the local stack's data
	rm -rf .venv .facematch

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "facematch needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)
