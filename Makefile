# make help lists the targets. All of them work on a plain checkout; those that
# start containers need root.
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo 0.1.0-dev)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DATE    ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
CNIDIR  ?= /opt/cni/bin

export CGO_ENABLED = 0
LDFLAGS = -s -w -X isle/internal/version.Version=$(VERSION) -X isle/internal/version.Commit=$(COMMIT) -X isle/internal/version.Date=$(DATE)
GOBUILD = go build -trimpath -buildvcs=false -ldflags "$(LDFLAGS)"

.PHONY: help build run test test-netns test-e2e test-vm lint generate firewall-docs fuzz bench install clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build all programs into bin/
	$(GOBUILD) -o bin/ ./cmd/...

run: build ## run isled in the foreground, with all its state below /tmp/isle (root)
	bin/isled --data-dir /tmp/isle/data --run-dir /tmp/isle/run --log-level debug

test: ## unit tests, and as root kernel tests
	go test -timeout 10m ./cmd/... ./internal/...

test-netns: ## the kernel tests only (root)
	go test -timeout 10m -count 1 ./internal/kernel/... ./internal/network/...

test-e2e: build ## whole sessions and crashes against a real isled (root)
	go test -timeout 20m -count 1 -p 2 ./test/...

test-vm: ## the network, the LAN and cgroup v2 on Debian's kernels, in a virtual machine (root)
	test/vm/run

lint: ## gofmt, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not formatted: $$out"; exit 1; }
	go vet ./...
	@mkdir -p bin && go -C tools build -o ../bin/tools/ honnef.co/go/tools/cmd/staticcheck
	bin/tools/staticcheck ./...

generate: ## write what follows from the code: man pages, docs/commands.md, docs/isled.toml
	go generate ./...

firewall-docs: ## write docs/firewall as the kernel has it (root)
	go test -count 1 ./internal/network/firewalldoc -update

fuzz: ## every fuzz test for FUZZTIME (10s) each
	@grep -rl --include='*_test.go' 'func Fuzz' internal | xargs -r -n1 dirname | sort -u | while read -r dir; do \
	  grep -rhoE --include='*_test.go' 'func Fuzz[A-Za-z0-9]+' "$$dir" | sed 's/func //' | while read -r name; do \
	    go test "./$$dir" -run '^$$' -fuzz "^$$name\$$" -fuzztime $${FUZZTIME:-10s} || exit 1; done || exit 1; done

bench: build ## compare with docker and podman on this machine (root)
	bench/run

install: build ## install the programs, the man pages and the systemd unit
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)/etc/systemd/system $(addprefix $(DESTDIR)$(PREFIX)/share/man/man,1 5 7 8)
	install -m 0755 bin/isle bin/isled bin/isle-shim bin/isle-toolbox $(DESTDIR)$(PREFIX)/bin
	install -D -m 0755 bin/isle-cni $(DESTDIR)$(CNIDIR)/isle-cni
	install -m 0644 contrib/systemd/isled.service $(DESTDIR)/etc/systemd/system
	for s in 1 5 7 8; do install -m 0644 docs/man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s || exit 1; done

clean: ## remove what build made
	rm -rf bin
