#!/usr/bin/env bash
# Compiles the CUDA kernels of each folder into one fat binary (sm_80 and sm_90a code, compute_80 PTX),
# writes its lock, and the table of registers, shared memory and spills in docs/kernels.md.
#
#   gpu/build-kernels.sh [FOLDER…]            model/kernels and demo/kernels unless named
#   gpu/build-kernels.sh --check [FOLDER…]    changes nothing; fails if a committed file or table is not what the sources
#                                             give
# No kernel may spill registers.
#
# Only who changes a kernel runs this: the build embeds the committed file. Needs the host's g++ and
# Python's pip, which brings the compiler into target/ (or GAUNTLET_CUDA_HOME names a CUDA 13.0 toolkit).
# The same sources and flags give the same bytes. Later compilers write PTX that a 580 driver refuses.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly TOOLKIT=13.0.2
readonly SHARED=gpu/kernels

check=
if [ "${1-}" = --check ]; then
    check=1
    shift
fi
folders=("$@")
if [ ${#folders[@]} = 0 ]; then
    for folder in model/kernels demo/kernels; do
        [ -d "$folder" ] && folders+=("$folder")
    done
fi

toolkit() {
    if [ -n "${GAUNTLET_CUDA_HOME-}" ]; then
        echo "$GAUNTLET_CUDA_HOME"
        return
    fi
    local home="${CARGO_TARGET_DIR:-target}/cuda-toolkit-$TOOLKIT"
    if [ ! -x "$home/nvidia/cu13/bin/nvcc" ]; then
        python3 -m venv "$home.venv" >&2
        "$home.venv/bin/pip" install --quiet --no-cache-dir --target "$home.new" \
            "cuda-toolkit[nvcc,crt,nvvm,cccl,cudart]==$TOOLKIT" >&2
        rm -rf "$home" "$home.venv"
        mv "$home.new" "$home"
    fi
    (cd "$home/nvidia/cu13" && pwd)
}

# Everything a fat binary is made of, sorted: kernels, headers, flags.
sources() {
    find "$1" "$SHARED" -maxdepth 1 -type f \( -name '*.cu' -o -name '*.cuh' -o -name flags \) | LC_ALL=C sort
}

# One translation unit, so that one module holds all kernels. Names are relative: the bytes do not
# depend on where the repository lies.
compile() {
    local folder=$1 out=$2 log=$3 flags=()
    mapfile -t flags < <(cat "$SHARED/flags" "$folder/flags" 2>/dev/null)
    find "$folder" -maxdepth 1 -name '*.cu' -printf '#include "%p"\n' | LC_ALL=C sort >"$work/kernels.cu"
    nvcc "${flags[@]}" -I. -I"$SHARED" -I"$folder" --threads 2 -Xptxas -v --fatbin -o "$out" "$work/kernels.cu" 2>"$log" || {
        cat "$log" >&2
        return 1
    }
    grep -iE 'warning' "$log" >&2 || true
}

lock() {
    local folder=$1 fatbin=$2
    echo "# Written by gpu/build-kernels.sh, verified by the build."
    echo "toolkit $TOOLKIT"
    echo "$(sha256sum "$fatbin" | cut -d' ' -f1) kernels.fatbin"
    sources "$folder" | while read -r file; do
        echo "$(sha256sum "$file" | cut -d' ' -f1) $file"
    done
}

# From ptxas' report: registers a thread, static shared memory and spilled bytes a thread, for each kernel.
table() {
    echo "| kernel | sm_80: registers | shared, bytes | spilled, bytes | sm_90a: registers | shared, bytes | spilled, bytes |"
    echo "|---|---|---|---|---|---|---|"
    awk '
        /Compiling entry function/ { split($0, part, "\x27"); kernel = part[2]; arch = part[4]; seen[kernel] = 1 }
        /bytes spill stores/ { for (i = 1; i < NF; i++) if ($i == "bytes" && $(i+1) == "spill") spill[kernel, arch] += $(i-1) }
        /Used [0-9]+ registers/ {
            for (i = 1; i < NF; i++) {
                if ($(i+1) ~ /^registers/) registers[kernel, arch] = $i
                if ($(i+1) == "bytes" && $(i+2) ~ /^smem/) shared[kernel, arch] = $i
            }
        }
        function cells(kernel, arch) {
            return registers[kernel, arch] + 0 " | " shared[kernel, arch] + 0 " | " spill[kernel, arch] + 0
        }
        END { for (kernel in seen) print "| `" kernel "` | " cells(kernel, "sm_80") " | " cells(kernel, "sm_90a") " |" }
    ' "$1" | LC_ALL=C sort
}

# docs/kernels.md with a folder's table between its markers.
documented() {
    awk -v folder="$1" -v table="$2" '
        $0 == "<!-- end: " folder " -->" { inside = 0 }
        !inside { print }
        $0 == "<!-- begin: " folder " -->" { inside = 1; while ((getline line < table) > 0) print line }
    ' docs/kernels.md
}

CUDA_HOME=$(toolkit)
export CUDA_HOME PATH="$CUDA_HOME/bin:$PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
for folder in "${folders[@]}"; do
    folder=${folder%/}
    compile "$folder" "$work/kernels.fatbin" "$work/log"
    lock "$folder" "$work/kernels.fatbin" >"$work/lock"
    table "$work/log" >"$work/table"
    documented "$folder" "$work/table" >"$work/kernels.md"
    if grep -B 1 -E '[1-9][0-9]* bytes spill (stores|loads)' "$work/log" >&2; then
        echo "error: $folder: a kernel spills registers" >&2
        status=1
    fi
    if [ -n "$check" ]; then
        cmp "$work/kernels.fatbin" "$folder/kernels.fatbin" && cmp "$work/lock" "$folder/kernels.lock" || status=1
        diff docs/kernels.md "$work/kernels.md" || status=1
    else
        cp "$work/kernels.fatbin" "$folder/kernels.fatbin"
        cp "$work/lock" "$folder/kernels.lock"
        cat "$work/kernels.md" >docs/kernels.md
        echo "$folder: $(stat -c %s "$folder/kernels.fatbin") bytes, $(grep -c '^| `' "$work/table") kernels"
    fi
done
exit $status
