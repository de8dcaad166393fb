# pgkeep in a small image: the static binary, PostgreSQL's clients, age, time zones, certificates.
#   docker build -t pgkeep .
#   docker build -t pgkeep --build-arg PG_MAJORS="17" .        only the client that you need
#   docker build -t pgkeep --build-arg AGE= .                  without encryption
# Nothing in it depends on the processor: amd64 and arm64 build alike.

FROM rust:1-alpine AS build
# The TLS library has some C and assembly.
RUN apk add --no-cache musl-dev
WORKDIR /src
# The dependencies are a layer of their own, built anew only when one of them changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked && rm -r src
COPY src src
# A layer's files may be older than what was built from the empty ones above. Of the symbols only pgkeep's own
# function names stay: the stack traces in the log show no others.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked \
    && strip --strip-all --wildcard --keep-symbol='*pgkeep*' target/release/pgkeep

FROM alpine:3.24
# The client of the server's own major is used, else the next newer one. Alpine drops old majors in time.
ARG PG_MAJORS="16 17 18"
# For encrypted backups. An empty value leaves it out.
ARG AGE=age
RUN apk add --no-cache ca-certificates tzdata $AGE $(for major in $PG_MAJORS; do echo postgresql$major-client; done)
COPY --from=build /src/target/release/pgkeep /usr/local/bin/pgkeep
# Everybody's, as /tmp is, so that the container can run as any user. Mount a volume here: a tmpfs would count
# as memory.
RUN mkdir /spool && chmod 1777 /spool
ENV BACKUP_TEMP_DIR=/spool
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/pgkeep"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/usr/local/bin/pgkeep", "health"]
LABEL org.opencontainers.image.title="pgkeep" \
      org.opencontainers.image.description="Keeps a PostgreSQL database safe in S3-compatible storage" \
      org.opencontainers.image.licenses="MIT"
