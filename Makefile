# pgkeep: `make demo` shows it at work, `make test` runs every test. Both install what they need.
# `make` builds the binary. `make help` lists all targets: those with a text behind `##`.

.PHONY: build help image test test-servers test-docker test-regression demo bench bench-size bench-server soak fuzz docs audit lint prerequisites clean

build: ## build the binary, target/release/pgkeep (the default)
	cargo build --release --locked

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

image: ## build the container image, pgkeep
	docker build --network host -t pgkeep .

test: ## run every test, against a real PostgreSQL and a real S3 server
	@.ci/prerequisites tests
	cargo test --locked --all-targets -- --test-threads=8

test-servers: ## test the S3 side against SeaweedFS and OpenStack Swift; pip installs them below target/
	@.ci/prerequisites servers
	tests/servers.sh install
	cargo test --locked --test it servers:: -- --include-ignored --test-threads=2

test-docker: ## test the image and docker-compose.yml, if a Docker engine runs
	tests/docker.sh

test-regression: prerequisites ## back up and restore PostgreSQL's own regression database; DIR=… is a checkout of its sources
	@[ -d "$(DIR)/src/test/regress/sql" ] || { echo "SKIPPED: DIR=$(DIR) is no checkout of PostgreSQL's sources" >&2; }
	@[ ! -d "$(DIR)/src/test/regress/sql" ] || PGKEEP_TEST_SOURCES="$(abspath $(DIR))" \
	    cargo test --locked --test it regression:: -- --include-ignored

demo: prerequisites ## back up, list, prune and restore a database before your eyes
	cargo build --locked --bin pgkeep --example demo
	./target/debug/examples/demo

bench: prerequisites ## measure pgkeep beside what people use today, and its gzip beside others
	@.ci/prerequisites peers
	cargo bench --locked --bench compare
	cargo bench --locked --bench restore
	cargo bench --locked --bench far
	cargo bench --locked --bench gzip

bench-size: prerequisites ## send 60 GB through pgkeep; measure its memory, its temporary file and its parts
	cargo bench --locked --bench size

bench-server: prerequisites ## back up and restore a server of 200 databases, beside the sum of bare pg_dumps
	cargo bench --locked --bench server

soak: prerequisites ## make 300 backups, one in three with a fault; prints its seed, and PGKEEP_SOAK_SEED repeats it
	PGKEEP_SOAK=$${PGKEEP_SOAK:-300} cargo test --release --locked --test soak

docs: ## write README's table of variables and .env.example anew, from the table in src/config/variables.rs
	PGKEEP_WRITE_DOCUMENTS=1 cargo test --locked --test it tidy::the_documents

audit: ## check the dependencies' licences, duplicates, sources and known vulnerabilities; needs cargo-deny
	cargo deny --locked check

fuzz: ## give many broken texts to everything that reads texts
	PGKEEP_FUZZ_SEED=$${PGKEEP_FUZZ_SEED:-$$(date +%s)} PGKEEP_FUZZ_ROUNDS=$${PGKEEP_FUZZ_ROUNDS:-300000} cargo test --release --locked --lib whatever

lint: ## check the format and run the linter; a warning fails
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

prerequisites: ## install PostgreSQL and a C compiler with the system's package manager, if they are missing
	@.ci/prerequisites

clean: ## remove what was built (target/)
	cargo clean
