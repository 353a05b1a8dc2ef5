# Everything runs in .venv, which `make setup` makes; nothing is installed outside this folder.

BIN := .venv/bin
READY := .venv/.ready
# Compiled once, not by each of the hundreds of processes that the tests start.
export PYTHONDONTWRITEBYTECODE :=
COMPILE := UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --universal --python-version 3.10 --no-annotate --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-money lint typecheck test-deployment test-browser screenshots ui-vendor test-packaging test-kills nightly test-chaos test-overlaps test-mutations test-distributed test-matrix benchmarks requirements clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the pinned requirements (again only when they change)

$(READY): pyproject.toml requirements-dev.txt scripts/bootstrap.sh
	@sh scripts/bootstrap.sh
	@touch $@

demo: setup ## make two pictures in a real Airflow; free without FLUX_API_KEY
	@$(BIN)/python -u scripts/demo.py

test: lint typecheck ## lint, types and the fast tests
	$(BIN)/pytest -q -n 8 --no-loadscope-reorder --durations=10 -m "not on_airflow and not browser and not deployment and not packaging and not kills and not chaos and not distributed and not money"

test-money: setup ## what each event costs in every dialect, and with fallbacks: POSTs counted cell by cell
	$(BIN)/pytest -q -n 8 --no-loadscope-reorder -m "money"

test-on-airflow: setup ## tests that run tasks and serve pages on Airflow's database, in their own processes
	$(BIN)/pytest -q -n 4 --no-loadscope-reorder -m "on_airflow"

lint: setup ## ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: setup ## mypy
	$(BIN)/mypy

test-deployment: setup ## tests in a real Airflow deployment
	$(BIN)/pytest -v -m deployment

test-browser: setup ## the UI of a real Airflow in Chromium (Debian: apt-get install chromium)
	$(BIN)/pytest -v -m browser

screenshots: setup ## the same, and take docs/screenshots/ anew
	FLUX_SCREENSHOTS=1 $(BIN)/pytest -v -m browser tests/browser/test_ui.py

CHART_JS := 4.6.1
VENDOR := airflow_provider_flux/plugin/static/vendor
ui-vendor: ## fetch the chart library of the UI again (needs npm)
	cd $(VENDOR) && npm pack --silent chart.js@$(CHART_JS) && tar -xzf chart.js-$(CHART_JS).tgz
	cd $(VENDOR) && mv package/dist/chart.umd.min.js . && mv package/LICENSE.md chart.LICENSE.md
	cd $(VENDOR) && rm -r package chart.js-$(CHART_JS).tgz && sha256sum -c SHA256

test-packaging: setup ## build the wheel and try it in a clean environment
	$(BIN)/pytest -v -m packaging

test-kills: setup ## end tasks, runs, triggerers and workers of a real Airflow
	$(BIN)/pytest -v -m kills

test-chaos: setup ## 500 predictions under seeded faults and kills, and 1,600 odd rows
	$(BIN)/python -u scripts/chaos.py --runs 500 --seed 1 --jobs 2
	$(BIN)/python -u scripts/chaos.py --runs 100 --seed 2 --jobs 2 --photos
	$(BIN)/python -u scripts/chaos.py --runs 300 --seed 3 --jobs 2 --fallbacks
	$(BIN)/pytest -v -m chaos

test-mutations: setup ## take the safety measures out one by one, and see a test fail for each
	$(BIN)/python -u scripts/mutations.py

test-overlaps: setup ## 200 rounds of batches that overlap on one table, killed and paused at random
	$(BIN)/python -u scripts/overlaps.py --rounds 200 --seed 1 --jobs 2

test-distributed: setup ## PostgreSQL, Redis and Celery: kill a triggerer and a worker (Debian, as root)
	$(BIN)/python -u scripts/distributed.py

nightly: test-kills test-chaos test-overlaps test-distributed test-mutations ## the slow suites about what dies

test-matrix: setup ## smoke tests on every supported Airflow with every Python found
	@$(BIN)/python -u scripts/test_matrix.py

benchmarks: setup ## measure this package beside its peers: tables, benchmarks/results, docs/*.png
	@$(BIN)/python -u benchmarks/run.py

# The dates are when each release was new: a later index holds packages that break the older ones.
requirements: setup ## compile requirements-dev.txt and constraints/ again
	echo apache-airflow==3.1.8 | $(COMPILE) - --exclude-newer 2026-03-20 -o constraints/airflow-3.1.8.txt
	echo apache-airflow==3.2.2 | $(COMPILE) - --exclude-newer 2026-07-01 -o constraints/airflow-3.2.2.txt
	echo apache-airflow==3.3.2 | $(COMPILE) - --exclude-newer 2026-09-25 -o constraints/airflow-3.3.2.txt
	echo 'apache-airflow[celery,postgres]==3.3.2' | $(COMPILE) - --exclude-newer 2026-09-25 -c constraints/airflow-3.3.2.txt -o constraints/distributed-3.3.2.txt
	$(COMPILE) --upgrade pyproject.toml --extra dev -c constraints/airflow-3.3.2.txt -o requirements-dev.txt

clean: ## remove everything that was made
	rm -rf .venv .venvs .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
