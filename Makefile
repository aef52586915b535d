# What each target is for stands in CONTRIBUTING.md.
GO    ?= go
BIN   := bin/memhook
TOOLS := $(GO) tool -modfile=tools.mod
ARGS  ?=

.PHONY: demo test lint bench generate vuln build env postgres

build:
	@$(GO) build -o $(BIN) ./cmd/memhook

demo: postgres build
	@$(BIN) demo $(ARGS)

test: postgres
	$(GO) test -race -timeout 10m $(ARGS) ./...

lint:
	$(TOOLS) golangci-lint run ./...

bench: postgres build
	@$(BIN) bench polling --svg docs/polling.svg $(ARGS)
	@$(BIN) bench polls
	@$(BIN) bench deliveries

generate: build
	$(GO) generate ./...

# The secrets of docker-compose.yml, made once.
env:
	@[ -e .env ] || (umask 077; { \
		echo "POSTGRES_PASSWORD=$$(openssl rand -hex 24)"; \
		echo "MEMHOOK_ENCRYPTION_KEY=$$(openssl rand -base64 32)"; \
		echo "MEMHOOK_API_KEY=$$(openssl rand -hex 24)"; \
		echo "MEMHOOK_ADMIN_TOKEN=$$(openssl rand -hex 24)"; \
		echo "MEMORIES_API_KEY="; } > .env)
	@echo ".env has the secrets; put the key of memories.ai into it"

# Its database of advisories must be reachable; where it is not, this fails and says so.
vuln:
	$(TOOLS) govulncheck ./...

# PostgreSQL for the demo and the tests: an installed one, or Debian's package. Where neither can be
# had, the programs themselves download one, or say what to install.
postgres:
	@.ci/postgres
