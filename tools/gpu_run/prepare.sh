# Sourced by the other scripts: installs the wheels of this folder separately, ahead of the machine's packages.
# Sets PYTHONPATH, CUDA_HOME, RNNBENCH_CUBINS and, from the first argument, $out; writes $out/environment.txt.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "${1:?where the results go}" && cd "$1" && pwd)
export PYTHONUNBUFFERED=1
export PYTHONSAFEPATH=1  # the current folder may be a checkout, which is laid out differently from the wheel

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
    --target "$site" "$here"/wheels/*.whl
# Python ignores .pth files in PYTHONPATH, but numba-cuda needs its own to replace numba.cuda
cat >"$site/sitecustomize.py" <<'END'
import os
import site

site.addsitedir(os.path.dirname(__file__))
END
tar -xzf "$here/cubins.tar.gz" -C "$site"
export PYTHONPATH=$site RNNBENCH_CUBINS=$site/cubins

# the compiler libraries, for kernels missing in the folder
for toolkit in "${CUDA_HOME:-}" "$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || true)")")")" /usr/local/cuda*; do
    if [ -e "$toolkit/nvvm/lib64/libnvvm.so" ]; then
        export CUDA_HOME=$toolkit CUDA_PATH=$toolkit PATH=$toolkit/bin:$PATH
        break
    fi
done

{
    echo "commit $(cat "$here/commit")"
    echo "CUDA_HOME ${CUDA_HOME:-not found}"
    nvidia-smi || echo "no nvidia-smi"
    nvcc --version || echo "no nvcc"
    python3 -m pip list --format freeze 2>/dev/null
    python3 -m rnnbench backends --facts
} >"$out/environment.txt" 2>&1 || true
