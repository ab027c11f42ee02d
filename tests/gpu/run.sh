#!/usr/bin/env bash
# Everything that only a GPU can show, in minutes; builds nothing. It runs what tests/gpu/bundle.sh packed: in this tree
# target/gpu/bundle.tar.xz, or the unpacked folder it lies in itself.
#
#   run.sh [--device cuda:0|cpu] [--only NAME,…] [--deadline S] [--quick] [--log FILE] [--bundle FILE] [--first FILE]
#
#   --only      of these, in the order named: doctor kernels golden step demo simulate sanitizer peer repeat
#   --deadline  starts nothing that would not end within S seconds, cuts what takes longer, and says what was left
#   --quick     small shapes, and no sanitizer
#   --first     what an earlier call's `step` found and left beside its log, for a `peer` without one
#   --device cpu  a rehearsal: what needs a GPU is left out, shapes are small
# One log holds device, commands, output and times as they come; its last lines are the summary: what passed, what
# failed, and which goals were met. Exit code: 0 when nothing failed, 1 otherwise, 2 for wrong usage. A goal of speed
# that was missed is no failure.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0" && exit 2; }
all=doctor,kernels,golden,step,demo,simulate,sanitizer,peer,repeat
device=cuda:0 log='' quick='' only=$all deadline='' bundle='' first=''
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=${2-} && shift ;;
        --only) only=${2-} && shift ;;
        --deadline) deadline=${2-} && shift ;;
        --log) log=${2-} && shift ;;
        --bundle) bundle=${2-} && shift ;;
        --first) first=${2-} && shift ;;
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
found=${log%.log}-step.json
work=$(mktemp -d)

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
    rm -f "$work/out.fifo" "$work/err.fifo"
    mkfifo "$work/out.fifo" "$work/err.fifo"
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
    # What a command leaves behind may hold its output open.
    local tenths=0 reader
    for reader in "${readers[@]}"; do
        while kill -0 "$reader" 2>/dev/null && [ "$tenths" -lt 50 ]; do
            sleep 0.1
            tenths=$((tenths + 1))
        done
        kill "$reader" 2>/dev/null
    done
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

# A result's field has a value.
equals() {
    local name=$1 value
    value=$(field "$work/$2" "$3")
    if [ "$value" = "$4" ]; then conclude "$name" "passed ($value)"; else conclude "$name" "FAILED: '$value', not $4"; fi
}

