# The commands of eventstream. `make` alone lists them. What each does stands in tools/; docs/development.md tells more.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The PostgreSQL major version to build for and run: 15, 16, 17 or 18.
PG ?= $(shell . tools/env.sh && default_major)
# For `make install`: the pg_config of the server to install into.
PG_CONFIG ?= pg_config

.PHONY: help
help: ## list these commands
	@echo 'usage: make COMMAND [PG=15|16|17|18]'
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

.PHONY: install-private
install-private: ## build it and install it into target/pg/PG, a private copy of PostgreSQL
	@tools/install --private $(PG)

.PHONY: install
install: ## install it into the server that pg_config (or PG_CONFIG=…) names
	@tools/install $(PG_CONFIG)

.PHONY: uninstall
uninstall: ## remove it from the server that pg_config (or PG_CONFIG=…) names
	@tools/install --remove $(PG_CONFIG)

.PHONY: server
server: ## build the companion program, eventstream: REST and live streams (docs/run-the-server.md)
	@tools/companion build

.PHONY: install-server
install-server: ## install it: PREFIX/bin/eventstream (/usr/local), a systemd unit, an example of its configuration
	@tools/companion install $(or $(PREFIX),/usr/local)

.PHONY: venv
venv: ## make target/venv, the Python that the tests use
	@tools/venv

.PHONY: test
test: ## run all tests on PG
	@tools/test $(PG)

.PHONY: test-core test-backend test-regress test-isolation test-cluster test-docs test-tidy test-verify test-companion test-clients
test-core: ## …only the pure rules of crates/core, without a database
test-backend: ## …only the tests inside a backend (pg_test/)
test-regress: ## …only golden SQL output (tests/regress)
test-isolation: ## …only interleavings of sessions (tests/isolation)
test-cluster: ## …only whole servers: crash, standby, dump, tailing (tests/cluster)
test-docs: ## …only the SQL in README and docs (tests/docs)
test-tidy: ## …only the rules of how the code is laid out (tests/tidy)
test-verify: ## …only the verifier outside the database, tools/verify.py
test-clients: ## …only the clients for Python and Node (clients/), as they are installed
test-companion: ## …only the companion program and its client library
test-core test-backend test-regress test-isolation test-cluster test-docs test-tidy test-verify test-companion test-clients:
	@tools/test $(PG) $(@:test-%=%)

.PHONY: accept
accept: ## renew golden SQL, interleavings, what documents print, signatures and the list of functions; then read the difference
	@EVENTSTREAM_ACCEPT=1 tools/test $(PG) regress isolation docs

.PHONY: demo
demo: ## build it, start a private server and tell the ledger's story on it; DATA=path.csv uses a file of yours
	@tools/demo $(PG) '$(DATA)'

.PHONY: demo-start
demo-start: ## start the server of make demo again, as it was left
	@tools/demo $(PG) --start

.PHONY: demo-stop
demo-stop: ## stop the server that make demo started
	@tools/demo $(PG) --stop

.PHONY: crash
crash: ## kill -9 the server CYCLES times (100) under load: nothing acknowledged may be lost
	@CYCLES=$(or $(CYCLES),100) tools/test $(PG) crash

.PHONY: fuzz
fuzz: ## call every function with boundary and random values for SECONDS (600), as roles with and without rights
	@FUZZ_SECONDS=$(or $(SECONDS),600) tools/test $(PG) fuzz

.PHONY: proof
proof: ## the long proofs (2 to 3 hours): many crashes and kills, a long fuzz, everything on PostgreSQL 18 too
	@tools/proof

.PHONY: bench
bench: ## measure it against plain tables and another store (bench/); BENCH=--quick for a first look
	@tools/install --private $(PG)
	@bench/run --pg $(PG) $(BENCH)

.PHONY: lint
lint: ## rustfmt, clippy with warnings denied, cargo-deny (licences, bans, sources), shellcheck
	@tools/test $(PG) fmt clippy deny shell

.PHONY: clean
clean: ## stop the private servers and remove target/ and what it keeps elsewhere
	@tools/clean
