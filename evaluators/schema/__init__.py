"""Records that every part of the project speaks: definition, workload, solution, evaluation.

Field names follow FlashInfer Trace (https://github.com/flashinfer-ai/flashinfer-bench), so that
definitions, workloads and solutions travel in and out unchanged. All records are frozen, refuse
unknown fields and cannot be built in a contradictory state.
"""

from evaluators.schema.definition import Axis, Definition, Dtype, TensorSpec
from evaluators.schema.evaluation import LOG_LIMIT, BuildFacts, Evaluation, Status, WorkloadResult
from evaluators.schema.record import Record
from evaluators.schema.replays import Judged, Replays
from evaluators.schema.solution import BuildSpec, Language, Solution, SourceFile
from evaluators.schema.workload import (
    InputSpec,
    RandomInput,
    SafetensorsInput,
    ScalarInput,
    Workload,
)

__all__ = [
    "LOG_LIMIT",
    "Axis",
    "BuildFacts",
    "BuildSpec",
    "Definition",
    "Dtype",
    "Evaluation",
    "InputSpec",
    "Judged",
    "Language",
    "RandomInput",
    "Record",
    "Replays",
    "SafetensorsInput",
    "ScalarInput",
    "Solution",
    "SourceFile",
    "Status",
    "TensorSpec",
    "Workload",
    "WorkloadResult",
]