# Whether a value is a number between two.
between() { awk -v v="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(v ~ /^-?[0-9]/ && v + 0 >= a && v + 0 <= b) }'; }

# A goal of speed: name, value, least, most. Nothing where the value was not measured.
goal() {
    [ -n "$2" ] || return 0
    if between "$2" "$3" "$4"; then conclude "goal: $1" "met: $2"; else conclude "goal: $1" "MISSED: $2"; fi
}

# Without a device that takes the kernels everything after it would fail, one by one.
doctor() {
    check doctor 5 60 "$gauntlet" doctor --json
    if [ -n "$gpu" ] && ! grep -q '"opens": *true' "$work/doctor"; then
        conclude device "FAILED: none takes the kernels; see missing above. Nothing else was started"
        exit 1
    fi
    [ -z "$gpu" ] || local -x GAUNTLET_TEST_DEVICE=$device
    check gpu-driver 5 60 "$programs/tests/gpu-driver"
}

# Kernels against their references on fresh inputs, poisoned outputs, the golden θ of DeMo. One thread: one device.
kernels() {
    if [ -z "$gpu" ]; then without_driver && return; fi
    local -x GAUNTLET_TEST_DEVICE=$device
    check model-kernels 35 200 "$programs/tests/model-kernels" --test-threads 1
    GAUNTLET_TEST_LIBRARY=0 check model-kernels-own-products 35 200 "$programs/tests/model-kernels" --test-threads 1
    check demo-kernels 20 150 "$programs/tests/demo-gpu" --test-threads 1
    check demo-payloads 10 100 "$programs/tests/demo-gauntlet_demo" --test-threads 1 gpu::
}

# A rehearsal of them: where a GPU is named, nothing but its driver is missing, no compiler and no source.
without_driver() {
    if ! "$gauntlet" doctor --json | grep -q '"driver": *null'; then skip kernels "rehearsed without a driver alone" && return; fi
    local tests rc other
    for tests in model-kernels demo-gpu "demo-gauntlet_demo gpu::" "tests-model golden::cuda"; do
        rc=0
        # shellcheck disable=SC2086 # a binary and its filter
        attempt rehearsal 5 60 env GAUNTLET_TEST_DEVICE=cuda:0 GAUNTLET_KERNEL_CXX=/nonexistent "$programs/tests/"$tests \
            --test-threads 1 || rc=$?
        # A device that all tests share is missing at the first, and poisoned for the others.
        other=$(awk '/ panicked at / { getline; if (!/no CUDA driver|previously been poisoned/) print }' "$work/rehearsal")
        if [ $rc = 101 ] && [ -z "$other" ] && grep -q 'no CUDA driver' "$work/rehearsal"; then
            conclude "${tests%% *} without a driver" "passed, $took"
        else
            conclude "${tests%% *} without a driver" "FAILED ($rc): ${other:-nothing said 'no CUDA driver'}"
        fi
    done
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
    real_shape
    local bench=(bench demo --params 2e6 --peers 8 --runs 2)
    check demo-theta 10 120 "$gauntlet" "${bench[@]}" --device "$device" || return
    check demo-theta-cpu 10 120 "$gauntlet" "${bench[@]}" --device cpu || return
    same "θ after DeMo, $device and cpu" theta_hash demo-theta demo-theta-cpu
}

# The same weights and batch on CPU and GPU, at a shape with many blocks of every kernel: loss and norm of the gradient.
real_shape() {
    local shape=(--preset 150m --seq 1024 --batch 2 --runs 1)
    [ -z "$quick" ] || shape=(--preset byte-1m --seq 64 --batch 2 --runs 1)
    check real-shape 10 60 "$gauntlet" bench step "${shape[@]}" --device "$device" --peak-tflops 1000 || return
    check real-shape-cpu 30 120 "$gauntlet" bench step "${shape[@]}" --device cpu || return
    agree "on $device and cpu" real-shape real-shape-cpu
}

# First loss and gradient norm of two steps from the same weights: of small weights the loss alone says little.
agree() {
    local how=$1 part a b
    for part in first_loss:0.002 first_grad_norm:0.02; do
        a=$(field "$work/$2" "${part%:*}") b=$(field "$work/$3" "${part%:*}")
        if awk -v a="$a" -v b="$b" -v most="${part#*:}" \
            'BEGIN { exit !(a ~ /^[0-9]/ && b + 0 > 0 && (a - b) ^ 2 <= (most * b) ^ 2) }'; then
            conclude "${part%:*} $how" "passed ($a, $b)"
        else
            conclude "${part%:*} $how" "FAILED: '$a' and '$b'"
        fi
    done
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
    cp "$work/bench-step" "$found"
    show bench-step device_name kernels cublaslt recompute tokens_per_s mfu peak_tflops device_bytes planned_bytes \
        library_products own_products
    # Initial weights are small: the first loss is little more than that of equal chances.
    local loss vocab
    loss=$(field "$work/bench-step" first_loss) vocab=$(field "$work/bench-step" vocab)
    if between "$loss" "$(awk "BEGIN { print log($vocab) - 0.2 }")" "$(awk "BEGIN { print log($vocab) + 1 }")"; then
        conclude "first loss" "passed ($loss, vocabulary $vocab)"
    else
        conclude "first loss" "FAILED: '$loss' is not about the logarithm of $vocab"
    fi
    between "$(field "$work/bench-step" loss)" 0 "$loss" || conclude "last loss" "FAILED: above the first, or no number"
    torch_peak
    [ -n "$gpu" ] || return 0
    if [ "$(field "$work/bench-step" cublaslt)" = true ]; then
        conclude cuBLASLt passed
        [ -n "$quick" ] || equals "products cuBLASLt left to us in a step" bench-step own_products 0
    else
        conclude cuBLASLt "FAILED: not found, or it does not start (see doctor); what follows measures our own products. Set CUDA_HOME or VIRTUAL_ENV"
    fi
    mfu "$work/bench-step" torch-peak
    # The products alone, by cuBLASLt and by our kernels, and a step with ours.
    local products
    for products in library own; do
        check "gemm-$products" 25 100 "$gauntlet" bench gemm "${step_shape[@]}" --runs 3 --products $products \
            --device "$device"
        show "gemm-$products" step_tflops library_products own_products
    done
    say "   our own products' rate over cuBLASLt's: $(ratio "$(field "$work/gemm-own" step_tflops)" \
        "$(field "$work/gemm-library" step_tflops)")"
    check step-own-products 25 100 "$gauntlet" bench step "${step_shape[@]}" --runs 3 --products own --device "$device" \
        --peak-tflops "$(field "$work/bench-step" peak_tflops)"
    if [ -n "$started" ]; then
        show step-own-products tokens_per_s mfu library_products own_products
        # The same weights and batch: products differ in rounding.
        agree "by our own products and cuBLASLt's" step-own-products bench-step
    fi
    # Whether wider tensor-core instructions would pay.
    check attention 10 60 "$gauntlet" bench attention "${step_shape[@]}" --runs 3 --device "$device"
}

# The peak rate that PyTorch reaches on the same product.
torch_peak() {
    python3 -c 'import torch' 2>/dev/null || { skip torch-peak "python3 has no torch" && return; }
    check torch-peak 20 90 python3 "$peers/gpu_step.py" "$gauntlet" --device "$device" --peak-only || return
    show torch-peak torch_peak_tflops
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a > 0 && b > 0) printf "%.3f", a / b; else print "not measured" }'; }

