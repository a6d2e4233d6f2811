#!/usr/bin/env bash
# Networks of chapter 3 at their published size, and inference speed, on one GPU: under 12 minutes on an H100.
#
#   benchmarks/gpu.sh pack COHORT FOLDER       local: pack everything the GPU machine needs (up to 64 MiB) into FOLDER
#   FOLDER/gpu.sh answer OUT                   GPU machine: inference time with warm models, and peak throughput
#   FOLDER/gpu.sh study OUT [options]          GPU machine: five folds of each network; continues from OUT/pieces.jsonl
#   benchmarks/gpu.sh merge OUT... RESULTS     local: write the csv files and their run record
#
# The GPU machine needs Python 3.11 or later with torch, lightning, einops, numpy, scipy, scikit-learn, pillow and
# safetensors; MONAI is packed into the folder. FOLDER contains images of patients: never commit it to the repository.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}

pack() {
    local cohort=$1 folder=$2 root
    root=$(dirname "$here")
    # only the packages that training and inference need
    rm -rf "$folder/code"
    mkdir -p "$folder/code/gliomark"
    for room in study.py models training inference evaluation; do
        cp -R "$root/src/gliomark/$room" "$folder/code/gliomark/"
    done
    cp "$root/src/gliomark/__init__.py" "$folder/code/gliomark/"
    cp -R "$here/gpu" "$folder/code/"
    cp "$here/gpu.sh" "$folder/"
    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
    git -C "$root" rev-parse HEAD > "$folder/commit"
    "$python" -m pip download --quiet --no-deps -d "$folder" "monai==$("$python" -c 'import monai; print(monai.__version__)')"
    test -f "$folder/cohort.zip" || PYTHONPATH="$root/src" "$python" "$here/gpu/pack.py" "$cohort" "$folder/cohort.zip"
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
        test -d "$here/code/monai" || (cd "$here/code" && "$python" -m zipfile -e ../monai-*.whl .)
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
