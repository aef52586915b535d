# What each target is for stands in CONTRIBUTING.md.
GO    ?= go
BIN   := bin/memhook
TOOLS := $(GO) tool -modfile=tools.mod
ARGS  ?=

.PHONY: demo test lint bench generate vuln build postgres

build:
	@$(GO) build -o $(BIN) ./cmd/memhook

demo: postgres build
	@$(BIN) demo $(ARGS)

test: postgres
	$(GO) test -race -timeout 10m $(ARGS) ./...

lint:
	$(TOOLS) golangci-lint run ./...

bench: postgres build
	@$(BIN) bench polling $(ARGS)

generate: build
	$(GO) generate ./...

# Its database of advisories must be reachable; where it is not, this fails and says so.
vuln:
	$(TOOLS) govulncheck ./...

# PostgreSQL for the demo and the tests: an installed one, or Debian's package. Where neither can be
# had, the programs themselves download one, or say what to install.
postgres:
	@.ci/postgres
