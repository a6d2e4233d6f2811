#!/usr/bin/env bash
# Networks of chapter 3 at their published size, and inference speed, on one GPU: under 12 minutes on an H100.
#
#   benchmarks/gpu.sh pack COHORT FOLDER       local: pack everything the GPU machine needs (up to 64 MiB) into FOLDER;
#                                              GPU_PYTHON: Python version of that machine, 3.12 by default
#   FOLDER/gpu.sh answer OUT                   GPU machine: inference time with warm models, and peak throughput
#   FOLDER/gpu.sh study OUT [options]          GPU machine: five folds of each network; continues from OUT/pieces.jsonl
#   benchmarks/gpu.sh merge OUT... RESULTS     local: write the csv files and their run record
#
# The GPU machine needs Python 3.11 or later with torch, lightning, einops, numpy, scipy, scikit-learn, pillow, pandas
# and safetensors; the other packages are packed into the folder. FOLDER contains images of patients: never commit it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

# Wheels that a machine with PyTorch may lack; they are unpacked beside the code.
wheels="monai lightgbm pydantic pydantic-core annotated-types typing-inspection typing-extensions platformdirs"

pack() {
    local cohort=$1 folder=$2 root package
    root=$(dirname "$here")
    rm -rf "$folder/code"
    mkdir -p "$folder/code"
    cp -R "$root/src/gliomark" "$here/gpu" "$folder/code/"
    rm -rf "$folder"/code/gliomark/{client,server,phantom,preprocessing/deepbet}  # large, or not needed
    cp "$here/gpu.sh" "$folder/"
    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
    git -C "$root" rev-parse HEAD > "$folder/commit"
    for package in $wheels; do # the versions that are installed here, for the Python of the GPU machine
        "$python" -m pip download --quiet --no-deps --only-binary :all: --python-version "${GPU_PYTHON:-3.12}" \
            -d "$folder" "$package==$("$python" -c "import importlib.metadata as m; print(m.version('$package'))")"
    done
    test -f "$folder/cohort.zip" ||
        PYTHONPATH="$root/src:$here" "$python" -m gpu.packed_cohort "$cohort" "$folder/cohort.zip"
    du -sh "$folder"
}

command=${1:?pack, answer, study or merge}
shift
case $command in
    pack) pack "$1" "$2" ;;
    answer | study)
        out=$1
        shift
        export PYTHONPATH=$here/code PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2
        export TORCHINDUCTOR_COMPILE_THREADS=${TORCHINDUCTOR_COMPILE_THREADS:-5}
        mkdir -p "$out"
        test -d "$here/code/monai" ||
            (cd "$here/code" && for wheel in ../*.whl; do "$python" -m zipfile -e "$wheel" .; done)
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader > "$out/gpu.txt" 2> /dev/null || true
        "$python" -c 'import platform, torch, monai, numpy; print(platform.python_version(), torch.__version__, monai.__version__, numpy.__version__)' > "$out/versions.txt"
        cp "$here/commit" "$out/commit"
        # cohort name, settings and hash of the folds, without patients
        "$python" -c 'import json, sys, zipfile; i = json.loads(zipfile.ZipFile(sys.argv[1]).read("index.json")); del i["patients"]; print(json.dumps(i))' \
            "$here/cohort.zip" > "$out/index.json"
        weights=${WEIGHTS:-$here/code/gliomark/models/shipped/demonstration.safetensors}
        if [ "$command" = answer ]; then
            "$python" -m gpu.inference_speed --pack "$here/cohort.zip" --weights "$weights" --out "$out" "$@"
        else
            "$python" -m gpu.segmentation_benchmark --pack "$here/cohort.zip" --out "$out" "$@"
        fi
        ;;
    merge) PYTHONPATH=$here:$(dirname "$here")/src "$python" -m gpu.merge_results "$@" ;;
    *) echo "gpu.sh: unknown command '$command'; use pack, answer, study or merge" >&2; exit 2 ;;
esac
