#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can show, in one go:
#
#   benchmarks/gpu_check.sh [FOLDER]          (default folder: runs/gpu-check)
#
# Needs rbcedge[dev,gpu] and TensorRT, and for the second step compute-sanitizer (it comes with the CUDA toolkit).
# Every step writes its own file into FOLDER and the others go on where one fails; exit code 1 where any did.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:-runs/gpu-check}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$folder"
failed=()

step() { # name, command...
    local name=$1
    shift
    echo "== $name: $*"
    if "$@" >"$folder/$name.txt" 2>&1; then echo "   well"; else
        echo "   FAILED, see $folder/$name.txt"
        failed+=("$name")
    fi
    tail -n 3 "$folder/$name.txt" | sed 's/^/   /'
}

step doctor "$python" -m rbcedge doctor
# Kernels and pipeline against the host through both driver layers, TensorRT's engines against ONNX Runtime.
step tests "$python" -m pytest -m gpu -q -p no:cacheprovider
if command -v compute-sanitizer >/dev/null; then
    # Out of bounds, races between threads (no shared memory: initcheck and memcheck see what there is), leaks.
    for tool in memcheck initcheck; do
        step "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
            "$python" -m pytest -m gpu -q -p no:cacheprovider -k "known or large or normalised or backgrounds" tests/test_gpu_kernels.py
    done
else
    echo "== sanitizer: compute-sanitizer is not on PATH, left out"
    failed+=(sanitizer)
fi
# The loop: latency at three sizes, then the same through host copies and on the CPU.
# INT8 needs a bundle with such ONNX networks ('rbcedge calibrate'): BUNDLE=DIR PRECISION=int8.
precision=${PRECISION:-fp16}
bundle=${BUNDLE:-rbcedge/bundles/default}
step "bench-$precision" "$python" -m rbcedge bench --engine tensorrt --precision "$precision" --bundle "$bundle" \
    --sizes 640x480,1920x1080,3840x2160 --json "$folder/bench-$precision.json"
step cells "$python" benchmarks/paper_cells.py --engine tensorrt --precision fp16
step side-by-side "$python" benchmarks/side_by_side.py --only "gpu, host copies;gpu, zero copy" --out "$folder"
step run "$python" -m rbcedge run "sim:?frames=300" --engine tensorrt --no-live --out "$folder/run-$(date +%s)"

if ((${#failed[@]})); then
    echo "not in order: ${failed[*]}"
    exit 1
fi
echo "all in order; the files are in $folder"
