# make demo             the main job before your eyes, on a throw-away PostgreSQL and a stand-in for SQL Server; then stays up
#                       until Ctrl-C
# make demo TOUR=only   the same, and ends; exit code 0 only if every step came out right
# make test             every check: format, lints, unit, simulation, wire, real servers, bad requests to the API
# make screenshots      pictures of every page, light and dark, into docs/screenshots (needs what make test needs)
# make moves MOVES=200  that many movements with a fault at a random moment (SEED=... for others)
# make sim N=100000     that many simulated schedules (SEED=... replays one)
# make bench            measures, beside a direct PostgreSQL and PgBouncer; table and JSON
# make fuzz             each parser for a minute (FUZZ_SECONDS=60; needs a nightly toolchain and cargo-fuzz)
# make bare             make demo and make test on a bare Debian 12 and 13, as root and as a plain user (root, hours; before each release)
# make licenses         licences and advisories of all dependencies (needs cargo-deny)

CARGO := $(shell command -v cargo || echo $$HOME/.cargo/bin/cargo)
N ?= 5000
MOVES ?= 200
FUZZ_SECONDS ?= 60
.PHONY: demo test moves sim bench fuzz bare licenses screenshots

demo:
	@echo "This installs by apt what is missing (PostgreSQL server programs, psql, FreeTDS, a C compiler), builds Daypass (the first time:"
	@echo "5 to 10 minutes on 2 cores), and starts servers on loopback only. Ctrl-C cleans up."
	@scripts/need postgres tsql
	@$(CARGO) build --quiet -p daypass
	@target/debug/daypass demo $(if $(TOUR),--tour $(TOUR))

test:
	scripts/need postgres tsql python browser
	$(CARGO) fmt --all --check
	scripts/budget
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) build --workspace --all-targets --quiet
	DAYPASS_POSTGRES_BINS="$$(ls -d $$(scripts/tools)/lib/python3*/site-packages/*_postgres/pginstall/bin | tr '\n' ':')" $(CARGO) test --workspace --quiet
	scripts/api-test
	$(MAKE) --no-print-directory demo TOUR=only >/dev/null && echo "the demo's walk came out right"

# kill -9, killed tools, restarted targets and cut networks in every phase of a movement, on a real PostgreSQL
moves:
	scripts/need postgres
	DAYPASS_MOVES=$(MOVES) DAYPASS_MOVES_SEED=$(or $(SEED),7) $(CARGO) test -p daypass --test stories -- --nocapture movement::whatever

sim:
	DAYPASS_SIM_SCHEDULES=$(N) DAYPASS_SIM_SEED=$(SEED) $(CARGO) test --release -p daypass-core --test sim -- --nocapture

bench:
	scripts/need postgres bench
	$(CARGO) build --release --quiet -p daypass -p daypass-bench
	target/release/daypass-bench

screenshots:
	scripts/need postgres tsql python browser
	mkdir -p docs/screenshots
	DAYPASS_SCREENSHOTS=$(CURDIR)/docs/screenshots $(CARGO) test --quiet -p daypass --test stories -- console::every_page

fuzz:
	scripts/fuzz $(FUZZ_SECONDS)

bare:
	scripts/bare

licenses:
	$(CARGO) deny check
