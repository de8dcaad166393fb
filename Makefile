# pgkeep: `make demo` shows it at work, `make test` runs every test. Both install what they need.

.PHONY: build image test test-servers test-docker demo bench bench-size soak fuzz audit lint prerequisites clean

build: ## the binary: target/release/pgkeep
	cargo build --release --locked

image: ## the container image: pgkeep
	docker build --network host -t pgkeep .

test: prerequisites ## every test, against a real PostgreSQL and a real S3 server
	cargo test --locked --all-targets -- --test-threads=8

test-servers: ## the S3 side, against SeaweedFS and OpenStack Swift, which pip installs below target/
	@.ci/prerequisites servers
	tests/servers.sh install
	cargo test --locked --test it servers:: -- --include-ignored --test-threads=2

test-docker: ## the image and docker-compose.yml, where a Docker engine answers
	tests/docker.sh

demo: prerequisites ## back up, list, prune and restore a database before your eyes
	cargo build --locked --bin pgkeep --example demo
	./target/debug/examples/demo

bench: prerequisites ## pgkeep beside what people use today, and its gzip beside others
	@.ci/prerequisites peers
	cargo bench --locked --bench compare
	cargo bench --locked --bench restore
	cargo bench --locked --bench gzip

bench-size: prerequisites ## 60 GB through pgkeep: its memory, its temporary file and its parts
	cargo bench --locked --bench size

soak: prerequisites ## 300 backups in a world that fails in one of three; the seed is printed, PGKEEP_SOAK_SEED repeats it
	PGKEEP_SOAK=$${PGKEEP_SOAK:-300} cargo test --release --locked --test soak

audit: ## licences, duplicates, sources and known vulnerabilities of what the binary is made of; needs cargo-deny
	cargo deny --locked check

fuzz: ## texts that nobody would write, many for each reader of texts
	PGKEEP_FUZZ_SEED=$${PGKEEP_FUZZ_SEED:-$$(date +%s)} PGKEEP_FUZZ_ROUNDS=$${PGKEEP_FUZZ_ROUNDS:-300000} cargo test --release --locked --lib whatever

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

prerequisites: ## PostgreSQL and a C compiler, by the system's package manager, where they are missing
	@.ci/prerequisites

clean:
	cargo clean
