# Hufu's few targets. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Peers and their database drivers are not linked in.
TAGS := nobadger,nomysql,nopgx,nobbolt
GO := go
export GOFLAGS := -tags=$(TAGS) -buildvcs=false

.PHONY: help setup build demo test race fuzz soak drill lint bench docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r t d; do printf '  make %-7s %s\n' "$$t" "$$d"; done

setup: ## install the Debian packages that are missing (as root)
	@scripts/setup test

build: ## build build/hufu and the example programs
	@scripts/build

demo: ## tell the whole story on real parts: ceremony, readers, directories, a load, a revocation
	@scripts/setup
	@scripts/build
	@build/demo

test: ## install what is missing and run every test with the race detector
	@scripts/setup test
	@scripts/build
	@$(GO) vet ./...
	@$(GO) test -race -timeout 20m ./...

fuzz: ## run every fuzz target for FUZZTIME (default 60s) each
	@scripts/fuzz $(or $(FUZZTIME),60s)

soak: ## the counted fault tests: thousands of SIGKILLs, printed as a table
	@scripts/setup test
	@scripts/soak

drill: ## every fault that directories must survive, several times each, printed as a table
	@scripts/setup test
	@scripts/drill

lint: ## golangci-lint with the repository's configuration
	@$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

bench: ## measure Hufu and its peers in one run; writes build/bench.json
	@scripts/setup test
	@scripts/build
	@scripts/bench

docs: ## write the man pages to build/man
	@scripts/build
	@build/hufu man build/man

clean: ## remove build/
	@rm -rf build
