#!/usr/bin/env bash
# Everything that only a GPU can show, in minutes; builds nothing. It runs what tests/gpu/bundle.sh packed: in this tree
# target/gpu/bundle.tar.xz, or the unpacked folder it lies in itself.
#
#   run.sh [--device cuda:0|cpu] [--only NAME,…] [--deadline S] [--quick] [--log FILE] [--bundle FILE]
#
#   --only      of these, in this order: doctor kernels golden repeat step peer demo simulate sanitizer
#   --deadline  starts nothing that would not end within S seconds, cuts what takes longer, and says what was left
#   --quick     small shapes, and no sanitizer
#   --device cpu  a rehearsal: what needs a GPU is left out, shapes are small
# One log holds device, commands, output and times as they come; its last lines are the summary: what passed, what
# failed, and which goals were met. Exit code: 0 when nothing failed, 1 otherwise, 2 for wrong usage. A goal of speed
# that was missed is no failure.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0" && exit 2; }
all=doctor,kernels,golden,repeat,step,peer,demo,simulate,sanitizer
device=cuda:0 log='' quick='' only=$all deadline='' bundle=''
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=${2-} && shift ;;
        --only) only=${2-} && shift ;;
        --deadline) deadline=${2-} && shift ;;
        --log) log=${2-} && shift ;;
        --bundle) bundle=${2-} && shift ;;
        --quick) quick=1 ;;
        *) usage ;;
    esac
    shift || usage
done
wrong() { echo "error: $1" >&2 && exit 2; }
case $device in
    cuda:[0-9]*) gpu=1 ;;
    cpu) gpu='' quick=1 ;;
    *) wrong "--device $device: expected cuda:N or cpu" ;;