# MFU against the larger of two measured peaks, ours (in a step's result) and PyTorch's.
mfu() {
    local share own theirs largest
    share=$(field "$1" mfu) own=$(field "$1" peak_tflops) theirs=$(field "$work/$2" torch_peak_tflops)
    largest=$(awk -v a="$own" -v b="$theirs" 'BEGIN { print (a + 0 > b + 0) ? a + 0 : b + 0 }')
    say "   peak TFLOP/s of 8192 x 8192 products in bf16: ours ${own:-not measured}, PyTorch's ${theirs:-not measured}"
    between "$largest" 700 100000 \
        || conclude "peak rate" "LOW: $largest TFLOP/s, an H200 does more than 700: MFU is a share of a slow device"
    [ -z "$share" ] || goal "MFU at least 0.5 of $largest TFLOP/s" \
        "$(awk -v m="$share" -v p="$own" -v l="$largest" 'BEGIN { print m * p / l }')" 0.5 1
}

# PyTorch beside ours, alternating.
peer() {
    python3 -c 'import torch' 2>/dev/null || { skip peer-step "python3 has no torch" && return; }
    local rounds=2 known=()
    [ -z "$deadline$quick" ] || rounds=1
    [ -n "$first" ] || [ ! -s "$work/bench-step" ] || first=$work/bench-step
    [ -z "$(field "$first" tokens_per_s)" ] || known=(--first "$first")
    check peer-step 200 400 python3 "$peers/gpu_step.py" "$gauntlet" --device "$device" "${step_shape[@]}" \
        --rounds $rounds --runs 5 ${known[@]+"${known[@]}"}
    # What was measured before a side failed counts all the same.
    goal "ahead of torch eager" "$(field "$work/peer-step" "gauntlet over torch eager")" 1 1000
    goal "ahead of torch compile" "$(field "$work/peer-step" "gauntlet over torch compile")" 1 1000
    [ -z "$gpu" ] || [ -z "$first" ] || mfu "$first" peer-step
}

demo() {
    local params=1.2e9 need=120
    [ -z "$quick" ] || params=1e6 need=5
    if check bench-demo $need 300 "$gauntlet" bench demo --params $params --peers 15 --runs 3 --device "$device"; then
        show bench-demo device encode_over_traffic apply_over_traffic read_and_apply_over_traffic theta_hash
        goal "encode at most 4 times its traffic" "$(field "$work/bench-demo" encode_over_traffic)" 0 4
        goal "apply at most 2 times its traffic" "$(field "$work/bench-demo" apply_over_traffic)" 0 2
    fi
    if python3 -c 'import torch' 2>/dev/null; then
        check peer-demo 30 120 python3 "$peers/demo_speed.py" $params 15 32 3 --device "$device"
    else
        skip peer-demo "python3 has no torch"
    fi
}

# A run with the 1.2B: phases against a window of 84 s, and seconds a validator takes for a peer.
simulate() {
    local ids=(--tokenizer "$programs/tokenizer.json") windows=4 need=120 part
    local whole=(--preset 1b --seq 2048 --peers 2 --validators 1 --windows 4 --no-baseline "${ids[@]}")
    # The plan needs no GPU.
    local planned=cuda:0
    [ -z "$gpu" ] || planned=$device
    check simulate-plan 5 60 "$gauntlet" simulate "${whole[@]}" --device "$planned" --plan || return
    equals "parameters of the 1.2B" simulate-plan parameters 1204881408
    show simulate-plan total_bytes momenta_on_device host_bytes
    local shape=("${whole[@]}")
    [ -z "$quick" ] \
        || shape=(--preset byte-1m --seq 64 --peers 2 --validators 1 --windows 2 --no-baseline) windows=2 need=5
    check simulate $need 300 "$gauntlet" simulate "${shape[@]}" --device "$device" --json --out "$work/simulation" || return
    show simulation/summary.json theta_hash all_agree parameters
    [ -n "$quick" ] || equals "parameters of the run" simulation/summary.json parameters 1204881408
    moved $windows
    local timing=$work/simulation/timing.json
    [ -f "$timing" ] || return 0
    say "$(cat "$timing")"
    if [ -n "$gpu" ]; then
        # A θ that the CPU's outer step does not give as well ends the run.
        if between "$(field "$timing" check)" 1e-9 1e9 && [ "$(field "$work/simulation/summary.json" all_agree)" = true ]; then
            conclude "θ of each outer step is the CPU's" passed
        else
            conclude "θ of each outer step is the CPU's" "FAILED: not compared, or nodes differ"
        fi
    fi
    for part in submission evaluated_peer validator closing; do
        tr -d ' \n' <"$timing" | grep -o "\"$part\":{[^}]*}" >"$work/$part"
        show $part seconds share
    done
    # What a validator does in a window: judging, then the record and the outer step.
    goal "a validator's work fits a window" "$(awk -v a="$(field "$work/validator" share)" \
        -v b="$(field "$work/closing" share)" 'BEGIN { if (a != "" && b != "") print a + b }')" 0 1
}

