# What each target is for stands in CONTRIBUTING.md.
GO    ?= go
DEV   := bin/memhook-dev
TOOLS := $(GO) tool -modfile=tools.mod
ARGS  ?=

.PHONY: demo test cover lint bench bench-short bench-purge soak chaos failover test-helm test-receivers test-pooler test-postgres test-postgres-short generate screenshots vuln build env

build:
	@$(GO) build -o bin/ ./cmd/memhook ./cmd/memhook-dev

demo: build
	@.ci/packages
	@$(DEV) demo $(ARGS)

test:
	@.ci/packages tests
	$(GO) test -race -timeout 30m -parallel 4 $(ARGS) ./... # most tests wait for clocks: more than the cores at once

# Coverage of all tests, the processes that they start included; those that are killed leave nothing.
cover:
	@.ci/packages tests
	@rm -rf cover && mkdir -p cover/processes
	MEMHOOK_COVER=$(CURDIR)/cover/processes $(GO) test -timeout 30m -parallel 3 -covermode=atomic -coverpkg=./... -coverprofile=cover/tests.txt $(ARGS) ./...
	@$(GO) tool covdata textfmt -i=cover/processes -o cover/processes.txt
	@.ci/coverage cover/tests.txt cover/processes.txt

# The chart, with the machine's helm or one that is built from source, which takes minutes and 1 GB the first time.
test-helm:
	@command -v helm >/dev/null || $(MAKE) -s bin/helm
	$(GO) test -count=1 -v -run 'Helm' ./cmd/memhook

bin/helm:
	GOBIN=$(CURDIR)/bin $(GO) install -trimpath -ldflags "-s -w" helm.sh/helm/v3/cmd/helm@v3.18.4

lint:
	$(TOOLS) golangci-lint run ./...

# The chaos test in its long form, some 25 minutes: ARGS="-chaos-seed N" replays a seed.
chaos:
	@.ci/packages tests
	MEMHOOK_LONG=1 $(GO) test -race -count=1 -timeout 60m -v -run "^TestChaos$$" ./cmd/memhook $(if $(ARGS),-args $(ARGS))

# A primary killed, hung, cut off, demoted and switched over beside a synchronous standby, under load; then a leader switched
# over, killed and frozen under Patroni.
failover:
	@.ci/packages tests patroni
	MEMHOOK_LONG=1 $(GO) test -count=1 -timeout 30m -v -run "^(TestFailover|TestPatroni)$$" ./cmd/memhook

# The example receivers with those for Rails, Laravel and Spring, whose programs `make test` does not install.
test-receivers:
	@.ci/packages tests receivers
	$(GO) test -count=1 -v -run '^TestTheExampleReceivers$$' ./cmd/memhook

# What delivers and what crashes, through PgBouncer in transaction mode.
POOLED := ^Test(Serve|Shapes|RegisteringAgain|Retries|Kill|SIGTERM|OneBad|Rotating|Endpoint|ARate|Recover|ADead|OnlyWhat|AKill|AStopped|ThreeInst|Hints|ARefused|Pauses|Silent|ReceiversThat|Stopping|Uploads|BehindPg)
test-pooler:
	@.ci/packages tests
	MEMHOOK_TEST_POOLER=transaction $(GO) test -count=1 -timeout 14m -parallel 3 $(ARGS) ./worker
	MEMHOOK_TEST_POOLER=transaction $(GO) test -count=1 -timeout 14m -parallel 3 -run "$(POOLED)" $(ARGS) ./cmd/memhook

# The core on the oldest and the newest PostgreSQL beside the installed one; POSTGRES="14" for one of them.
POSTGRES ?= 14 18
test-postgres:
	@.ci/packages tests
	@for version in $(POSTGRES); do \
		MEMHOOK_POSTGRES=$$(.ci/postgres $$version) && export MEMHOOK_POSTGRES && echo "PostgreSQL $$version: $$MEMHOOK_POSTGRES" && \
		$(GO) test -count=1 -timeout 14m -parallel 3 $(ARGS) ./store/... ./worker/... || exit 1; \
	done

# Of that what depends on the version: migrations, partitions, the feed's snapshots, sessions, roles, indexes. About a minute.
VERSIONED := ^Test(Migrate|Tables|OldDays|RowsWithout|Feed|TheBudgetHolds|Attempts|Search|Expunge|Sessions|ReadOnly|ARole|OtherPrograms|WhateverHasLost|EndpointHealth|TaskLife|Jobs)
test-postgres-short:
	@$(MAKE) test-postgres ARGS='-run "$(VERSIONED)"'

RECEIVERS := --latency 0s,50ms,200ms,mix --endpoints 1,50,10000 --apps 1000 --runs 3 --within 40s
bench: build
	@.ci/packages
	@$(DEV) bench deliveries $(RECEIVERS) --into docs/benchmarks.md
	@$(DEV) bench floor --into docs/benchmarks.md
	@$(DEV) bench idle --into docs/benchmarks.md
	@$(DEV) bench polling --into docs/benchmarks.md --svg docs/polling.svg
	@$(DEV) bench polls --into docs/benchmarks.md
	@$(DEV) bench registrations --into docs/benchmarks.md
	@$(DEV) bench scaling --into docs/benchmarks.md
	@$(DEV) bench page

# A selection of deliveries in about a minute, which writes no file.
bench-short: build
	@.ci/packages
	@$(DEV) bench deliveries --short

# How little purging a day costs beside 20 million attempts over 31 days; some 6 GB of disk for a few minutes.
bench-purge:
	@.ci/packages
	MEMHOOK_LONG=20000000 $(GO) test -count=1 -timeout 30m -v -run "^TestPurgingADayCostsLittle$$" ./store

# An hour; ARGS="--for 10m" shortens it.
soak: build
	@.ci/packages
	@$(DEV) bench soak --into docs/benchmarks.md --svg docs/soak.svg $(ARGS)

# The pictures of the README: the demo after six minutes.
screenshots:
	@.ci/packages tests
	MEMHOOK_PICTURES=$(CURDIR)/docs/images $(GO) test -count=1 -timeout 15m -run TestPicturesOfTheDemo ./cmd/memhook

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
	@$(TOOLS) govulncheck ./... || { echo "govulncheck found something, or could not reach its database at vuln.go.dev: read above" >&2; exit 1; }
