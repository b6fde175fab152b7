"""A scalar program as one C kernel over many trajectories, built by the system's compiler and loaded with ctypes.

The kernel holds the states structure-of-arrays, ``(variables, trajectories)``, and works on blocks of
trajectories that stay in the first-level cache for all steps of a call. The loop over a block is
plain C that the compiler vectorises; ctypes releases the GIL, so Python threads share the columns.

The arithmetic is torch's own but for two things: products and sums may be fused, which rounds once instead of twice,
and elementary functions come from the C library's vector mathematics (4 units in the last place). No ``-ffast-math``:
it loses NaN, and loading such a library switches the whole process to flush denormals. No reassociation either, though
it would be about 8% faster on Beale: ``0 * x`` does not survive it when x is infinite.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from saddlescope.dynamics.noise import RowLayout
from saddlescope.dynamics.scalar_program import ScalarProgram, Value
from saddlescope.dynamics.stages import Stage, split

LARGEST_PROGRAM = 10_000
"""Scalar operations beyond which compilation takes longer than it saves."""

_FLAGS = (
    "-O3 -march=native -std=gnu11 -shared -fPIC -fopenmp-simd -ffp-contract=fast -fno-math-errno -fno-trapping-math "
    "-fno-builtin-sin -fno-builtin-cos -fno-builtin-sinf -fno-builtin-cosf"
).split()
_INFIX = dict(add="+", sub="-", mul="*", div="/", gt=">", ge=">=", lt="<", le="<=", eq="==", ne="!=")
_INFIX |= {"and": "&", "or": "|"}
_FUNCTIONS = ("sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "tanh", "pow")
_BLOCK_BYTES = 16 * 1024


class CompilationFailed(Exception):
    """No kernel could be built; the message says why and what to install."""


class Kernel:
    """A loaded kernel: advances states in place."""

    name = "compiled"

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype, table: Tensor | None = None) -> None:
        self._library, self._dtype = library, dtype
        self._table = torch.empty(0, 0, dtype=dtype) if table is None else table.to("cpu", dtype).contiguous()
        self._run = library.run
        self._run.restype = None
        pointer, size, word = ctypes.c_void_p, ctypes.c_long, ctypes.c_uint64
        self._run.argtypes = [pointer, size, pointer, pointer, size, pointer, size, word, size, word]

    def with_table(self, table: Tensor) -> Kernel:
        """Return the kernel for other data ``(rows, columns)``."""
        return Kernel(self._library, self._dtype, table)

    def advance(
        self, states: Tensor, parameters: Tensor, *, replicas: Tensor, first_step: int, steps: int, seed: int
    ) -> None:
        """Take ``steps`` steps in place; ``states`` ``(variables, n)`` is contiguous."""
        count = states.shape[1]
        numbers = replicas.to(torch.int32).contiguous()
        threads = min(torch.get_num_threads(), max(1, count // 64))
        # More pieces than threads even out the load; the kernel's results do not depend on the pieces.
        pieces = 1 if threads == 1 else min(8 * threads, max(1, count // 64))
        edges = [count * k // pieces for k in range(pieces + 1)]

        def piece(low: int, high: int) -> None:
            start, number = (x.data_ptr() + low * x.element_size() for x in (states, numbers))
            table = self._table.data_ptr(), len(self._table)
            self._run(
                start, count, number, parameters.data_ptr(), high - low, *table, first_step, steps, seed & (2**64 - 1)
            )

        if pieces == 1:
            piece(0, count)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(piece, edges[:-1], edges[1:]))


def compile_program(program: ScalarProgram, dtype: torch.dtype, rows: RowLayout | None = None) -> Kernel:
    """Return the kernel of a step program ``(state, parameters, draws) -> state``.

    Draws are standard normals, or rows of a table when ``rows`` says how they lie.

    Raises:
        CompilationFailed: without a compiler, for too long a program, or when the compiler refuses it.
    """
    if program.size > LARGEST_PROGRAM:
        raise CompilationFailed(f"the step has {program.size} scalar operations, more than {LARGEST_PROGRAM}")
    failure = ""
    # A C library without vector mathematics refuses the first form when it is loaded.
    for vector_math in (True, False) if _has_vector_math() else (False,):
        try:
            source = c_source(program, dtype, rows, vector_math=vector_math)
            return Kernel(ctypes.CDLL(str(_built(source))), dtype)
        except (CompilationFailed, OSError) as error:
            failure = str(error)
    raise CompilationFailed(failure)


def c_source(program: ScalarProgram, dtype: torch.dtype, rows: RowLayout | None = None, *, vector_math: bool) -> str:
    """Return the C text of the kernel."""
    double = dtype == torch.float64
    suffix = "" if double else "f"
    stages, slots = split(program)
    state, parameters, draws = program.inputs
    batches = len(draws) // (rows.columns * (1 if rows.averaged else rows.batch_size)) if rows else 0
    indices = -(-batches * rows.batch_size // 4) * 4 if rows else 0
    lanes = len(draws) if rows else -(-len(draws) // 4) * 4
    stored = len(set(slots.values()))
    arrays = len(state) + lanes + stored + indices
    block = max(32, min(256, _BLOCK_BYTES // (arrays * (8 if double else 4)) // 32 * 32))
    attributes = '__attribute__((const, simd("notinbranch")))' if vector_math else "__attribute__((const))"
    declared = [f"T sqrt{suffix}(T);"]
    declared += [f"{attributes} T {name}{suffix}({'T, T' if name == 'pow' else 'T'});" for name in _FUNCTIONS[1:]]
    loops = [_row_loops(rows, batches)] if rows else [_noise_loop(group) for group in range(lanes // 4)]
    loops += [_loop(program, stage, slots, suffix, last=stage is stages[-1]) for stage in stages]
    return _KERNEL.format(
        type="double" if double else "float",
        suffix=suffix,
        double="#define DOUBLE" if double else "",
        declarations="\n".join(declared),
        noise=Path(__file__).with_name("noise.h").read_text() if lanes else "#include <stdint.h>",
        loops="\n".join(loops),
        block=block,
        variables=len(state),
        lanes=max(lanes, 1),
        indices=max(indices, 1),
        slots=max(stored, 1),
        parameters="\n  ".join(f"const T p{k} = P[{k}];" for k in range(len(parameters))),
    )


_KERNEL = """typedef {type} T;
#define SQRT sqrt{suffix}
#define LOG log{suffix}
{double}
{declarations}
{noise}
#define BLOCK {block}