# In each window of a simulation something was accepted, and θ became another.
moved() {
    local windows accepted thetas
    grep '^{"window":' "$work/simulate" >"$work/windows"
    windows=$(wc -l <"$work/windows")
    accepted=$(grep -c '"accepted":[1-9]' "$work/windows")
    thetas=$(grep -o '"theta":"[0-9a-f]*"' "$work/windows" | sort -u | wc -l)
    if [ "$windows $accepted $thetas" = "$1 $1 $1" ]; then
        conclude "θ moves in each window" "passed ($1 windows)"
    else
        conclude "θ moves in each window" "FAILED: $windows of $1 windows, $accepted that accepted, $thetas different θ"
    fi
}

# Bad memory accesses and races. One start for each tool and binary: tests that are done are in the log when a deadline
# cuts the rest.
sanitizer() {
    if [ -z "$gpu" ]; then skip sanitizer "no GPU" && return; fi
    if [ -n "$quick" ]; then skip sanitizer "--quick" && return; fi
    local sanitizer tool part rc
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) \
        || { skip sanitizer "compute-sanitizer is not installed" && return; }
    # Our own products: a race in NVIDIA's library would not be ours.
    local -x GAUNTLET_TEST_DEVICE=$device GAUNTLET_TEST_LIBRARY=0
    local parts=(
        # One test opens the device a dozen times, and runs no kernel.
        "model-kernels operations attention matmul optimizer --skip heads_too_wide --skip heavy_"
        "demo-gpu gathers momenta payloads more_ lower_median what_is_not_finite opposite"
        "demo-gauntlet_demo gpu::"
    )
    for part in "${parts[@]}"; do
        for tool in memcheck racecheck; do
            rc=0
            # shellcheck disable=SC2086 # filters
            attempt "$tool-${part%% *}" 30 120 "$sanitizer" --tool $tool --error-exitcode 9 "$programs/tests/"$part \
                --test-threads 1 || rc=$?
            if [ -z "$started" ]; then
                continue
            elif [ $rc = 0 ]; then
                conclude "$tool-${part%% *}" "passed, $took"
            elif grep -qs 'Device not supported' "$work/$tool-${part%% *}" "$work/$tool-${part%% *}.err"; then
                skip sanitizer "compute-sanitizer says: Device not supported"
                return
            elif [ $rc = 124 ] || [ $rc = 137 ]; then
                conclude "$tool-${part%% *}" "FAILED: out of time, $took; $(grep -c ' \.\.\. ok$' "$work/$tool-${part%% *}") tests done"
            else
                conclude "$tool-${part%% *}" "FAILED ($rc), $took"
                tail -n 15 "$work/$tool-${part%% *}"
            fi
        done
    done
}

# A bundle of another tree would be measured under this one's name.
if [ "$programs" != "$here" ] && tree=$(git -C "$here" rev-parse HEAD 2>/dev/null); then
    [ "$tree" = "$(cut -c1-40 "$programs/commit")" ] \
        || say "the bundle was made of another commit than this tree, $tree: what follows is about the bundle"
fi
say "commit $(cat "$programs/commit"), $(date -u +%FT%TZ), $(uname -srm), device $device"
[ -z "$gpu" ] || nvidia-smi 2>&1 | tee -a "$log" || true
say "$(head -n 5 /proc/meminfo)"
if [ -n "$gpu" ] && kib=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo) && [ -n "$kib" ]; then
    # A virtual machine may say that little is free and get the rest as soon as it is used.
    export GAUNTLET_FREE_MEMORY=${GAUNTLET_FREE_MEMORY:-$((kib * 1024))}
fi
if [ -n "$first" ] && [ ! -s "$first" ]; then
    say "--first $first is not there: peer measures that step itself"
    first=''
fi
for name in ${only//,/ }; do
    "$name"
done
exit $failed
