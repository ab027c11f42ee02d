#!/usr/bin/env bash
# Builds what tests/gpu/run.sh carries to a machine with a GPU: the program, the test binaries, vectors and scripts.
#
#   tests/gpu/bundle.sh FOLDER
#
# Needs Rust here and nothing but glibc (2.34 or later) and the driver there.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
export CARGO_INCREMENTAL=0

# The dev profile: optimised, with assertions on, and built already where the tests were run.
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
cargo test --workspace --locked --no-run --message-format=json >"$messages"
cargo build --release --workspace --bins --locked
mkdir -p "$out/tests" "$out/peers" "$out/vectors"

# A test binary by package and target.
take() {
    local file
    file=$(python3 - "$messages" "$1" "$2" <<'PYTHON'
import json, os, sys
messages, package, target = sys.argv[1:]
for line in open(messages):
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m.get("executable") and m["profile"]["test"]:
        if m["target"]["name"] == target and os.path.dirname(m["manifest_path"]).endswith("/" + package):
            print(m["executable"])
PYTHON
    )
    [ -n "$file" ] || { echo "error: no test binary $2 of $1" >&2; exit 1; }
    cp "$file" "$out/tests/$1-$2"
}
take gpu driver
take model kernels
take demo gauntlet_demo
take demo gpu
take tests model

cp "${CARGO_TARGET_DIR:-target}/release/gauntlet" "$out/"
cp tests/gpu/run.sh "$out/"
cp tests/peers/gpu_step.py tests/peers/demo_speed.py "$out/peers/"
cp -r tests/vectors/. "$out/vectors/"
git rev-parse HEAD >"$out/commit"
du -sh "$out"
