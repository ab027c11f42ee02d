#!/usr/bin/env bash
# Packs what tests/gpu/run.sh runs on a machine with a GPU, where nothing is built: the program, the test binaries,
# stripped, and a tokenizer of 32,000 ids, in one archive below target/, which git ignores.
#
#   tests/gpu/bundle.sh [--whole] [--dev] [ARCHIVE]      target/gpu/bundle.tar.xz unless named
#
# A machine that gets this tree as well needs nothing else: run.sh takes vectors and scripts from the tree.
#   --whole   with vectors and scripts, for a machine without the tree
#   --dev     the program as tests are built, without a release build: for a rehearsal, not for measurements
# Needs Rust, python3, strip (binutils) and xz here; glibc and the driver there.
set -euo pipefail
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
whole='' profile=release archive='' effort=-6
for argument in "$@"; do
    case $argument in
        --whole) whole=1 ;;
        --dev) profile=debug effort=-1 ;;
        -*) usage ;;
        *) [ -z "$archive" ] || usage; archive=$(realpath -m "$argument") ;;
    esac
done
cd "$(dirname "$0")/../.."
archive=${archive:-$PWD/target/gpu/bundle.tar.xz}
export CARGO_INCREMENTAL=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The dev profile: optimised, with assertions on, and built already where the tests were run.
cargo test --workspace --locked --no-run --message-format=json >"$work/messages"
[ $profile = debug ] || cargo build --release --workspace --bins --locked

# The file that a build made of a target of a package: its test binary, or the program.
built() {
    python3 - "$work/messages" "$@" <<'PYTHON'
import json, os, sys
messages, package, target, test = sys.argv[1:]
for line in open(messages):
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m.get("executable") and m["profile"]["test"] == (test == "test"):
        if m["target"]["name"] == target and os.path.dirname(m["manifest_path"]).endswith("/" + package):
            sys.exit(print(m["executable"]))
sys.exit(f"error: cargo built no {target} of {package}")
PYTHON
}

out=$work/bundle
mkdir -p "$out/tests"
while read -r package target; do
    file=$(built "$package" "$target" test)
    cp "$file" "$out/tests/$package-$target"
done <<'TESTS'
gpu driver
model kernels
demo gauntlet_demo
demo gpu
tests model
TESTS
program=$(built node gauntlet program)
[ $profile = debug ] || program=${program%/debug/gauntlet}/release/gauntlet
cp "$program" "$out/gauntlet"
# The 1.2B has 32,000 ids, more than the project's own text makes: reserved ones follow those it does make. Models have
# rows and logits for them as for any other.
"$program" data prepare --vocab-size 4096 --out "$work/text" --json >/dev/null
python3 - "$work/text/tokenizer.json" "$out/tokenizer.json" <<'PYTHON'
import json, sys
tokenizer = json.load(open(sys.argv[1]))
vocab = tokenizer["model"]["vocab"]
vocab.update({f"<|reserved_{id}|>": id for id in range(max(vocab.values()) + 1, 32000)})
json.dump(tokenizer, open(sys.argv[2], "w"))
PYTHON
strip "$out/gauntlet" "$out"/tests/*
echo "$(git rev-parse HEAD)$(git diff --quiet HEAD || echo ', changed'), profile $profile" >"$out/commit"
if [ -n "$whole" ]; then
    mkdir "$out/peers"
    cp tests/gpu/run.sh "$out/"
    cp tests/peers/gpu_step.py tests/peers/demo_speed.py "$out/peers/"
    cp -r tests/vectors "$out/vectors"
fi
mkdir -p "$(dirname "$archive")"
tar -C "$out" -c . | xz -T0 $effort >"$archive.part"
mv "$archive.part" "$archive"
echo "$archive: $(stat -c %s "$archive") bytes, unpacked $(du -sb "$out" | cut -f1)"
