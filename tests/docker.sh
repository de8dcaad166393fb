#!/bin/sh
# `make test-docker`: builds the image, brings the compose stack up, and looks at what only containers show.
# The base images are pulled; where they cannot be, local ones of the same names do. Without either, or without
# an engine, it says so and ends well. About ten minutes; it removes what it made, but for the image.
set -eu
cd "$(dirname "$0")/.."

skip() {
    echo "SKIPPED: the container tests: $1" >&2
    exit 0
}
fail() {
    echo "FAILED: $1" >&2
    compose logs --no-color --tail 60 pgkeep >&2 || true
    exit 1
}
say() {
    printf '\n== %s\n' "$1"
}
# SECONDS, what is waited for, a command.
wait_for() {
    end=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || fail "waited in vain for $what"
        sleep 1
    done
}

docker info >/dev/null 2>&1 || skip "no Docker engine answers"
if docker compose version >/dev/null 2>&1; then
    compose() { docker compose -p "$project" "$@"; }
elif command -v docker-compose >/dev/null; then
    compose() { docker-compose -p "$project" "$@"; }
else
    skip "there is neither docker compose nor docker-compose"
fi
bases=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile; sed -n 's/^ *image: \(.*:.*\)/\1/p' docker-compose.yml)
for image in $(echo "$bases" | sort -u); do
    docker pull -q "$image" >/dev/null 2>&1 || docker image inspect "$image" >/dev/null 2>&1 ||
        skip "$image can neither be pulled nor is it here"
done

project=pgkeep-test-$$
trap 'compose down --volumes --timeout 5 >/dev/null 2>&1' EXIT
trap 'exit 1' INT TERM

container() { compose ps -q pgkeep; }
inspect() { docker inspect -f "{{$1}}" "$(container)"; }
in_db() { compose exec -T db psql -XqAt -h /var/run/postgresql -U shop -v ON_ERROR_STOP=1 "$@" </dev/null; }
# Of the shop's backups.
keys() { compose run --rm --no-deps -T pgkeep list shop --json </dev/null 2>/dev/null | sed -n 's/.*"key": "\(.*\)".*/\1/p'; }
count() { keys | wc -l; }
has_backups() { [ "$(count)" -ge "$1" ]; }
health_is() { [ "$(inspect .State.Health.Status)" = "$1" ]; }
# Lines of the log since the second $1.
log_since() { docker logs --since "$1" "$(container)" 2>&1; }
logged_since() { log_since "$1" | grep -q "$2"; }
object() { compose exec -T s3 weed filer.cat "http://s3:8888/buckets/backups/$1" </dev/null; }
rows() { in_db -d "$1" -c "SELECT count(*), sum(total) FROM orders" -c "SELECT count(*) FROM customers"; }

# The newest backup restores to the rows of the source, without pgkeep.
check_newest() {
    key=$(keys | tail -1)
    in_db -d shop -c "DROP DATABASE IF EXISTS restored" -c "CREATE DATABASE restored TEMPLATE template0"
    object "$key" | gunzip | compose exec -T db psql -Xq -h /var/run/postgresql -U shop -d restored \
        -v ON_ERROR_STOP=1 -o /dev/null || fail "$key does not restore"
    [ "$(rows restored)" = "$(rows shop)" ] || fail "$key has other rows than its source"
    echo "$key restores"
}

say "the image"
make image
docker image inspect -f '{{.Size}}' pgkeep alpine:3.24 | xargs printf 'image: %s bytes, its base: %s bytes\n'
docker run --rm --entrypoint wc pgkeep -c /usr/local/bin/pgkeep

say "the stack, and two scheduled backups"
compose up -d
wait_for 200 "two backups" has_backups 2
check_newest
wait_for 60 "a healthy container" health_is healthy

say "check, verify and restore in the container"
in_pgkeep() { compose exec -T pgkeep pgkeep "$@" </dev/null; }
in_pgkeep check || fail "something would fail tonight"
in_pgkeep verify || fail "a newest backup is not whole"
in_pgkeep restore shop/latest --database by_pgkeep || fail "the newest backup does not restore"
[ "$(rows by_pgkeep)" = "$(rows shop)" ] || fail "pgkeep restored other rows than the source's"

