#!/usr/bin/env bash
# Everything that only a GPU can show, in minutes; builds nothing. Run in a folder that tests/gpu/bundle.sh made:
#
#   ./run.sh [--device cuda:0|cpu] [--log FILE] [--quick]
#
# Kernel tests, compute-sanitizer where it is installed, θ hashes of CPU and GPU, benchmarks, PyTorch beside ours where
# it is installed. One log holds device, commands, output and times; a last table says what passed.
# --device cpu is a rehearsal: tests that need a GPU or a compiler are left out, benchmarks are tiny.
# --quick leaves out the sanitizer, and the 1.2B shapes.
# Exit code: 0 when nothing failed, 1 otherwise, 2 for wrong usage.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

device=cuda:0 log='' quick=''
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=${2-} && shift ;;
        --log) log=${2-} && shift ;;
        --quick) quick=1 ;;
        *) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
    shift
done
case $device in
    cuda:[0-9]*) gpu=1 ;;
    cpu) gpu='' ;;
    *) echo "error: --device $device: expected cuda:N or cpu" >&2 && exit 2 ;;
esac
log=${log:-gpu-$(date -u +%Y%m%d-%H%M%S).log}
[ -x ./gauntlet ] || { echo "error: no ./gauntlet here: make this folder with tests/gpu/bundle.sh" >&2; exit 2; }
: >"$log" || exit 1

results=()
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '%s\n' "$@" | tee -a "$log"; }

# Runs a command with a limit of seconds; its output goes to the log and to $work/NAME.
check() {
    local name=$1 limit=$2 rc=0 start=$SECONDS
    shift 2
    say "" "== $name: $*"
    timeout --kill-after=10 "$limit" "$@" >"$work/$name" 2>&1 || rc=$?
    cat "$work/$name" >>"$log"
    local took=$((SECONDS - start)) verdict=passed
    if [ $rc -ne 0 ]; then
        verdict="FAILED ($rc$([ $rc = 124 ] && echo ', out of time'))"
        failed=1
        tail -n 15 "$work/$name"
    fi
    results+=("$(printf '%-34s %-22s %5d s' "$name" "$verdict" "$took")")
    say "-- $name: $verdict, $took s"
    return $rc
}

skip() {
    results+=("$(printf '%-34s %s' "$1" "left out: $2")")
    say "" "== $1: left out: $2"
}

# A field of a JSON object in a file.
field() { sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$1" | head -n 1; }

# The same value in two results.
equal() {
    local name=$1 field=$2 a b
    a=$(field "$work/$3" "$field") b=$(field "$work/$4" "$field")
    if [ -n "$a" ] && [ "$a" = "$b" ]; then
        results+=("$(printf '%-34s passed (%s)' "$name" "${a:0:16}")")
    else
        results+=("$(printf '%-34s FAILED: "%s" and "%s"' "$name" "$a" "$b")")
        failed=1
    fi
    say "-- $name: $a $b"
}

say "commit $(cat commit 2>/dev/null || echo unknown), $(date -u +%FT%TZ), $(uname -srm), device $device"
[ -n "$gpu" ] && command -v nvidia-smi >/dev/null && nvidia-smi 2>&1 | tee -a "$log"
check doctor 60 ./gauntlet doctor --json

export GAUNTLET_GOLDEN=$PWD/vectors/llama GAUNTLET_VECTORS=$PWD/vectors

# 1. Kernels against their references, on fresh inputs; golden LLaMA states; golden θ of DeMo.
tests=(model-kernels demo-gauntlet_demo demo-gpu tests-model)
filter() {
    case $1 in
        demo-gauntlet_demo) echo gpu:: ;;
        tests-model) echo golden::cuda ;;
    esac
}
if [ -n "$gpu" ]; then
    export GAUNTLET_TEST_DEVICE=$device
    check gpu-driver 60 tests/gpu-driver
    for test in "${tests[@]}"; do
        # shellcheck disable=SC2046 # a test without a filter has no argument
        check "$test" 300 "tests/$test" --test-threads 1 $(filter "$test")
    done
    GAUNTLET_TEST_LIBRARY=0 check model-kernels-own-products 300 tests/model-kernels --test-threads 1
    for tool in memcheck racecheck; do
        if [ -n "$quick" ]; then
            skip "$tool" "--quick"
        elif sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
            for test in model-kernels demo-gpu; do
                check "$tool-$test" 300 "$sanitizer" --tool "$tool" --error-exitcode 9 "tests/$test" --test-threads 1
            done
        else
            skip "$tool" "compute-sanitizer is not installed"
        fi
    done
    unset GAUNTLET_TEST_DEVICE
else
    check gpu-driver 60 tests/gpu-driver
    skip kernels "no GPU"
fi

# 2. θ after the same windows: GPU and CPU.
demo=(bench demo --params 2e6 --peers 8)
check demo-theta 300 ./gauntlet "${demo[@]}" --device "$device"
check demo-theta-cpu 300 ./gauntlet "${demo[@]}" --device cpu
equal "θ hash, $device and cpu" theta_hash demo-theta demo-theta-cpu

# 3. Speed.
if [ -n "$gpu" ] && [ -z "$quick" ]; then
    step=(--preset 1b --seq 2048 --batch 8)
    rounds=2 runs=5 params=1.2e9
else
    step=(--preset byte-1m --seq 128 --batch 4)
    rounds=1 runs=2 params=1e6
fi
check bench-step 300 ./gauntlet bench step "${step[@]}" --runs "$runs" --device "$device"
check bench-demo 600 ./gauntlet bench demo --params "$params" --peers 15 --runs 3 --device "$device"
if python3 -c 'import torch' 2>/dev/null; then
    check peer-step 900 python3 peers/gpu_step.py ./gauntlet --device "$device" "${step[@]}" --rounds "$rounds" \
        --runs "$runs"
else
    skip peer-step "python3 has no torch"
fi
for result in bench-step bench-demo; do
    for name in device tokens_per_s mfu device_bytes encode_over_traffic apply_over_traffic theta_hash; do
        value=$(field "$work/$result" "$name")
        [ -z "$value" ] || say "$result $name: $value"
    done
done

say "" "summary, $SECONDS s, log $log"
for line in "${results[@]}"; do say "  $line"; done
exit $failed