esac
for name in ${only//,/ }; do
    [[ ,$all, == *",$name,"* ]] || wrong "--only $name: expected some of $all"
done
[[ $deadline =~ ^[0-9]*$ ]] || wrong "--deadline $deadline: expected seconds"
log=$(realpath -m "${log:-gpu-$(date -u +%Y%m%d-%H%M%S).log}")
: >"$log" || exit 1
work=$(mktemp -d)
mkfifo "$work/out.fifo" "$work/err.fifo"

# What is run, and what it is compared with.
if [ -z "$bundle" ] && [ -x "$here/gauntlet" ]; then
    programs=$here vectors=$here/vectors peers=$here/peers
else
    bundle=${bundle:-$here/../../target/gpu/bundle.tar.xz}
    [ -f "$bundle" ] || wrong "no $bundle: make it with tests/gpu/bundle.sh, or name one with --bundle"
    programs=$work/bundle vectors=$here/../vectors peers=$here/../peers
    mkdir "$programs"
    tar -C "$programs" -xf "$bundle" 2>/dev/null \
        || python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$bundle" "$programs" \
        || wrong "$bundle cannot be unpacked: install xz"
fi
gauntlet=$programs/gauntlet
vectors=$(cd "$vectors" && pwd) || exit 1
export GAUNTLET_GOLDEN=$vectors/llama GAUNTLET_VECTORS=$vectors
# cuBLASLt comes with PyTorch; the program looks into the Python environment that this names.
if [ -z "${VIRTUAL_ENV-}" ] && prefix=$(python3 -c 'import sys; print(sys.prefix)' 2>/dev/null); then
    export VIRTUAL_ENV=$prefix
fi

results=() left=()
failed=0 child=''

say() { printf '%s\n' "$@" | tee -a "$log"; }

# A line of the summary, which the log has at once.
conclude() {
    local line
    line=$(printf '%-42s %s' "$1" "$2")
    results+=("$line")
    say "-- $line"
    [[ $2 != FAILED* ]] || failed=1
}

summary() {
    trap - EXIT INT TERM
    say "" "summary, $SECONDS s, log $log"
    [ ${#results[@]} = 0 ] || say "${results[@]/#/  }"
    [ ${#left[@]} = 0 ] || say "  not started before the deadline: ${left[*]}"
    rm -rf "$work"
}
trap summary EXIT
stop() {
    [ -z "$child" ] || kill "$child"
    conclude stopped "FAILED: from outside"
    exit 1
}
trap stop INT TERM

# A step by its name, with the seconds it needs about and those it gets at most. Standard output goes to the log and to
# $work/NAME, errors to the log and to $work/NAME.err, as they come.
attempt() {
    local name=$1 need=$2 limit=$3 rc start=$SECONDS
    shift 3
    started=''
    if [ -n "$deadline" ]; then
        local rest=$((deadline - SECONDS))
        if [ "$rest" -lt "$need" ]; then
            left+=("$name")
            say "" "== $name: not started, about $need s are needed and $rest s are left"
            return 1
        fi
        [ "$limit" -le "$rest" ] || limit=$rest
    fi
    started=1
    say "" "== $name: $*"
    # In the background, since a shell that waits for its foreground hears no signal.
    tee "$work/$name" <"$work/out.fifo" >>"$log" &
    local readers=($!)
    tee "$work/$name.err" <"$work/err.fifo" >>"$log" &
    readers+=($!)
    timeout --kill-after=5 "$limit" "$@" >"$work/out.fifo" 2>"$work/err.fifo" &
    child=$!
    wait "$child"
    rc=$?
    child=''
    wait "${readers[@]}"
    took="$((SECONDS - start)) s"
    return "$rc"
}

check() {
    local rc=0
    attempt "$@" || rc=$?
    [ -n "$started" ] || return 1
    case $rc in
        0) conclude "$1" "passed, $took" ;;
        124 | 137) conclude "$1" "FAILED: out of time, $took" ;;
        *) conclude "$1" "FAILED ($rc), $took" ;;
    esac
    [ $rc = 0 ] || tail -n 15 "$work/$1" "$work/$1.err" 2>/dev/null
    return $rc
}

skip() { conclude "$1" "left out: $2"; }

chosen() { [[ ,$only, == *",$1,"* ]]; }

# The first value of a field in a JSON file, or nothing.
field() { grep -o "\"$2\": *[^,}]*" "$1" 2>/dev/null | head -n 1 | sed 's/^[^:]*: *//; s/"//g; s/ *$//'; }

# Names fields of a result, and says what they hold.
show() {
    local name=$1 value
    shift
    for field in "$@"; do
        value=$(field "$work/$name" "$field")
        [ -z "$value" ] || say "   $name $field: $value"
    done
}

# Two results hold the same value.
same() {
    local name=$1 field=$2 a b
    a=$(field "$work/$3" "$field") b=$(field "$work/$4" "$field")
    if [ -n "$a" ] && [ "$a" = "$b" ]; then
        conclude "$name" "passed (${a:0:16})"
    else
        conclude "$name" "FAILED: $3 has '$a', $4 has '$b'"
    fi
}

# Whether a value is a number between two.
between() { awk -v v="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(v ~ /^-?[0-9]/ && v + 0 >= a && v + 0 <= b) }'; }

# A goal of speed: name, value, least, most. Nothing where the value was not measured.
goal() {
    [ -n "$2" ] || return 0
    if between "$2" "$3" "$4"; then conclude "goal: $1" "met: $2"; else conclude "goal: $1" "MISSED: $2"; fi
}

doctor() {
    check doctor 5 60 "$gauntlet" doctor --json
    check gpu-driver 5 60 "$programs/tests/gpu-driver"
}

# Kernels against their references on fresh inputs, poisoned outputs, the golden θ of DeMo. One thread: one device.
kernels() {
    if [ -z "$gpu" ]; then skip kernels "no GPU" && return; fi
    local -x GAUNTLET_TEST_DEVICE=$device
    check model-kernels 20 150 "$programs/tests/model-kernels" --test-threads 1
    GAUNTLET_TEST_LIBRARY=0 check model-kernels-own-products 20 150 "$programs/tests/model-kernels" --test-threads 1
    check demo-kernels 20 150 "$programs/tests/demo-gpu" --test-threads 1
    check demo-payloads 10 100 "$programs/tests/demo-gauntlet_demo" --test-threads 1 gpu::
}

# Golden LLaMA states on the GPU, and θ after the same windows on both.
golden() {
    if [ -n "$gpu" ]; then
        local -x GAUNTLET_TEST_DEVICE=$device
        check golden 15 120 "$programs/tests/tests-model" --test-threads 1 golden::cuda
        GAUNTLET_TEST_LIBRARY=0 check golden-own-products 15 120 "$programs/tests/tests-model" --test-threads 1 \
            golden::cuda
        unset GAUNTLET_TEST_DEVICE
    else
        skip golden "no GPU"
    fi
    local bench=(bench demo --params 2e6 --peers 8 --runs 2)
    check demo-theta 10 120 "$gauntlet" "${bench[@]}" --device "$device" || return
    check demo-theta-cpu 10 120 "$gauntlet" "${bench[@]}" --device cpu || return
    same "θ after DeMo, $device and cpu" theta_hash demo-theta demo-theta-cpu
}

# Two runs give the same bits.
repeat() {
    local shape=(--preset small-10m --seq 256 --batch 8 --steps 20)
    [ -z "$quick" ] || shape=(--preset byte-1m --seq 64 --batch 2 --steps 3)
    for run in 1 2; do
        check "train-$run" 15 120 "$gauntlet" train "${shape[@]}" --device "$device" --json --out "$work/run-$run" || return
        cp "$work/run-$run/summary.json" "$work/summary-$run"
    done
    same "θ of two runs, $device" theta_hash summary-1 summary-2
}

step_shape=(--preset 1b --seq 2048 --batch 8)
[ -z "$quick" ] || step_shape=(--preset byte-1m --seq 128 --batch 4)

step() {
    check bench-step 40 200 "$gauntlet" bench step "${step_shape[@]}" --runs 5 --device "$device" || return
    show bench-step device_name kernels cublaslt tokens_per_s mfu peak_tflops device_bytes planned_bytes
    # Initial weights are small: the first loss is little more than that of equal chances.
    local loss vocab
    loss=$(field "$work/bench-step" first_loss) vocab=$(field "$work/bench-step" vocab)
    if between "$loss" "$(awk "BEGIN { print log($vocab) - 0.2 }")" "$(awk "BEGIN { print log($vocab) + 1 }")"; then
        conclude "first loss" "passed ($loss, vocabulary $vocab)"
    else
        conclude "first loss" "FAILED: '$loss' is not about the logarithm of $vocab"
    fi
    between "$(field "$work/bench-step" loss)" 0 "$loss" || conclude "last loss" "FAILED: above the first, or no number"
    [ -n "$gpu" ] || return 0
    if [ "$(field "$work/bench-step" cublaslt)" = true ]; then
        conclude cuBLASLt passed
    else
        conclude cuBLASLt "FAILED: not found; what follows measures our own products. Set CUDA_HOME or VIRTUAL_ENV"
    fi
    goal "MFU at least 0.5" "$(field "$work/bench-step" mfu)" 0.5 1
    # The products alone, by cuBLASLt and by our kernels.
    local products
    for products in library own; do
        check "gemm-$products" 25 100 "$gauntlet" bench gemm "${step_shape[@]}" --runs 3 --products $products \
            --device "$device"
    done
}

# PyTorch beside ours, alternating.
peer() {
    python3 -c 'import torch' 2>/dev/null || { skip peer-step "python3 has no torch" && return; }
    local rounds=2 first=()
    [ -z "$deadline$quick" ] || rounds=1
    [ -z "$(field "$work/bench-step" peak_tflops)" ] || first=(--first "$work/bench-step")
    check peer-step 200 700 python3 "$peers/gpu_step.py" "$gauntlet" --device "$device" "${step_shape[@]}" \
        --rounds $rounds --runs 5 ${first[@]+"${first[@]}"} || return
    goal "ahead of torch eager" "$(field "$work/peer-step" "gauntlet over torch eager")" 1 1000
    goal "ahead of torch compile" "$(field "$work/peer-step" "gauntlet over torch compile")" 1 1000
}

demo() {
    local params=1.2e9 need=120
    [ -z "$quick" ] || params=1e6 need=5
    if check bench-demo $need 300 "$gauntlet" bench demo --params $params --peers 15 --runs 3 --device "$device"; then
        show bench-demo device encode_over_traffic apply_over_traffic theta_hash
        goal "encode at most 4 times its traffic" "$(field "$work/bench-demo" encode_over_traffic)" 0 4
        goal "apply at most 2 times its traffic" "$(field "$work/bench-demo" apply_over_traffic)" 0 2
    fi
    if python3 -c 'import torch' 2>/dev/null; then
        check peer-demo 30 200 python3 "$peers/demo_speed.py" $params 15 32 3 --device "$device"
    else
        skip peer-demo "python3 has no torch"
    fi
}

# A run with the 1.2B: phases against a window of 84 s, and seconds a validator takes for a peer.
simulate() {
    local shape=(--preset 1b --seq 2048 --peers 2 --validators 1 --windows 4 --no-baseline) need=120
    [ -z "$quick" ] || shape=(--preset byte-1m --seq 64 --peers 2 --validators 1 --windows 2 --no-baseline) need=5
    check simulate $need 400 "$gauntlet" simulate "${shape[@]}" --device "$device" --json --out "$work/simulation" || return
    show simulation/summary.json theta_hash all_agree
    local timing=$work/simulation/timing.json part
    [ -f "$timing" ] || return 0
    say "$(cat "$timing")"
    for part in submission evaluated_peer validator closing; do
        tr -d ' \n' <"$timing" | grep -o "\"$part\":{[^}]*}" >"$work/$part"
        show $part seconds share
    done
    goal "a validator's window fits a window" "$(field "$work/validator" share)" 0 1
}

# Bad memory accesses and races, by parts, so that what a deadline cuts is small.
sanitizer() {
    if [ -z "$gpu" ]; then skip sanitizer "no GPU" && return; fi
    if [ -n "$quick" ]; then skip sanitizer "--quick" && return; fi
    local sanitizer tool part rc
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) \
        || { skip sanitizer "compute-sanitizer is not installed" && return; }
    # Our own products: a race in NVIDIA's library would not be ours.
    local -x GAUNTLET_TEST_DEVICE=$device GAUNTLET_TEST_LIBRARY=0
    for tool in memcheck racecheck; do
        for part in model-kernels:operations model-kernels:attention model-kernels:matmul model-kernels:optimizer \
            demo-gpu:gathers demo-gpu:momenta demo-gpu:payloads; do
            rc=0
            attempt "$tool-$part" 30 200 "$sanitizer" --tool $tool --error-exitcode 9 "$programs/tests/${part%:*}" \
                --test-threads 1 "${part#*:}" || rc=$?
            if [ -z "$started" ]; then
                continue
            elif [ $rc = 0 ]; then
                conclude "$tool-$part" "passed, $took"
            elif grep -qs 'Device not supported' "$work/$tool-$part" "$work/$tool-$part.err"; then
                skip sanitizer "compute-sanitizer says: Device not supported"
                return
            else
                conclude "$tool-$part" "FAILED ($rc), $took"
                tail -n 15 "$work/$tool-$part"
            fi
        done
    done
}

say "commit $(cat "$programs/commit"), $(date -u +%FT%TZ), $(uname -srm), device $device"
[ -z "$gpu" ] || nvidia-smi 2>&1 | tee -a "$log" || true
for name in ${all//,/ }; do
    ! chosen "$name" || "$name"
done
exit $failed