say "the server is gone, and comes back by three commands"
in_db -d shop -c "DROP DATABASE restored" -c "DROP DATABASE by_pgkeep"
since=$(date +%s)
wait_for 150 "a run over all databases" logged_since "$since" "3 of 3 databases backed up"
before=$(rows shop)
compose stop pgkeep
compose rm --stop --force db
docker volume rm "${project}_database" >/dev/null
compose up -d --no-deps db
db_is_up() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(compose ps -q db)")" = healthy ]; }
wait_for 120 "an empty server" db_is_up
in_all() { compose run --rm --no-deps -T pgkeep restore --all "$@" </dev/null; }
in_all --dry-run || fail "something lacks"
in_all || fail "not everything came back"
[ "$(rows shop)" = "$before" ] || fail "the shop came back with other rows"
# The application, by TCP, with its own role and password.
contacts=$(compose exec -T -e PGPASSWORD=also-only-for-the-demo db psql -XqAt -h db -U clerk -d crm \
    -c "SELECT count(*) FROM contacts" </dev/null)
[ "$contacts" = 500 ] || fail "the application reads $contacts contacts instead of 500"
compose up -d --no-deps pgkeep
wait_for 150 "a healthy container again" health_is healthy

say "no path can be written to but the spool"
# Without the kernel's own file systems.
writable=$(compose exec -T pgkeep find / -path /proc -prune -o -path /sys -prune -o -path /dev -prune \
    -o -type d -print </dev/null 2>/dev/null | compose exec -T pgkeep sh -c \
    'while read -r path; do if [ -w "$path" ]; then echo "$path"; fi; done')
[ "$writable" = /spool ] || fail "these can be written to: $writable"
echo "$writable"

say "health without the S3 server"
compose stop s3
wait_for 400 "an unhealthy container" health_is unhealthy
docker inspect -f '{{range .State.Health.Log}}{{.Output}}{{end}}' "$(container)" | grep . | tail -1
compose start s3
wait_for 200 "a healthy container again" health_is healthy

say "a database of 600 MB"
in_db -d shop -c "CREATE TABLE events AS
    SELECT n AS id, now() - n * interval '1 second' AS at, md5(n::text) AS session,
           'visited /products/' || n % 977 || ' from ' || n % 255 || '.0.0.1' AS what
    FROM generate_series(1, 2400000) n" -c "CREATE TABLE noise AS
    SELECT n, (SELECT string_agg(sha512((n * 1000 + part)::text::bytea), ''::bytea)
               FROM generate_series(1, 1024) part) AS bytes FROM generate_series(1, 300 * 16) n"
in_db -d shop -c "SELECT pg_size_pretty(pg_database_size('shop'))"

say "docker stop during a backup waits for it"
before=$(count) since=$(date +%s)
wait_for 90 "a backup to start" logged_since "$since" "backup started: database .shop"
pid=$(inspect .State.Pid) peak=0
# Anonymous memory of pgkeep and its children: what cannot be given back. Where the engine's processes are
# not this machine's, there is nothing to read.
anonymous() {
    for process in $pid $(cat "/proc/$pid/task/"*/children 2>/dev/null); do
        sed -n 's/^RssAnon:\s*\([0-9]*\).*/\1/p' "/proc/$process/status" 2>/dev/null || true
    done | awk '{ sum += $1 } END { print sum + 0 }'
}
docker stop -t 600 "$(container)" >/dev/null &
stop=$!
while kill -0 "$stop" 2>/dev/null; do
    now=$(anonymous)
    [ "$now" -le "$peak" ] || peak=$now
    sleep 0.1
done
wait "$stop"
echo "peak of anonymous memory, pgkeep and pg_dump: $peak kB"
[ "$peak" -lt 48000 ] || fail "more than 48 MB of memory"
[ "$(inspect .State.ExitCode) $(inspect .State.OOMKilled)" = "0 false" ] || fail "it did not end well"
logged_since "$since" "SIGTERM: stopping as soon as a running backup is done" || fail "the signal came too late"
[ "$(count)" -gt "$before" ] || fail "the backup was not finished"
check_newest

say "docker kill during a backup leaves nothing"
before=$(count) since=$(date +%s)
compose start pgkeep
wait_for 90 "a backup to start" logged_since "$since" "backup started: database .shop"
sleep 4
docker kill "$(container)" >/dev/null
! logged_since "$since" "backup succeeded: database .shop" || fail "the backup was done already"
[ "$(count)" -eq "$before" ] || fail "an object was left"
left=$(docker run --rm --entrypoint ls -v "${project}_spool:/spool" pgkeep -A /spool)
echo "$left" | grep -qxE 'pgkeep-\.2a-[0-9a-f]{8}\.status\.json' && [ "$(echo "$left" | wc -l)" -eq 1 ] ||
    fail "left in the spool: $left"
echo "no object, and in the spool only the status"

say "passed"