/* In a function of its own: compilers give up on vectorising it inside the loops of run(). */
static __attribute__((noinline)) void one_step(T (*restrict X)[BLOCK], T (*restrict Y)[BLOCK], T (*restrict Z)[BLOCK],
    uint32_t (*restrict J)[BLOCK], const T *restrict P, const uint32_t *restrict replica, const T *restrict table,
    uint64_t rows, uint64_t step, uint64_t seed) {{
  {parameters}
{loops}
}}

void run(T *restrict W, long stride, const uint32_t *restrict number, const T *restrict P, long count,
         const T *restrict table, long rows, uint64_t first_step, long steps, uint64_t seed) {{
  for (long low = 0; low < count; low += BLOCK) {{
    int filled = count - low < BLOCK ? count - low : BLOCK;
    _Alignas(64) T X[{variables}][BLOCK], Y[{slots}][BLOCK], Z[{lanes}][BLOCK];
    uint32_t replica[BLOCK] = {{0}}, J[{indices}][BLOCK];
    /* Lanes left over repeat the first: zeros may be where a loss has no gradient, and NaN is slow. */
    for (int k = 0; k < {variables}; k++)
      for (int i = 0; i < BLOCK; i++) X[k][i] = W[k * stride + low + (i < filled ? i : 0)];
    for (int i = 0; i < filled; i++) replica[i] = number[low + i];
    for (long s = 0; s < steps; s++) one_step(X, Y, Z, J, P, replica, table, rows, first_step + s, seed);
    for (int k = 0; k < {variables}; k++)
      for (int i = 0; i < filled; i++) W[k * stride + low + i] = X[k][i];
  }}
}}
"""


def _noise_loop(group: int) -> str:
    return f"""#pragma omp simd
  for (int i = 0; i < BLOCK; i++) {{
    words r = philox(replica[i], step & 0xffffffffu, step >> 32, {group}, seed & 0xffffffffu, seed >> 32);
    normal_pair(r.a, r.b, &Z[{4 * group}][i], &Z[{4 * group + 1}][i]);
    normal_pair(r.c, r.d, &Z[{4 * group + 2}][i], &Z[{4 * group + 3}][i]);
  }}"""


def _row_loops(rows: RowLayout, batches: int) -> str:
    """Draw the row numbers of a step, then fetch the rows: gathers in the arithmetic would stop its vectorisation."""
    size, columns = rows.batch_size, rows.columns
    groups = -(-batches * size // 4)
    draws = size if rows.averaged else 1
    return f"""  for (int group = 0; group < {groups}; group++) {{
#pragma omp simd
    for (int i = 0; i < BLOCK; i++) {{
      words r = philox(replica[i], step & 0xffffffffu, step >> 32, group, seed & 0xffffffffu, seed >> 32);
      J[4 * group][i] = (r.a * rows >> 32) * {columns};
      J[4 * group + 1][i] = (r.b * rows >> 32) * {columns};
      J[4 * group + 2][i] = (r.c * rows >> 32) * {columns};
      J[4 * group + 3][i] = (r.d * rows >> 32) * {columns};
    }}
  }}
  for (int b = 0; b < {batches * size // draws}; b++)
    for (int c = 0; c < {columns}; c++) {{
      T *restrict z = Z[b * {columns} + c];
      for (int i = 0; i < BLOCK; i++) z[i] = table[J[b * {draws}][i] + c];
      for (int q = 1; q < {draws}; q++)
        for (int i = 0; i < BLOCK; i++) z[i] += table[J[b * {draws} + q][i] + c];
      for (int i = 0; i < BLOCK; i++) z[i] *= (T){1 / draws!r};
    }}"""


def _loop(program: ScalarProgram, stage: Stage, slots: dict[int, int], suffix: str, *, last: bool) -> str:
    """Return one stage as a loop over the block."""
    names: dict[int, str] = {}
    lines = []
    for x in stage.reads:
        value = program.values[x]
        if value.operation == "input":
            argument, element = value.operands
            source = f"p{element}" if argument == 1 else f"{'XPZ'[argument]}[{element}][i]"
        else:
            source = f"Y[{slots[x]}][i]"
        names[x] = f"t{x}"
        lines.append(f"T t{x} = {source};")

    def text(x: int) -> str:
        if x not in names:
            names[x] = _expression(program.values[x], text, suffix)
        return names[x]

    for x in stage.values:
        lines.append(f"T t{x} = {_expression(program.values[x], text, suffix)};")
        names[x] = f"t{x}"
    lines += [f"Y[{slots[x]}][i] = t{x};" for x in stage.stores]
    if last:
        lines += [f"X[{k}][i] = {text(x)};" for k, x in enumerate(program.outputs[0])]
    body = "\n    ".join(lines)
    return f"#pragma omp simd\n  for (int i = 0; i < BLOCK; i++) {{\n    {body}\n  }}"


def _expression(value: Value, text: Callable[[int], str], suffix: str) -> str:
    x = [text(k) for k in value.operands] if value.operation != "constant" else []
    operation = value.operation
    if operation == "constant":
        return _literal(value.number)
    if operation in _INFIX:
        return f"({x[0]} {_INFIX[operation]} {x[1]})"
    if operation in _FUNCTIONS:
        return f"{operation}{suffix}({', '.join(x)})"
    templates: dict[str, Callable[..., str]] = {
        "neg": "(-{})".format,
        "not": "(!{})".format,
        "abs": f"__builtin_fabs{suffix}({{}})".format,
        "sgn": "((T)({0} > 0) - (T)({0} < 0))".format,
        "where": "({} ? {} : {})".format,
        # Written so that a NaN on either side comes through, as in torch.
        "maximum": "({0} > {1} ? {0} : ({1} != {1} ? {1} : ({0} != {0} ? {0} : {1})))".format,
        "minimum": "({0} < {1} ? {0} : ({1} != {1} ? {1} : ({0} != {0} ? {0} : {1})))".format,
    }
    return templates[operation](*x)


def _literal(number: float) -> str:
    if number != number:
        return '((T)__builtin_nan(""))'
    if number in (float("inf"), float("-inf")):
        return f"((T){'-' if number < 0 else ''}__builtin_inf())"
    return f"((T){number!r})"


def _has_vector_math() -> bool:
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"


@lru_cache(maxsize=1)
def find_compiler() -> tuple[str, str]:
    """Return the path and version line of the system's C compiler.

    Raises:
        CompilationFailed: when there is none.
    """
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            try:
                answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True)
            except (OSError, subprocess.SubprocessError):
                continue
            return path, answer.stdout.partition("\n")[0]
    raise CompilationFailed("no C compiler was found; install gcc or clang, or set CC")


def _built(source: str) -> Path:
    """Return the shared object of ``source``, from the user's own cache or freshly compiled into it."""
    compiler, version = find_compiler()
    flags = list(_FLAGS)
    if platform.machine() == "x86_64":
        flags.append("-mprefer-vector-width=512")
    key = "\n".join((source, *flags, version, _processor_features()))
    target = _cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            text, built = Path(folder, "kernel.c"), Path(folder, "kernel.so")
            text.write_text(source)
            libraries = ["-lmvec", "-lm"] if "simd(" in source else ["-lm"]
            command = [compiler, *flags, "-o", str(built), str(text), *libraries]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise CompilationFailed(f"{compiler} refused the kernel: {result.stderr.strip()[:500]}")
            os.replace(built, target)
    return target


def _processor_features() -> str:
    """Return what ``-march=native`` depends on, for home folders shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.node()
    return next((x for x in lines if x.startswith(("flags", "Features"))), platform.node())


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return _private(base / "saddlescope" / "kernels")


@cache
def _private(folder: Path) -> Path:
    """Return the folder, or one that only this user can write to, since what lies in it is loaded as code."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="saddlescope-"))
